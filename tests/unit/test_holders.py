from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence

from pyflannel.diff import Cut, Op, Put, diff
from pyflannel.holders import Joined
from pyflannel.linux.kernel import KernelError, Report
from pyflannel.state import FdbEntry, Item, Key, Route, Scope, State
from tests.support.fake_kernel import FakeKernel, Hardware, holding
from tests.support.kernel_items import LINK, SCOPE, WANT, peer

NEIGHBOUR, FDB, ROUTE = peer(2)


class Shelf:
    """Keeps FDB entries, and remembers when it was asked to."""

    kinds: frozenset[type[Item]] = frozenset((FdbEntry,))

    def __init__(self, log: list[Op], *, refuses: bool = False) -> None:
        self.items: dict[Key, Item] = {}
        self._log, self._refuses = log, refuses

    def observe(self, scope: Scope) -> Iterable[Item]:
        return [item for item in self.items.values() if isinstance(item, FdbEntry) and item.dev in scope.devices]

    def apply(self, ops: Sequence[Op]) -> Report:
        self._log += ops
        if self._refuses:
            return Report(failed=tuple((op, KernelError("shelving", errno.ENOSPC)) for op in ops))
        for op in ops:
            if isinstance(op, Put):
                self.items[op.item.key] = op.item
            else:
                self.items.pop(op.item.key, None)
        return Report(tuple(ops))


class Logging(FakeKernel):
    """Writes down in one list what it is asked to do."""

    def __init__(self, log: list[Op], *hardware: Hardware) -> None:
        super().__init__(*hardware)
        self._all = log

    def apply(self, ops: Sequence[Op]) -> Report:
        self._all += ops
        return super().apply(ops)


def test_each_item_goes_to_its_keeper_and_everything_is_seen_together() -> None:
    kernel, shelf = FakeKernel(Hardware("eth0")), Shelf([])
    joined = Joined(kernel, [shelf])
    report = joined.apply(diff(WANT, State()))
    assert (len(report.done), report.failed) == (len(WANT), ())
    assert joined.observe(SCOPE) == WANT
    assert not any(isinstance(item, FdbEntry) for item in kernel.items)
    assert {type(item) for item in shelf.items.values()} == {FdbEntry}


def test_the_order_is_kept_across_keepers() -> None:
    log: list[Op] = []
    joined = Joined(Logging(log, Hardware("eth0")), [Shelf(log)])
    ops = diff(WANT, State())
    joined.apply(ops)
    assert log == list(ops)


def test_what_a_keeper_lost_is_a_difference_and_nothing_else_is() -> None:
    shelf = Shelf([])
    joined = Joined(FakeKernel(Hardware("eth0")), [shelf])
    joined.apply(diff(WANT, State()))
    assert diff(WANT, joined.compare(SCOPE, WANT)) == ()
    del shelf.items[FDB.key]
    assert diff(WANT, joined.compare(SCOPE, WANT)) == (Put(FDB),)


def test_what_a_keeper_has_too_much_goes() -> None:
    shelf = Shelf([])
    joined = Joined(FakeKernel(Hardware("eth0")), [shelf])
    joined.apply(diff(WANT, State()))
    stale = peer(77)[1]
    shelf.items[stale.key] = stale
    assert diff(WANT, joined.compare(SCOPE, WANT)) == (Cut(stale),)


def test_a_refusal_stops_nobody_else() -> None:
    joined = Joined(FakeKernel(Hardware("eth0")), [Shelf([], refuses=True)])
    report = joined.apply([Put(LINK), Put(NEIGHBOUR), Put(FDB), Put(ROUTE)])
    assert [op.item for op in report.done] == [LINK, NEIGHBOUR, ROUTE]
    assert [(op.item, error.code) for op, error in report.failed] == [(FDB, errno.ENOSPC)]


def test_without_others_the_kernels_own_answer_counts() -> None:
    joined = Joined(holding(WANT.values(), Hardware("eth0")), [])
    assert joined.observe(SCOPE) == WANT
    assert diff(WANT, joined.compare(SCOPE, WANT)) == ()
    assert any(isinstance(item, Route) for item in joined.observe(SCOPE).values())
