"""Those who look at the page: each is told what changes, for as long as it stays.

Rules of this file
  1. Whoever listens has the agent looked at, and no more than once for all of them together.  There is no task here;
     ``Rows`` has one, which lasts as long as anybody listens.
  2. Looking is to cost no more than ``SHARE`` of a core: the more there is to describe, the less often it is done.
  3. No more than ``MOST`` listen at a time.  Further ones are told so, and a visitor that left is noticed by the next
     thing it is sent, so the time is told now and then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Final

from pyflannel.telemetry.document import Document
from pyflannel.telemetry.http import Response
from pyflannel.telemetry.matrix import Matrix
from pyflannel.telemetry.page.changes import all_of, changed, redrawn, settled, time_is
from pyflannel.telemetry.page.rows import Rows

MOST: Final = 16
EVERY: Final = 1.0
"""Seconds between two looks, at least."""
SELDOM: Final = 3.0
"""Seconds between two looks, at most."""
SHARE: Final = 0.005
BEAT: Final = 5.0
"""Seconds after which the time is told, at the latest."""
TYPE: Final = "text/event-stream; charset=utf-8"
HEADERS: Final = (("Cache-Control", "no-store"), ("X-Accel-Buffering", "no"))
"""The second has nginx pass events on at once, should somebody put one in front of us."""


class Audience:
    """All who listen to one agent."""

    def __init__(
        self, look: Callable[[], Awaitable[Document]], rows: Rows, now: Callable[[], float] = time.time
    ) -> None:
        """``look`` describes the agent, ``rows`` asks its peers; nobody listens yet."""
        self._look, self._rows, self._now = look, rows, now
        self._present = 0
        self._seen: Document | None = None
        self._again = 0.0
        """When it is time for another look."""
        self._looking = asyncio.Lock()

    def admit(self) -> Response:
        """Events without end; 503 if too many listen already."""
        if self._present >= MOST:
            return Response(503, b"too many pages are open here\n", headers=(("Retry-After", "10"),))
        return Response(200, self._told(), TYPE, HEADERS)

    async def _told(self) -> AsyncGenerator[bytes, None]:
        clock = asyncio.get_running_loop().time
        # Counted here and not where they are admitted: what never begins is never closed either.
        self._present += 1
        try:
            async with self._rows.looked_at():
                known, drawn, beat = await self._latest(), Matrix(), clock()
                yield time_is(self._now())
                async for piece in _giving_way(all_of(known)):
                    yield piece
                while True:
                    before, drawn = drawn, self._rows.latest
                    async for piece in _giving_way(redrawn(before, drawn)):
                        yield piece
                    if clock() - beat >= BEAT:
                        beat = clock()
                        yield time_is(self._now())
                    await asyncio.sleep(EVERY)
                    old, known = known, await self._latest()
                    async for piece in _giving_way(changed(old, known)):
                        yield piece
        finally:
            self._present -= 1
            if not self._present:
                self._seen = None  # nothing is kept for nobody

    async def _latest(self) -> Document:
        """The agent as it is, or was when another listener had it looked at just now."""
        clock = asyncio.get_running_loop().time
        async with self._looking:
            if self._seen is None or clock() >= self._again:
                begun, before = time.thread_time(), self._seen
                found = await self._look()
                self._seen = found if before is None else settled(before, found)
                self._rows.see(self._seen)
                cost = time.thread_time() - begun
                self._again = clock() + min(SELDOM, max(EVERY, cost / SHARE))
            return self._seen


async def _giving_way(pieces: Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    for piece in pieces:
        yield piece
        await asyncio.sleep(0)
