"""Who is asked next, and how much is asked at all.

Rules of this file
  1. In no ``PERIOD`` are there more than ``MOST`` questions, whatever the size of the cluster.
  2. Who is in doubt comes first, but a quarter of the turns is for all others, so that none waits for ever.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

PERIOD: Final = 2.0
"""Seconds."""
MOST: Final = 16
"""Questions to peers in a period."""

K = TypeVar("K", bound=Hashable)


class Budget:
    """How many questions may still be asked."""

    def __init__(self) -> None:
        self._spent: deque[float] = deque(maxlen=MOST)

    def left(self, now: float) -> int:
        """How many at this moment."""
        while self._spent and self._spent[0] <= now - PERIOD:
            self._spent.popleft()
        return MOST - len(self._spent)

    def spend(self, now: float) -> None:
        """One is asked."""
        self._spent.append(now)


class Schedule(Generic[K]):
    """When each one's turn is."""

    def __init__(self) -> None:
        self._due: dict[K, int] = {}
        """The number of each one's entry: all others in the heaps are void."""
        self._urgent: list[tuple[float, int, K]] = []
        self._usual: list[tuple[float, int, K]] = []
        self._number = self._taken = 0

    def put(self, key: K, due: float, urgent: bool = False) -> None:
        """``key`` has its turn at ``due`` and no other."""
        self._number += 1
        self._due[key] = self._number
        heapq.heappush(self._urgent if urgent else self._usual, (due, self._number, key))

    def drop(self, key: K) -> None:
        """``key`` has no turn."""
        self._due.pop(key, None)

    def take(self, now: float) -> tuple[K, bool] | None:
        """Whose turn it is, which is over with that, and whether it was urgent; None if it is nobody's."""
        usual_first = self._taken % 8 == 7
        for heap in (self._usual, self._urgent) if usual_first else (self._urgent, self._usual):
            if self._next(heap) <= now:
                _, _, key = heapq.heappop(heap)
                self._due.pop(key)
                self._taken += 1
                return key, heap is self._urgent
        return None

    def next_urgent(self) -> float:
        """When somebody in doubt has a turn; infinity if never."""
        return self._next(self._urgent)

    def _next(self, heap: list[tuple[float, int, K]]) -> float:
        while heap and self._due.get(heap[0][2]) != heap[0][1]:
            heapq.heappop(heap)
        return heap[0][0] if heap else float("inf")
