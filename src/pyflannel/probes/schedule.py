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
TICK: Final = 0.5
"""Seconds between two looks at what is to be done.  By the wall clock, which most hosts have alike: what they ask one
another arrives together then, and waking up once for ten datagrams costs little more than for one.  Where there are
more peers than questions it is a ``PERIOD``, and all that may be asked in it is asked at once."""
QUICK_TICK: Final = 0.1
"""While something is in doubt."""

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

    @property
    def opens(self) -> float:
        """From when on one may be asked; past if it is so already."""
        return self._spent[0] + PERIOD if len(self._spent) == MOST else float("-inf")

    def spend(self, now: float) -> None:
        """One is asked."""
        self._spent.append(now)


class _Queue(Generic[K]):
    """Turns that are to come, and those whose turn has come, in that order.

    In a large cluster nearly all wait nearly always, which takes as little room as can be.
    """

    def __init__(self) -> None:
        self.to_come: list[tuple[float, int, K]] = []
        self.waiting: deque[K] = deque()
        self.void: dict[K, int] = {}
        """How many times, counted from the front, somebody does not wait any more."""

    def first(self) -> K | None:
        while self.waiting and (void := self.void.pop(self.waiting[0], 0)):
            key = self.waiting.popleft()
            if void > 1:
                self.void[key] = void - 1
        return self.waiting[0] if self.waiting else None


class Schedule(Generic[K]):
    """When each one's turn is."""

    def __init__(self) -> None:
        self._urgent: _Queue[K] = _Queue()
        self._usual: _Queue[K] = _Queue()
        self._places: dict[K, int | _Queue[K]] = {}
        """The number of each one's turn that is to come, where it waits for one that has come, or 0."""
        self._number = self._taken = 0

    def put(self, key: K, due: float, urgent: bool = False) -> None:
        """``key`` has its turn at ``due`` and no other."""
        self._withdraw(key)
        self._number += 1
        self._places[key] = self._number
        heapq.heappush((self._urgent if urgent else self._usual).to_come, (due, self._number, key))

    def drop(self, key: K) -> None:
        """``key`` has no turn."""
        self._withdraw(key)
        self._places.pop(key, None)

    def first(self, now: float, usual_first: bool = False) -> K | None:
        """Whose turn it is; None if it is nobody's.  ``usual_first``: those in doubt come after all others."""
        usual_first |= self._taken % 8 == 7
        for queue in (self._usual, self._urgent) if usual_first else (self._urgent, self._usual):
            while self._next_due(queue) <= now:
                _, _, key = heapq.heappop(queue.to_come)
                queue.waiting.append(key)
                self._places[key] = queue
            if (first := queue.first()) is not None:
                return first
        return None

    def over(self, key: K) -> None:
        """The turn of ``key`` is."""
        self._withdraw(key)
        self._places[key] = 0
        self._taken += 1

    def next_urgent(self) -> float:
        """When somebody in doubt has a turn; infinity if never."""
        return self._next_due(self._urgent) if self._urgent.first() is None else float("-inf")

    def _next_due(self, queue: _Queue[K]) -> float:
        while queue.to_come and self._places.get(queue.to_come[0][2]) != queue.to_come[0][1]:
            heapq.heappop(queue.to_come)
        return queue.to_come[0][0] if queue.to_come else float("inf")

    def _withdraw(self, key: K) -> None:
        if isinstance(place := self._places.get(key), _Queue):
            place.void[key] = place.void.get(key, 0) + 1
