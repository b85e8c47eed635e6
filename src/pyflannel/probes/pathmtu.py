"""How large a packet may be on the way to a peer, found out by sending some that may not be cut into pieces.

Rules of this file
  1. Most often one packet as large as the device lets through is the whole search.  Another one follows when all other
     peers have had theirs: of an agent's questions one in a ``PERIOD`` is a large one, whatever the number of peers, so
     that what becomes too narrow for all of them is known at once, and costs less than a kilobyte a second.
  2. Such a packet is lost if ``TRIES`` of them were, one after another, while small ones came through.  Then the
     largest that passes is looked for by halving; until the large one passes again it is tried every ``AGAIN`` seconds.
"""

from __future__ import annotations

from typing import Final

TRIES: Final = 4
TRIES_ON_THE_WAY: Final = 2
"""With sizes in between: there is something to be found by then."""
AGAIN: Final = 1.5
"""Seconds between looks whether a path that was too narrow still is, at least: less than between two turns of a peer,
so that each of these is a look."""
CONFIRM: Final = 30
"""Every so many looks at a narrow path, whether what passed still does is looked at as well."""


class Search:
    """What is known of one path.  Sizes are those of the inner packet, with its IP header."""

    __slots__ = ("_failed", "_high", "_looks", "_low", "best", "device", "due", "least", "small")

    def __init__(self, device: int, least: int) -> None:
        """``device`` is what the device lets through, ``least`` what certainly passes."""
        self.device, self.least = device, least
        self.best: int | None = None
        """The largest that has passed; None as long as none of any size to speak of has."""
        self.small = False
        """What the device lets through does not pass."""
        self.due = 0.0
        """Not before then is there anything to do."""
        self._failed = self._looks = 0
        self._low, self._high = least, device

    def wants(self, now: float) -> int | None:
        """The size to try now; None if there is nothing to find out."""
        if self.device <= self.least or now < self.due:
            return None
        if self.searching:
            return (self._low + self._high) // 2
        return self.device

    @property
    def searching(self) -> bool:
        """Whether it is known to be too narrow, but not yet how narrow."""
        return self.small and self._high - self._low > 1

    @property
    def settled(self) -> bool:
        """Whether ``best`` and ``due`` are all there is to say."""
        return not self.small and not self._failed

    @property
    def doubtful(self) -> bool:
        """Whether there is more to find out at once."""
        return self.searching or (self._failed > 0 and not self.small) or (self.small and not self.due)

    def passed(self, size: int, now: float, every: float) -> None:
        """A packet of ``size`` came through; a wide path is looked at again after ``every`` seconds."""
        if size >= self.device:
            self.best, self.small, self._failed, self.due = size, False, 0, now + every
        elif self.searching and size > self._low:
            self._low, self._failed, self.best = size, 0, size
            self._settle(now)

    def lost(self, size: int, now: float) -> None:
        """None came through."""
        if self.small and not self.searching:
            self._look_again(now)
            return
        self._failed += 1
        if size >= self.device and not self.small:
            if self._failed >= TRIES:
                self._begin()
        elif self._failed >= TRIES_ON_THE_WAY:
            self._high, self._failed = min(self._high, size), 0
            self._settle(now)

    def restart(self) -> None:
        """What was found out may not hold any more."""
        self.due, self._failed, self.small = 0.0, 0, False

    def _begin(self) -> None:
        self.small, self.best, self._failed, self._looks = True, None, 0, 0
        self._low, self._high = self.least, self.device

    def _settle(self, now: float) -> None:
        if not self.searching:
            # The path may have been mended meanwhile: what the device lets through is tried once more, at once.
            self.best, self.due = self._low, 0.0

    def _look_again(self, now: float) -> None:
        self._looks, self.due = self._looks + 1, now + AGAIN
        if self._looks % CONFIRM == 0:
            # The path may have become narrower still.
            self._begin()
