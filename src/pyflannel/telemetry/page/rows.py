"""The rows of the matrix, asked of the peers while somebody looks.

Rules of this file
  1. Nobody is asked while nobody looks, and all who look are told the same.
  2. No more than ``AT_ONCE`` questions are under way, and one is asked every ``PAUSE`` at most, however many look and
     however many hosts there are: a trace finds room beside them.
  3. The one task that asks belongs to those who look: it begins with the first, ends with the last, and an error of it
     is an error of theirs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final, NoReturn, TypeAlias

from pyflannel.lease.model import Subnet
from pyflannel.probes.errands import NoAnswer
from pyflannel.telemetry import matrix
from pyflannel.telemetry.document import Document
from pyflannel.telemetry.matrix import SILENT, Matrix, Name, Row

Ask: TypeAlias = Callable[[Subnet, bytes], Awaitable[bytes]]
"""Puts a question to a peer; ``NoAnswer`` if none comes."""

PAUSE: Final = 0.5
"""Seconds from one question to the next."""
AT_ONCE: Final = 2
AGAIN: Final = 3.0
"""Seconds after which a host that has told is asked again, at the earliest."""
SELDOM: Final = 15.0
"""The same for one that has not: it may have no agent of ours."""
KEPT: Final = 180.0
"""Seconds for which a row stands of a host that does not tell any more."""


class Rows:
    """Those of the hosts that are shown to all who look at one agent."""

    def __init__(self, ask: Callable[[], Ask | None], now: Callable[[], float] = time.time) -> None:
        """``ask`` is how a peer is asked at the moment, if any can be."""
        self._ask, self._now = ask, now
        self._lookers = 0
        self._task: asyncio.Task[NoReturn] | None = None
        self._own: Name = None, None
        self._matrix = Matrix()
        self._due: dict[Name, float] = {}
        """When a host is to be asked again."""
        self._asking: set[Name] = set()

    @asynccontextmanager
    async def looked_at(self) -> AsyncGenerator[None, None]:
        """Have the peers asked for as long as this lasts."""
        self._lookers += 1
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="rows of the peers")
        try:
            yield
        finally:
            self._lookers -= 1
            if not self._lookers:
                await self._end()

    def see(self, document: Document) -> None:
        """This is how the agent is now."""
        self._own, shown = matrix.own_name(document), matrix.hosts(document, self._matrix.hosts)
        known = {host: row for host, row in self._matrix.rows.items() if host in shown}
        if shown:
            known[self._own] = matrix.own_row(document, shown)
        self._matrix = Matrix(shown, len(document.peers) + 1, known)

    @property
    def latest(self) -> Matrix:
        """All that is known; what has ended the asking is raised here."""
        if self._task is not None and self._task.done():
            self._task.result()
        return self._matrix

    async def _end(self) -> None:
        task, self._task = self._task, None
        self._matrix = Matrix()  # nothing is kept for nobody
        self._due.clear()
        assert task is not None
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    async def _run(self) -> NoReturn:
        async with asyncio.TaskGroup() as tasks:
            while True:
                ask = self._ask()
                if ask is not None and len(self._asking) < AT_ONCE and (host := self._next()) is not None:
                    self._asking.add(host)
                    tasks.create_task(self._put(ask, host), name="question about a row")
                await asyncio.sleep(PAUSE)
        raise AssertionError("nothing ends this but being cancelled")

    def _next(self) -> Name | None:
        """Who is to be asked now: who has waited longest."""
        others = [host for host in self._matrix.hosts if host != self._own and host not in self._asking]
        first = min(others, key=lambda host: self._due.get(host, 0.0), default=None)
        return None if first is None or self._due.get(first, 0.0) > self._clock() else first

    async def _put(self, ask: Ask, host: Name) -> None:
        shown = self._matrix.hosts
        row = Row(why=SILENT)
        subnet = matrix.subnet(host)
        try:
            if subnet is not None:
                row = matrix.told(await ask(subnet, matrix.question(shown)), shown, self._now())
        except NoAnswer:
            pass
        finally:
            self._asking.discard(host)
        self._due[host] = self._clock() + (SELDOM if row.why else AGAIN)
        self._learn(host, row)

    def _learn(self, host: Name, row: Row) -> None:
        was = self._matrix.row(host)
        stands = bool(row.why) and was.at is not None and self._now() - was.at < KEPT
        if host in self._matrix.hosts and not stands:
            self._matrix = replace(self._matrix, rows={**self._matrix.rows, host: row})

    def _clock(self) -> float:
        return asyncio.get_running_loop().time()
