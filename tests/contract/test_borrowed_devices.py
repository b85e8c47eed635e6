"""Routes of ours on devices that are somebody else's, in the kernel in memory and in the one of this machine."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from pyflannel.diff import Put, diff
from pyflannel.linux.kernel import AlreadyThere
from pyflannel.state import PROTO_BOOT, PROTO_FLANNEL, Address, Item, Route, State
from tests.support.kernel_items import DEV, LINK, LINK6, WANT, peer6
from tests.support.kernel_items import SCOPE as DEVICES
from tests.support.kernel_worlds import World

SCOPE = replace(DEVICES, borrowed=frozenset(("eth0",)))
ROUTE = Route(ip_network("10.2.60.0/24"), "eth0", ip_address("192.0.2.60"), protocol=PROTO_FLANNEL)
OTHER = replace(ROUTE, dst=ip_network("10.2.61.0/24"), via=ip_address("192.0.2.61"))
THEIRS = replace(OTHER, dst=ip_network("10.2.62.0/24"), protocol=4)
OVERLAY = Route(ROUTE.dst, DEV, ip_address("10.2.60.0"), onlink=True)


def reconcile(world: World, *want: Item) -> None:
    """Bring about ``want``, and see that it is so and stays so."""
    wanted = State(want)
    assert world.kernel.apply(diff(wanted, world.kernel.compare(SCOPE, wanted))).failed == ()
    assert diff(wanted, world.kernel.compare(SCOPE, wanted)) == ()
    held = world.kernel.observe(SCOPE)
    assert {item for item in held.values() if isinstance(item, Route)} == {i for i in want if isinstance(i, Route)}


def test_routes_of_ours_come_and_go_and_those_of_others_stay(world: World) -> None:
    world.intrude(THEIRS)
    before = world.foreign()
    reconcile(world, ROUTE, OTHER)
    reconcile(world, replace(ROUTE, via=OTHER.via), OTHER)
    reconcile(world, OTHER)
    reconcile(world)
    assert world.foreign() == before


def test_a_route_that_go_flanneld_left_becomes_ours(world: World) -> None:
    before = world.foreign()
    world.intrude(replace(ROUTE, protocol=PROTO_BOOT))
    world.intrude(replace(OTHER, protocol=PROTO_BOOT))
    reconcile(world, ROUTE, OTHER)
    reconcile(world)
    assert world.foreign() == before


@pytest.mark.parametrize(
    "theirs",
    [
        replace(ROUTE, protocol=4),
        replace(ROUTE, protocol=PROTO_BOOT, via=ip_address("192.0.2.99")),
        replace(ROUTE, protocol=PROTO_BOOT, via=None),
    ],
    ids=["another protocol", "another gateway", "no gateway"],
)
def test_a_route_of_somebody_elses_in_the_slot_is_left_alone(world: World, theirs: Route) -> None:
    world.intrude(theirs)
    before = world.foreign()
    wanted = State([ROUTE])
    report = world.kernel.apply(diff(wanted, world.kernel.compare(SCOPE, wanted)))
    assert [type(error) for _, error in report.failed] == [AlreadyThere]
    assert world.foreign() == before


def test_a_route_is_led_over_to_another_device_and_back(world: World) -> None:
    reconcile(world, LINK, OVERLAY)
    wanted = State([LINK, ROUTE])
    assert diff(wanted, world.kernel.compare(SCOPE, wanted)) == (Put(ROUTE, OVERLAY),)
    reconcile(world, LINK, ROUTE)
    reconcile(world, LINK, OVERLAY)


def test_a_device_that_goes_hands_its_routes_over_before(world: World) -> None:
    reconcile(world, LINK, OVERLAY)
    wanted = State([ROUTE])
    first, *_ = diff(wanted, world.kernel.compare(SCOPE, wanted))
    assert first == Put(ROUTE, OVERLAY)
    reconcile(world, ROUTE)


def test_a_borrowed_device_that_is_not_there_holds_nothing(world: World) -> None:
    reconcile(world, ROUTE)
    world.unplug("eth0")
    assert world.kernel.observe(SCOPE) == State()
    assert WANT.keys().isdisjoint(world.kernel.observe(SCOPE))


def test_an_ipv6_route_is_led_over_to_another_device_and_back_and_is_never_missing(world: World) -> None:
    world.intrude(Address("eth0", ip_interface("2001:db8::1/64")))
    through, beside = peer6(2)[2], Route(peer6(2)[2].dst, "eth0", ip_address("2001:db8::60"), protocol=PROTO_FLANNEL)
    reconcile(world, LINK6, through)
    for route in (beside, through, beside):
        wanted = State((LINK6, route))
        for op in diff(wanted, world.kernel.compare(SCOPE, wanted)):
            assert world.kernel.apply([op]).failed == ()
            assert any(isinstance(item, Route) for item in world.kernel.observe(SCOPE).values())
        reconcile(world, LINK6, route)
