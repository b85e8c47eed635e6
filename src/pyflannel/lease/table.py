"""All leases of a network as of one revision, kept up to date by what a store reports; and when to renew our own.

Rules of this file
  1. A ``Snapshot`` replaces everything, whatever its revision: a store restored from a backup goes back in time.
     ``Changes`` up to a revision we have seen already say nothing new.
  2. Leases are compared by what they say, never by subnet alone: a peer that changed its address while we were
     disconnected must be noticed.  Our own lease is a lease like any other (compat §3.6 lists what goes wrong else).
  3. A record that cannot be read removes nothing.  If it could be read before, its last good value stays in force:
     the host behind it is most likely still there, and cutting it off would turn somebody's typing error into an
     outage.  The record is listed as unreadable until it is written anew, or is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from pyflannel.lease.model import Changes, Lease, Removed, Snapshot, Subnet, Unreadable
from pyflannel.lease.wire import BadRecord, parse_subnet_name


@dataclass(frozen=True, slots=True)
class Delta:
    """What a piece of news changed, all in all: a lease that came and went within it is not mentioned."""

    put: tuple[Lease, ...] = ()
    """Leases that are new, say something else, or were created anew (which makes them younger in a contest)."""
    gone: tuple[Lease, ...] = ()
    """Leases the store no longer has, as they last were."""
    was: Mapping[Subnet, Lease] = field(default_factory=dict)
    """Of those put, what they said before, if they were there."""


class LeaseTable:
    """The leases we know of."""

    def __init__(self) -> None:
        """A table that has seen nothing yet: revision 0."""
        self.revision = 0
        """The store's revision which the table reflects; watch from here."""
        self._leases: dict[Subnet, Lease] = {}
        self._unreadable: dict[str, str] = {}
        self._keys: dict[Subnet, str] = {}

    @property
    def leases(self) -> Mapping[Subnet, Lease]:
        """The records that can be read, or could when last they were; nobody's is left out."""
        return MappingProxyType(self._leases)

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Key and reason of each record that cannot be read.

        A key that names no subnet stays listed until the next snapshot: no event could tell that it is gone.
        """
        return MappingProxyType(self._unreadable)

    def apply_snapshot(self, snapshot: Snapshot) -> Delta:
        """Know what ``snapshot`` says and nothing else, apart from last good values."""
        known = self._leases
        self.revision = snapshot.revision
        self._unreadable, self._keys = {}, {}
        self._leases = {lease.subnet: _kept(known.get(lease.subnet), lease) for lease in snapshot.leases}
        for record in snapshot.unreadable:
            subnet = self._mark(record)
            if subnet is not None and subnet in known:
                self._leases.setdefault(subnet, known[subnet])
        return self._delta({subnet: known.get(subnet) for subnet in (*known, *self._leases)})

    def apply(self, changes: Changes) -> Delta:
        """Follow ``changes``, unless they are old."""
        if changes.revision <= self.revision:
            return Delta()
        self.revision = changes.revision
        before: dict[Subnet, Lease | None] = {}
        for event in changes.events:
            if isinstance(event, Unreadable):
                self._mark(event)
                continue
            subnet = event.subnet
            before.setdefault(subnet, self._leases.get(subnet))
            self._unreadable.pop(self._keys.pop(subnet, ""), None)
            if isinstance(event, Removed):
                self._leases.pop(subnet, None)
            else:
                self._leases[subnet] = event
        return self._delta(before)

    def _mark(self, record: Unreadable) -> Subnet | None:
        """List ``record`` as unreadable; returns the subnet its key names, if it names one."""
        self._unreadable[record.key] = record.reason
        try:
            subnet = parse_subnet_name(record.key)
        except BadRecord:
            return None
        self._keys[subnet] = record.key
        return subnet

    def _delta(self, before: Mapping[Subnet, Lease | None]) -> Delta:
        """What changed for those subnets."""
        put: list[Lease] = []
        gone: list[Lease] = []
        was: dict[Subnet, Lease] = {}
        for subnet, old in before.items():
            new = self._leases.get(subnet)
            if new is None:
                gone += [] if old is None else [old]
            elif old is None or new != old or new.created != old.created:
                put.append(new)
                if old is not None:
                    was[subnet] = old
        return Delta(tuple(put), tuple(gone), was)


def _kept(old: Lease | None, new: Lease) -> Lease:
    """The object we had if it is as good as the new one: others hold it as well, and would hold it besides."""
    return old if old == new and old.created == new.created and old.modified == new.modified else new


def renew_in(ttl: float, margin: float, jitter: float) -> float:
    """Seconds to wait before renewing a lease that has ``ttl`` seconds left.

    At the latest after a third of that time, so that two more attempts fit in, and no later than ``margin`` seconds
    before the end; a margin that leaves no time at all counts as nine tenths of ``ttl``, since renewing without pause
    would help nobody.  ``jitter``, from 0 up to 1, shortens the wait by up to a tenth: hosts that started together
    do not renew together for ever.
    """
    latest = min(ttl - margin if margin < ttl else ttl / 10, ttl / 3)
    return max(0.0, latest) * (1 - jitter / 10)
