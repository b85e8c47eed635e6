"""Devices, addresses and routes: what stands in the way of the overlay."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from pyflannel.backends import FIXED_NAMES
from pyflannel.doctor.facts import Device, Facts, Route, read_address
from pyflannel.doctor.findings import Check, Sign
from pyflannel.health import Severity
from pyflannel.state import PROTO_FLANNEL, PROTO_KERNEL, IPNetwork

KINDS: Final = {"vxlan": ("vxlan",), "ipip": ("ipip",), "udp": ("tun",), "wireguard": ("wireguard", "tun")}
"""What the device of a backend may be."""
UNTOUCHED: Final = ("alloc", "extension")
"""Backends whose routes are somebody else's business."""
AGENTS: Final = ("flanneld", "pyflannel", "wireguard-go")
"""Words in the names of programs that may well listen where the tunnel does: its own."""
HEADERS: Final = {"vxlan": {4: 50, 6: 70}, "ipip": {4: 20}}
"""Bytes that a backend puts around a packet, by the address family of the hosts."""


def routes_overlap(facts: Facts) -> Iterator[Sign]:
    """Addresses of the network that this host takes for somebody else's."""
    network = facts.network
    if network is None or network.backend in (None, *UNTOUCHED) or facts.tunnels is None or facts.routes is None:
        return
    foreign = [route for route in facts.routes if _foreign(facts, route)]
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        whole = next(each for each in facts.ranges if each.version == foreign[0].dst.version)
        yield Sign(
            "this host sends packets for addresses of the network elsewhere",
            f"the network is {whole}, and there is a route: {foreign[0]}{more}",
        )
        return
    for lookup in facts.lookups or ():
        inside = any(each.version == lookup.target.version and lookup.target in each for each in facts.ranges)
        ours = (*facts.tunnels, facts.underlay, *(facts.defaults or ()))
        if inside and facts.defaults is not None and lookup.dev not in ours:
            yield Sign(
                "this host sends packets for addresses of the network elsewhere",
                f"the kernel sends what is for {lookup.target}, a container of another host, to {lookup.dev} (see `ip "
                "rule`, and the tables it names)",
            )
            return


def tunnel_too_large(facts: Facts) -> Iterator[Sign]:
    """A tunnel that takes packets which, with its header, do not fit through the interface."""
    backend = None if facts.network is None else facts.network.backend
    if facts.underlay_mtu is None or backend not in HEADERS:
        return
    for name in facts.tunnels or ():
        device = facts.device(name)
        header = HEADERS[backend].get(6 if "-v6" in name else 4)
        if device is None or header is None or _wanted_instead(facts, device):
            continue
        if device.mtu + header > facts.underlay_mtu:
            yield Sign(
                f"{name} takes packets that do not fit through {facts.underlay}",
                f"{name} has the MTU {device.mtu} and adds {header} bytes; {facts.underlay} has {facts.underlay_mtu}",
            )
            return


def name_taken(facts: Facts) -> Iterator[Sign]:
    """A device of somebody else's that is called as the tunnel is."""
    for name in facts.tunnels or ():
        device = facts.device(name)
        if device is not None and (wanted := _wanted_instead(facts, device)):
            yield Sign(
                f"there is a device {name}, and it is no tunnel",
                f"{name} is {f'of type {device.kind}' if device.kind else 'a network card'}, not {' or '.join(wanted)}",
            )


def port_taken(facts: Facts) -> Iterator[Sign]:
    """Somebody else has the port of the tunnel."""
    network = facts.network
    if network is None or network.port is None or network.devices is None:
        return
    for listener in facts.listeners or ():
        if listener.port == network.port and listener.program and not any(word in listener.program for word in AGENTS):
            yield Sign(
                f"UDP port {network.port}, on which the packets of other hosts arrive, belongs to another program",
                f"{listener.program} is bound to it",
            )
    for device in facts.devices or ():
        if network.backend == "vxlan" and device.kind == "vxlan" and device.port == network.port:
            # So it is called, also where there is none.
            ours = {int(number) for name in network.devices if (number := name.rpartition(".")[2]).isdecimal()}
            if device.name not in network.devices and (device.external or device.vni in ours):
                taken = "every network" if device.external else f"VNI {device.vni}"
                yield Sign(
                    f"{device.name} takes packets that are for our tunnel",
                    f"{device.name} is a vxlan device for {taken} on port {device.port}",
                )


