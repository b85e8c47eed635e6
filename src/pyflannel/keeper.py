"""Keeping our lease, and giving it back.

Rules of this file
  1. Every write compares: we never overwrite a record that changed since we read it (compat §11.4).
  2. A store that does not answer is waited for, however long; only another owner of our subnet is final.
  3. A record of our subnet is ours if it bears our address, or says a thing that we wrote.  Any other is another
     host's, and is left as it is.
  4. When a lease is due is reckoned on a clock that goes on while the machine sleeps.  Timers do not, so the clock is
     looked at every ``CLOCK_EVERY`` seconds: that is how late a renewal may be after waking up.
  5. Nothing is tried without a pause twice, whatever the store or another host does to our record.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from itertools import chain, repeat
from typing import Final

from pyflannel.conditions import LEASE_CONFLICT, LEASE_MISSING, LEASE_NOT_RENEWED, LEASE_UNREADABLE
from pyflannel.health import Health
from pyflannel.lease.alloc import bears_our_address, rival
from pyflannel.lease.model import LEASE_TTL, Attrs, Lease, Snapshot, Subnet
from pyflannel.lease.table import LeaseTable, renew_in
from pyflannel.lease.wire import subnet_name
from pyflannel.linux.clock import boottime
from pyflannel.store.api import Conflict, Store, Unavailable
from pyflannel.tenancy import PAUSES, Tenant, address_of, release_surplus

log = logging.getLogger(__name__)

CLOCK_EVERY: Final = 20.0
"""Seconds between looks at the clock, at most."""
ATTEMPTS: Final = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds before the store is asked again when it did not do the 1st, 2nd, … time; the last one from then on."""
LOOK_EVERY: Final = 30.0
"""Seconds between looks at a record that we cannot put right for the time being."""
CONFLICT_PAUSES: Final = (10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Seconds before our record is written again when it was altered a 2nd, 3rd, … time; the last one from then on."""
PEACE: Final = 1800.0
"""Seconds for which our record must stand as we wrote it for a conflict to be over."""
RELEASE_S: Final = 3.0
"""How long the end of the agent may be held up by giving the lease back."""

_MAC: Final = re.compile(r'"VtepMAC"\s*:\s*"([0-9A-Fa-f:.-]{1,23})"', re.IGNORECASE)


class LeaseLost(Exception):
    """Our subnet belongs to another host now.

    Whoever acquires again gets another subnet, unless that host has gone by then.
    """

    def __init__(self, subnet: Subnet, winner: Lease) -> None:
        """We held ``subnet``; now there is ``winner``, whose subnet is the same or overlaps it."""
        self.subnet, self.winner = subnet, winner
        verb = "now belongs" if winner.subnet == subnet else f"overlaps {winner.subnet}, which belongs"
        super().__init__(
            f"our subnet {subnet} {verb} to {address_of(winner.attrs)}: this host needs another one, and Docker must "
            "then be restarted to use it; should one of the two hosts be a copy of the other, remove the subnet.env "
            "and the state directory that were copied"
        )


class Keeper:
    """Renews one lease, and re-creates it should it vanish."""

    def __init__(
        self,
        store: Store,
        tenant: Tenant,
        lease: Lease,
        rng: random.Random,
        clock: Callable[[], float] = boottime,
    ) -> None:
        """Keep ``lease``, which was just written; ``clock`` counts seconds, also while the machine sleeps."""
        self.lease = lease
        """As we last wrote or read it.  May be kept for ``Tenant.written`` of the next run."""
        self.health = Health()
        """Where troubles are told."""
        self._fights = False
        """Another host publishes our address in our lease, over and over."""
        self._store, self._tenant, self._rng, self._clock = store, tenant, rng, clock
        self._doubt = asyncio.Event()
        self._free = asyncio.Event()
        """``_not_before`` is earlier than it was."""
        self._spoilt = False
        """Our record cannot be read."""
        self._vanished = False
        """Our record is not there."""
        self._said: deque[Attrs] = deque([lease.attrs], maxlen=16)
        if tenant.written is not None:
            self._said.appendleft(tenant.written.attrs)
        self._failures = 0
        self._not_before = clock()
        self._restored, self._restored_at = 0, 0.0
        self._began = self._due = 0.0
        self._written(lease, clock())

    @property
    def age(self) -> float:
        """Seconds since we wrote our record, or found it as it should be."""
        return self._clock() - self._began

    @property
    def left(self) -> float | None:
        """Seconds for which our record lives at least; None for a reservation, which has no end."""
        if self.lease.reservation:
            return None
        return (LEASE_TTL if self.lease.ttl is None else self.lease.ttl) - self.age

    def publish(self, attrs: Attrs) -> None:
        """Say ``attrs`` in our lease from now on; the subnet stays."""
        if attrs != self._tenant.attrs:
            self._tenant = replace(self._tenant, attrs=attrs)
            self.look_again()

    def look_again(self) -> None:
        """The store said something about our own record: see whether it is still ours."""
        self._doubt.set()

    def heard(self, table: LeaseTable) -> None:
        """The store says this of everybody: see to our record if it is not as we wrote it, or can be read again."""
        if self._spoilt and not self._is_spoilt(table):
            self._not_before = self._clock()
            self._free.set()
            self.look_again()
        elif not self.recognises(table):
            self.look_again()

    def recognises(self, table: LeaseTable) -> bool:
        """Whether the store's record of our lease says what we wrote."""
        held = table.leases.get(self.lease.subnet)
        return held is not None and held.attrs == self._tenant.attrs and not self._is_spoilt(table)

    def _is_spoilt(self, table: LeaseTable) -> bool:
        return any(_names(key, self.lease.subnet) for key in table.unreadable)

    async def run(self) -> None:
        """Renew in good time, for ever; ``LeaseLost`` when another host holds our subnet."""
        for kind in (LEASE_MISSING, LEASE_NOT_RENEWED, LEASE_UNREADABLE):
            # Of the lease that was kept before this one.
            self.health.clear(kind)
        while True:
            now = self._clock()
            if now < self._not_before:
                await _within(min(self._not_before - now, CLOCK_EVERY), self._free)
                self._free.clear()
            elif self._doubt.is_set():
                await self._insist("look after our lease", self._look)
            elif now >= self._due:
                await self._insist("renew our lease", self._renew)
            else:
                await _within(min(self._due - now, CLOCK_EVERY), self._doubt)
                self._make_peace()

    async def release(self) -> None:
        """Give the subnet back unless it is reserved for us, or not ours any more; call it once ``run`` has ended.

        Takes ``RELEASE_S`` at most, says what came of it, and raises nothing.
        """
        try:
            async with asyncio.timeout(RELEASE_S):
                log.info("%s", await self._released())
        except (TimeoutError, Unavailable, Conflict) as exc:
            why = str(exc) or f"no answer within {RELEASE_S:.0f} s"
            log.warning("Could not release our lease %s, which will expire by itself: %s", self.lease.subnet, why)

    async def _released(self) -> str:
        held = _record(await self._store.leases(), self.lease.subnet)
        if held is None:
            return f"Our lease {self.lease.subnet} is gone already"
        if held.attrs not in self._said:
            return f"Leaving {held.subnet} alone, whose record is of {address_of(held.attrs)}, {_speaker(held.attrs)}"
        if held.reservation:
            return f"Keeping {held.subnet}, which is reserved for us"
        await self._store.release(held)
        return f"Released our lease {held.subnet}"

    async def _insist(self, what: str, call: Callable[[], Awaitable[None]]) -> None:
        """Ask the store until it does it, saying what is wrong; not in step with other hosts."""
        for pause in chain(ATTEMPTS, repeat(ATTEMPTS[-1])):
            try:
                await call()
            except Unavailable as exc:
                kind = LEASE_MISSING if self._vanished else LEASE_NOT_RENEWED
                self.health.set(kind, f"Couldn't {what}, and go on trying: {exc}")
                await asyncio.sleep(pause * self._rng.uniform(0.8, 1.2))
            else:
                for kind in (LEASE_MISSING, LEASE_NOT_RENEWED):
                    self.health.clear(kind, said=f"The store takes our lease {self.lease.subnet} again")
                return

    async def _renew(self) -> None:
        begun = self._clock()
        try:
            self._written(await self._store.renew(self.lease, LEASE_TTL), begun)
            log.info("Lease renewed: %s", self.lease.subnet)
        except Conflict:
            await self._look()

    async def _look(self) -> None:
        """Make our record what it should be, unless it is another's now."""
        self._doubt.clear()
        begun, snapshot = self._clock(), await self._store.leases()
        try:
            await self._put_right(snapshot, begun)
        except Conflict:
            self._look_in(PAUSES[min(self._failures, len(PAUSES) - 1)] * self._rng.uniform(0.8, 1.2))
            self._failures += 1

    async def _put_right(self, snapshot: Snapshot, begun: float) -> None:
        mine, tenant = self.lease.subnet, self._tenant
        held = _record(snapshot, mine)
        spoilt = next((each for each in snapshot.unreadable if _names(each.key, mine)), None)
        self._spoilt = spoilt is not None
        if spoilt is not None:
            self.health.set(
                LEASE_UNREADABLE,
                f"Our lease cannot be read any more, nor written while that record is there: {spoilt.key}: "
                f"{spoilt.reason}; remove the key, and it is written again",
            )
            self._look_in(LOOK_EVERY)
            return
        if held is not None and not self._is_ours(held.attrs):
            raise LeaseLost(mine, held)
        created = None if held is None else held.created
        older = rival(tenant.config, mine, snapshot.leases, tenant.attrs, created=created)
        if older is not None:
            if held is not None:
                await self._store.release(held)
            raise LeaseLost(mine, older)
        await release_surplus(self._store, snapshot, mine, self._said, tenant.attrs)
        if held is None:
            level = logging.DEBUG if self._vanished else logging.WARNING
            log.log(level, "Our lease %s has vanished from the store; writing it again", mine)
            self._vanished = True
            self._say(tenant.attrs)
            self._written(await self._store.create(mine, tenant.attrs, LEASE_TTL), begun)
            # Somebody may have been before us, under another key.
            self.look_again()
        elif held.attrs == tenant.attrs:
            # Somebody renewed or copied it; from now on compare with what stands there.
            self._written(await self._store.renew(held, LEASE_TTL), begun)
        elif held.attrs in self._said:
            await self._rewrite(held, begun)
        else:
            await self._contradict(held, begun)

    async def _contradict(self, held: Lease, begun: float) -> None:
        """Our record bears our address, and yet says what we did not write.

        Once that is somebody's mistake, or another agent that was started here.  If it happens again, there are two
        hosts with this address, and no more is won by writing than a moment each.
        """
        if begun - self._restored_at >= PEACE:
            self._restored = 0
        if self._restored:
            self._name_conflict(held)
            pause = CONFLICT_PAUSES[min(self._restored, len(CONFLICT_PAUSES)) - 1]
            if begun < self._restored_at + pause:
                self._look_in(min(self._restored_at + pause - begun, LOOK_EVERY))
                return
        level = logging.DEBUG if self._fights else logging.WARNING
        log.log(level, "Our lease %s does not say what it should; writing it again", held.subnet)
        await self._rewrite(held, begun)
        self._restored, self._restored_at = self._restored + 1, begun

    async def _rewrite(self, held: Lease, begun: float) -> None:
        attrs = self._tenant.attrs
        self._say(attrs)
        self._written(await self._store.update(held, attrs, LEASE_TTL), begun)

    def _name_conflict(self, held: Lease) -> None:
        if not self._fights:
            self._fights = True
            text = (
                f"Another host publishes our address {address_of(held.attrs)} in our lease of {held.subnet}, "
                f"as {_speaker(held.attrs)}: only one of the two can be reached. Give each host an address of its own, "
                "with -public-ip where it is not the one of an interface; if one is a clone of the other, remove the "
                "subnet.env (/run/flannel/subnet.env) and the state directory (/var/lib/flannel) it was cloned with"
            )
            self.health.set(LEASE_CONFLICT, text)

    def _make_peace(self) -> None:
        if self._fights and self._clock() - self._restored_at >= PEACE:
            self._fights, self._restored = False, 0
            self.health.clear(LEASE_CONFLICT, said=f"Nobody else has written our lease {self.lease.subnet} for a while")

    def _is_ours(self, attrs: Attrs) -> bool:
        return bears_our_address(self._tenant.config, attrs, self._tenant.attrs) or attrs in self._said

    def _say(self, attrs: Attrs) -> None:
        """Remember ``attrs`` as our words, before they are sent: whether they arrive is not always told."""
        if attrs not in self._said:
            self._said.append(attrs)

    def _written(self, lease: Lease, begun: float) -> None:
        """Our record is as it should be, and lives from ``begun`` on at least."""
        self.lease = lease
        self._vanished = False
        pause = renew_in(LEASE_TTL if lease.ttl is None else lease.ttl, self._tenant.margin, self._rng.random())
        self._began, self._due = begun, begun + max(1.0, pause)
        self._failures = 0
        self.health.clear(LEASE_UNREADABLE)
        log.debug("Waiting for %.0f s to renew lease", self._due - begun)

    def _look_in(self, pause: float) -> None:
        self._not_before = self._clock() + pause
        self._doubt.set()


async def _within(seconds: float, event: asyncio.Event) -> None:
    """Wait for the event, and no longer than that."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _record(snapshot: Snapshot, subnet: Subnet) -> Lease | None:
    return next((lease for lease in snapshot.leases if lease.subnet == subnet), None)


def _names(key: str, subnet: Subnet) -> bool:
    return key.rpartition("/")[2] == subnet_name(subnet)


def _speaker(attrs: Attrs) -> str:
    """Who wrote a record that bears our address, as far as it tells; its backend data may be any JSON."""
    mac = _MAC.search(f"{attrs.backend_data} {attrs.backend_v6_data}")
    if mac is not None:
        return f"VTEP MAC {mac[1]}"
    data = attrs.backend_data or attrs.backend_v6_data
    return "a host without backend data" if data is None else f"a host with the backend data {data[:80]!a}"
