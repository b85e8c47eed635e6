from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_interface, ip_network

from pyflannel.state import (
    Address,
    Commands,
    FdbEntry,
    Hook,
    Mac,
    Misfit,
    Route,
    State,
    Sysctl,
)
from tests.support.kernel_items import DEV, LINK, OURS, peer

NEIGHBOUR, FDB, ROUTE = peer(2)


def test_items_that_fill_one_slot_have_one_key() -> None:
    assert replace(LINK, mtu=1400).key == LINK.key
    assert Misfit(DEV, "a bridge").key == LINK.key
    assert replace(NEIGHBOUR, mac=Mac(bytes(6))).key == NEIGHBOUR.key
    assert replace(FDB, dst=ip_address("192.0.2.9")).key == FDB.key
    assert replace(ROUTE, via=None, onlink=False, protocol=80).key == ROUTE.key
    assert Sysctl(DEV, "ipv6", "accept_ra", "0").key == Sysctl(DEV, "ipv6", "accept_ra", "1").key


def test_items_the_kernel_keeps_apart_have_keys_of_their_own() -> None:
    assert replace(ROUTE, metric=5).key != ROUTE.key
    assert replace(ROUTE, dev="eth0").key != ROUTE.key
    assert Address(DEV, ip_interface("10.2.0.1/32")).key != Address(DEV, ip_interface("10.2.0.1/24")).key
    assert len({item.key for item in OURS}) == len(OURS)


def test_a_group_mac_may_live_on_many_hosts() -> None:
    flood = FdbEntry(DEV, Mac(bytes(6)), ip_address("192.0.2.1"))
    assert replace(flood, dst=ip_address("192.0.2.2")).key != flood.key


def test_one_hook_stands_for_a_peer_whatever_it_publishes_and_how_it_is_looked_after_is_no_difference() -> None:
    hook = Hook(Commands("add", "remove"), IPv4Network("10.2.41.0/24"), None, IPv4Address("172.16.41.132"), None, "x")
    other = replace(hook, commands=Commands("other"), host=IPv4Address("172.16.41.133"), data="y", lapsed=True)
    assert other.key == hook.key
    assert other != hook
    assert replace(hook, commands=Commands("add", "remove", "check", 7.0)) == hook
    assert replace(hook, subnet=IPv4Network("10.2.42.0/24")).key != hook.key


def test_a_stray_route_takes_no_slot() -> None:
    stray = replace(ROUTE, stray=True)
    assert len(State([ROUTE, stray, replace(stray, protocol=80)])) == 3


def test_ipv6_reads_no_metric_as_1024() -> None:
    route = Route(ip_network("fd00:2:2::/64"), DEV)
    assert route.metric == 1024
    assert route == replace(route, metric=0) == replace(route, metric=1024)
    assert Route(ip_network("10.2.2.0/24"), DEV).metric == 0
