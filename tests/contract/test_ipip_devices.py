"""ipip devices, in the kernel in memory and in the one of this machine."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_interface, ip_network

import pytest

from pyflannel.diff import Put, diff
from pyflannel.linux.kernel import AlreadyThere
from pyflannel.linux.spelling import spell
from pyflannel.state import Address, Identity, Ipip, Link, Misfit, Route, Scope, State
from tests.support.kernel_worlds import World, each_kernel

DEV = "flannel.ipip"
SPEC = Ipip("", IPv4Address("192.0.2.1"))
LINK = Link(DEV, SPEC, 1480)
ADDRESS = Address(DEV, ip_interface("10.2.1.0/32"))
PEERS = tuple(
    Route(ip_network(f"10.2.{number}.0/24"), DEV, ip_address(f"192.0.2.{number}"), onlink=True) for number in (2, 3)
)
WANT = State((LINK, ADDRESS, *PEERS))
SCOPE = Scope(
    devices=frozenset((DEV,)),
    networks=(ip_network("10.2.0.0/16"),),
    identities=(Identity(DEV, SPEC, None, ip_interface("10.2.1.0/32")),),
)


world = each_kernel("ipip")


def reconcile(world: World, want: State) -> None:
    """Bring about ``want``, and see that it is so and stays so."""
    assert world.kernel.apply(diff(want, world.kernel.observe(SCOPE))).failed == ()
    assert world.kernel.observe(SCOPE) == want


def changed(link: Link) -> State:
    return State((link, ADDRESS, *PEERS))


def test_what_was_put_is_what_is_observed_and_nothing_foreign_is_touched(world: World) -> None:
    before = world.foreign()
    reconcile(world, WANT)
    assert world.foreign() == before
    reconcile(world, State())
    assert world.foreign() == before


@pytest.mark.parametrize(
    "new",
    [
        replace(LINK, mtu=1400),
        replace(LINK, spec=replace(SPEC, local=IPv4Address("192.0.2.77"))),
        replace(LINK, spec=replace(SPEC, underlay="eth1")),
        replace(LINK, spec=Ipip("eth1", IPv4Address("192.0.2.77")), mtu=1300),
    ],
    ids=lambda link: spell(Put(link)),
)
def test_a_device_changes_in_place_and_back_and_loses_nothing(world: World, new: Link) -> None:
    reconcile(world, WANT)
    for want in (changed(new), WANT):
        (op,) = diff(want, world.kernel.observe(SCOPE))
        assert world.kernel.apply([op]).failed == ()
        assert world.kernel.observe(SCOPE) == want


@pytest.mark.parametrize(
    "new",
    [
        replace(LINK, up=False),
        replace(LINK, mtu=1280),
        replace(LINK, spec=replace(SPEC, local=IPv4Address("192.0.2.77"))),
    ],
    ids=lambda link: spell(Put(link)),
)
def test_a_device_that_somebody_set_up_differently_comes_back(world: World, new: Link) -> None:
    reconcile(world, WANT)
    world.alter(new)
    assert world.kernel.observe(SCOPE)[LINK.key] == new
    reconcile(world, WANT)


def test_a_renamed_device_is_known_by_our_address_and_gets_its_name_back(world: World) -> None:
    reconcile(world, WANT)
    # Before Linux 6.2 only a device that is down can be renamed.
    world.take_down(DEV)
    world.rename_device(DEV, "foo")
    assert world.kernel.observe(SCOPE)[LINK.key] == replace(LINK, misnamed="foo", up=False)
    reconcile(world, WANT)
    assert not any("foo" in line for line in world.foreign())


def test_a_second_device_with_our_ends_is_refused(world: World) -> None:
    reconcile(world, WANT)
    ((_, error),) = world.kernel.apply([Put(replace(LINK, name="other"))]).failed
    assert isinstance(error, AlreadyThere)


def test_a_deleted_device_comes_back_with_all_that_was_on_it(world: World) -> None:
    reconcile(world, WANT)
    world.delete_device(DEV)
    assert world.kernel.observe(SCOPE) == State()
    reconcile(world, WANT)


def test_a_device_of_somebody_elses_stays_even_where_its_name_is_wanted(world: World) -> None:
    world.occupy(DEV)
    found = world.kernel.observe(SCOPE)[LINK.key]
    assert isinstance(found, Misfit)
    ((_, error),) = world.kernel.apply([Put(LINK, found)]).failed
    assert isinstance(error, AlreadyThere)
    assert world.kernel.observe(SCOPE)[LINK.key] == found
