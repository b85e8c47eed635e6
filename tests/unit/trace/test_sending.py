"""The way out to another host: each link of each backend's chain, and what is around the packet in the end."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network

import pytest

from pyflannel.firewall.verdict import parse
from pyflannel.linux.lookup import Decision, Kind
from pyflannel.linux.surroundings import NOBODY, Answer, Device
from pyflannel.state import Forwarder, Ipip, Mac, Wireguard
from pyflannel.trace.facts import Crossing, Hop, Mood, Outer, Overlay, Peer, Point, Tables, Underway
from pyflannel.trace.sending import outer, sending
from pyflannel.trace.walk import until_end
from pyflannel.wireguard import Endpoint, PublicKey, WireguardPeer
from tests.support.builders import OTHER_MAC
from tests.support.crossings import (
    DEVICES,
    ENS33,
    FLANNEL,
    FLOW,
    HOST,
    LEAVING,
    PEER,
    THERE,
    known,
    points,
    to_peer,
    without,
)

STRANGE = Mac.parse("02:00:00:00:00:99")
NET = IPv4Network("10.2.71.0/24")
KEY = PublicKey(b"\1" * 32)


def sent(crossing: Crossing, overlay: Overlay | None = None, size: int | None = None) -> tuple[Hop, ...]:
    overlay = overlay or known()
    return until_end(sending(overlay, crossing, replace(FLOW, size=size), overlay.peer(THERE)))


def end(hops: tuple[Hop, ...]) -> tuple[Point, str]:
    assert hops[-1].mood is Mood.END, hops
    return hops[-1].point, hops[-1].text


def under(decision: Decision, hop: Answer = NOBODY) -> Crossing:
    return replace(LEAVING, underway=Underway(PEER, decision, hop))


def through(kind: str, spec: Wireguard | Ipip | None, **facts: object) -> Crossing:
    """The same way through a device without a MAC."""
    device = Device(FLANNEL, "tunnel", kind, True, True, 1420, False, None, 0, (), spec)
    crossing = replace(LEAVING, devices={**DEVICES, FLANNEL: device}, hop=NOBODY, behind=None)
    return replace(crossing, **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("crossing", "point", "words"),
    [
        (without(LEAVING, FLANNEL, up=False), Point.DEVICE, "flannel.1 is down"),
        (
            replace(LEAVING, hop=NOBODY),
            Point.NEIGHBOUR,
            f"entry for 10.2.41.0, which should be {OTHER_MAC}",
        ),
        (
            replace(LEAVING, hop=Answer(Mac.parse("02:00:00:00:00:99"))),
            Point.NEIGHBOUR,
            "02:00:00:00:00:99, and the lease",
        ),
        (replace(LEAVING, behind=None), Point.FDB, f"no forwarding entry for {OTHER_MAC}, which lives on {PEER}"),
        (replace(LEAVING, behind=ip_address("172.16.41.200")), Point.FDB, "to 172.16.41.200, and its lease says"),
        (under(Decision(Kind.NO_ROUTE)), Point.UNDERLAY, f"cannot reach {PEER}: no route leads to it"),
        (under(Decision(Kind.LOCAL, 1)), Point.UNDERLAY, "is this host itself"),
        (under(Decision(Kind.UNICAST, ENS33)), Point.UNDERLAY, f"nobody on ens33 answers for {PEER}"),
        (
            under(Decision(Kind.UNICAST, ENS33, ip_address("172.16.41.1"))),
            *(Point.UNDERLAY, "nobody on ens33 answers for 172.16.41.1"),
        ),
        (without(LEAVING, ENS33, up=False), Point.UNDERLAY, "ens33 is down"),
        (
            without(under(Decision(Kind.BLACKHOLE)), ENS33, addresses=()),
            *(Point.UNDERLAY, f"sent from {HOST}, which is no address of this host"),
        ),
        (under(Decision(Kind.BLACKHOLE)), Point.UNDERLAY, "a route of type blackhole holds for it"),
    ],
)
def test_a_link_that_is_missing_ends_it(crossing: Crossing, point: Point, words: str) -> None:
    found, text = end(sent(crossing))
    assert (found, words in text) == (point, True), text


def test_a_packet_may_be_as_large_as_device_and_route_take() -> None:
    assert points(sent(LEAVING, size=1450))[0] == "mtu"
    assert end(sent(LEAVING, size=1451))[0] is Point.MTU
    learned = replace(LEAVING, decision=replace(to_peer(), mtu=1300))
    assert end(sent(learned, size=1301))[0] is Point.MTU


def test_what_is_around_a_vxlan_packet_is_what_the_kernel_would_put_there() -> None:
    assert outer(known(), LEAVING) == Outer(HOST, PEER, True, 1, 8472, OTHER_MAC)


def test_a_route_through_the_host_itself_needs_nothing_around() -> None:
    direct = Decision(Kind.UNICAST, ENS33, PEER, None, ip_network("10.2.41.0/24"))
    crossing = replace(LEAVING, decision=direct, hop=Answer(OTHER_MAC), underway=None, behind=None)
    assert points(sent(crossing)) == ["neighbour"]
    assert outer(known(), crossing) == Outer(HOST, PEER, tunnel=False)
    assert end(sent(replace(crossing, hop=NOBODY)))[0] is Point.NEIGHBOUR
    unplugged = without(replace(crossing, hop=NOBODY), ENS33, running=False)
    assert end(sent(unplugged)) == (Point.DEVICE, "ens33 has no carrier")


def test_ipip_needs_a_way_to_the_gateway_alone() -> None:
    crossing = through("ipip", Ipip("", IPv4Address(str(HOST))))
    assert points(sent(crossing)) == ["underlay"]
    assert outer(known(), crossing) == Outer(HOST, PEER, tunnel=True)


def wireguard(*peers: WireguardPeer) -> Crossing:
    return through("wireguard", Wireguard(), wireguard=peers)


def peer(*allowed: str, endpoint: Endpoint | None = None, live: bool = True) -> WireguardPeer:
    return WireguardPeer("tunnel", KEY, endpoint, frozenset(map(ip_network, allowed)), live=live)


def test_wireguard_needs_a_peer_that_may_have_the_address_and_a_place_for_it() -> None:
    place = Endpoint(PEER, 51820)
    well = wireguard(peer("10.2.41.0/24", endpoint=place))
    assert {hop.mood for hop in sent(well)} == {Mood.PASS}
    assert outer(known(), well) == Outer(HOST, PEER, True, port=51820)
    assert "allowed IPs" in end(sent(wireguard(peer("10.2.42.0/24", endpoint=place))))[1]
    assert "does not know" in end(sent(wireguard(peer("10.2.41.0/24"))))[1]
    silent = sent(wireguard(peer("10.2.41.0/24", endpoint=place, live=False)))
    assert [hop.mood for hop in silent] == [Mood.PASS, Mood.NOTE, Mood.PASS]
    unlisted = sent(through("wireguard", Wireguard(), wireguard=None))
    assert unlisted[0].mood is Mood.UNSURE


def test_the_forwarder_of_udp_has_to_run_and_to_know_the_host() -> None:
    overlay = known()
    items = (*overlay.items, Forwarder("tunnel", IPv4Address(str(HOST)), 8285, NET))
    overlay = replace(overlay, items=items)
    well = through("tun", None, forwarder=True, forwards=PEER)
    assert points(sent(well, overlay)) == ["tunnel", "underlay"]
    assert outer(overlay, well) == Outer(HOST, PEER, True, port=8285)
    assert "has no host for" in end(sent(replace(well, forwards=None, underway=None), overlay))[1]
    assert sent(replace(well, forwarder=False, underway=None), overlay)[0].mood is Mood.UNSURE
    dead = without(well, FLANNEL, running=False)
    assert end(sent(dead, overlay)) == (Point.TUNNEL, "no process takes the packets of tunnel")


def test_an_administrators_own_way_is_not_judged() -> None:
    overlay = replace(known(), backend="extension")
    hops = until_end(sending(overlay, LEAVING, FLOW, overlay.peer(THERE)))
    assert [hop.mood for hop in hops] == [Mood.UNSURE]


def test_what_leaves_the_network_is_followed_to_its_gateway() -> None:
    nobody: Peer | None = None
    decision = Decision(Kind.UNICAST, ENS33, ip_address("172.16.41.1"))
    crossing = replace(LEAVING, decision=decision, underway=None)
    assert points(until_end(sending(known(), crossing, FLOW, nobody))) == ["neighbour"]


def test_the_packet_around_meets_the_firewall_of_its_own_family() -> None:
    shut = Tables((parse("*filter\n-A OUTPUT -p udp -j DROP\n"),))
    assert end(sent(replace(LEAVING, outer_tables=shut)))[0] is Point.FIREWALL
    assert {hop.mood for hop in sent(replace(LEAVING, tables=shut, outer_tables=LEAVING.tables))} == {Mood.PASS}
