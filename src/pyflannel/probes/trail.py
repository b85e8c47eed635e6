"""What has come of asking by one way: through the overlay, or beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from pyflannel.probes.tally import Tally
from pyflannel.probes.wire import NOTHING, Arrivals

LOST_AFTER: Final = 3
"""Turns without an answer, one after another."""
WINDOW: Final = 20
"""Turns that loss is reckoned from."""
KEPT: Final = 40
"""Turns that are remembered."""


@dataclass(slots=True)
class Trail:
    """One way to a peer."""

    number: int = 0
    """Of our latest question in our own protocol."""
    answered: int = 0
    """The number of the latest that was answered."""
    misses: int = 0
    """Turns without an answer, up to now."""
    window: int = 0
    """Bit i: whether the turn i turns ago was missed.  There is room for more than ``WINDOW``."""
    turns: int = 0
    """How many of ``WINDOW`` there have been."""
    failing: float | None = None
    """When the first of ``misses`` was given up."""
    heard: float | None = None
    rtt: float | None = None
    error: str = ""
    """Why the latest question could not even be sent."""
    hails: Tally = field(default_factory=Tally)
    """Questions of the peer that have come in this way."""
    hailed: float | None = None
    """When the last one did."""
    came: float | None = None
    """What ``hailed`` was when we last asked."""
    reported: Arrivals = NOTHING
    """Which of our questions have arrived there, as the peer says."""
    turn: int = 0
    """The number of the latest turn."""
    open: int = 0
    done: bool = True
    asked: float = 0.0

    @property
    def loss(self) -> float | None:
        """How many of the latest turns were missed: 0 to 1."""
        return share(self.window, self.turns)

    def missed(self, turns: int) -> int:
        """How many of so many of the latest turns were missed."""
        return missed(self.window, turns)

    def begin(self, now: float, count: int) -> None:
        """A turn of so many questions."""
        if count:
            self.asked, self.open, self.done = now, count, False
            self.came = self.hailed
            self.turn += 1

    def answer(self, turn: int, asked: float, now: float) -> None:
        """A question of that turn was answered, perhaps late: then it was not missed after all."""
        sample = max(now - asked, 0.0)
        self.rtt = sample if self.rtt is None else self.rtt + (sample - self.rtt) / 4
        if self.misses >= LOST_AFTER:
            self.window = self.turns = 0
        self.heard, self.misses, self.failing, self.error = now, 0, None, ""
        if turn == self.turn and not self.done:
            self.done = True
            self._count(0)
        else:
            self.window &= ~(1 << self.turn - turn - (not self.done))

    def close(self, now: float) -> None:
        """A question of this turn had no answer."""
        self.open -= 1
        if self.open <= 0 and not self.done:
            self.done = True
            self.misses += 1
            self.failing = now if self.failing is None else self.failing
            self._count(1)

    def _count(self, miss: int) -> None:
        self.window = (self.window << 1 | miss) & (1 << KEPT) - 1
        self.turns = min(self.turns + 1, WINDOW)


def missed(window: int, turns: int) -> int:
    """How many of so many of the latest turns were missed."""
    return (window & (1 << turns) - 1).bit_count()


def share(window: int, turns: int) -> float | None:
    """How many of the latest turns were missed, 0 to 1, if there have been as many as ``turns``."""
    return missed(window, WINDOW) / turns if turns else None
