"""The walk of a packet across one host: from what the host says it would do, to hops, each judged.

Rules of this file
  1. Values in, hops out.  The first hop that ends is the last one that counts (``until_end``): what comes behind it the
     packet never sees.
  2. The kernel's own answers decide.  What our records say only names the fault: a route that leads elsewhere than it
     should is judged by what should be there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from pyflannel.firewall.verdict import Packet
from pyflannel.linux.lookup import Kind
from pyflannel.linux.spelling import route as spelled
from pyflannel.linux.surroundings import Device
from pyflannel.state import Link, Route, Vxlan, Wireguard
from pyflannel.trace.facts import Crossing, Flow, Hop, Mood, Outer, Overlay, Peer, Point, contains
from pyflannel.trace.passages import around, inner, passage
from pyflannel.trace.sending import AGENT, said, sending


def until_end(hops: Iterable[Hop]) -> tuple[Hop, ...]:
    """The hops up to the one where it ends."""
    found: list[Hop] = []
    for hop in hops:
        found.append(hop)
        if hop.mood is Mood.END:
            break
    return tuple(found)


def departing(overlay: Overlay, crossing: Crossing, flow: Flow) -> Iterator[Hop]:
    """A packet that begins its way on this host, until it leaves or has arrived."""
    yield from _source(overlay, crossing, flow)
    peer = overlay.peer(flow.destination)
    yield from _lease(overlay, flow, peer)
    if crossing.bridged and _is_home(overlay, crossing, flow):
        yield from _over_the_bridge(crossing, flow)
        yield from _home(overlay, crossing, flow)
        return
    yield from _routing(overlay, crossing, flow, None if peer is None else overlay.route(peer, flow.destination))
    if crossing.leaves is not None and not _is_home(overlay, crossing, flow):
        yield from sending(overlay, crossing, flow, peer)
    else:
        yield from _home(overlay, crossing, flow)


def arriving(overlay: Overlay, crossing: Crossing, flow: Flow, outer: Outer) -> Iterator[Hop]:
    """A packet that comes to this host as ``outer`` says, until it has arrived."""
    if outer.tunnel:
        yield from _reception(crossing, outer)
        yield from _opening(overlay, crossing, flow, outer)
    elif crossing.entry is None or not crossing.entry.up:
        yield Hop(
            Point.DEVICE, Mood.END, f"{overlay.underlay} is down or not there", f"ip link set {overlay.underlay} up"
        )
    yield from _routing(overlay, crossing, flow, None)
    yield from _home(overlay, crossing, flow)


def _source(overlay: Overlay, crossing: Crossing, flow: Flow) -> Iterator[Hop]:
    entry = crossing.entry
    if entry is None and (crossing.back is None or crossing.back.kind is not Kind.LOCAL):
        yield _no_bridge(overlay, crossing, flow.source)
        return
    if entry is None:
        yield Hop(Point.SOURCE, Mood.PASS, f"{flow.source} is this host itself")
        return
    if not entry.up:
        yield Hop(Point.BRIDGE, Mood.END, f"{entry.name} is down", f"ip link set {entry.name} up")
    if entry.asks and not crossing.origin.known:
        yield _nobody(entry, str(flow.source))
    yield Hop(Point.SOURCE, Mood.PASS, f"{flow.source} is a container on {entry.name}{_mac(crossing.origin.mac)}")
    if not contains(overlay.own, flow.source):
        text = f"it is not in {overlay.own}, this host's subnet, so other hosts do not know where to answer"
        yield Hop(Point.BRIDGE, Mood.NOTE, text, "put it on a bridge of that subnet: flannelctl docker configure")


def _no_bridge(overlay: Overlay, crossing: Crossing, address: object) -> Hop:
    """Nothing here leads to a container of ours."""
    tunnels = {item.name for item in overlay.items if isinstance(item, Link)}
    for device in crossing.devices.values():
        if device.name not in tunnels and any(contains(overlay.own, each.ip) for each in device.addresses):
            if not device.up:
                text = f"{device.name}, which has {overlay.own}, is down, so nothing here leads to {address}"
                return Hop(Point.BRIDGE, Mood.END, text, f"ip link set {device.name} up")
            text = f"{device.name} has {overlay.own}, but no route leads to {address} there"
            return Hop(Point.ROUTE, Mood.END, text, "restart what made the bridge: systemctl restart docker")
    text = f"no device of this host has {overlay.own}, its subnet, so nothing leads to {address}"
    remedy = "give it to a bridge: flannelctl docker configure, or start a pod where CNI makes it"
    return Hop(Point.BRIDGE, Mood.END, text, remedy)


def _nobody(device: Device, address: str) -> Hop:
    if not device.running:
        # Said only where nobody answers: the kernel takes its time to notice that there is a carrier.
        text = f"nothing that is up is plugged into {device.name}, so nobody answers for {address}"
        return Hop(Point.BRIDGE, Mood.END, text, "start the container")
    text = f"nobody on {device.name} answers for {address}"
    return Hop(
        Point.CONTAINER, Mood.END, text, "see whether a running container has that address: docker network inspect"
    )


def _lease(overlay: Overlay, flow: Flow, peer: Peer | None) -> Iterator[Hop]:
    target = flow.destination
    if contains(overlay.own, target):
        yield Hop(Point.LEASE, Mood.PASS, f"{target} is in {overlay.own}, this host's own subnet")
    elif peer is not None and peer.reason and not peer.items:
        text = f"{target} is in {peer.subnet}, but that lease, of {peer.name}, is left out: {peer.reason}"
        yield Hop(Point.LEASE, Mood.END, text, "flannelctl leases shows what it says; restart flanneld on that host")
    elif peer is not None:
        yield Hop(Point.LEASE, Mood.PASS, f"{target} is in {peer.subnet}, the subnet of {peer.name}")
    elif any(net.version == target.version and target in net for net in overlay.networks):
        text = f"no host has a lease for a subnet with {target} in it ({overlay.leases} leases are known)"
        yield Hop(Point.LEASE, Mood.END, text, "see whether flanneld runs on that host: flannelctl leases")
    elif (host := overlay.host(target)) is not None:
        yield Hop(Point.LEASE, Mood.PASS, f"{target} is the host of {host.subnet} itself")
    else:
        networks = " and ".join(map(str, overlay.networks))
        yield Hop(Point.LEASE, Mood.NOTE, f"{target} is not in {networks}: it is none of flannel's business")


def _routing(overlay: Overlay, crossing: Crossing, flow: Flow, wanted: Route | None) -> Iterator[Hop]:
    """From where it comes in, or is made, to the device it leaves by."""
    packet = inner(crossing, flow)
    if crossing.entry is not None:
        yield from passage("PREROUTING", crossing, packet)
        yield from _forwarding(crossing, flow)
    yield from _decision(overlay, crossing, flow, wanted)
    hook = "INPUT" if crossing.decision.kind is Kind.LOCAL else "OUTPUT" if crossing.entry is None else "FORWARD"
    yield from passage(hook, crossing, packet)
    if crossing.leaves is not None:
        yield from passage("POSTROUTING", crossing, packet)


def _over_the_bridge(crossing: Crossing, flow: Flow) -> Iterator[Hop]:
    assert crossing.leaves is not None
    yield Hop(Point.BRIDGE, Mood.PASS, f"both are on {crossing.leaves.name}, so nothing is routed")
    if crossing.filtered:
        yield from passage("FORWARD", crossing, replace(inner(crossing, flow), bridged=True))


def _forwarding(crossing: Crossing, flow: Flow) -> Iterator[Hop]:
    entry, decision = crossing.entry, crossing.decision
    assert entry is not None
    if crossing.routed.kind is not Kind.LOCAL and crossing.barrier:
        text = f"this host does not forward what comes in by {entry.name}: {crossing.barrier} is 0"
        yield Hop(Point.FORWARDING, Mood.END, text, f"sysctl -w {crossing.barrier}=1, and for good in /etc/sysctl.d/")
    barred = decision.kind is Kind.BLACKHOLE and crossing.routed.kind is not Kind.BLACKHOLE
    if barred and crossing.back is not None and crossing.back.kind is Kind.LOCAL:
        text = f"no packet from {flow.source} may come in by {entry.name}: that is an address of this host's own"
        yield Hop(Point.REVERSE_PATH, Mood.END, text, "two hosts have one address or subnet: flannelctl leases")
    if barred or decision.kind is Kind.WRONG_WAY_IN:
        # Which of the two the kernel says depends on its release.
        out = crossing.devices.get(0 if crossing.back is None else crossing.back.index)
        where = "nowhere" if out is None else f"by {out.name}"
        text = f"rp_filter drops it: it comes in by {entry.name}, and an answer to {flow.source} would go out {where}"
        yield Hop(Point.REVERSE_PATH, Mood.END, text, _loosen(entry.name))


def _loosen(dev: str) -> str:
    return f"sysctl -w net.ipv4.conf.{dev.replace('.', '/')}.rp_filter=2"


def _decision(overlay: Overlay, crossing: Crossing, flow: Flow, wanted: Route | None) -> Iterator[Hop]:
    decision, leaves, target = crossing.decision, crossing.leaves, flow.destination
    if wanted is not None and (leaves is None or not _as_wanted(crossing, wanted)):
        yield _astray(overlay, crossing, flow, wanted)
    elif decision.kind is Kind.LOCAL:
        yield Hop(Point.ROUTE, Mood.PASS, f"{target} is this host itself")
    elif leaves is None:
        if contains(overlay.own, target):
            yield _no_bridge(overlay, crossing, target)
        yield Hop(Point.ROUTE, Mood.END, f"{said(decision.kind)} {target}", f"ip route get {target}")
    else:
        yield Hop(Point.ROUTE, Mood.PASS, f"to {target} {_led(crossing)}")


def _as_wanted(crossing: Crossing, wanted: Route) -> bool:
    leaves = crossing.leaves
    return leaves is not None and leaves.name == wanted.dev and crossing.decision.gateway == wanted.via


def _astray(overlay: Overlay, crossing: Crossing, flow: Flow, wanted: Route) -> Hop:
    device, decision = crossing.device(wanted.dev), crossing.decision
    tunnel = overlay.tunnel(flow.destination.version)
    if device is None:
        return Hop(Point.DEVICE, Mood.END, f"there is no {wanted.dev}, by which it should leave", AGENT)
    if not device.up:
        return Hop(Point.DEVICE, Mood.END, f"{wanted.dev}, by which it should leave, is down", AGENT)
    if tunnel is not None and tunnel.name == device.name and device.spec is None:
        text = f"{device.name}, by which it should leave, is a {device.kind or 'network card'}, and no tunnel"
        return Hop(Point.DEVICE, Mood.END, text, "it must be somebody's: rename it, or remove it")
    if crossing.leaves is None and decision.kind is not Kind.NO_ROUTE:
        there = "this host itself is" if decision.kind is Kind.LOCAL else said(decision.kind)
        text = f"{there} {flow.destination}, instead of {spelled(wanted)}"
        return Hop(Point.ROUTE, Mood.END, text, f"ip route get {flow.destination}")
    led = said(decision.kind) if crossing.leaves is None else f"it would go {_led(crossing)}"
    if decision.network is not None and decision.network.prefixlen >= wanted.dst.prefixlen:
        text = f"another route decides: {led}, and not as {spelled(wanted)} says"
        return Hop(
            Point.ROUTE, Mood.END, text, f"remove that route, or change the network: ip route show {decision.network}"
        )
    text = f"the route {spelled(wanted)} is missing, and {led}"
    if crossing.leaves is None:
        text += f" {flow.destination}"
    return Hop(Point.ROUTE, Mood.END, text, AGENT)


def _led(crossing: Crossing) -> str:
    decision, leaves = crossing.decision, crossing.leaves
    assert leaves is not None
    network = "" if decision.network is None else f", as the route {_network(decision.network)} says"
    return f"by {leaves.name}{'' if decision.gateway is None else f' via {decision.gateway}'}{network}"


def _network(network: object) -> str:
    return "default" if str(network) in ("0.0.0.0/0", "::/0") else str(network)


def _is_home(overlay: Overlay, crossing: Crossing, flow: Flow) -> bool:
    """Whether it leaves for a container of this host."""
    leaves = crossing.leaves
    away = leaves is None or crossing.decision.gateway is not None or leaves.spec is not None
    return not away and (contains(overlay.own, flow.destination) or bool(leaves and leaves.kind == "bridge"))


def _home(overlay: Overlay, crossing: Crossing, flow: Flow) -> Iterator[Hop]:
    """The last steps: over the bridge, to the container."""
    leaves, target = crossing.leaves, flow.destination
    if leaves is None:
        yield Hop(Point.CONTAINER, Mood.PASS, f"it has arrived: {target} is this host itself")
        return
    if not _is_home(overlay, crossing, flow):
        if contains(overlay.own, target):
            yield _no_bridge(overlay, crossing, target)
        else:
            text = f"{target} is not in {overlay.own}, the subnet of this host, which would send it on by {leaves.name}"
            yield Hop(Point.LEASE, Mood.END, text, "the two hosts do not agree who has that subnet: flannelctl leases")
    if not leaves.up:
        yield Hop(Point.BRIDGE, Mood.END, f"{leaves.name} is down", f"ip link set {leaves.name} up")
    if flow.size is not None and flow.size > leaves.mtu:
        text = f"{flow.size} bytes do not fit {leaves.name}, which takes {leaves.mtu}"
        yield Hop(Point.MTU, Mood.END, text, f"ip link set {leaves.name} mtu, or Docker's option mtu, as in subnet.env")
    if leaves.asks and not crossing.hop.known:
        yield _nobody(leaves, str(target))
    yield Hop(Point.CONTAINER, Mood.PASS, f"{target} answers on {leaves.name}{_mac(crossing.hop.mac)}")


def _mac(mac: object) -> str:
    return "" if mac is None else f", {mac}"


def _reception(crossing: Crossing, outer: Outer) -> Iterator[Hop]:
    """The packet around it comes in, and is taken for this host's."""
    carrier, decision = crossing.outer_entry, crossing.outer_in
    if carrier is None or not carrier.up:
        yield Hop(Point.UNDERLAY, Mood.END, "the external interface of this host is down or not there")
        return
    packet = around(outer, carrier.name, None)
    yield from _outside(crossing, "PREROUTING", packet)
    if decision is not None and decision.kind in (Kind.WRONG_WAY_IN, Kind.BLACKHOLE):
        text = f"rp_filter drops what {outer.source} sends: an answer would not go out by {carrier.name}"
        yield Hop(Point.REVERSE_PATH, Mood.END, text, _loosen(carrier.name))
    if decision is not None and decision.kind is not Kind.LOCAL:
        text = f"what is sent to {outer.destination} does not come to this host, which does not have that address"
        yield Hop(Point.ARRIVAL, Mood.END, text, "-public-ip has to be an address by which this host is reached")
    yield from _outside(crossing, "INPUT", packet)
    yield Hop(Point.ARRIVAL, Mood.PASS, f"{carrier.name} takes it in, from {outer.source}")


