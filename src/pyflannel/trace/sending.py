"""From the device a packet leaves by to the host it is sent to: neighbour, forwarding entry, tunnel, underlay.

Each backend has another chain of these, and a packet ends at the first link that is missing or leads elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pyflannel.linux.lookup import Kind
from pyflannel.linux.surroundings import Device
from pyflannel.state import FdbEntry, Forwarder, IPAddress, Mac, Neighbour, Vxlan, Wireguard
from pyflannel.trace.facts import Crossing, Flow, Hop, Mood, Outer, Overlay, Peer, Point
from pyflannel.trace.passages import around, passage

AGENT: Final = "flanneld puts it right while it runs: systemctl status flanneld"
"""What to do where something that it keeps is missing."""
_OWN: Final = ("extension", "alloc")
"""Backends whose way to other hosts is none of ours to know."""


def sending(overlay: Overlay, crossing: Crossing, flow: Flow, peer: Peer | None) -> Iterator[Hop]:
    """The way out, of a packet that leaves for another host."""
    leaves = crossing.leaves
    assert leaves is not None
    if not leaves.up:
        yield Hop(Point.DEVICE, Mood.END, f"{leaves.name} is down", f"ip link set {leaves.name} up")
    if leaves.asks and not leaves.running and not crossing.hop.known:
        yield Hop(
            Point.DEVICE, Mood.END, f"{leaves.name} has no carrier", "see to its cable, or what it is plugged into"
        )
    yield from _size(crossing, leaves, flow)
    if peer is not None and overlay.backend in _OWN:
        text = f"the way of backend {overlay.backend} beyond {leaves.name} is not flannel's, and not looked into"
        yield Hop(Point.TUNNEL, Mood.UNSURE, text)
        return
    gateway = crossing.decision.gateway or flow.destination
    if leaves.asks:
        yield from _neighbour(crossing, leaves, gateway, peer)
    if isinstance(leaves.spec, Vxlan):
        yield from _behind(crossing, leaves, peer)
    elif isinstance(leaves.spec, Wireguard):
        yield from _through_wireguard(crossing, leaves, flow)
    elif leaves.kind == "tun":
        yield from _through_forwarder(crossing, leaves, flow)
    yield from _underlay(overlay, crossing, flow)


def said(kind: Kind) -> str:
    """What the routes say where they lead nowhere, as the first words of a clause."""
    words = {Kind.NO_ROUTE: "no route leads to", Kind.OTHER: "no single host has"}
    return words.get(kind, f"a route of type {kind} holds for")


def outer(overlay: Overlay, crossing: Crossing) -> Outer | None:
    """How the packet comes to the next host; None if it does not get there."""
    leaves = crossing.leaves
    if leaves is None:
        return None
    under = crossing.underway
    if under is None:
        gateway = crossing.decision.gateway
        own = _own(overlay, 6 if gateway is not None and gateway.version == 6 else 4)
        return None if own is None else Outer(own, gateway or own, tunnel=False)
    spec = leaves.spec
    source = under.decision.source or _own(overlay, under.target.version)
    if isinstance(spec, Vxlan):
        source = spec.local or source
    if source is None:
        return None
    vni = spec.vni if isinstance(spec, Vxlan) else None
    mac = crossing.hop.mac if isinstance(spec, Vxlan) else None
    return Outer(source, under.target, True, vni, _port(overlay, crossing, leaves, under.target), mac)


def _own(overlay: Overlay, version: int) -> IPAddress | None:
    return next((each for each in overlay.addresses if each.version == version), None)


def _port(overlay: Overlay, crossing: Crossing, leaves: Device, target: IPAddress) -> int | None:
    """The UDP port it is sent to; None where it is not UDP."""
    if isinstance(leaves.spec, Vxlan):
        return leaves.spec.port
    if isinstance(leaves.spec, Wireguard):
        ends = (peer.endpoint for peer in crossing.wireguard or ())
        return next((end.port for end in ends if end is not None and end.host == target), None)
    return next((item.port for item in overlay.items if isinstance(item, Forwarder)), None)


def _size(crossing: Crossing, leaves: Device, flow: Flow) -> Iterator[Hop]:
    limit = min(leaves.mtu, crossing.decision.mtu or leaves.mtu)
    if flow.size is not None and flow.size > limit:
        text = f"{flow.size} bytes do not fit {leaves.name}, which takes {limit}, and may not be fragmented"
        yield Hop(Point.MTU, Mood.END, text, "containers need the MTU of subnet.env: flannelctl docker configure")
    if flow.size is not None:
        yield Hop(Point.MTU, Mood.PASS, f"{flow.size} bytes fit {leaves.name}, which takes {limit}")


def _neighbour(crossing: Crossing, leaves: Device, gateway: IPAddress, peer: Peer | None) -> Iterator[Hop]:
    wanted = _wanted_mac(leaves, gateway, peer)
    mac = crossing.hop.mac
    if mac is None and wanted is not None:
        text = f"{leaves.name} has no neighbour entry for {gateway}, which should be {wanted}"
        yield Hop(Point.NEIGHBOUR, Mood.END, text, AGENT)
    if mac is None:
        text = f"nobody on {leaves.name} answers for {gateway}"
        yield Hop(Point.NEIGHBOUR, Mood.END, text, "see whether that host is up, and on the same link")
    if wanted is not None and mac != wanted:
        text = f"the neighbour entry of {leaves.name} for {gateway} says {mac}, and the lease says {wanted}"
        yield Hop(Point.NEIGHBOUR, Mood.END, text, AGENT)
    yield Hop(Point.NEIGHBOUR, Mood.PASS, f"{gateway} on {leaves.name} is {mac}")


def _wanted_mac(leaves: Device, gateway: IPAddress, peer: Peer | None) -> Mac | None:
    for item in () if peer is None else peer.items:
        if isinstance(item, Neighbour) and (item.dev, item.ip) == (leaves.name, gateway):
            return item.mac
    return None


def _behind(crossing: Crossing, leaves: Device, peer: Peer | None) -> Iterator[Hop]:
    mac, found = crossing.hop.mac, crossing.behind
    items = () if peer is None else peer.items
    wanted = next((item.dst for item in items if isinstance(item, FdbEntry) and item.mac == mac), None)
    if found is None:
        text = f"{leaves.name} has no forwarding entry for {mac}" + (f", which lives on {wanted}" if wanted else "")
        yield Hop(Point.FDB, Mood.END, text, AGENT)
    if wanted is not None and found != wanted:
        text = f"the forwarding entry of {leaves.name} sends {mac} to {found}, and its lease says {wanted}"
        yield Hop(Point.FDB, Mood.END, text, AGENT)
    yield Hop(Point.FDB, Mood.PASS, f"{mac} lives on {found}")


def _through_wireguard(crossing: Crossing, leaves: Device, flow: Flow) -> Iterator[Hop]:
    if crossing.wireguard is None:
        yield Hop(Point.TUNNEL, Mood.UNSURE, f"the peers of {leaves.name} cannot be listed")
        return
    for peer in crossing.wireguard:
        if any(net.version == flow.destination.version and flow.destination in net for net in peer.allowed):
            if peer.endpoint is None:
                text = f"where the peer {peer.public_key} is, {leaves.name} does not know"
                yield Hop(Point.TUNNEL, Mood.END, text, AGENT)
            yield Hop(Point.TUNNEL, Mood.PASS, f"{leaves.name} encrypts it for {peer.public_key} at {peer.endpoint}")
            if not peer.live:
                text = "the two have not shaken hands for some minutes, which they do when there is something to send"
                yield Hop(Point.TUNNEL, Mood.NOTE, text)
            return
    text = f"{leaves.name} has no peer with {flow.destination} in its allowed IPs"
    yield Hop(Point.TUNNEL, Mood.END, text, AGENT)


def _through_forwarder(crossing: Crossing, leaves: Device, flow: Flow) -> Iterator[Hop]:
    if not leaves.running:
        yield Hop(Point.TUNNEL, Mood.END, f"no process takes the packets of {leaves.name}", AGENT)
    if not crossing.forwarder:
        yield Hop(Point.TUNNEL, Mood.UNSURE, f"the forwarder of {leaves.name} does not say where it sends packets")
        return
    if crossing.forwards is None:
        yield Hop(Point.TUNNEL, Mood.END, f"the forwarder of {leaves.name} has no host for {flow.destination}", AGENT)
    yield Hop(Point.TUNNEL, Mood.PASS, f"the forwarder of {leaves.name} sends it to {crossing.forwards}")


def _has(crossing: Crossing, address: IPAddress) -> bool:
    return any(each.ip == address for device in crossing.devices.values() for each in device.addresses)


def _underlay(overlay: Overlay, crossing: Crossing, flow: Flow) -> Iterator[Hop]:
    under, around_it = crossing.underway, outer(overlay, crossing)
    if under is None:
        return
    leaves = crossing.devices.get(under.decision.index)
    if under.decision.kind is Kind.LOCAL:
        text = f"{under.target}, to which it should go, is this host itself"
        yield Hop(Point.UNDERLAY, Mood.END, text, "two hosts publish one address: flannelctl leases")
    if under.decision.kind is Kind.BLACKHOLE and around_it is not None and not _has(crossing, around_it.source):
        text = f"it should be sent from {around_it.source}, which is no address of this host any more"
        yield Hop(Point.UNDERLAY, Mood.END, text, AGENT)
    if under.decision.kind is not Kind.UNICAST or leaves is None:
        text = f"this host cannot reach {under.target}: {said(under.decision.kind)} it"
        yield Hop(Point.UNDERLAY, Mood.END, text, f"ip route get {under.target}")
        return
    if not leaves.up or (leaves.asks and not leaves.running and not under.hop.known):
        why = "has no carrier" if leaves.up else "is down"
        yield Hop(Point.UNDERLAY, Mood.END, f"{leaves.name} {why}", f"ip link set {leaves.name} up")
    if around_it is not None:
        for hop in passage("OUTPUT", crossing.outside, around(around_it, None, leaves.name)):
            if hop.mood in (Mood.END, Mood.UNSURE):
                yield Hop(hop.point, hop.mood, f"of the packet around it: {hop.text}", hop.remedy)
    gateway = under.decision.gateway or under.target
    if leaves.asks and not under.hop.known:
        text = f"nobody on {leaves.name} answers for {gateway}"
        yield Hop(Point.UNDERLAY, Mood.END, text, "see whether that host, or the router, is up and on the same link")
    via = "" if under.decision.gateway is None else f" via {gateway}"
    yield Hop(Point.UNDERLAY, Mood.PASS, f"to {under.target} by {leaves.name}{via}")
