"""What is news and what is an echo."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflannel.sighting import Changed, Gone, Lost, Replaced, Seen, Sighting, contradicts
from pyflannel.state import Address, FdbEntry, Item, Link, Mac, Misfit, Neighbour, Route, Scope, State, Sysctl
from tests.support.kernel_items import DEV, DEV6, LINK, OURS, SCOPE, WANT, peer, peer6
from tests.support.kernel_plans import SCOPE as PLANS
from tests.support.kernel_plans import states

NEIGHBOUR, FDB, ROUTE = peer(2)
ROUTE6 = peer6(2)[2]
OTHER_MAC = Mac.parse("02:00:00:00:09:09")
EVENTFUL = [item for item in OURS if not isinstance(item, Sysctl)]


def gone(item: Item) -> Gone:
    return Gone(item if isinstance(item, Route) else item.key)


def is_news(*sightings: Sighting) -> bool:
    return contradicts(sightings, WANT, SCOPE)


def test_nothing_is_no_news() -> None:
    assert not is_news()


@pytest.mark.parametrize("sighting", [Lost(), Changed("eth0"), Changed(DEV)])
def test_what_is_said_in_general_is_always_news(sighting: Sighting) -> None:
    assert is_news(sighting)
    assert contradicts([sighting], State(), Scope())


@pytest.mark.parametrize("item", EVENTFUL, ids=str)
def test_what_is_wanted_is_no_news_when_it_comes_and_news_when_it_goes(item: Item) -> None:
    assert not is_news(Seen(item))
    assert is_news(gone(item))
    assert not is_news(gone(item), Seen(item))
    assert is_news(Seen(item), gone(item))


@pytest.mark.parametrize(
    "item",
    [
        replace(LINK, up=False),
        replace(LINK, mtu=1400),
        replace(LINK, mac=OTHER_MAC),
        Misfit(DEV, "it is of type bridge"),
        replace(NEIGHBOUR, mac=OTHER_MAC),
        replace(FDB, dst=ip_address("192.0.2.99")),
        replace(ROUTE, via=ip_address("10.2.3.0")),
        replace(ROUTE, protocol=80),
        replace(ROUTE, stray=True),
        replace(ROUTE, metric=7),
        Address(DEV, ip_interface("10.2.200.1/24")),
        Address(DEV6, ip_interface("fd00:77::1/64")),
        *peer(9),
        FdbEntry(DEV, Mac(bytes(6)), ip_address("192.0.2.9")),
    ],
    ids=str,
)
def test_what_is_ours_and_not_wanted_is_news_when_it_comes_and_none_when_it_goes(item: Item) -> None:
    assert is_news(Seen(item))
    if item.key not in WANT:
        assert not is_news(gone(item))
        assert not is_news(Seen(item), gone(item))


@pytest.mark.parametrize(
    "item",
    [
        Address(DEV, ip_interface("198.51.100.1/24")),
        Address(DEV6, ip_interface("fe80::1/64")),
        Address("docker0", ip_interface("10.2.1.1/24")),
        Neighbour("docker0", ip_address("10.2.2.0"), OTHER_MAC),
        Route(ip_network("10.2.2.0/24"), "docker0"),
        Misfit("docker0", "it is of type bridge"),
    ],
    ids=str,
)
def test_what_is_none_of_ours_is_no_news(item: Item) -> None:
    assert not is_news(Seen(item))
    assert not is_news(gone(item))


def test_a_misfit_under_a_name_no_plan_asks_for_is_no_news() -> None:
    assert not contradicts([Seen(Misfit(DEV, "it is of type bridge"))], State(), SCOPE)


def test_a_device_of_ours_that_no_plan_asks_for_is_news() -> None:
    assert contradicts([Seen(LINK)], State(), SCOPE)


def test_whatever_mac_a_device_has_will_do_where_none_is_asked_for() -> None:
    assert not contradicts([Seen(LINK)], State([replace(LINK, mac=None)]), SCOPE)


@pytest.mark.parametrize("route", [ROUTE, ROUTE6], ids=str)
def test_a_route_that_gives_way_to_the_wanted_one_is_no_news(route: Route) -> None:
    old = replace(route, via=None, onlink=False)
    assert not is_news(Seen(route), gone(old))
    # IPv6 makes them one route with two gateways for a moment, and tells of both.
    assert not is_news(Seen(old), Seen(route), gone(old))
    assert is_news(Seen(old), Seen(route))


def test_a_device_that_changes_step_by_step_is_judged_by_the_last() -> None:
    assert not is_news(Seen(replace(LINK, mtu=1400, mac=OTHER_MAC)), Seen(replace(LINK, mtu=1400)), Seen(LINK))
    assert is_news(Seen(LINK), Seen(replace(LINK, mtu=1400)))


def test_a_device_that_was_down_is_news_even_if_it_is_up_again() -> None:
    assert is_news(Seen(replace(LINK, up=False)), Seen(LINK))
    down = State([replace(LINK, up=False)])
    assert not contradicts([Seen(replace(LINK, up=False))], down, SCOPE)


def test_a_device_that_goes_down_before_it_goes_is_no_news_where_nobody_wants_it() -> None:
    assert not contradicts([Seen(replace(LINK, up=False)), gone(LINK)], State(), SCOPE)


@pytest.mark.parametrize("route", [ROUTE, ROUTE6], ids=str)
def test_a_replaced_route_is_news_where_one_of_ours_was_wanted(route: Route) -> None:
    assert is_news(Replaced(route.dst, route.metric))
    assert not is_news(Replaced(route.dst, 77))
    assert not is_news(Replaced(ip_network("198.51.100.0/24"), 0))
    # What was gained and lost again hides no replacement.
    thief = replace(route, via=None, onlink=False)
    assert is_news(Replaced(route.dst, route.metric), Seen(thief), gone(thief))


@given(states())
def test_an_echo_of_a_plan_is_no_news_in_any_order(want: State) -> None:
    sightings = [Seen(item) for item in want.values() if not (isinstance(item, Link) and not item.up)]
    assert not contradicts(sightings, want, PLANS)
    assert not contradicts(reversed(sightings), want, PLANS)


@given(states(), st.data())
def test_whatever_goes_of_a_plan_is_news(want: State, data: st.DataObject) -> None:
    items = list(want.values())
    if not items:
        return
    item = data.draw(st.sampled_from(items))
    others = [Seen(other) for other in items if other != item]
    assert contradicts([*others, gone(item)], want, PLANS)
    assert contradicts([gone(item), *others], want, PLANS)
