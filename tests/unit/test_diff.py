from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest

from pyflannel.diff import Cut, Put, device, diff, must_rebuild, satisfies
from pyflannel.state import Address, FdbEntry, Link, Mac, Misfit, Neighbour, State, Sysctl
from tests.support.kernel_items import DEV, DEV6, LINK, LINK6, OURS, SPEC, WANT, peer, peer6

NEIGHBOUR, FDB, ROUTE = peer(2)
ON_DEV = [item for item in OURS if device(item) == DEV and item != LINK]


def test_nothing_is_done_where_all_is_well() -> None:
    assert diff(WANT, WANT) == ()


def test_everything_is_built_bottom_up() -> None:
    address, setting = Address(DEV, ip_interface("10.2.1.0/32")), Sysctl(DEV, "ipv6", "accept_ra", "0")
    built = (LINK, setting, address, NEIGHBOUR, FDB, ROUTE)
    assert diff(State(reversed(built)), State()) == tuple(Put(item) for item in built)


def test_everything_is_torn_down_top_down() -> None:
    have = State([LINK, NEIGHBOUR, FDB, ROUTE])
    assert diff(State([LINK]), have) == (Cut(ROUTE), Cut(FDB), Cut(NEIGHBOUR))


def test_what_comes_is_put_before_what_goes_is_cut() -> None:
    ops = diff(State([LINK, *peer(3)]), State([LINK, *peer(2)]))
    assert [type(op) for op in ops] == [Put] * 3 + [Cut] * 3


def test_a_filled_slot_is_handed_to_the_put_and_not_cut() -> None:
    new = replace(ROUTE, via=ip_address("10.2.9.0"))
    assert diff(State([LINK, new]), State([LINK, ROUTE])) == (Put(new, ROUTE),)


def test_a_device_that_goes_takes_what_is_on_it_along() -> None:
    assert diff(State(), WANT) == (Cut(LINK), Cut(LINK6))


def test_only_the_device_made_anew_is_filled_again() -> None:
    new = replace(LINK, spec=replace(SPEC, vni=7))
    want = State({**WANT, new.key: new}.values())
    ops = diff(want, WANT)
    assert ops[0] == Put(new, LINK)
    assert set(ops[1:]) == {Put(item) for item in ON_DEV}


def test_what_was_on_a_device_made_anew_is_not_cut() -> None:
    new = replace(LINK, spec=replace(SPEC, port=4789))
    assert diff(State([new]), State([LINK, *peer(2)])) == (Put(new, LINK),)


def test_a_new_mac_costs_the_neighbours_of_that_device_alone() -> None:
    new = replace(LINK, mac=Mac.parse("02:00:00:00:00:99"))
    want = State([new, *peer(2), LINK6, *peer6(2)])
    have = State([LINK, *peer(2), *peer(3), LINK6, *peer6(2)])
    stale = peer(3)
    assert diff(want, have) == (Put(new, LINK), Put(NEIGHBOUR), Cut(stale[2]), Cut(stale[1]))


def test_a_device_of_another_kind_is_in_the_place_of_ours_and_never_cut() -> None:
    misfit = Misfit(DEV, "it is of type bridge, not vxlan")
    assert diff(State([LINK]), State([misfit])) == (Put(LINK, misfit),)
    assert diff(State(), State([misfit])) == ()


def test_strays_go_before_anything_comes() -> None:
    stray = replace(ROUTE, stray=True)
    new = replace(ROUTE, metric=9)
    assert diff(State([LINK, ROUTE, new]), State([LINK, ROUTE, stray])) == (Cut(stray), Put(new))


def test_strays_on_a_device_that_goes_need_no_cut() -> None:
    assert diff(State(), State([LINK, replace(ROUTE, stray=True)])) == (Cut(LINK),)


def test_a_setting_no_longer_wanted_keeps_its_value() -> None:
    assert diff(State(), State([Sysctl("eth0", "ipv6", "accept_ra", "0")])) == ()


def test_items_on_a_foreign_device_are_put_and_cut_like_any() -> None:
    route = replace(ROUTE, dev="eth0", via=ip_address("192.0.2.7"), onlink=False)
    assert diff(State([route]), State()) == (Put(route),)
    assert diff(State(), State([route])) == (Cut(route),)


def test_any_mac_will_do_where_none_is_wanted() -> None:
    assert satisfies(LINK, replace(LINK, mac=None))
    assert not satisfies(LINK, replace(LINK, mac=None, mtu=1400))
    assert not satisfies(LINK, replace(LINK, mac=Mac.parse("02:00:00:00:00:99")))
    assert diff(State([replace(LINK, mac=None)]), State([LINK])) == ()


@pytest.mark.parametrize(
    "new",
    [
        replace(LINK, spec=replace(SPEC, vni=2)),
        replace(LINK, spec=replace(SPEC, port=4789)),
        replace(LINK, spec=replace(SPEC, gbp=True)),
        replace(LINK, spec=replace(SPEC, local=None)),
        replace(LINK, spec=replace(SPEC, local=ip_address("2001:db8::1"))),
    ],
)
def test_some_settings_are_for_life(new: Link) -> None:
    assert must_rebuild(new, LINK)
    assert must_rebuild(LINK, new)


@pytest.mark.parametrize(
    "new",
    [
        LINK,
        replace(LINK, mtu=1400),
        replace(LINK, mac=None),
        replace(LINK, up=False),
        replace(LINK, spec=replace(SPEC, local=ip_address("192.0.2.9"))),
        replace(LINK, spec=replace(SPEC, learning=True)),
        replace(LINK, spec=replace(SPEC, underlay="eth1")),
    ],
)
def test_the_others_can_change(new: Link) -> None:
    assert not must_rebuild(new, LINK)


def test_a_device_of_another_kind_cannot_become_ours() -> None:
    assert must_rebuild(LINK, Misfit(DEV, "a bridge"))


def test_every_item_knows_its_device() -> None:
    assert device(Misfit("x", "a bridge")) == "x"
    assert {device(item) for item in OURS} == {DEV, DEV6}
    assert device(Neighbour("eth0", ip_address("192.0.2.1"), Mac(bytes(6)))) == "eth0"
    assert device(FdbEntry("eth0", Mac(bytes(6)), ip_address("192.0.2.1"))) == "eth0"
