"""All that a store says about its leases, as one stream which outlives every trouble of the store.

Rules of this file
  1. A ``Snapshot`` only ever comes from a list that succeeded.  No error looks like an empty network.
  2. A watch is not trusted: it is given up when it is silent for ``SILENCE_S``, when its revisions go backwards (a
     store restored from a backup), and in any case after ``relist_every``.  Giving up means to list again.  Every host
     does so, and each list is as long as there are hosts; so with more than ``MANY`` of them it is done more rarely,
     that the work of the store grows with their number and not with its square.
  3. Every attempt that follows a failure waits, and longer each time until a watch has delivered something.
  4. What is read is handed on as it is.  Judging it is the business of ``lease/table``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, TypeAlias

from pyflannel.lease.model import Changes, Snapshot
from pyflannel.store.api import HistoryLost, Store, Unavailable

SILENCE_S: Final = 60.0
"""A store says something at least every ~30 s (``Store.watch``); twice that without a word is a dead watch."""
MANY: Final = 1000
"""Leases."""
FIRST_DELAY_S: Final = 0.1
LAST_DELAY_S: Final = 1.0
"""So that half a second after a store is back half of its hosts have noticed."""


@dataclass(frozen=True, slots=True)
class Outage:
    """The store does not answer.  What was known stays true for now; the next ``Snapshot`` ends the outage."""

    reason: str


News: TypeAlias = Snapshot | Changes | Outage


async def follow(
    store: Store,
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[object]],
    jitter: Callable[[float], float],
    relist_every: float = 300.0,
    first: Snapshot | None = None,
) -> AsyncGenerator[News, None]:
    """Yield a ``Snapshot``, then the ``Changes`` after it, for as long as the caller iterates.

    A new ``Snapshot`` may come at any time and replaces all that was said before.  ``Outage`` comes once for each
    reason in an outage, and nothing is raised for it.  Empty ``Changes`` are passed on: they say that the store is
    alive.

    ``first`` is a list that the caller asked ``store`` for a moment ago: it is yielded in place of another one, which a
    store with thousands of leases would take a while for.

    ``clock`` counts seconds and never steps; ``jitter`` spreads a delay, so that a thousand hosts do not ask at once.
    Iterate under ``contextlib.aclosing``, so that the watch is closed when the caller leaves early.
    """
    delay = FIRST_DELAY_S
    told: set[str] = set()
    while True:
        try:
            snapshot, first = first or await store.leases(), None
            revision = snapshot.revision
            told.clear()
            relist_at = clock() + jitter(relist_every * max(1.0, len(snapshot.leases) / MANY))
            yield snapshot
            del snapshot  # thousands of leases, which whoever reads this knows by now
            async with aclosing(_watch(store, revision)) as watch:
                async for changes in watch:
                    delay = FIRST_DELAY_S
                    yield changes
                    if clock() >= relist_at:
                        break
            if clock() >= relist_at:
                continue
        except Unavailable as exc:
            if (reason := str(exc)) not in told:
                told.add(reason)
                yield Outage(reason)
        await sleep(jitter(delay))
        delay = min(2 * delay, LAST_DELAY_S)


async def _watch(store: Store, revision: int) -> AsyncGenerator[Changes, None]:
    """What happens after ``revision``, until the watch can be relied on no longer."""
    watch = store.watch(revision)
    try:
        while True:
            async with asyncio.timeout(SILENCE_S):
                changes = await anext(watch)
            if changes.revision < revision:
                return
            revision = changes.revision
            yield changes
    except (HistoryLost, TimeoutError, StopAsyncIteration):
        return
    finally:
        if isinstance(watch, AsyncGenerator):
            await watch.aclose()
