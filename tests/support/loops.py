"""Two ways to run an asynchronous scenario: in real time with a limit, or in a time that jumps over every wait."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")


def run(scenario: Coroutine[object, object, T], *, limit: float = 30.0) -> T:
    """Run ``scenario`` in real time; ``TimeoutError`` after ``limit`` seconds."""

    async def bounded() -> T:
        async with asyncio.timeout(limit):
            return await scenario

    return asyncio.run(bounded())


def run_jumping(scenario: Coroutine[object, object, T]) -> T:
    """Run ``scenario`` in a loop whose clock starts at 0 and jumps to the next timer when nothing else is left to do.

    An hour passes at once, and the order of events is the same every time.  A scenario in which nothing will ever
    happen again is an error.
    """
    with jumping_runner() as runner:
        return runner.run(scenario)


def jumping_runner() -> asyncio.Runner:
    """What ``run_jumping`` runs in, for a scenario in several parts: between them, time and all tasks stand still."""
    return asyncio.Runner(loop_factory=_JumpingLoop)


class _JumpingSelector(selectors.DefaultSelector):
    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("all tasks wait for each other: nothing will ever happen")
            self.now += max(timeout, 0.0)
        return ready


class _JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now