def address_twice(facts: Facts) -> Iterator[Sign]:
    """Another machine on the link that has our address."""
    if facts.claimants and facts.underlay is not None:
        device = facts.device(facts.underlay)
        held = next((each.ip for each in device.addresses if each.version == 4), "?") if device is not None else "?"
        yield Sign(
            "another machine on the link has the address of this host",
            f"{' and '.join(map(str, facts.claimants))} answers for {held} on {facts.underlay}",
        )


def peers_alike(facts: Facts) -> Iterator[Sign]:
    """Two leases that name one host."""
    held: defaultdict[str, list[str]] = defaultdict(list)
    for peer in facts.peers:
        for address, subnet in ((peer.public_ip, peer.subnet), (peer.public_ipv6, peer.ipv6_subnet)):
            if address and subnet and read_address(address) is not None:
                held[address].append(subnet)
    for address, subnets in held.items():
        if len(subnets) > 1:
            yield Sign(
                f"{len(subnets)} leases say that they are of the host {address}",
                f"{', '.join(subnets)}: one of them is of a former time, or two hosts have one address",
            )


def mac_changed(facts: Facts) -> Iterator[Sign]:
    """A device with another MAC address than peers send to."""
    if facts.agent is not None and facts.agent.status is None and facts.agent.programs:
        # Go flanneld, which keeps no record of it: what is remembered is of a time before.
        return
    for name, wanted in facts.remembered.items():
        device = facts.device(name)
        if device is None or device.mac in (None, wanted) or name not in (facts.tunnels or ()):
            continue
        if _wanted_instead(facts, device):
            continue
        who = f"; {facts.mac_policy} has udev give new devices another one" if facts.mac_policy else ""
        yield Sign(
            f"peers send to another MAC address than {name} has",
            f"{name} has {device.mac}, and {wanted} is published{who}",
            (("ip", "link", "set", "dev", name, "address", str(wanted)),),
        )


def device_managed(facts: Facts) -> Iterator[Sign]:
    """A program for network settings that takes our device for its own."""
    for each in facts.managers or ():
        yield Sign(f"{each.program} manages {each.device}, which is the agent's", each.why)


def stale_device(facts: Facts) -> Iterator[Sign]:
    """A device of another backend or VNI that still has an address of the network."""
    if facts.status is None or facts.tunnels is None:
        return
    for device in facts.devices or ():
        if device.name in facts.tunnels or not _like_ours(device):
            continue
        held = [
            each
            for each in device.addresses
            if any(each.ip in whole for whole in facts.ranges if whole.version == each.version)
        ]
        if held:
            yield Sign(
                f"{device.name} is left of a former run, and has an address of the network",
                f"{device.name} has {held[0]}, and the agent uses {', '.join(facts.tunnels) or 'no device'}",
                (("ip", "link", "delete", device.name),),
            )


def _foreign(facts: Facts, route: Route) -> bool:
    """Whether a route takes packets that are the overlay's."""
    own = [each for each in facts.subnets if each.version == route.dst.version]
    whole = [each for each in facts.ranges if each.version == route.dst.version]
    if not own or route.dev in (facts.tunnels or ()) or route.protocol == PROTO_FLANNEL or route.dst.prefixlen == 0:
        return False
    device = facts.device(route.dev)
    if device is not None and _like_ours(device):
        # A finding of its own, and gone with the device.
        return False
    if any(_covers(mine, route.dst) for mine in own):
        return route.via is not None and route.dst in own
    if route.via is not None and route.dev == facts.underlay:
        # A way to a peer through its host, as host-gw makes it: whoever made it, it leads where it should.
        gateways = {peer.public_ip for peer in facts.peers} | {peer.public_ipv6 for peer in facts.peers}
        return (
            facts.status is not None
            and any(_covers(each, route.dst) for each in whole)
            and str(route.via) not in gateways
        )
    connected = route.protocol == PROTO_KERNEL and route.via is None
    bridge = facts.bridge
    if bridge is not None and route.dev == bridge.name:
        # Its address says the same (bridge-elsewhere).
        return False
    return any(_covers(each, route.dst) or (connected and _covers(route.dst, each)) for each in whole)


def _wanted_instead(facts: Facts, device: Device) -> tuple[str, ...]:
    """What a device under the tunnel's name should be and is not; empty if it is."""
    wanted = KINDS.get((facts.network.backend if facts.network is not None else None) or "", ())
    return () if device.kind in wanted else wanted


