"""How devices of ours make checksums, in the kernel in memory and in the one of this machine."""

from __future__ import annotations

from dataclasses import replace

from pyflannel.diff import Cut, Put, diff
from pyflannel.linux.kernel import LinkGone
from pyflannel.state import ChecksumOffload, Scope, State
from tests.support.kernel_items import DEV, LINK
from tests.support.kernel_items import SCOPE as DEVICES
from tests.support.kernel_worlds import World

SCOPE = replace(DEVICES, sysctls=frozenset(), offloads=frozenset((DEV,)))
OFF, ON = ChecksumOffload(DEV, False), ChecksumOffload(DEV, True)


def reconcile(world: World, want: State) -> None:
    assert world.kernel.apply(diff(want, world.kernel.observe(SCOPE))).failed == ()
    assert diff(want, world.kernel.observe(SCOPE)) == ()


def test_it_is_as_it_is_put_and_observed_only_where_it_is_ours_to_say(world: World) -> None:
    reconcile(world, State((LINK,)))
    assert world.kernel.observe(SCOPE)[ON.key] == ON
    for item in (OFF, ON, OFF):
        reconcile(world, State((LINK, item)))
        assert world.kernel.observe(SCOPE)[ON.key] == item
    assert ON.key not in world.kernel.observe(replace(SCOPE, offloads=frozenset()))


def test_a_device_made_anew_is_told_again(world: World) -> None:
    want = State((LINK, OFF))
    reconcile(world, want)
    world.delete_device(DEV)
    assert ON.key not in world.kernel.observe(SCOPE)
    reconcile(world, want)


def test_it_stays_as_it_is_when_nobody_wants_it_any_more(world: World) -> None:
    reconcile(world, State((LINK, OFF)))
    reconcile(world, State((LINK,)))
    assert world.kernel.apply([Cut(OFF)]).failed == ()
    assert world.kernel.observe(Scope(offloads=SCOPE.offloads))[ON.key] == OFF


def test_a_device_that_is_not_there_cannot_be_told(world: World) -> None:
    ((_, error),) = world.kernel.apply([Put(OFF)]).failed
    assert isinstance(error, LinkGone)
