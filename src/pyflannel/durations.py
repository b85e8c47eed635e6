"""How long something takes, told so that it can be added up: a histogram with fixed bounds.

Noting costs well below a microsecond, so that it may stand beside anything.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Seconds; from a netlink call to a store that is given up."""


class Durations:
    """Those of one kind of work; they only ever grow in number."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float] = BOUNDS) -> None:
        """None yet.  ``bounds`` rise, and a duration that equals one belongs below it."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        """Seconds, of all of them together."""

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self._counts)

    def note(self, seconds: float) -> None:
        """Count one more."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self.total += seconds

    def up_to(self) -> Iterator[tuple[float, int]]:
        """For each bound: how many took so long at most."""
        return zip(self._bounds, accumulate(self._counts), strict=False)