def _like_ours(device: Device) -> bool:
    """By its name and kind, a device of some flannel."""
    if device.name in FIXED_NAMES:
        return device.kind in ("ipip", "tun", "wireguard")
    return device.kind == "vxlan" and device.name.startswith(("flannel.", "flannel-v6."))


def _covers(outer: IPNetwork, inner: IPNetwork) -> bool:
    return outer.prefixlen <= inner.prefixlen and inner.network_address in outer


_WARNING, _ERROR = Severity.WARNING, Severity.ERROR
CHECKS: Final = (
    Check(
        "routes-overlap",
        _ERROR,
        "Addresses of the network are in use for something else",
        "A route of this host takes packets for containers elsewhere: a local network, a VPN or another bridge has "
        "addresses out of the flannel network.",
        "Give one of the two other addresses: the network configuration another Network, or the other one another "
        "range (for Docker's own networks: default-address-pools).",
        routes_overlap,
    ),
    Check(
        "tunnel-too-large",
        _ERROR,
        "The tunnel takes larger packets than the interface",
        "A full packet of a container does not fit through the interface once the tunnel's header is around it: small "
        "packets pass, and large transfers hang or are slow.",
        "Take Backend.MTU out of the network configuration, or set it to the smallest MTU that any host's interface "
        "has.",
        tunnel_too_large,
    ),
    Check(
        "name-taken",
        _ERROR,
        "Another device has the tunnel's name",
        "A device of that name which is no tunnel must be somebody's: the agent leaves it alone, does not start beside "
        "it, and has no tunnel if it comes later.",
        "Rename or delete it (`ip link set NAME name OTHER`, `ip link delete NAME`), then start the agent if it does "
        "not run. For vxlan "
        "another Backend.VNI in the network configuration, for all hosts, gives the device another name.",
        name_taken,
    ),
    Check(
        "port-taken",
        _ERROR,
        "Another program has the tunnel's port",
        "What other hosts send to this one ends up in a program that cannot make sense of it, or the device cannot "
        "come up.",
        "Have the other program use another port, or set Backend.Port in the network configuration, for all hosts.",
        port_taken,
    ),
    Check(
        "host-address-twice",
        _ERROR,
        "Two machines have one address",
        "Another machine answers on the link for the address by which other hosts reach this one. Packets go to this "
        "or to that one, as it happens.",
        "Give each machine an address of its own.",
        address_twice,
    ),
    Check(
        "leases-of-one-host",
        _WARNING,
        "Several leases name one host",
        "Either the host had another subnet before, and that lease runs out within a day; or two hosts say that they "
        "are to be reached at one address, and only one of them is.",
        "Look with `flannelctl leases list`. If one is stale, `flannelctl leases release` it; if two hosts have one "
        "address (behind NAT, or clones), give each its own with -public-ip or -iface.",
        peers_alike,
    ),
    Check(
        "mac-changed",
        _ERROR,
        "The tunnel's device has another MAC address than published",
        "Peers put the published address on every packet, and the kernel drops what is for another. systemd-udevd does "
        "that to new devices where a .link file with MACAddressPolicy=persistent applies to them.",
        "Start the agent, which puts it right at once and whenever it changes; to keep udev off, write "
        "/etc/systemd/network/10-flannel.link with [Match] OriginalName=flannel* and [Link] MACAddressPolicy=none.",
        mac_changed,
    ),
    Check(
        "device-managed",
        _WARNING,
        "Another program manages the agent's device",
        "NetworkManager and systemd-networkd take addresses and routes off the devices they manage, whenever they are "
        "started or told to. The agent puts them back; until then packets are lost.",
        "Tell them to leave it alone. NetworkManager: [keyfile] unmanaged-devices=interface-name:flannel* in a file "
        "below /etc/NetworkManager/conf.d. networkd: a file before the one named, with [Match] Name=flannel* and "
        "[Link] Unmanaged=yes; with ManageForeignRoutes=no in networkd.conf it leaves alone all routes but its own.",
        device_managed,
    ),
    Check(
        "stale-device",
        _WARNING,
        "A device of a former run is left",
        "It still has an address of the network, and maybe routes: packets may take it instead of the present one.",
        "Delete it.",
        stale_device,
    ),
)
