"""Keeping the kernel at what we want, by two lanes that share one ``diff`` and one ``apply``.

Fast lane: a lease event names the items it takes away and those it brings; their difference is written at once.
Audit lane: everything of ours is read from the kernel, compared with everything we want, and repaired.

Rules of this file
  1. A failed write never stops another, and is never forgotten: it makes the state *dirty*, and an audit follows.
  2. Nothing is deleted that we merely do not know, until the store was listed whole once (``complete``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from pyflannel.diff import Op, Put, diff
from pyflannel.linux.kernel import Kernel, KernelError, Report
from pyflannel.state import Item, Key, Scope, State

log = logging.getLogger(__name__)

SLICE: Final = 512
"""Operations written between two breaths of the event loop: about 10 ms of kernel time."""
AUDIT_EVERY: Final = 300.0
"""Seconds between audits when nothing asks for one."""
BACKOFF: Final = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Seconds before the next audit after the 1st, 2nd, … failure in a row."""


class Reconciler:
    """Holds the union of what all networks want, and makes the kernel hold it too."""

    def __init__(self, kernel: Kernel, jitter: Callable[[], float]) -> None:
        """Write through ``kernel``; ``jitter`` gives numbers in [0, 1) that spread audits of many hosts."""
        self.complete = False
        """Set once the store was listed: from then on audits also delete what is ours and not wanted."""
        self._kernel, self._jitter = kernel, jitter
        self._want: dict[Key, Item] = {}
        self._scope = Scope()
        self._pass = asyncio.Lock()
        self._dirty = asyncio.Event()
        self._failures = 0
        self._said: frozenset[str] = frozenset()

    def want(self, items: Iterable[Item], scope: Scope) -> None:
        """Set the whole desired state, to be brought about by the next audit."""
        self._want = {item.key: item for item in items}
        self._scope = scope

    def mark_dirty(self) -> None:
        """Ask for an audit soon."""
        self._dirty.set()

    async def replan(self, old: Iterable[Item], new: Iterable[Item]) -> Report:
        """The fast lane: these items were wanted, those are now."""
        before, after = State(old), State(new)
        for key in before:
            self._want.pop(key, None)
        self._want.update(after)
        async with self._pass:
            report = await self._apply(diff(after, before))
        if report.failed:
            self.mark_dirty()
        return report

    async def audit(self) -> Report:
        """The audit lane: look at everything of ours, and repair what differs."""
        async with self._pass:
            self._dirty.clear()
            have = self._kernel.observe(self._scope)
            ops = diff(State(self._want.values()), have)
            if not self.complete:
                ops = tuple(op for op in ops if isinstance(op, Put))
            report = await self._apply(ops)
        self._failures = self._failures + 1 if report.failed else 0
        return report

    async def run(self) -> None:
        """Audit when dirty, after failures with growing patience, and every few minutes; for ever."""
        while True:
            await self._wait()
            try:
                await self.audit()
            except KernelError as exc:
                self._failures += 1
                log.error("Could not read the kernel's state: %s", exc)

    async def _wait(self) -> None:
        if self._failures:
            await asyncio.sleep(BACKOFF[min(self._failures, len(BACKOFF)) - 1])
            return
        pause = AUDIT_EVERY * (0.9 + 0.2 * self._jitter())
        try:
            async with asyncio.timeout(pause):
                await self._dirty.wait()
        except TimeoutError:
            pass

    async def _apply(self, ops: Sequence[Op]) -> Report:
        done: list[Op] = []
        failed: list[tuple[Op, KernelError]] = []
        for start in range(0, len(ops), SLICE):
            report = self._kernel.apply(ops[start : start + SLICE])
            done += report.done
            failed += report.failed
            await asyncio.sleep(0)
        self._tell(failed)
        return Report(tuple(done), tuple(failed))

    def _tell(self, failed: Sequence[tuple[Op, KernelError]]) -> None:
        """Say what failed, but not again while the same things go on failing."""
        texts = frozenset(f"{op}: {error}" for op, error in failed)
        for text in sorted(texts - self._said):
            log.error("Kernel refused %s", text)
        self._said = texts
