"""How often something may be done for others: so often in the long run, and a few times at once after a quiet time."""

from __future__ import annotations

from collections.abc import Callable


class Allowance:
    """Credit that comes back with time."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        """``burst`` times at once to begin with, and ``rate`` a second; ``clock`` never steps."""
        self._rate, self._burst, self._clock = rate, burst, clock
        self._credit, self._seen = burst, clock()

    def spend(self) -> bool:
        """Whether it may be done once more, which it is then."""
        now = self._clock()
        self._credit = min(self._burst, self._credit + (now - self._seen) * self._rate)
        self._seen = now
        if self._credit < 1:
            return False
        self._credit -= 1
        return True
