"""One door to all who keep items: the kernel, and those who keep what the kernel cannot.

The userspace forwarder knows where packets go, and what an administrator's commands have made nobody else knows.  They
are observed, compared and put right together with the kernel's own objects, in one order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from typing import Protocol

from pyflannel.diff import Op
from pyflannel.linux.kernel import Kernel, Report
from pyflannel.state import Item, Key, Likeness, Scope, State


class Holder(Protocol):
    """Keeps all items of some kinds."""

    @property
    def kinds(self) -> frozenset[type[Item]]:
        """Those that nobody else keeps."""
        ...

    def observe(self, scope: Scope) -> Iterable[Item]:
        """All that is there inside ``scope``; ``KernelError`` if there is no telling."""
        ...

    def apply(self, ops: Sequence[Op]) -> Report:
        """As ``Kernel.apply`` promises; what takes time goes on behind it."""
        ...


class Joined:
    """A ``Kernel`` that hands each item to whoever keeps its kind."""

    def __init__(self, kernel: Kernel, holders: Collection[Holder]) -> None:
        """``kernel`` keeps what no one of ``holders`` does."""
        self._kernel, self._holders = kernel, tuple(holders)
        self._keepers: Mapping[type[Item], Holder] = {kind: each for each in holders for kind in each.kinds}

    def observe(self, scope: Scope) -> State:
        """As ``Kernel`` promises."""
        return State(chain(self._kernel.observe(scope).values(), self._held(scope)))

    def compare(self, scope: Scope, known: Mapping[Key, Item]) -> Likeness:
        """As ``Kernel`` promises."""
        likeness = self._kernel.compare(scope, known)
        return Likeness(chain(likeness.values(), self._held(scope)), known) if self._holders else likeness

    def apply(self, ops: Sequence[Op]) -> Report:
        """As ``Kernel`` promises."""
        reports = [
            (holder or self._kernel).apply(list(run))
            for holder, run in groupby(ops, key=lambda op: self._keepers.get(type(op.item)))
        ]
        return Report(
            done=tuple(op for report in reports for op in report.done),
            failed=tuple(pair for report in reports for pair in report.failed),
        )

    def _held(self, scope: Scope) -> Iterator[Item]:
        return chain.from_iterable(holder.observe(scope) for holder in self._holders)
