"""Which leases count where several claim the same.  What is wrong with a record on its own: ``lease.refusal``.

Rules of this file
  1. Two leases conflict if their subnets overlap, if the host of one is in the subnet of the other (its packets would
     go into the tunnel that is to carry them), or if they share a claim (such as a VTEP MAC).  Of two in conflict the
     older record counts: lower create revision first, then the smaller key.  Our own goes before everybody.
  2. So a lease counts if and only if it conflicts with no better-ranked lease that counts.  That depends on which
     records there are, never on the order in which they arrived: nothing flaps, and all hosts agree (except that each
     puts itself first).  And whoever writes a record harms nobody whose record is older, whatever it says.
  3. Our own subnet is taken even while the store has no record of it: a peer must not get in when our lease is lost.
     Nothing else about ourselves is learned here: a record under our key may be anybody's, and must not turn our rank
     against a peer.
  4. One put or remove costs about the same with ten leases as with ten thousand, as long as few wait for the one that
     is put or removed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

from pyflannel.lease.model import Attrs, Lease, Subnet
from pyflannel.lease.wire import subnet_name

Claim: TypeAlias = tuple[str, Hashable]
"""What it is called, and its value: ``("VTEP MAC", mac)``."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A lease that does not count."""

    lease: Lease
    reason: str
    """For people: what it has in common with which winner.  Empty if the lease is simply gone."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one put or remove changed."""

    won: tuple[Lease, ...] = ()
    """Leases that count now and did not before, or count with another value."""
    lost: tuple[Loss, ...] = ()
    """Leases that counted and do not any more; and the lease just put, if it does not count."""


@dataclass(slots=True, eq=False)
class _Entry:
    lease: Lease
    claims: tuple[Claim, ...]
    own: bool
    counts: bool = False
    rival: _Entry | None = None
    """Of an entry that waits: a better-ranked one that counts.  It may count itself when that one is out."""
    waiting: dict[_Entry, None] | None = None
    """Of an entry that counts: those that wait for it to be out.  None while nobody does, as with nearly all."""

    def __lt__(self, other: _Entry) -> bool:
        """Whether this one is better-ranked.  Names are compared last, because making them is slow."""
        mine, theirs = (not self.own, self.lease.created), (not other.own, other.lease.created)
        return mine < theirs or (mine == theirs and subnet_name(self.lease.subnet) < subnet_name(other.lease.subnet))

    def wait_for(self, rival: _Entry | None) -> None:
        """Wait for ``rival`` to be out, and for nobody else any longer."""
        if self.rival is not None and self.rival.waiting is not None:
            self.rival.waiting.pop(self, None)
        self.rival = rival
        if rival is not None:
            rival.waiting = {} if rival.waiting is None else rival.waiting
            rival.waiting[self] = None

    def free(self) -> list[_Entry]:
        """Those that waited for this one, which wait for nobody now."""
        freed, self.waiting = list(self.waiting or ()), None
        for entry in freed:
            entry.rival = None
        return freed


