"""What a host says of a packet that is well, to be broken one thing at a time: vxlan between two hosts."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

from pyflannel.firewall.verdict import parse
from pyflannel.lease.model import Snapshot
from pyflannel.linux.lookup import Decision, Kind
from pyflannel.linux.surroundings import Answer, Device
from pyflannel.network import Network
from pyflannel.state import Mac, Vxlan
from pyflannel.trace.facts import Crossing, Flow, Hop, Outer, Overlay, Tables, Underway, overlay
from tests.support.builders import OTHER_MAC, OWN_MAC, backend, view, vxlan_lease

HERE, THERE = ip_address("10.2.71.2"), ip_address("10.2.41.2")
HOST, PEER = ip_address("172.16.41.131"), ip_address("172.16.41.132")
FLOW = Flow(HERE, THERE)
CONTAINER_MAC = Mac.parse("02:00:00:00:0c:01")
LO, ENS33, DOCKER0, FLANNEL = 1, 2, 3, 4
FORWARDS = '-A FORWARD -s 10.2.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT'
RULES = f"*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n{FORWARDS}\nCOMMIT\n"
TABLES = Tables((parse(RULES),))
SPEC = Vxlan(1, "ens33", HOST, 8472)


def device(index: int, name: str, kind: str, address: str, mtu: int, mac: Mac, spec: Vxlan | None = None) -> Device:
    return Device(index, name, kind, True, True, mtu, True, mac, 0, (ip_interface(address),), spec)


DEVICES = {
    LO: Device(LO, "lo", "", True, True, 65536, False, None, 0, (ip_interface("127.0.0.1/8"),)),
    ENS33: device(ENS33, "ens33", "", f"{HOST}/24", 1500, Mac.parse("02:00:00:00:0e:01")),
    DOCKER0: device(DOCKER0, "docker0", "bridge", "10.2.71.1/24", 1450, Mac.parse("02:00:00:00:0d:01")),
    FLANNEL: device(FLANNEL, "flannel.1", "vxlan", "10.2.71.0/32", 1450, OWN_MAC, SPEC),
}


def network() -> Network:
    """With a peer, and a third host whose record is of no use."""
    made = Network(backend(), view())
    useless = vxlan_lease("10.2.50.0/24", "172.16.41.150", created=20)
    useless = replace(useless, attrs=replace(useless.attrs, backend_data='{"VNI":7}'))
    made.fold(Snapshot(1, (vxlan_lease(), useless)))
    return made


def known(flow: Flow = FLOW) -> Overlay:
    return overlay(network(), flow.source, flow.destination)


def to_peer(index: int = FLANNEL) -> Decision:
    return Decision(Kind.UNICAST, index, ip_address("10.2.41.0"), None, ip_network("10.2.41.0/24"))


HOME = Decision(Kind.UNICAST, DOCKER0, None, ip_address("10.2.71.1"), ip_network("10.2.71.0/24"))
LEAVING = Crossing(
    devices=DEVICES,
    decision=to_peer(),
    routed=to_peer(),
    back=HOME,
    entry=DEVICES[DOCKER0],
    origin=Answer(CONTAINER_MAC),
    hop=Answer(OTHER_MAC, permanent=True),
    behind=PEER,
    underway=Underway(PEER, Decision(Kind.UNICAST, ENS33, None, HOST), Answer(Mac.parse("02:00:00:00:0e:02"))),
    tables=TABLES,
)
"""A container's packet for the peer."""
COMING = Outer(PEER, HOST, tunnel=True, vni=1, port=8472, mac=OWN_MAC)
ARRIVING = Crossing(
    devices=DEVICES,
    decision=HOME,
    routed=HOME,
    back=to_peer(),
    entry=DEVICES[FLANNEL],
    hop=Answer(CONTAINER_MAC),
    outer_in=Decision(Kind.LOCAL, LO),
    outer_entry=DEVICES[ENS33],
    tables=TABLES,
)
"""One of the peer's containers for one of ours, ``FLOW`` the other way."""
ARRIVED = Flow(THERE, HERE)


def points(hops: tuple[Hop, ...]) -> list[str]:
    return [hop.point.value for hop in hops]


def without(crossing: Crossing, index: int, **changes: object) -> Crossing:
    """With one device changed, wherever it is spoken of."""
    changed = replace(crossing.devices[index], **changes)  # type: ignore[arg-type]
    devices = {**crossing.devices, index: changed}
    entry = changed if crossing.entry is not None and crossing.entry.index == index else crossing.entry
    carrier = crossing.outer_entry
    carrier = changed if carrier is not None and carrier.index == index else carrier
    return replace(crossing, devices=devices, entry=entry, outer_entry=carrier)
