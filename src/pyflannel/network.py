"""One network at run time: from leases to the items the kernel should hold for it.

Rules of this file
  1. Nothing is global to the process: several networks are several of these values.
  2. What a network wants depends on the leases as they are now, never on the order in which they arrived.
  3. A record that is wrong costs its owner the connection, and nobody else anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pyflannel.backends.api import Backend, Refused, View
from pyflannel.lease.contest import Contest, Outcome, refusal
from pyflannel.lease.model import Changes, Lease, Snapshot, Subnet
from pyflannel.lease.table import LeaseTable
from pyflannel.state import Item


@dataclass(frozen=True, slots=True)
class Replan:
    """What a piece of news changes."""

    old: tuple[Item, ...] = ()
    """Items that were wanted for the leases concerned."""
    new: tuple[Item, ...] = ()
    """Items that are wanted for them now."""
    added: tuple[Lease, ...] = ()
    """Peers we now have items for, or have other items for than before."""
    removed: tuple[Lease, ...] = ()
    """Peers we no longer have items for."""


class Network:
    """Our view of a network, its backend, and every peer's lease."""

    def __init__(self, backend: Backend, view: View) -> None:
        """A network of which no peer is known yet."""
        self.backend, self.view = backend, view
        self.table = LeaseTable()
        self._contest = Contest(own=view.own)
        self._refused: dict[Subnet, str] = {}
        self._items: dict[Subnet, tuple[Item, ...]] = {}

    @property
    def ignored(self) -> dict[Subnet, str]:
        """Leases left out, and why: for people."""
        return self._refused | {loss.lease.subnet: loss.reason for loss in self._contest.losses()}

    def self_items(self) -> tuple[Item, ...]:
        """What the kernel should hold for ourselves."""
        return self.backend.self_items(self.view)

    def items(self) -> Iterator[Item]:
        """Everything the kernel should hold for this network."""
        yield from self.self_items()
        for items in self._items.values():
            yield from items

    def fold(self, news: Snapshot | Changes) -> Replan:
        """Take in what the store says, and answer what that changes."""
        delta = self.table.apply_snapshot(news) if isinstance(news, Snapshot) else self.table.apply(news)
        outcomes = [self._remove(lease) for lease in delta.gone] + [self._put(lease) for lease in delta.put]
        return self._replan(outcomes)

    def _put(self, lease: Lease) -> Outcome:
        self._refused.pop(lease.subnet, None)
        if (reason := refusal(lease, self.view.config)) is not None:
            self._refused[lease.subnet] = reason
            return self._contest.remove(lease.subnet)
        return self._contest.put(lease, self.backend.claims(lease))

    def _remove(self, lease: Lease) -> Outcome:
        self._refused.pop(lease.subnet, None)
        return self._contest.remove(lease.subnet)

    def _replan(self, outcomes: Iterable[Outcome]) -> Replan:
        """Fold many outcomes into one: only the last word on each subnet counts."""
        before: dict[Subnet, tuple[Item, ...]] = {}
        added: dict[Subnet, Lease] = {}
        removed: dict[Subnet, Lease] = {}
        for outcome in outcomes:
            for loss in outcome.lost:
                subnet = loss.lease.subnet
                held = self._items.pop(subnet, ())
                if before.setdefault(subnet, held):
                    removed[subnet] = loss.lease
                added.pop(subnet, None)
            for lease in outcome.won:
                subnet = lease.subnet
                if subnet == self.view.own:
                    # It takes part so that nobody else can have what is ours; we are no peer of ourselves.
                    continue
                before.setdefault(subnet, self._items.pop(subnet, ()))
                removed.pop(subnet, None)
                try:
                    self._items[subnet] = self.backend.peer_items(self.view, lease)
                    added[subnet] = lease
                except Refused as exc:
                    self._refused[subnet] = str(exc)
                    if before[subnet]:
                        removed[subnet] = lease
        return Replan(
            old=tuple(item for items in before.values() for item in items),
            new=tuple(item for subnet in before for item in self._items.get(subnet, ())),
            added=tuple(added.values()),
            removed=tuple(removed.values()),
        )
