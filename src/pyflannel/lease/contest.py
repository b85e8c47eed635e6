"""Which leases count: a record may be unusable on its own, or claim what belongs to another.

Rules of this file
  1. Two leases conflict if their subnets overlap or they share a claim (such as a VTEP MAC).  Of two in conflict the
     older record counts: lower create revision first, then the smaller key.  Our own goes before everybody.
  2. So a lease counts if and only if it conflicts with no better-ranked lease that counts.  That depends on which
     records there are, never on the order in which they arrived: nothing flaps, and all hosts agree (except that each
     puts itself first).
  3. Our own subnet is taken even while the store has no record of it: a peer must not get in when our lease is lost.
  4. One put or remove costs about the same with ten leases as with ten thousand, as long as few of them conflict.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, TypeAlias, TypeVar

from pyflannel.lease.model import Attrs, Lease, Subnet
from pyflannel.lease.network import NetworkConfig
from pyflannel.lease.wire import subnet_name

K = TypeVar("K")
_BROADCAST: Final = IPv4Address("255.255.255.255")

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
    place: _Index | None = None
    """Among those that count, among those that wait, or nowhere yet."""

    def __lt__(self, other: _Entry) -> bool:
        """Whether this one is better-ranked.  Names are compared last, because making them is slow."""
        mine, theirs = (not self.own, self.lease.created), (not other.own, other.lease.created)
        return mine < theirs or (mine == theirs and subnet_name(self.lease.subnet) < subnet_name(other.lease.subnet))

    def move(self, place: _Index | None) -> None:
        """Leave the present place for another."""
        if self.place is not None:
            self.place.discard(self)
        if place is not None:
            place.add(self)
        self.place = place


class Contest:
    """The leases of a network, divided into those that count and those that wait for a better one to go."""

    def __init__(self, own: Subnet | None = None) -> None:
        """No lease yet; ``own`` is our subnet, which nobody else can have."""
        self._own = own
        self._entries: dict[Subnet, _Entry] = {}
        self._counting, self._waiting = _Index(), _Index()
        self._guard: _Entry | None = None
        if own is not None:
            self._guard = _Entry(Lease(own, Attrs(public_ip=None)), (), own=True)
            self._raise_guard(self._guard)

    def put(self, lease: Lease, claims: frozenset[Claim] = frozenset()) -> Outcome:
        """Take in a record, new or changed, and what it claims for itself alone."""
        # Not as a set: ten thousand of those take 2 MB more.
        entry = _Entry(lease, tuple(claims), own=lease.subnet == self._own)
        old = self._entries.get(lease.subnet)
        counted = old is not None and self._counts(old)
        freed = [] if old is None else self._withdraw(old)
        self._entries[lease.subnet] = entry
        promoted, demoted = self._settle([entry, *freed])
        if not self._counts(entry):
            entry.move(self._waiting)
            demoted.append(entry)
        elif counted and old is not None and old.lease == lease:
            promoted.remove(entry)
        return self._outcome(promoted, demoted)

    def remove(self, subnet: Subnet) -> Outcome:
        """Forget a record; those it kept out may count now.  Nothing happens if there is none."""
        old = self._entries.get(subnet)
        if old is None or old is self._guard:
            return Outcome()
        counted = self._counts(old)
        freed = self._withdraw(old)
        del self._entries[subnet]
        if old.own and self._guard is not None:
            self._raise_guard(self._guard)
        outcome = self._outcome(*self._settle(freed))
        return Outcome(outcome.won, (Loss(old.lease, ""), *outcome.lost)) if counted else outcome

    def winners(self) -> Iterator[Lease]:
        """The leases that count."""
        return (item.lease for item in self._entries.values() if self._counts(item) and item is not self._guard)

    def count(self) -> int:
        """How many leases count."""
        return self._counting.size - (self._guard is not None and self._counts(self._guard))

    def losses(self) -> Iterator[Loss]:
        """The leases that do not count, and why; takes no time when there are none."""
        return (Loss(item.lease, self._reason(item)) for item in self._waiting.entries())

    def _counts(self, entry: _Entry) -> bool:
        return entry.place is self._counting

    def _raise_guard(self, guard: _Entry) -> None:
        """Hold our own subnet while there is no record for it."""
        self._entries[guard.lease.subnet] = guard
        guard.move(self._counting)

    def _withdraw(self, entry: _Entry) -> list[_Entry]:
        """Take ``entry`` out; returns those it may have kept out."""
        freed = list(self._waiting.rivals(entry)) if self._counts(entry) else []
        entry.move(None)
        return freed

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
            rivals = self._counting.rivals(entry)
            if self._counts(entry) or any(rival < entry for rival in rivals):
                continue
            entry.move(self._counting)
            promoted.append(entry)
            for rival in rivals:
                rival.move(self._waiting)
                demoted.append(rival)
                # Those that conflict with the new winner too are out as before.
                for other in self._waiting.rivals(rival) - self._waiting.rivals(entry):
                    if rival < other:
                        heappush(doubtful, other)
        return promoted, demoted

    def _outcome(self, promoted: list[_Entry], demoted: list[_Entry]) -> Outcome:
        won = tuple(entry.lease for entry in promoted)
        return Outcome(won, tuple(Loss(entry.lease, self._reason(entry)) for entry in demoted))

    def _reason(self, entry: _Entry) -> str:
        winner = min(self._counting.rivals(entry))
        shared = sorted(f"{name} {value}" for name, value in {*entry.claims} & {*winner.claims})
        what = f"publishes {' and '.join(shared)}, as" if shared else "overlaps"
        whose = "which is ours" if winner.own else "which came first"
        return f"{what} {winner.lease.subnet}, {whose}"


class _Index:
    """Finds the entries that conflict with a given one."""

    def __init__(self) -> None:
        self.size = 0
        # By address family and prefix length, then by the leading bits of the address.
        self._blocks: dict[tuple[int, int], dict[int, tuple[_Entry, ...]]] = {}
        self._claims: dict[Claim, tuple[_Entry, ...]] = {}

    def add(self, entry: _Entry) -> None:
        self.size += 1
        for kind, block in _blocks(entry):
            table = self._blocks.setdefault(kind, {})
            table[block] = (*table.get(block, ()), entry)
        for claim in entry.claims:
            self._claims[claim] = (*self._claims.get(claim, ()), entry)

    def discard(self, entry: _Entry) -> None:
        self.size -= 1
        for kind, block in _blocks(entry):
            _strike(self._blocks[kind], block, entry)
            if not self._blocks[kind]:
                del self._blocks[kind]
        for claim in entry.claims:
            _strike(self._claims, claim, entry)

    def entries(self) -> set[_Entry]:
        """All of them; takes no time when there are none."""
        return {entry for table in self._blocks.values() for entries in table.values() for entry in entries}

    def rivals(self, entry: _Entry) -> set[_Entry]:
        """Every other entry that overlaps ``entry`` or shares a claim with it."""
        found: set[_Entry] = set()
        for (version, length), block in _blocks(entry):
            for (other_version, other_length), table in self._blocks.items():
                if other_version == version:
                    found.update(*_hits(table, block, other_length - length))
        for claim in entry.claims:
            found.update(self._claims.get(claim, ()))
        found.discard(entry)
        return found


def _blocks(entry: _Entry) -> Iterator[tuple[tuple[int, int], int]]:
    for net in (entry.lease.subnet.ipv4, entry.lease.subnet.ipv6):
        if net is not None:
            length = net.prefixlen
            yield (net.version, length), int(net.network_address) >> (net.max_prefixlen - length)


def _hits(table: dict[int, tuple[_Entry, ...]], block: int, longer: int) -> Iterator[tuple[_Entry, ...]]:
    """The entries of ``table`` whose blocks overlap ``block``, which is shorter by ``longer`` bits."""
    if longer <= 0:
        yield table.get(block >> -longer, ())
    elif 1 << longer < len(table):
        yield from (table.get(part, ()) for part in range(block << longer, (block + 1) << longer))
    else:
        yield from (entries for part, entries in table.items() if part >> longer == block)


def _strike(table: dict[K, tuple[_Entry, ...]], key: K, entry: _Entry) -> None:
    left = tuple(other for other in table[key] if other is not entry)
    if left:
        table[key] = left
    else:
        del table[key]


def refusal(lease: Lease, config: NetworkConfig) -> str | None:
    """Why a record can never count, whatever the others say; None if nothing is wrong with it on its own.

    Only the address families which both the record and the network have are looked at: while IPv6 is being added
    to a cluster, the leases of the hosts that do not have it yet are as good as ever.  A PublicIP inside the *network*
    is no fault, either: hosts in 10.0.0.0/16 may well share out the rest of 10.0.0.0/8.
    """
    subnet, attrs = lease.subnet, lease.attrs
    flaws: list[str | None] = []
    if config.ipv4 is not None and subnet.ipv4 is not None:
        flaws.append(_misplaced(subnet.ipv4, config.ipv4.network) or _unreachable(attrs.public_ip, subnet.ipv4))
    if config.ipv6 is not None and subnet.ipv6 is not None:
        flaws.append(_misplaced(subnet.ipv6, config.ipv6.network) or _unreachable(attrs.public_ipv6, subnet.ipv6))
    if not flaws:
        return "has no address family in common with the network"
    return next((flaw for flaw in flaws if flaw is not None), None)


def _misplaced(subnet: IPv4Network | IPv6Network, network: IPv4Network | IPv6Network) -> str | None:
    if network.network_address in subnet and subnet.prefixlen <= network.prefixlen:
        return f"covers the whole network {network}"
    return None if subnet.network_address in network else f"lies outside the network {network}"


def _unreachable(host: IPv4Address | IPv6Address | None, subnet: IPv4Network | IPv6Network) -> str | None:
    name = "PublicIP" if subnet.version == 4 else "PublicIPv6"
    if host is None:
        return f"publishes no {name}"
    if host in subnet:
        return f"publishes {name} {host}, which lies in its own subnet: the tunnel would lead into itself"
    for is_so, what in (
        (host.is_loopback, "a loopback address"),
        (host.is_multicast, "a multicast address"),
        (host == _BROADCAST, "the broadcast address"),
        # An IPv4 link-local address works where all hosts share a link; an IPv6 one needs to be told which link.
        (host.version == 6 and host.is_link_local, "a link-local address"),
    ):
        if is_so:
            return f"publishes {name} {host}, {what}: expected the address of a host"
    return None