class Contest:
    """The leases of a network, divided into those that count and those that wait for a better one to go."""

    def __init__(self, own: Subnet | None = None) -> None:
        """No lease yet; ``own`` is our subnet, which nobody else can have."""
        self._own = own
        self._entries: dict[Subnet, _Entry] = {}
        self._counting = _Winners()
        self._waiting: dict[_Entry, None] = {}
        self._guard: _Entry | None = None
        if own is not None:
            self._guard = _Entry(Lease(own, Attrs(public_ip=None)), (), own=True)
            self._raise_guard(self._guard)

    def put(self, lease: Lease, claims: frozenset[Claim] = frozenset()) -> Outcome:
        """Take in a record, new or changed, and what it claims for itself alone.

        Of a record of our own subnet nothing but the subnet is heeded (rule 3).
        """
        own = lease.subnet == self._own
        # Not as a set: ten thousand of those take 2 MB more.
        entry = _Entry(lease, () if own else tuple(sorted(claims, key=str)), own)
        old = self._entries.get(lease.subnet)
        counted = old is not None and old.counts
        freed = [] if old is None else self._withdraw(old)
        self._entries[lease.subnet] = entry
        promoted, demoted = self._settle([entry, *freed])
        if not entry.counts:
            demoted.append(entry)
        elif counted and old is not None and old.lease == lease:
            promoted.remove(entry)
        return self._outcome(promoted, demoted)

    def remove(self, subnet: Subnet) -> Outcome:
        """Forget a record; those it kept out may count now.  Nothing happens if there is none."""
        old = self._entries.get(subnet)
        if old is None or old is self._guard:
            return Outcome()
        counted = old.counts
        freed = self._withdraw(old)
        del self._entries[subnet]
        if old.own and self._guard is not None:
            self._raise_guard(self._guard)
        outcome = self._outcome(*self._settle(freed))
        return Outcome(outcome.won, (Loss(old.lease, ""), *outcome.lost)) if counted else outcome

    def winners(self) -> Iterator[Lease]:
        """The leases that count."""
        return (item.lease for item in self._entries.values() if item.counts and item is not self._guard)

    def count(self) -> int:
        """How many leases count."""
        return self._counting.size - (self._guard is not None and self._guard.counts)

    def losses(self) -> Iterator[Loss]:
        """The leases that do not count, and why; takes no time when there are none."""
        return (Loss(item.lease, self._reason(item)) for item in self._waiting)

    def _raise_guard(self, guard: _Entry) -> None:
        """Hold our own subnet while there is no record for it."""
        self._entries[guard.lease.subnet] = guard
        self._counting.add(guard)

    def _withdraw(self, entry: _Entry) -> list[_Entry]:
        """Take ``entry`` out; returns those that waited for that."""
        if entry.counts:
            self._counting.discard(entry)
        self._waiting.pop(entry, None)
        entry.wait_for(None)
        return entry.free()

    def _settle(self, doubtful: list[_Entry]) -> tuple[list[_Entry], list[_Entry]]:
        """Decide about entries that do not count, and all that follows; returns who counts now and who no more.

        Best rank first: when an entry is looked at, everything better-ranked is decided for good, so each entry
        changes sides at most once.
        """
        promoted: list[_Entry] = []
        demoted: list[_Entry] = []
        heapify(doubtful)
        while doubtful:
            entry = heappop(doubtful)
            better = self._better(entry)
            if better is not None:
                self._waiting[entry] = None
                entry.wait_for(better)
                continue
            for rival in dict.fromkeys(self._counting.rivals(entry)):
                for freed in self._withdraw(rival):
                    heappush(doubtful, freed)
                self._waiting[rival] = None
                rival.wait_for(entry)
                demoted.append(rival)
            self._waiting.pop(entry, None)
            self._counting.add(entry)
            promoted.append(entry)
        return promoted, demoted

    def _better(self, entry: _Entry) -> _Entry | None:
        """What keeps ``entry`` from counting; of several, the first in an order that history has no part in."""
        return next((rival for rival in self._counting.rivals(entry) if rival < entry), None)

    def _outcome(self, promoted: list[_Entry], demoted: list[_Entry]) -> Outcome:
        won = tuple(entry.lease for entry in promoted)
        return Outcome(won, tuple(Loss(entry.lease, self._reason(entry)) for entry in demoted))

    def _reason(self, entry: _Entry) -> str:
        winner = self._better(entry)
        assert winner is not None, "an entry that waits has somebody to wait for"
        return f"{_conflict(entry, winner)}, which {'is ours' if winner.own else 'came first'}"


