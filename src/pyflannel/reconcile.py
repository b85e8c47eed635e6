"""Keeping the kernel at what we want, by two lanes that share one ``diff`` and one ``apply``.

Fast lane: a lease event names the items it takes away and those it brings; their difference is written at once.
Audit lane: everything of ours is read from the kernel, compared with everything we want, and repaired: at the start,
when an event contradicts what we want, after a failed write, and every few minutes.

Rules of this file
  1. A failed write never stops another, and is never forgotten: it is tried again, each item with a patience of its
     own, so that one bad peer delays nobody.
  2. Nothing is deleted that we merely do not know, until the store was listed whole once (``complete``).
  3. Events only make the state *dirty*.  A short wait folds a burst of them into one audit, and a pause in proportion
     to what an audit takes keeps a storm of them from taking over the host.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from pyflannel.conditions import KERNEL_REFUSES, KERNEL_UNREADABLE
from pyflannel.diff import Op, Put, device, diff, satisfies
from pyflannel.durations import Durations
from pyflannel.health import Health
from pyflannel.linux.kernel import Kernel, KernelError, Report
from pyflannel.linux.spelling import spell
from pyflannel.patience import BACKOFF, BRISK, Patience, makes_device
from pyflannel.state import Forwarder, Item, Key, Link, Misfit, Scope, State
from pyflannel.wireguard import WireguardDevice, WireguardPeer

log = logging.getLogger(__name__)

SLICE: Final = 512
"""Operations written between two breaths of the event loop: about 10 ms of kernel time."""
SETTLE: Final = 0.02
"""Seconds in which a burst of events becomes one audit."""
SHARE: Final = 3.0
"""After an audit there is a pause of so many times what it took, whatever happens."""
AUDIT_EVERY: Final = 300.0
"""Seconds between audits when nothing asks for one."""
PATROL_EVERY: Final = 4.0
"""Seconds between looks at the few things of which the kernel sends no event."""
RECLAIM_EVERY: Final = 1.0
"""Seconds between attempts to put what somebody else's object is in the place of."""
RECLAIMED: Final = 64
"""So many of them at a time: a few thousand refusals a second would be a burden."""
RETRY_SHARE: Final = 400.0
"""Audits for the sake of what failed are so many times further apart than one takes."""
SAID_AT_ONCE: Final = 5
"""How many repairs of one pass are told one by one."""
SILENT: Final = (WireguardDevice, WireguardPeer, Forwarder)
"""Items of whose end nobody tells: a forwarder that dies is heard of, one that hangs is not."""


class Reason(StrEnum):
    """Why there is an audit."""

    START = "start"
    """Of an agent, or of knowing all leases: whoever calls for it waits for it."""
    EVENT = "event"
    """Something happened that contradicts what we want, in the kernel or below it."""
    PATROL = "patrol"
    """So it was found, and the kernel had told nobody."""
    RETRY = "retry"
    """Something had failed."""
    INTERVAL = "interval"
    """Nothing; it was time."""


@dataclass(slots=True)
class Tally:
    """What has been done, and how long that took."""

    audits: Counter[Reason] = field(default_factory=Counter)
    repairs: Counter[tuple[Reason, str]] = field(default_factory=Counter)
    """What was done after the start though no lease asked for it, by reason and kind of item."""
    looks: Durations = field(default_factory=Durations)
    """For reading all that is ours, and comparing it."""
    writes: Durations = field(default_factory=Durations)
    """For handing up to ``SLICE`` operations to the kernel."""


