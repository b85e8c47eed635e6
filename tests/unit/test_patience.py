"""What failed, and when it is tried again."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from pyflannel.diff import Cut, Op, Put
from pyflannel.linux.kernel import AlreadyThere, KernelError
from pyflannel.patience import BACKOFF, BRISK, SAID_AT_ONCE, Patience, makes_device
from pyflannel.state import FdbEntry, Item, Link, Neighbour, Route
from tests.support.builders import OTHER_MAC, backend, view, vxlan_lease

DEVICE = next(item for item in backend().self_items(view()) if isinstance(item, Link))
PEER = backend().peer_items(view(), vxlan_lease("10.2.41.0/24", "172.16.41.132", OTHER_MAC))
ROUTE = next(item for item in PEER if isinstance(item, Route))
NEIGHBOUR = next(item for item in PEER if isinstance(item, Neighbour))
FDB = next(item for item in PEER if isinstance(item, FdbEntry))


class Trial:
    """A patience, and the time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.patience = Patience(lambda: self.now)

    def fails(self, *items: Item, error: type[KernelError] = KernelError) -> None:
        self.patience.learn((), [(Put(item), error(f"put {item.key}", errno.EINVAL)) for item in items])

    def due(self, *items: Item) -> list[Item]:
        """Those of ``items`` that may be put now."""
        ops: list[Op] = [Put(item) for item in items]
        return [op.item for op in self.patience.leave_out(ops)]


@pytest.fixture
def trial() -> Trial:
    return Trial()


def test_what_never_failed_is_not_waited_for(trial: Trial) -> None:
    assert trial.due(*PEER) == list(PEER)
    assert trial.patience.ends() == float("inf")
    assert trial.patience.complaints() == {}


def test_what_failed_is_tried_again_ever_more_seldom_and_all_else_at_once(trial: Trial) -> None:
    trial.patience.longest = 1000.0
    for pause in (*BACKOFF, BACKOFF[-1]):
        trial.fails(ROUTE)
        assert trial.patience.ends() == pytest.approx(trial.now + pause)
        assert trial.due(ROUTE, NEIGHBOUR) == [NEIGHBOUR]
        trial.now += pause
        assert trial.due(ROUTE, NEIGHBOUR) == [ROUTE, NEIGHBOUR]


def test_nothing_waits_longer_than_an_audit_is_worth(trial: Trial) -> None:
    for _ in BACKOFF:
        trial.fails(ROUTE)
    assert trial.patience.ends() == trial.now + BRISK


def test_success_is_the_end_of_it(trial: Trial) -> None:
    trial.fails(ROUTE, error=AlreadyThere)
    assert trial.patience.has(ROUTE.key)
    assert list(trial.patience.taken) == [ROUTE.key]
    trial.patience.learn([Put(ROUTE)], ())
    assert not trial.patience.has(ROUTE.key)
    assert not trial.patience.taken
    trial.fails(ROUTE)
    assert trial.patience.ends() == pytest.approx(trial.now + BACKOFF[0])


def test_what_nobody_asks_for_any_more_is_forgotten(trial: Trial) -> None:
    trial.fails(ROUTE, NEIGHBOUR, error=AlreadyThere)
    trial.due(NEIGHBOUR)
    assert list(trial.patience.failing()) == [NEIGHBOUR.key]
    assert list(trial.patience.taken) == [NEIGHBOUR.key]


def test_what_is_on_a_device_waits_with_it_and_is_tried_as_soon_as_it_is_there(trial: Trial) -> None:
    trial.fails(DEVICE, FDB)
    assert trial.due(DEVICE, FDB) == []
    trial.now += BACKOFF[0]
    assert trial.due(DEVICE, FDB) == [DEVICE, FDB]
    assert not trial.patience.has(FDB.key)


def test_only_a_slot_that_somebody_else_fills_is_called_taken(trial: Trial) -> None:
    trial.fails(NEIGHBOUR)
    error = AlreadyThere("cut", errno.EEXIST)
    trial.patience.learn((), [(Cut(FDB), error)])
    assert not trial.patience.taken


def test_the_slot_that_was_tried_longest_ago_comes_first(trial: Trial) -> None:
    trial.fails(ROUTE, NEIGHBOUR, error=AlreadyThere)
    trial.fails(ROUTE, error=AlreadyThere)
    assert list(trial.patience.taken) == [NEIGHBOUR.key, ROUTE.key]


def test_of_very_many_failures_a_few_are_named_and_all_are_counted(trial: Trial) -> None:
    routes = [replace(ROUTE, metric=number) for number in range(300)]
    trial.fails(*routes)
    complaints = trial.patience.complaints()
    assert len(complaints) == SAID_AT_ONCE + 1
    assert complaints["more"] == f"The kernel refused {300 - SAID_AT_ONCE} more operations"
    assert len(trial.patience.failing()) == 300


def test_a_device_is_made_where_there_is_none_and_not_where_one_is_merely_changed() -> None:
    assert makes_device(Put(DEVICE))
    assert not makes_device(Put(replace(DEVICE, mtu=1400), DEVICE))
    assert not makes_device(Cut(DEVICE))
    assert not makes_device(Put(ROUTE))
