"""One network at run time: from leases to the items the kernel should hold for it.

Rules of this file
  1. Nothing is global to the process: several networks are several of these values.
  2. What a network wants depends on the leases as they are now, never on the order in which they arrived.  One bit of
     history is allowed: between ``SPREAD_BELOW`` and ``SPREAD_ABOVE`` peers ``View.spread`` stays what it was, so that
     a cluster that hovers about a bound does not have all its routes rewritten again and again.  It decides how routes
     are filed and nothing else: the peers, and where their packets go, are the same.
     And a lease that vanished counts for ``LINGER`` seconds more, behind everybody else: most often its owner is well,
     the record was deleted by mistake or with all data of the store, and is written again before that time is over.
     And while a cluster goes over from one backend to another, host by host, those that have and those that have not
     go on reaching each other where they can: a host that has keeps its former way to those that have not, and those
     keep what they had for it, as Go flannel does, which heeds no record of another type.
  3. A record that is wrong costs its owner the connection, and nobody else anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Final

from pyflannel.backends.api import AnotherWay, Backend, Refused, View
from pyflannel.host import Underlay
from pyflannel.lease.contest import Claim, Contest, Outcome
from pyflannel.lease.model import Changes, Lease, Snapshot, Subnet
from pyflannel.lease.refusal import refusal
from pyflannel.lease.table import LeaseTable
from pyflannel.state import IPAddress, Item, Mac, Route, Scope

SPREAD_ABOVE: Final = 2000
"""From more leases on than this, metrics are spread: so many routes of one metric take 0.14 s to write, twice as many
0.5 s.  Smaller networks read in ``ip route`` as flannel's always did."""
SPREAD_BELOW: Final = 1000
"""With fewer leases than this they are spread no longer."""
LINGER: Final = 2.0
"""Seconds.  All hosts have listed a store that came back by then (``feed.LAST_DELAY_S``), and written what it lacks."""
_LAST_OF_ALL: Final = 2**63
"""Younger than any record."""


@dataclass(frozen=True, slots=True)
class Replan:
    """What a piece of news changes."""

    old: tuple[Item, ...] = ()
    """Items that were wanted for the leases concerned."""
    new: tuple[Item, ...] = ()
    """Items that are wanted for them now."""
    added: tuple[Lease, ...] = ()
    """Peers we now have items for, or that say something else than before."""
    removed: tuple[Lease, ...] = ()
    """Peers we no longer have items for."""


@dataclass(frozen=True, slots=True)
class Way:
    """A backend, and how it sees the network."""

    backend: Backend
    view: View
    leases: Mapping[Subnet, Lease] = field(default_factory=dict, compare=False)
    """What each peer last said that is of use for it."""