class Reconciler:
    """Holds the union of what all networks want, and makes the kernel hold it too."""

    def __init__(
        self,
        kernel: Kernel,
        jitter: Callable[[], float],
        clock: Callable[[], float],
        health: Health | None = None,
        repaired: Callable[[], object] = lambda: None,
    ) -> None:
        """Write through ``kernel``.

        ``jitter`` gives numbers in [0, 1) that spread the audits of many hosts; ``clock`` counts seconds; ``repaired``
        is called when something was put right that no lease had asked for just then.
        """
        self.complete = False
        """Set once the store was listed: from then on audits also delete what is ours and not wanted."""
        self.scope = Scope()
        """Which objects of the kernel are ours."""
        self.tally = Tally()
        self._kernel, self._jitter, self._clock = kernel, jitter, clock
        self._want: dict[Key, Item] = {}
        self._occupied: set[str] = set()
        """Names of ours that somebody else's devices have."""
        self._pass = asyncio.Lock()
        self._dirty = asyncio.Event()
        self._why = Reason.EVENT
        """What made it dirty, if it is."""
        self._woken = asyncio.Event()
        """Who waits for the next audit is to reckon anew when that is."""
        self._patience = Patience(clock)
        self._next_audit = clock() + self._pause()
        self._health = health or Health()
        self._repaired = repaired

    @property
    def wanted(self) -> Mapping[Key, Item]:
        """What the kernel should hold, as of now."""
        return MappingProxyType(self._want)

    @property
    def failing(self) -> Mapping[Key, str]:
        """What the kernel did not take, and why; each is tried again."""
        return self._patience.failing()

    def want(self, items: Iterable[Item], scope: Scope) -> None:
        """Set the whole desired state, to be brought about by the next audit, which tries all that failed before."""
        self._want = {item.key: item for item in items}
        self.scope = scope
        self._patience = Patience(self._clock)

    def mark_dirty(self, why: Reason = Reason.EVENT) -> None:
        """Ask for an audit soon; of several reasons the first one counts."""
        if not self._dirty.is_set():
            self._why = why
        self._dirty.set()
        self._woken.set()

    async def replan(self, old: Iterable[Item], new: Iterable[Item]) -> Report:
        """The fast lane: these items were wanted, those are now."""
        before, after = State(old), State(new)
        for key in before:
            self._want.pop(key, None)
        self._want.update(after)
        async with self._pass:
            report = await self._apply(diff(after, before))
        if report.failed:
            self.mark_dirty(Reason.RETRY)
        return report

    async def audit(self, why: Reason = Reason.START) -> Report:
        """The audit lane: look at everything of ours, and repair what differs.  ``KernelError`` if looking fails."""
        async with self._pass:
            self._dirty.clear()
            began = self._clock()
            self._next_audit = began + self._pause()
            have = self._kernel.compare(self.scope, self._want)
            self._occupied = {name for name in self.scope.devices if _is_foreign(have.get((Link, name)))}
            ops = diff(State.over(self._want), have)
            self.tally.audits[why] += 1
            took = self._clock() - began
            self.tally.looks.note(took)
            self._patience.longest = max(BRISK, RETRY_SHARE * took)
            if not self.complete:
                ops = tuple(op for op in ops if isinstance(op, Put))
            report = await self._apply(self._patience.leave_out(ops))
            self._count(report.done, why)
            return report

    async def catch_up(self, why: Reason = Reason.START) -> bool:
        """Audit; if the kernel cannot be read just now, say so, have it tried again soon, and return False."""
        try:
            report = await self.audit(why)
        except KernelError as exc:
            self._health.set(KERNEL_UNREADABLE, f"Could not read the kernel's state: {exc}")
            self._next_audit = self._clock() + BACKOFF[2]
            return False
        self._health.clear(KERNEL_UNREADABLE, said="The kernel's state can be read again")
        log.debug("Audit: %d operations done, %d failed", len(report.done), len(report.failed))
        self._tell_done(report.done)
        return True

    async def run(self) -> None:
        """Audit whenever one is due, for ever."""
        while True:
            why = await self._due()
            await asyncio.sleep(SETTLE)
            began = self._clock()
            if not await self.catch_up(why):
                # Whatever else is due: it cannot be done either.
                await asyncio.sleep(BACKOFF[2])
            await asyncio.sleep(SHARE * (self._clock() - began))

    async def patrol(self) -> None:
        """Look every few seconds at what can change without the kernel telling anybody, for ever."""
        while True:
            await asyncio.sleep(PATROL_EVERY)
            devices = frozenset(
                name
                for name in self.scope.devices
                for kind in (WireguardDevice, Forwarder)
                if (kind, name) in self._want
            )
            scope = Scope(sysctls=self.scope.sysctls, offloads=self.scope.offloads, devices=devices)
            # Of thousands of peers reached another way none is looked at.
            silent = {key: item for key, item in self._want.items() if isinstance(item, SILENT)} if devices else {}
            try:
                held = self._kernel.compare(scope, silent)
            except KernelError:
                continue
            if self._has_strayed(held, silent):
                self.mark_dirty(Reason.PATROL)

    async def reclaim(self) -> None:
        """Put what belongs where somebody else's object was, as soon as that is gone, for ever.

        A route of theirs goes with a device of theirs, of which we hear nothing.
        """
        while True:
            await asyncio.sleep(RECLAIM_EVERY)
            if taken := [Put(self._want[key]) for key in self._patience.taken if key in self._want]:
                async with self._pass:
                    done = (await self._apply(taken[:RECLAIMED])).done
                self._count(done, Reason.RETRY)
                self._tell_done(done)

    def _has_strayed(self, held: Mapping[Key, Item], silent: Iterable[Key]) -> bool:
        """Whether something is not as we want it.  What could not be put is tried again when its turn comes.

        A setting that is not there belongs to a kernel without it, and is nothing to repair; nor is one that no plan
        asks for.
        """
        for key, item in held.items():
            wanted = self._want.get(key)
            if wanted is None:
                strays = self.complete and isinstance(item, WireguardPeer)
            else:
                strays = not satisfies(item, wanted)
            if strays and not self._patience.has(key):
                return True
        return any(key not in held and not self._patience.has(key) for key in silent)

    def _pause(self) -> float:
        return AUDIT_EVERY * (0.9 + 0.2 * self._jitter())

    def _count(self, done: Iterable[Op], why: Reason) -> None:
        if why is not Reason.START:
            self.tally.repairs.update((why, type(op.item).__name__) for op in done)

    def _tell_done(self, done: Sequence[Op]) -> None:
        """Say what was put right."""
        if not done:
            return
        said = "; ".join(spell(op) for op in done[:SAID_AT_ONCE])
        more = f"; and {len(done) - SAID_AT_ONCE} more" if len(done) > SAID_AT_ONCE else ""
        log.info("Put right in the kernel: %s%s", said, more)
        self._repaired()

    async def _due(self) -> Reason:
        """Wait until something is dirty, something failed is to be tried again, or the usual time has passed."""
        while not self._dirty.is_set() and (left := min(self._next_audit, self._patience.ends()) - self._clock()) > 0:
            self._woken.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._woken.wait()
        if self._dirty.is_set():
            return self._why
        return Reason.RETRY if self._patience.ends() < self._next_audit else Reason.INTERVAL

    async def _apply(self, ops: Sequence[Op]) -> Report:
        done: list[Op] = []
        failed: list[tuple[Op, KernelError]] = []
        # Somebody else's device by the name of ours gets nothing of what is meant for ours.
        missing = self._occupied - {device(op.item) for op in ops if makes_device(op)}
        for portion in _portions(ops):
            # What is on a device that could not be made would fail as well, thousands of times.
            began = self._clock()
            report = self._kernel.apply([op for op in portion if device(op.item) not in missing])
            self.tally.writes.note(self._clock() - began)
            done += report.done
            failed += report.failed
            missing |= {device(op.item) for op, _ in report.failed if makes_device(op)}
            await asyncio.sleep(0)
        self._patience.learn(done, failed)
        if failed:
            self._woken.set()
        self._health.set_all(KERNEL_REFUSES, self._patience.complaints())
        return Report(tuple(done), tuple(failed))


def _is_foreign(item: Item | None) -> bool:
    return isinstance(item, Misfit) and item.foreign


def _portions(ops: Sequence[Op]) -> Iterator[Sequence[Op]]:
    """``ops`` in slices, and none with both a device to put and what is put on it."""
    devices = 0
    for place, op in enumerate(ops):
        if isinstance(op, Put):
            if not isinstance(op.item, Link):
                break
            devices = place + 1
    for part in (ops[:devices], ops[devices:]):
        for start in range(0, len(part), SLICE):
            yield part[start : start + SLICE]
