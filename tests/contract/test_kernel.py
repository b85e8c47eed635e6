"""What every ``Kernel`` does, the one in memory and the one of this machine."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from pyflannel.diff import Cut, Op, Put, device, diff
from pyflannel.linux.kernel import AlreadyThere, KernelError, LinkGone
from pyflannel.linux.spelling import spell
from pyflannel.state import (
    PROTO_BOOT,
    PROTO_KERNEL,
    Address,
    FdbEntry,
    Item,
    Link,
    Mac,
    Misfit,
    Route,
    Scope,
    State,
    Sysctl,
)
from tests.support.kernel_items import DEV, DEV6, LINK, LINK6, OURS, SCOPE, SPEC, SPEC6, WANT, peer, peer6
from tests.support.kernel_worlds import TAKEN, World

NEIGHBOUR, FDB, ROUTE = peer(2)
ROUTE6 = peer6(2)[2]


def command(item: Item) -> str:
    """For naming the cases of a test."""
    return spell(Put(item))


def reconcile(world: World, want: State) -> None:
    """Bring about ``want``, and see that it is so and stays so."""
    report = world.kernel.apply(diff(want, world.kernel.observe(SCOPE)))
    assert report.failed == ()
    assert diff(want, world.kernel.observe(SCOPE)) == ()


def observed(world: World) -> set[Item]:
    """All of ours but the settings, which every device has."""
    return set(world.kernel.observe(replace(SCOPE, sysctls=frozenset())).values())


def changed(*replacements: Item) -> State:
    """``WANT`` with these items in place of those of the same key."""
    return State({**WANT, **State(replacements)}.values())


def refused(world: World, op: Op) -> KernelError:
    """The error ``op`` fails with."""
    report = world.kernel.apply([op])
    assert report.done == ()
    ((failed, error),) = report.failed
    assert failed == op
    return error


def test_what_was_put_is_what_is_observed(world: World) -> None:
    report = world.kernel.apply(diff(WANT, State()))
    assert report.failed == ()
    assert world.kernel.observe(SCOPE) == WANT


OTHERWISE = changed(
    replace(ROUTE, metric=7), replace(NEIGHBOUR, mac=LINK6.mac or Mac(bytes(6))), replace(LINK, mtu=1400)
)


@pytest.mark.parametrize("known", [State(), WANT, OTHERWISE], ids=["nothing", "all", "otherwise"])
def test_a_comparison_holds_what_an_observation_does(world: World, known: State) -> None:
    reconcile(world, WANT)
    assert world.kernel.compare(SCOPE, known) == world.kernel.observe(SCOPE)


def test_an_empty_scope_holds_nothing(world: World) -> None:
    reconcile(world, WANT)
    assert world.kernel.observe(Scope()) == State()


def test_repeated_puts_succeed_and_change_nothing(world: World) -> None:
    ops = diff(WANT, State())
    world.kernel.apply(ops)
    assert world.kernel.apply(ops).done == ops
    assert world.kernel.observe(SCOPE) == WANT


def test_cutting_what_is_gone_succeeds(world: World) -> None:
    reconcile(world, WANT)
    cuts = tuple(Cut(item) for item in reversed(OURS))
    assert world.kernel.apply(cuts).done == cuts
    assert world.kernel.observe(SCOPE) == State()
    assert world.kernel.apply(cuts).done == cuts


def test_cutting_items_one_by_one_leaves_the_others(world: World) -> None:
    reconcile(world, WANT)
    left = dict(WANT)
    for item in (*peer(2), *peer6(3)):
        del left[item.key]
    reconcile(world, State(left.values()))
    assert world.kernel.observe(SCOPE) == left


def test_nothing_foreign_is_touched_from_the_first_put_to_the_last_cut(world: World) -> None:
    before = world.foreign()
    assert before
    reconcile(world, WANT)
    assert world.foreign() == before
    reconcile(world, State())
    assert world.foreign() == before


@pytest.mark.parametrize("taken", TAKEN)
def test_a_route_of_somebody_else_keeps_its_slot(world: World, taken: Route) -> None:
    reconcile(world, WANT)
    before = world.foreign()
    dev, gateway = (DEV, "10.2.3.0") if taken.dst.version == 4 else (DEV6, "fd00:2:3::")
    rival = Route(taken.dst, dev, ip_address(gateway), onlink=True)
    # The second is of a plan gone wrong: what it takes for its own earlier route is not there.
    for op in (Put(rival), Put(rival, replace(rival, protocol=80))):
        assert isinstance(refused(world, op), AlreadyThere)
        assert world.foreign() == before
        assert world.kernel.observe(SCOPE) == WANT


def test_one_refusal_stops_no_other_operation(world: World) -> None:
    reconcile(world, State([LINK, *peer(2)]))
    bad = Put(Route(TAKEN[0].dst, DEV, ip_address("10.2.99.0"), onlink=True))
    first, last = (Put(peer(number)[2]) for number in (3, 4))
    report = world.kernel.apply([first, bad, last])
    assert report.done == (first, last)
    assert [op for op, _ in report.failed] == [bad]


@pytest.mark.parametrize(
    "new",
    [
        replace(ROUTE, via=ip_address("10.2.3.0")),
        replace(ROUTE, via=None, onlink=False),
        replace(ROUTE, protocol=80),
        replace(ROUTE6, via=ip_address("fd00:2:3::")),
        replace(ROUTE6, via=None, onlink=False),
        replace(ROUTE6, protocol=80),
        replace(peer(2)[0], mac=Mac.parse("02:00:00:00:09:09")),
        replace(peer6(2)[0], mac=Mac.parse("02:00:00:00:09:09")),
        replace(FDB, dst=ip_address("192.0.2.99")),
        replace(peer6(2)[1], dst=ip_address("2001:db8::99")),
        Sysctl(DEV, "ipv6", "accept_ra", "2"),
    ],
    ids=command,
)
def test_an_item_that_changes_takes_the_place_of_the_old_one(world: World, new: Item) -> None:
    before = world.foreign()
    reconcile(world, WANT)
    reconcile(world, changed(new))
    assert world.kernel.observe(SCOPE) == changed(new)
    assert world.foreign() == before


def test_onlink_alone_can_change(world: World) -> None:
    gateway = ip_interface("10.2.1.0/24")
    here = (LINK, Address(DEV, gateway))
    route = Route(ip_network("10.2.2.0/24"), DEV, ip_address("10.2.1.7"), onlink=True, metric=5)
    for onlink in (True, False, True):
        reconcile(world, State([*here, replace(route, onlink=onlink)]))


def test_a_changed_route_leaves_one_of_another_metric_alone(world: World) -> None:
    second = replace(ROUTE, metric=77)
    reconcile(world, State([*OURS, second]))
    reconcile(world, changed(replace(ROUTE, via=ip_address("10.2.3.0")), second))


def test_routes_move_to_another_metric_and_back_and_are_never_missing(world: World) -> None:
    routes = [peer(number)[2] for number in (2, 3)]
    plain = State([LINK, *routes])
    spread = State([LINK, *(replace(route, metric=number) for number, route in enumerate(routes, 1))])
    reconcile(world, plain)
    for want in (spread, plain):
        for op in diff(want, world.kernel.observe(SCOPE)):
            assert world.kernel.apply([op]).failed == ()
            there = {item.dst for item in observed(world) if isinstance(item, Route)}
            assert there == {route.dst for route in routes}
        assert diff(want, world.kernel.observe(SCOPE)) == ()


def test_of_two_metrics_a_cut_without_one_takes_the_lowest(world: World) -> None:
    high = replace(ROUTE, metric=77)
    reconcile(world, State([LINK, high]))
    reconcile(world, State([LINK, high, ROUTE]))
    world.kernel.apply([Cut(ROUTE)])
    assert observed(world) == {LINK, high}


def test_neighbours_and_forwarding_entries_are_replaced_without_looking(world: World) -> None:
    reconcile(world, WANT)
    new = (replace(NEIGHBOUR, mac=Mac.parse("02:00:00:00:09:09")), replace(FDB, dst=ip_address("192.0.2.99")))
    assert world.kernel.apply([Put(item) for item in new]).failed == ()
    assert world.kernel.observe(SCOPE) == changed(*new)


@pytest.mark.parametrize(
    "new",
    [
        replace(LINK, spec=replace(SPEC, vni=2)),
        replace(LINK, spec=replace(SPEC, port=4789)),
        replace(LINK, spec=replace(SPEC, gbp=True)),
        replace(LINK, spec=replace(SPEC, local=None)),
    ],
    ids=command,
)
def test_a_device_made_anew_gets_back_all_that_was_on_it(world: World, new: Link) -> None:
    reconcile(world, WANT)
    reconcile(world, changed(new))
    assert world.kernel.observe(SCOPE) == changed(new)


@pytest.mark.parametrize(
    "new",
    [
        replace(LINK, mtu=1400),
        replace(LINK, spec=replace(SPEC, local=ip_address("192.0.2.77"))),
        replace(LINK, spec=replace(SPEC, learning=True)),
        replace(LINK, spec=replace(SPEC, underlay="eth1")),
        replace(LINK, mtu=1300, spec=replace(SPEC, underlay="eth1", learning=True)),
        replace(LINK6, mtu=1400, spec=replace(SPEC6, local=ip_address("2001:db8::77"))),
    ],
    ids=command,
)
def test_a_device_changed_in_place_loses_nothing(world: World, new: Link) -> None:
    reconcile(world, WANT)
    (op,) = diff(changed(new), world.kernel.observe(SCOPE))
    assert world.kernel.apply([op]).failed == ()
    assert world.kernel.observe(SCOPE) == changed(new)


def test_a_changed_mac_costs_the_neighbours_which_come_back(world: World) -> None:
    reconcile(world, WANT)
    new = replace(LINK, mac=Mac.parse("02:00:00:00:00:99"), mtu=1400)
    world.kernel.apply([Put(new, LINK)])
    assert WANT.keys() - world.kernel.observe(SCOPE).keys() == {peer(2)[0].key, peer(3)[0].key}
    reconcile(world, WANT)
    reconcile(world, changed(new))


def test_a_device_without_a_wanted_mac_keeps_the_one_it_has(world: World) -> None:
    whichever = replace(LINK, mac=None)
    reconcile(world, State([whichever]))
    made = world.kernel.observe(SCOPE)[LINK.key]
    assert isinstance(made, Link)
    assert made.mac is not None
    assert made.mac.is_unicast
    reconcile(world, State([replace(whichever, mtu=1400)]))
    assert world.kernel.observe(SCOPE)[LINK.key] == replace(made, mtu=1400)


def test_a_device_can_be_put_down(world: World) -> None:
    reconcile(world, State([LINK, FDB, ROUTE]))
    reconcile(world, State([replace(LINK, up=False), FDB]))
    assert isinstance(refused(world, Put(ROUTE)), KernelError)


def test_what_a_device_lost_while_it_was_down_comes_back(world: World) -> None:
    reconcile(world, WANT)
    world.take_down(DEV)
    world.take_down(DEV6)
    missing = WANT.keys() - world.kernel.observe(SCOPE).keys()
    assert missing >= {NEIGHBOUR.key, ROUTE.key, ROUTE6.key, Address(DEV6, ip_interface("fd00:2:1::/128")).key}
    assert FDB.key not in missing
    reconcile(world, WANT)
    assert world.kernel.observe(SCOPE) == WANT


@pytest.mark.parametrize(
    "new",
    [
        replace(LINK, up=False),
        replace(LINK, mac=Mac.parse("02:00:00:00:00:99")),
        replace(LINK, mtu=1280),
        replace(LINK, spec=replace(SPEC, local=ip_address("192.0.2.77"))),
        replace(LINK, spec=replace(SPEC, learning=True)),
        replace(LINK6, up=False),
        replace(LINK6, mtu=1290, spec=replace(SPEC6, local=ip_address("2001:db8::77"))),
    ],
    ids=lambda link: f"{'up' if link.up else 'down'} {command(link)}",
)
def test_a_device_that_somebody_set_up_differently_comes_back(world: World, new: Link) -> None:
    reconcile(world, WANT)
    before = world.foreign()
    world.alter(new)
    assert world.kernel.observe(SCOPE)[new.key] == new
    reconcile(world, WANT)
    assert world.kernel.observe(SCOPE) == WANT
    assert world.foreign() == before


@pytest.mark.needs("live-rename")
def test_a_renamed_device_is_recognised_with_all_that_is_on_it(world: World) -> None:
    reconcile(world, WANT)
    world.rename_device(DEV, "foo")
    seen = world.kernel.observe(replace(SCOPE, sysctls=frozenset()))
    assert seen == State([replace(LINK, misnamed="foo"), *(item for item in OURS[1:] if not isinstance(item, Sysctl))])


@pytest.mark.needs("live-rename")
def test_a_renamed_device_gets_its_name_back_and_loses_nothing(world: World) -> None:
    reconcile(world, WANT)
    for name in ("foo", "flannel.7"):
        before = world.foreign()
        world.rename_device(DEV, name)
        (op,) = (op for op in diff(WANT, world.kernel.observe(SCOPE)) if not isinstance(op.item, Sysctl))
        assert world.kernel.apply([op]).failed == ()
        assert world.kernel.observe(SCOPE) == WANT
        assert world.foreign() == before


def test_a_renamed_device_is_changed_and_named_at_once(world: World) -> None:
    reconcile(world, WANT)
    world.rename_device(DEV, "foo")
    new = replace(LINK, mtu=1400, spec=replace(SPEC, learning=True))
    reconcile(world, changed(new))
    assert world.kernel.observe(SCOPE) == changed(new)


def test_a_renamed_device_that_cannot_be_changed_is_made_anew(world: World) -> None:
    reconcile(world, changed(replace(LINK, spec=replace(SPEC, port=4789))))
    world.rename_device(DEV, "foo")
    reconcile(world, WANT)
    assert world.kernel.observe(SCOPE) == WANT
    assert not any("foo" in line for line in world.foreign())


def test_a_renamed_device_that_is_not_wanted_any_more_goes(world: World) -> None:
    reconcile(world, WANT)
    before = world.foreign()
    world.rename_device(DEV6, "foo")
    reconcile(world, State(item for item in OURS if device(item) == DEV))
    assert world.foreign() == before


@pytest.mark.parametrize(
    "link",
    # What is set down to be renamed keeps its IPv4 addresses only.
    [pytest.param(LINK, id="IPv4"), pytest.param(LINK6, id="IPv6", marks=pytest.mark.needs("live-rename"))],
)
def test_a_renamed_device_is_known_by_our_address_if_its_own_was_changed_too(world: World, link: Link) -> None:
    other = replace(link, mac=Mac.parse("02:00:00:00:00:77"))
    reconcile(world, changed(other))
    world.rename_device(link.name, "foo")
    reconcile(world, WANT)
    assert world.kernel.observe(SCOPE) == WANT
    assert not any("foo" in line for line in world.foreign())


def test_a_vxlan_device_with_our_address_on_another_port_is_somebody_elses(world: World) -> None:
    theirs = replace(LINK, mac=Mac.parse("02:00:00:00:00:77"), spec=replace(SPEC, port=4789))
    reconcile(world, State([theirs, Address(DEV, ip_interface("10.2.1.0/32"))]))
    world.rename_device(DEV, "foo")
    before = world.foreign()
    reconcile(world, WANT)
    reconcile(world, State())
    assert world.foreign() == before


def test_a_vxlan_device_without_our_identity_is_somebody_elses(world: World) -> None:
    reconcile(world, State([replace(LINK, mac=Mac.parse("02:00:00:00:00:77"))]))
    world.rename_device(DEV, "foo")
    assert observed(world) == set()
    assert isinstance(refused(world, Put(LINK)), AlreadyThere)


def test_a_renamed_device_whose_name_was_taken_comes_back_once_that_is_free(world: World) -> None:
    reconcile(world, WANT)
    world.rename_device(DEV, "foo")
    world.occupy(DEV)
    found = world.kernel.observe(SCOPE)[LINK.key]
    assert isinstance(refused(world, Put(LINK, found)), AlreadyThere)
    world.unplug(DEV)
    reconcile(world, WANT)
    assert world.kernel.observe(SCOPE) == WANT


def test_without_its_underlay_a_device_is_gone_until_that_is_back(world: World) -> None:
    reconcile(world, WANT)
    world.unplug("eth0")
    assert observed(world) == set()
    for link in (LINK, LINK6):
        error = refused(world, Put(link))
        assert isinstance(error, LinkGone)
        assert "eth0" in str(error)
    world.plug("eth0")
    reconcile(world, WANT)
    assert world.kernel.observe(SCOPE) == WANT


def test_a_deleted_device_takes_everything_along_and_comes_back(world: World) -> None:
    reconcile(world, WANT)
    world.delete_device(DEV)
    assert all(key in WANT for key in world.kernel.observe(SCOPE))
    assert len(world.kernel.observe(SCOPE)) == 8
    reconcile(world, WANT)


def test_the_last_ipv4_address_takes_routes_and_neighbours_along(world: World) -> None:
    address = Address(DEV, ip_interface("10.2.1.0/32"))
    reconcile(world, State([LINK, address, NEIGHBOUR, FDB, ROUTE]))
    world.kernel.apply([Cut(address)])
    assert observed(world) == {LINK, FDB}


def test_an_address_gives_way_to_another_without_losing_routes(world: World) -> None:
    address, other = (Address(DEV, ip_interface(text)) for text in ("10.2.1.0/32", "10.2.7.0/32"))
    reconcile(world, State([LINK, address, ROUTE]))
    ops = diff(State([LINK, other, ROUTE]), world.kernel.observe(SCOPE))
    assert ops == (Put(other), Cut(address))
    assert world.kernel.apply(ops).failed == ()
    assert observed(world) == {LINK, other, ROUTE}


def test_a_missing_device_is_named_and_its_cuts_succeed(world: World) -> None:
    for item in (NEIGHBOUR, FDB, ROUTE, Address(DEV, ip_interface("10.2.1.0/32"))):
        error = refused(world, Put(item))
        assert isinstance(error, LinkGone)
        assert DEV in str(error)
        assert world.kernel.apply([Cut(item)]).done == (Cut(item),)


def test_a_setting_of_a_missing_device_needs_no_setting(world: World) -> None:
    op = Put(Sysctl(DEV, "ipv6", "accept_ra", "0"))
    assert world.kernel.apply([op]).done == (op,)
    assert world.kernel.observe(SCOPE) == State()


def test_a_missing_underlay_is_named_and_the_device_stays(world: World) -> None:
    reconcile(world, WANT)
    for spec in (replace(SPEC, underlay="eth7"), replace(SPEC, underlay="eth7", vni=3)):
        error = refused(world, Put(replace(LINK, spec=spec), LINK))
        assert isinstance(error, LinkGone)
        assert "eth7" in str(error)
    assert world.kernel.observe(SCOPE) == WANT


def test_an_mtu_beyond_the_underlay_is_refused(world: World) -> None:
    reconcile(world, WANT)
    error = refused(world, Put(replace(LINK, mtu=1500), LINK))
    assert "1500" in str(error)
    assert world.kernel.observe(SCOPE) == WANT


def test_a_gateway_out_of_reach_is_refused(world: World) -> None:
    reconcile(world, WANT)
    refused(world, Put(Route(ip_network("10.2.60.0/24"), DEV, ip_address("198.51.100.1"))))
    assert world.kernel.observe(SCOPE) == WANT


def test_a_second_device_with_the_same_vni_is_refused(world: World) -> None:
    reconcile(world, WANT)
    assert isinstance(refused(world, Put(replace(LINK, name="flannel.9"))), AlreadyThere)


def test_a_device_that_is_there_already_is_not_taken_for_the_wanted_one(world: World) -> None:
    reconcile(world, WANT)
    assert isinstance(refused(world, Put(replace(LINK, mtu=1400))), AlreadyThere)
    assert world.kernel.observe(SCOPE) == WANT


def test_a_second_route_in_a_slot_is_a_stray_and_goes(world: World) -> None:
    reconcile(world, WANT)
    other, other6 = replace(ROUTE, via=ip_address("10.2.77.0")), replace(ROUTE6, via=ip_address("fd00:2:77::"))
    world.intrude(other)
    world.intrude(other6)
    strays = [item for item in world.kernel.observe(SCOPE).values() if isinstance(item, Route) and item.stray]
    assert {replace(item, stray=False) for item in strays} == {other, other6}
    reconcile(world, WANT)
    assert world.kernel.observe(SCOPE) == WANT


@pytest.mark.parametrize("route", [ROUTE, ROUTE6], ids=command)
def test_a_stray_without_a_gateway_goes_and_the_route_with_one_stays(world: World, route: Route) -> None:
    reconcile(world, WANT)
    world.intrude(replace(route, via=None, onlink=False))
    (op,) = diff(WANT, world.kernel.observe(SCOPE))
    assert world.kernel.apply([op]).failed == ()
    assert world.kernel.observe(SCOPE) == WANT


def test_the_second_route_in_a_slot_survives_if_it_is_the_wanted_one(world: World) -> None:
    wrong = replace(ROUTE, via=ip_address("10.2.77.0"))
    reconcile(world, changed(wrong))
    world.intrude(ROUTE)
    reconcile(world, WANT)


def test_entries_nobody_asked_for_are_cut(world: World) -> None:
    reconcile(world, WANT)
    flood = Mac(bytes(6))
    for item in (
        FdbEntry(DEV, flood, ip_address("192.0.2.98")),
        FdbEntry(DEV, flood, ip_address("192.0.2.99")),
        *peer(9),
        Address(DEV, ip_interface("10.2.200.1/24")),
        Address(DEV6, ip_interface("fd00:77::1/128")),
    ):
        world.intrude(item)
        assert item.key in world.kernel.observe(SCOPE)
    reconcile(world, WANT)
    assert world.kernel.observe(SCOPE) == WANT


def test_a_foreign_address_on_our_device_stays(world: World) -> None:
    reconcile(world, WANT)
    world.intrude(Address(DEV, ip_interface("198.51.100.1/32")))
    assert world.kernel.observe(SCOPE) == WANT
    # It holds up the routes now that ours is gone, which only an address of the device can do.
    world.kernel.apply([Cut(Address(DEV, ip_interface("10.2.1.0/32")))])
    assert ROUTE.key in world.kernel.observe(SCOPE)


def test_what_the_kernel_put_on_our_device_by_itself_is_not_ours(world: World) -> None:
    reconcile(world, WANT)
    world.intrude(Route(ip_network("10.2.60.0/24"), DEV, protocol=PROTO_KERNEL))
    world.intrude(Route(ip_network("fd00:2:60::/64"), DEV6, protocol=PROTO_KERNEL))
    world.intrude(Address(DEV6, ip_interface("fe80::60/64")))
    assert world.kernel.observe(SCOPE) == WANT


def test_a_device_of_somebody_elses_stays_even_where_its_name_is_wanted(world: World) -> None:
    world.occupy(DEV)
    (found,) = observed(world)
    assert isinstance(found, Misfit)
    assert found.foreign
    assert isinstance(refused(world, Put(LINK)), AlreadyThere)
    assert isinstance(refused(world, Put(LINK, found)), AlreadyThere)
    reconcile(world, State())
    assert observed(world) == {found}


def test_routes_look_like_flannels(world: World) -> None:
    reconcile(world, WANT)
    assert {item.protocol for item in world.kernel.observe(SCOPE).values() if isinstance(item, Route)} == {PROTO_BOOT}