class _Winners:
    """The entries that count, none of which is in conflict with another; finds those that a further one meets."""

    def __init__(self) -> None:
        self.size = 0
        self._subnets = {4: _Line(), 6: _Line()}
        self._hosts = {4: _Line(), 6: _Line()}
        self._claims: dict[Claim, _Entry] = {}

    def add(self, entry: _Entry) -> None:
        entry.counts = True
        self.size += 1
        for version, first, _ in _spans(entry):
            self._subnets[version].add(first, entry)
        for version, host in _hosts(entry):
            self._hosts[version].add(host, entry)
        for claim in entry.claims:
            self._claims[claim] = entry

    def discard(self, entry: _Entry) -> None:
        entry.counts = False
        self.size -= 1
        for version, first, _ in _spans(entry):
            self._subnets[version].discard(first, entry)
        for version, host in _hosts(entry):
            self._hosts[version].discard(host, entry)
        for claim in entry.claims:
            del self._claims[claim]

    def rivals(self, entry: _Entry) -> Iterator[_Entry]:
        """Every one that conflicts with ``entry``, some perhaps twice; claims first, then by address."""
        for claim in entry.claims:
            if claim in self._claims:
                yield self._claims[claim]
        for version, first, last in _spans(entry):
            yield from self._around(version, first)
            yield from self._subnets[version].between(first + 1, last)
            yield from self._hosts[version].between(first, last)
        for version, host in _hosts(entry):
            yield from self._around(version, host)

    def _around(self, version: int, address: int) -> Iterator[_Entry]:
        """The one whose subnet an address lies in."""
        before = self._subnets[version].up_to(address)
        if before is not None and any(family == version and address <= last for family, _, last in _spans(before)):
            yield before


class _Line:
    """Entries at points of a line; of several at one point the better-ranked comes first."""

    def __init__(self) -> None:
        self._points: list[int] = []
        self._entries: list[_Entry] = []

    def add(self, point: int, entry: _Entry) -> None:
        at = bisect_right(self._points, point)
        if at and self._points[at - 1] == point:
            at = bisect_left(self._entries, entry, bisect_left(self._points, point), at)
        self._points.insert(at, point)
        self._entries.insert(at, entry)

    def discard(self, point: int, entry: _Entry) -> None:
        at = self._entries.index(entry, bisect_left(self._points, point))
        del self._points[at], self._entries[at]

    def up_to(self, point: int) -> _Entry | None:
        """The last one that does not lie beyond ``point``."""
        at = bisect_right(self._points, point)
        return self._entries[at - 1] if at else None

    def between(self, first: int, last: int) -> Iterator[_Entry]:
        """Those from ``first`` to ``last``, both included."""
        at = bisect_left(self._points, first)
        while at < len(self._points) and self._points[at] <= last:
            yield self._entries[at]
            at += 1


def _spans(entry: _Entry) -> Iterator[tuple[int, int, int]]:
    """Address family, first and last address of each subnet."""
    for net in (entry.lease.subnet.ipv4, entry.lease.subnet.ipv6):
        if net is not None:
            first = int(net.network_address)
            yield net.version, first, first | ((1 << (net.max_prefixlen - net.prefixlen)) - 1)


def _hosts(entry: _Entry) -> Iterator[tuple[int, int]]:
    """Address family and address of the host, as far as the record has a subnet to be reached through it."""
    if not entry.own:
        subnet, attrs = entry.lease.subnet, entry.lease.attrs
        if subnet.ipv4 is not None and attrs.public_ip is not None:
            yield 4, int(attrs.public_ip)
        if subnet.ipv6 is not None and attrs.public_ipv6 is not None:
            yield 6, int(attrs.public_ipv6)


def _conflict(loser: _Entry, winner: _Entry) -> str:
    """What they have in common, with the winner named last."""
    shared = [f"{name} {value}" for name, value in loser.claims if (name, value) in winner.claims]
    whose = winner.lease.subnet
    if shared:
        return f"publishes {' and '.join(shared)}, as {whose}"
    if loser.lease.subnet.overlaps(whose):
        return f"overlaps {whose}"
    if (host := _host_in(loser, winner)) is not None:
        return f"publishes the address {host} of a host, but that lies in {whose}"
    return f"covers {_host_in(winner, loser)}, the address of the host of {whose}"


def _host_in(inner: _Entry, outer: _Entry) -> IPv4Address | IPv6Address | None:
    """The address by which one is reached, if it lies in the subnet of the other."""
    for version, host in _hosts(inner):
        if any(family == version and first <= host <= last for family, first, last in _spans(outer)):
            return IPv4Address(host) if version == 4 else IPv6Address(host)
    return None