def _outside(crossing: Crossing, hook: str, packet: Packet) -> Iterator[Hop]:
    """What the firewall does with the packet around it; which rule lets it pass is of no interest."""
    for hop in passage(hook, crossing.outside, packet):
        if hop.mood in (Mood.END, Mood.UNSURE):
            what = "" if packet.destination_port is None else f" (UDP port {packet.destination_port})"
            remedy = hop.remedy
            if hook == "INPUT" and packet.destination_port is not None:
                remedy = f"iptables -I INPUT -p udp --dport {packet.destination_port} -j ACCEPT, and likewise for good"
            yield Hop(hop.point, hop.mood, f"of the packet around it{what}: {hop.text}", remedy)


def _opening(overlay: Overlay, crossing: Crossing, flow: Flow, outer: Outer) -> Iterator[Hop]:
    """The tunnel's device takes out what is inside."""
    wanted, entry = overlay.tunnel(flow.source.version), crossing.entry
    if wanted is None:
        text = f"this host has no tunnel ({overlay.backend}), and what comes is in one"
        yield Hop(Point.TUNNEL, Mood.END, text, "all hosts have to go by one configuration: restart flanneld")
        return
    if entry is None:
        yield Hop(Point.DEVICE, Mood.END, f"there is no {wanted.name} here", AGENT)
        return
    if not entry.up:
        yield Hop(Point.DEVICE, Mood.END, f"{entry.name} is down", AGENT)
    yield from _fits(crossing, entry, flow, outer)
    yield Hop(Point.TUNNEL, Mood.PASS, f"{entry.name} takes out the packet inside")


def _fits(crossing: Crossing, entry: Device, flow: Flow, outer: Outer) -> Iterator[Hop]:
    spec = entry.spec
    if isinstance(spec, Vxlan):
        if (spec.vni, spec.port) != (outer.vni, outer.port):
            text = f"{entry.name} listens for VNI {spec.vni} on port {spec.port}, not {outer.vni} on {outer.port}"
            yield Hop(Point.TUNNEL, Mood.END, text, "restart flanneld on the host that goes by another configuration")
        if outer.mac is not None and entry.mac != outer.mac:
            text = f"the frame inside is for {outer.mac}, and {entry.name} here is {entry.mac}"
            yield Hop(Point.TUNNEL, Mood.END, text, AGENT)
    if isinstance(spec, Wireguard) and crossing.wireguard is not None:
        allowed = [net for peer in crossing.wireguard for net in peer.allowed]
        if not any(net.version == flow.source.version and flow.source in net for net in allowed):
            text = f"{entry.name} has no peer that may send from {flow.source}"
            yield Hop(Point.TUNNEL, Mood.END, text, AGENT)
    if entry.kind == "tun" and not entry.running:
        yield Hop(Point.TUNNEL, Mood.END, f"no process takes packets in for {entry.name}", AGENT)
