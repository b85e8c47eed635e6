"""The walk across a host: each thing that is wrong ends it at its hop, and nothing else does."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from pyflannel.firewall.verdict import parse
from pyflannel.linux.lookup import Decision, Kind
from pyflannel.linux.surroundings import NOBODY
from pyflannel.state import Mac
from pyflannel.trace.facts import Crossing, Flow, Hop, Mood, Outer, Point, Tables
from pyflannel.trace.walk import arriving, departing, until_end
from tests.support.crossings import (
    ARRIVED,
    ARRIVING,
    COMING,
    DEVICES,
    DOCKER0,
    ENS33,
    FLANNEL,
    FLOW,
    HOME,
    HOST,
    LEAVING,
    LO,
    known,
    points,
    to_peer,
    without,
)

LOCAL = Decision(Kind.LOCAL, LO)
NO_ROUTE = Decision(Kind.NO_ROUTE)
DEFAULT = Decision(Kind.UNICAST, ENS33, ip_address("172.16.41.1"), None, ip_network("0.0.0.0/0"))


def departure(crossing: Crossing, flow: Flow = FLOW) -> tuple[Hop, ...]:
    return until_end(departing(known(flow), crossing, flow))


def arrival(crossing: Crossing, outer: Outer = COMING, flow: Flow = ARRIVED) -> tuple[Hop, ...]:
    return until_end(arriving(known(flow), crossing, flow, outer))


def end(hops: tuple[Hop, ...]) -> tuple[Point, str]:
    assert hops[-1].mood is Mood.END, hops
    assert [hop for hop in hops if hop.mood is Mood.END] == [hops[-1]]
    return hops[-1].point, hops[-1].text


def test_what_is_well_leaves_by_the_tunnel() -> None:
    hops = departure(LEAVING)
    assert {hop.mood for hop in hops} == {Mood.PASS}
    assert points(hops) == ["source", "lease", "route", "firewall", "neighbour", "fdb", "underlay"]


def test_what_is_well_arrives_at_the_container() -> None:
    hops = arrival(ARRIVING)
    assert {hop.mood for hop in hops} == {Mood.PASS}
    assert points(hops) == ["arrival", "tunnel", "route", "firewall", "container"]


@pytest.mark.parametrize(
    ("crossing", "point", "words"),
    [
        (replace(LEAVING, origin=NOBODY), Point.CONTAINER, "nobody on docker0 answers for 10.2.71.2"),
        (without(replace(LEAVING, origin=NOBODY), DOCKER0, running=False), Point.BRIDGE, "nothing that is up"),
        (without(LEAVING, DOCKER0, up=False), Point.BRIDGE, "docker0 is down"),
        (replace(LEAVING, barrier="net.ipv4.ip_forward"), Point.FORWARDING, "net.ipv4.ip_forward is 0"),
        (replace(LEAVING, decision=Decision(Kind.WRONG_WAY_IN)), Point.REVERSE_PATH, "would go out by docker0"),
        (replace(LEAVING, decision=Decision(Kind.BLACKHOLE)), Point.REVERSE_PATH, "rp_filter"),
        (replace(LEAVING, decision=Decision(Kind.BLACKHOLE), back=LOCAL), Point.REVERSE_PATH, "this host's own"),
        (
            replace(LEAVING, decision=NO_ROUTE, routed=NO_ROUTE),
            Point.ROUTE,
            "missing, and no route leads to 10.2.41.2",
        ),
        (replace(LEAVING, decision=DEFAULT), Point.ROUTE, "is missing, and it would go by ens33"),
        (replace(LEAVING, decision=to_peer(ENS33)), Point.ROUTE, "another route decides"),
        (replace(LEAVING, decision=LOCAL, routed=LOCAL), Point.ROUTE, "this host itself is 10.2.41.2"),
        (without(replace(LEAVING, decision=DEFAULT), FLANNEL, up=False), Point.DEVICE, "is down"),
        (
            without(replace(LEAVING, decision=DEFAULT), FLANNEL, spec=None, kind="bridge"),
            *(Point.DEVICE, "is a bridge, and no tunnel"),
        ),
        (
            replace(LEAVING, decision=DEFAULT, devices={index: DEVICES[index] for index in (ENS33, DOCKER0)}),
            *(Point.DEVICE, "there is no flannel.1"),
        ),
        (replace(LEAVING, decision=Decision(Kind.PROHIBITED)), Point.ROUTE, "a route of type prohibited holds for"),
    ],
)
def test_what_is_wrong_here_ends_it_where_it_is(crossing: Crossing, point: Point, words: str) -> None:
    found, text = end(departure(crossing))
    assert (found, words in text) == (point, True), text


def test_a_blackhole_for_the_destination_is_a_route() -> None:
    hole = Decision(Kind.BLACKHOLE)
    assert end(departure(replace(LEAVING, decision=hole, routed=hole)))[0] is Point.ROUTE


def test_a_bridge_that_is_down_is_named_where_its_route_is_gone() -> None:
    gone = replace(without(LEAVING, DOCKER0, up=False), entry=None, back=DEFAULT)
    assert end(departure(gone)) == (
        Point.BRIDGE,
        "docker0, which has 10.2.71.0/24, is down, so nothing here leads to 10.2.71.2",
    )


def test_a_host_without_a_bridge_is_told_so() -> None:
    bare = replace(LEAVING, entry=None, back=NO_ROUTE, devices={ENS33: DEVICES[ENS33], FLANNEL: DEVICES[FLANNEL]})
    assert "no device of this host has 10.2.71.0/24" in end(departure(bare))[1]


def test_a_bridge_that_is_up_without_a_route_is_a_matter_of_routes() -> None:
    assert end(departure(replace(LEAVING, entry=None, back=NO_ROUTE)))[0] is Point.ROUTE


def test_an_address_without_a_lease_ends_at_the_lease() -> None:
    flow = replace(FLOW, destination=ip_address("10.2.99.9"))
    assert end(departure(LEAVING, flow)) == (
        Point.LEASE,
        "no host has a lease for a subnet with 10.2.99.9 in it (2 leases are known)",
    )


def test_a_lease_that_is_left_out_ends_at_the_lease_with_the_reason() -> None:
    found, text = end(departure(LEAVING, replace(FLOW, destination=ip_address("10.2.50.9"))))
    assert (found, "VtepMAC" in text) == (Point.LEASE, True)


def test_an_address_outside_the_network_is_followed_as_far_as_it_goes() -> None:
    flow = replace(FLOW, destination=ip_address("192.0.2.9"))
    hops = departure(replace(LEAVING, decision=DEFAULT, routed=DEFAULT, underway=None), flow)
    assert [hop.mood for hop in hops if hop.point is Point.LEASE] == [Mood.NOTE]
    assert hops[-1].point is Point.NEIGHBOUR


def test_a_container_of_another_bridge_is_told_that_nobody_knows_it() -> None:
    flow = replace(FLOW, source=ip_address("172.17.0.2"))
    notes = [hop for hop in departure(LEAVING, flow) if hop.mood is Mood.NOTE]
    assert [hop.point for hop in notes] == [Point.BRIDGE]


def test_a_packet_of_this_host_itself_passes_output() -> None:
    made_here = replace(LEAVING, entry=None, back=LOCAL)
    hops = departure(made_here, replace(FLOW, source=HOST))
    assert {hop.mood for hop in hops} == {Mood.PASS}
    assert any("OUTPUT" in hop.text for hop in hops)


@pytest.mark.parametrize(
    ("crossing", "point", "words"),
    [
        (without(ARRIVING, ENS33, up=False), Point.UNDERLAY, "external interface"),
        (replace(ARRIVING, outer_in=Decision(Kind.BLACKHOLE)), Point.REVERSE_PATH, "rp_filter"),
        (replace(ARRIVING, outer_in=DEFAULT), Point.ARRIVAL, "does not have that address"),
        (replace(ARRIVING, entry=None), Point.DEVICE, "there is no flannel.1"),
        (without(ARRIVING, FLANNEL, up=False), Point.DEVICE, "flannel.1 is down"),
        (without(ARRIVING, FLANNEL, mac=Mac.parse("02:00:00:00:00:77")), Point.TUNNEL, "02:00:00:00:00:77"),
        (
            replace(ARRIVING, barrier="net.ipv4.conf.flannel/1.forwarding"),
            Point.FORWARDING,
            "conf.flannel/1.forwarding",
        ),
        (replace(ARRIVING, decision=NO_ROUTE, routed=NO_ROUTE), Point.ROUTE, "docker0 has 10.2.71.0/24"),
        (replace(ARRIVING, decision=DEFAULT), Point.ROUTE, "docker0 has"),
        (without(replace(ARRIVING, decision=DEFAULT), DOCKER0, up=False), Point.BRIDGE, "docker0, which has"),
        (without(ARRIVING, DOCKER0, up=False), Point.BRIDGE, "docker0 is down"),
        (replace(ARRIVING, hop=NOBODY), Point.CONTAINER, "nobody on docker0"),
    ],
)
def test_what_is_wrong_there_ends_it_where_it_is(crossing: Crossing, point: Point, words: str) -> None:
    found, text = end(arrival(crossing))
    assert (found, words in text) == (point, True), text


@pytest.mark.parametrize("outer", [replace(COMING, vni=2), replace(COMING, port=4789)])
def test_a_tunnel_of_other_settings_hears_nothing(outer: Outer) -> None:
    assert end(arrival(ARRIVING, outer))[0] is Point.TUNNEL


def test_a_packet_for_a_subnet_of_somebody_else_is_not_taken() -> None:
    flow = replace(ARRIVED, destination=ip_address("10.2.90.1"))
    assert end(arrival(replace(ARRIVING, decision=to_peer(), routed=to_peer()), flow=flow))[0] is Point.LEASE


def test_a_firewall_that_drops_what_is_around_it_is_named_with_the_port() -> None:
    rules = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p udp -m udp --dport 8472 -j DROP\nCOMMIT\n"
    hops = arrival(replace(ARRIVING, tables=Tables((parse(rules),))))
    assert "UDP port 8472" in end(hops)[1]
    assert "--dport 8472 -j ACCEPT" in hops[-1].remedy


def test_a_bridge_of_a_smaller_mtu_ends_a_large_packet() -> None:
    narrow = without(ARRIVING, DOCKER0, mtu=1400)
    assert end(arrival(narrow, flow=replace(ARRIVED, size=1401)))[0] is Point.MTU
    assert {hop.mood for hop in arrival(narrow, flow=replace(ARRIVED, size=1400))} == {Mood.PASS}


def test_what_comes_without_a_tunnel_comes_by_the_external_interface() -> None:
    plain = replace(ARRIVING, entry=DEVICES[ENS33])
    assert points(arrival(plain, replace(COMING, tunnel=False))) == ["route", "firewall", "container"]
    down = without(plain, ENS33, up=False)
    assert end(arrival(down, replace(COMING, tunnel=False)))[0] is Point.DEVICE


def test_what_is_for_this_host_itself_passes_input() -> None:
    flow = replace(ARRIVED, destination=HOST)
    hops = arrival(replace(ARRIVING, decision=LOCAL, routed=LOCAL), flow=flow)
    assert any("INPUT" in hop.text for hop in hops)
    assert hops[-1].text == f"it has arrived: {HOST} is this host itself"


def test_two_containers_of_one_host_meet_on_its_bridge() -> None:
    flow = replace(FLOW, destination=ip_address("10.2.71.3"))
    at_home = replace(LEAVING, decision=HOME, routed=HOME, underway=None, behind=None)
    assert points(departure(at_home, flow)) == ["source", "lease", "bridge", "container"]
    # Rules for what is forwarded hold for it only where br_netfilter has them see it.
    dropping = replace(at_home, tables=Tables((parse("*filter\n:FORWARD DROP [0:0]\nCOMMIT\n"),)))
    assert points(departure(dropping, flow)) == ["source", "lease", "bridge", "container"]
    assert end(departure(replace(dropping, filtered=True), flow))[0] is Point.FIREWALL
