from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from pyflannel.state import (
    ORDER,
    Address,
    DuplicateKey,
    FdbEntry,
    Likeness,
    Link,
    Mac,
    Misfit,
    Route,
    Scope,
    State,
    Sysctl,
)
from tests.support.kernel_items import DEV, LINK, OURS, WANT, peer

NEIGHBOUR, FDB, ROUTE = peer(2)


@pytest.mark.parametrize("text", ["02:00:5e:10:00:ff", "02-00-5E-10-00-FF"])
def test_a_mac_is_read_in_both_spellings_and_written_in_one(text: str) -> None:
    assert str(Mac.parse(text)) == "02:00:5e:10:00:ff"


@pytest.mark.parametrize("text", ["", "02:00:5e:10:00", "02:00:5e:10:00:ff:00", "2:0:5e:10:0:ff", "02:00:5e:10:00:fg"])
def test_what_is_no_mac_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a MAC address"):
        Mac.parse(text)


@pytest.mark.parametrize("length", [0, 5, 7, 8])
def test_a_mac_has_six_bytes(length: int) -> None:
    with pytest.raises(ValueError, match="6 bytes"):
        Mac(bytes(length))


def test_only_a_hosts_own_mac_is_unicast() -> None:
    assert Mac.parse("02:00:00:00:00:01").is_unicast
    assert not Mac.parse("01:00:5e:00:00:01").is_unicast
    assert not Mac(bytes(6)).is_unicast


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


def test_a_stray_route_takes_no_slot() -> None:
    stray = replace(ROUTE, stray=True)
    assert len(State([ROUTE, stray, replace(stray, protocol=80)])) == 3


def test_ipv6_reads_no_metric_as_1024() -> None:
    route = Route(ip_network("fd00:2:2::/64"), DEV)
    assert route.metric == 1024
    assert route == replace(route, metric=0) == replace(route, metric=1024)
    assert Route(ip_network("10.2.2.0/24"), DEV).metric == 0


def test_a_state_refuses_two_different_items_for_one_slot() -> None:
    rival = replace(FDB, dst=ip_address("192.0.2.9"))
    with pytest.raises(DuplicateKey) as caught:
        State([FDB, rival])
    assert (caught.value.first, caught.value.second) == (FDB, rival)
    assert str(rival) in str(caught.value)


def test_saying_the_same_twice_is_fine() -> None:
    assert State([FDB, FDB]) == State([FDB])


def test_a_state_is_a_mapping_from_slot_to_item() -> None:
    assert WANT[LINK.key] == LINK
    assert list(WANT.values()) == list(OURS)
    assert str(LINK) in repr(WANT)


def test_items_of_a_kind_come_in_the_order_given() -> None:
    assert list(WANT.items_of(Link)) == [item for item in OURS if isinstance(item, Link)]
    assert sum(len(list(WANT.items_of(kind))) for kind in ORDER) == len(OURS)


def test_an_address_is_ours_by_network_for_ipv4_and_unless_link_local_for_ipv6() -> None:
    scope = Scope(networks=(ip_network("10.2.0.0/16"),))
    ours = [
        text for text in ("10.2.1.0/32", "10.3.1.0/32", "fd00::1/64", "fe80::1/64") if scope.owns(ip_interface(text))
    ]
    assert ours == ["10.2.1.0/32", "fd00::1/64"]


def test_a_state_over_a_dictionary_follows_it() -> None:
    items = dict(WANT)
    state = State.over(items)
    assert state == WANT
    items.popitem()
    assert len(state) == len(WANT) - 1


def test_items_of_one_kind_come_with_their_keys() -> None:
    for kind in ORDER:
        assert list(WANT.pairs_of(kind)) == [(item.key, item) for item in WANT.items_of(kind)]


def test_a_likeness_is_the_state_it_was_made_of_whatever_was_known() -> None:
    other = replace(ROUTE, metric=5)
    for known in (State(), State([ROUTE]), State([replace(ROUTE, via=None), FDB]), WANT):
        likeness = Likeness([ROUTE, other, NEIGHBOUR], known)
        assert likeness == State([ROUTE, other, NEIGHBOUR])
        assert len(likeness) == len(list(likeness)) == 3
        assert FDB.key not in likeness


def test_a_likeness_holds_the_very_items_that_were_known() -> None:
    assert Likeness([replace(ROUTE)], WANT)[ROUTE.key] is WANT[ROUTE.key]


@pytest.mark.parametrize("known", [State(), State([ROUTE]), State([replace(ROUTE, via=None)])])
@pytest.mark.parametrize("first", [ROUTE, replace(ROUTE, via=None)])
def test_two_items_of_a_likeness_cannot_fill_one_slot(known: State, first: Route) -> None:
    second = replace(ROUTE, via=None) if first is ROUTE else ROUTE
    assert len(Likeness([first, replace(first)], known)) == 1
    with pytest.raises(DuplicateKey):
        Likeness([first, second], known)