class Network:
    """Our view of a network, its backend, and every peer's lease."""

    def __init__(
        self,
        backend: Backend,
        view: View,
        former: Way | None = None,
        spread_above: int = SPREAD_ABOVE,
        spread_below: int = SPREAD_BELOW,
    ) -> None:
        """A network of which no peer is known yet.

        ``former`` is the way its hosts took until now; of no use if it has devices in common with ``backend``.
        """
        self.backend, self.view = backend, view
        usable = (
            former is not None and former.view.own == view.own and not {*former.backend.devices} & {*backend.devices}
        )
        self.former = former if usable else None
        """Stays for as long as there is a peer that takes it; see ``forget_former``."""
        self._turned = self.former is None
        self._carriers: set[str] = set()
        """External interfaces of former times, on which there may be routes of ours."""
        self._behind: set[Subnet] = set()
        """Peers that are reached the former way."""
        self._as_before: dict[Subnet, Lease] = {}
        """Of peers that have gone over to another backend before us: what they said before."""
        self._spread_above, self._spread_below = spread_above, spread_below
        self.table = LeaseTable()
        self._contest = Contest(own=view.own)
        self._refused: dict[Subnet, str] = {}
        self._useless: dict[Subnet, str] = {}
        self._items: dict[Subnet, tuple[Item, ...]] = {}
        self._lingering: dict[Subnet, float] = {}
        """Until when each lease counts that is gone from the store, in the order of time."""

    @property
    def ignored(self) -> dict[Subnet, str]:
        """Leases left out, and why: for people."""
        return self._refused | self._useless | {loss.lease.subnet: loss.reason for loss in self._contest.losses()}

    def self_items(self) -> tuple[Item, ...]:
        """What the kernel should hold for ourselves."""
        return tuple(item for way in self.ways() for item in way.backend.self_items(way.view))

    def scope(self) -> Scope:
        """Which objects of the kernel are this network's."""
        left = Scope(borrowed=frozenset(self._carriers))
        return reduce(Scope.union, (way.backend.scope(way.view) for way in self.ways()), left)

    def macs(self) -> dict[str, Mac]:
        """By which address peers know each of our devices."""
        return {dev: mac for way in self.ways() for dev, mac in way.view.macs.items()}

    @property
    def devices(self) -> frozenset[str]:
        """Names of all that are ours entirely."""
        return frozenset(dev for way in self.ways() for dev in way.backend.devices)

    @property
    def outgrown(self) -> bool:
        """Whether there is a former way that no peer takes any more."""
        return self.former is not None and self._turned and not self._behind

    def turn(self) -> Replan:
        """From now on send the present way to peers that have taken it up.

        Before, all are sent to the former way, though we take packets either way.  Some hosts (of udp, of wireguard)
        take none from a peer before they have heard of it: whoever has gone over has to give them time for that.
        """
        self._turned = True
        return self._replan((), self._contest.winners())

    def forget_former(self) -> Replan:
        """From now on there is one way only."""
        self.former, self._turned = None, True
        return self._replan((), self._contest.winners())

    def items(self) -> Iterator[Item]:
        """Everything the kernel should hold for this network."""
        yield from self.self_items()
        for items in self._items.values():
            yield from items

    def items_of(self, subnet: Subnet) -> tuple[Item, ...]:
        """What the kernel should hold for one peer; nothing for whoever is none."""
        return self._items.get(subnet, ())

    @property
    def lingers_until(self) -> float | None:
        """When ``see_off`` has something to do; None while the store has all that counts."""
        return next(iter(self._lingering.values()), None)

    def fold(self, news: Snapshot | Changes, now: float | None = None) -> Replan:
        """Take in what the store says, and answer what that changes.

        Leases that are gone linger from ``now`` on, in seconds of any clock that never steps; None: they go at once.
        That may be every peer's route, the moment their number asks for metrics to be spread, or no longer.
        """
        delta = self.table.apply_snapshot(news) if isinstance(news, Snapshot) else self.table.apply(news)
        for lease in delta.put:
            self._note_before(lease, delta.was.get(lease.subnet))
        # Best rank last to go and first to come, so that each is decided about once: of a thousand records with one
        # MAC that go all at once, each would else be let in for a moment.
        outcomes = [self._linger(lease, now) for lease in sorted(delta.gone, key=_age, reverse=True)]
        outcomes += [self._put(lease) for lease in sorted(delta.put, key=_age)]
        if self._lingering:
            beaten = [subnet for outcome in outcomes for subnet in self._beaten(outcome)]
            outcomes += [self._remove(subnet) for subnet in beaten]
        return self._respread(outcomes)

    def see_off(self, now: float) -> Replan:
        """Forget the leases that have lingered long enough."""
        over = [subnet for subnet, until in self._lingering.items() if until <= now]
        return self._respread([self._remove(subnet) for subnet in over])

    def _respread(self, outcomes: Iterable[Outcome]) -> Replan:
        count = self._contest.count()
        spread = count >= self._spread_below if self.view.spread else count > self._spread_above
        if spread == self.view.spread:
            return self._replan(outcomes)
        self._look(self.view.underlay, spread)
        return self._replan(outcomes, self._contest.winners())

    def move(self, underlay: Underlay) -> Replan:
        """Go on over another interface or address.  Records are judged by it: none may speak of our own address."""
        self._look(underlay, self.view.spread)
        return self._replan((), self._contest.winners())

    def _look(self, underlay: Underlay, spread: bool) -> None:
        if underlay.name != self.view.underlay.name:
            self._carriers.add(self.view.underlay.name)
        self.view = replace(self.view, underlay=underlay, spread=spread)
        if self.former is not None:
            seen = replace(self.former.view, underlay=underlay, spread=spread)
            self.former = replace(self.former, view=seen)

    def way(self) -> Way:
        """The present one, with all that whoever takes another one after us needs to know."""
        said = {subnet: self._as_before.get(subnet, lease) for subnet, lease in self.table.leases.items()}
        reached = self._items.keys() - self._behind
        return Way(self.backend, self.view, {subnet: said[subnet] for subnet in said.keys() & reached})

    def ways(self) -> tuple[Way, ...]:
        """All that peers are reached by, ours first."""
        present = Way(self.backend, self.view)
        return (present,) if self.former is None else (present, self.former)

    def _note_before(self, lease: Lease, was: Lease | None) -> None:
        """Remember what the same host said before it took up a way that is not ours."""
        before = self._as_before.pop(lease.subnet, was)
        if (
            before is None
            or before.attrs.backend_type != self.backend.type
            or lease.attrs.backend_type == self.backend.type
        ):
            return
        if _host(before) == _host(lease):
            self._as_before[lease.subnet] = before

    def _claims(self, lease: Lease) -> frozenset[Claim]:
        formerly, before = self._formerly(lease), self._as_before.get(lease.subnet)
        if formerly is lease and before is None and self.former is None:
            return self.backend.claims(lease)
        said = [lease] + [each for each in (formerly, before) if each is not lease and each is not None]
        return frozenset(claim for way in self.ways() for each in said for claim in way.backend.claims(each))

    def _put(self, lease: Lease) -> Outcome:
        self._refused.pop(lease.subnet, None)
        self._lingering.pop(lease.subnet, None)
        if (reason := refusal(lease, self.view.config)) is not None:
            self._refused[lease.subnet] = reason
            return self._contest.remove(lease.subnet)
        return self._contest.put(lease, self._claims(lease))

    def _linger(self, lease: Lease, now: float | None) -> Outcome:
        """Let a lease that is gone count for a while, if it does."""
        if now is None or lease.subnet not in self._items:
            return self._remove(lease.subnet)
        self._lingering[lease.subnet] = now + LINGER
        return self._contest.put(replace(lease, created=_LAST_OF_ALL), self._claims(lease))

    def _beaten(self, outcome: Outcome) -> list[Subnet]:
        """Those that linger and count no longer."""
        return [loss.lease.subnet for loss in outcome.lost if loss.lease.subnet in self._lingering]

    def _remove(self, subnet: Subnet) -> Outcome:
        self._refused.pop(subnet, None)
        self._lingering.pop(subnet, None)
        self._as_before.pop(subnet, None)
        return self._contest.remove(subnet)

    def _replan(self, outcomes: Iterable[Outcome], refiled: Iterable[Lease] = ()) -> Replan:
        """Fold many outcomes into one: only the last word on each subnet counts.

        ``refiled`` are leases that want other items because our view has changed, though they say what they said.
        """
        before: dict[Subnet, tuple[Item, ...]] = {}
        added: dict[Subnet, Lease] = {}
        removed: dict[Subnet, Lease] = {}
        for outcome in outcomes:
            for loss in outcome.lost:
                subnet = loss.lease.subnet
                self._useless.pop(subnet, None)
                held = self._items.pop(subnet, ())
                self._behind.discard(subnet)
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
                if self._plan(lease):
                    added[subnet] = lease
                elif before[subnet]:
                    removed[subnet] = lease
        for lease in refiled:
            subnet = lease.subnet
            if subnet in before or subnet == self.view.own:
                continue
            before[subnet] = self._items.pop(subnet, ())
            usable = self._plan(lease)
            if usable != bool(before[subnet]):
                (added if usable else removed)[subnet] = lease
        return Replan(
            old=tuple(item for items in before.values() for item in items),
            new=tuple(item for subnet in before for item in self._items.get(subnet, ())),
            added=tuple(added.values()),
            removed=tuple(removed.values()),
        )

    def _plan(self, lease: Lease) -> bool:
        """Note what the kernel should hold for a peer that counts; False if the backend can make nothing of it."""
        subnet, reason = lease.subnet, ""
        self._useless.pop(subnet, None)
        self._behind.discard(subnet)
        ours = theirs = None
        try:
            ours = self.backend.peer_items(self.view, lease)
        except AnotherWay as exc:
            reason = str(exc)
        except Refused as exc:
            self._useless[subnet] = str(exc)
            return False
        with suppress(Refused):
            if self.former is not None:
                theirs = self.former.backend.peer_items(self.former.view, self._formerly(lease))
            elif ours is None and subnet in self._as_before:
                theirs = self.backend.peer_items(self.view, self._as_before[subnet])
        if reason:
            self._useless[subnet] = reason if theirs is None else f"{reason}; it is reached as before"
            if self.former is not None and theirs is not None:
                self._behind.add(subnet)
        found = [items for items in ((ours, theirs) if self._turned else (theirs, ours)) if items is not None]
        if not found:
            return False
        taken, *others = found
        self._items[subnet] = (*taken, *(item for other in others for item in other if not isinstance(item, Route)))
        return True

    def _formerly(self, lease: Lease) -> Lease:
        """What the same host said when it took the former way, if it did."""
        was = None if self.former is None else self.former.leases.get(lease.subnet)
        return was if was is not None and _host(was) == _host(lease) else lease


def _host(lease: Lease) -> tuple[IPAddress | None, IPAddress | None]:
    return lease.attrs.public_ip, lease.attrs.public_ipv6


def _age(lease: Lease) -> int:
    return lease.created
