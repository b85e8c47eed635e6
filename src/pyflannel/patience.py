"""What the kernel did not take, and when each of it is tried again.

Rules of this file
  1. Each item has a patience of its own, so that one bad peer delays nobody.
  2. What no pass asks for any more has come right by itself, or is not wanted any longer: it is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from pyflannel.diff import Op, Put, device, must_rebuild
from pyflannel.linux.kernel import AlreadyThere, KernelError
from pyflannel.state import Key, Link

BACKOFF: Final = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Seconds before an item is tried again after its 1st, 2nd, … failure in a row, at the most."""
BRISK: Final = 4.0
"""Where an audit takes so little time that it may be done every so many seconds, nothing waits for longer."""
SAID_AT_ONCE: Final = 5
"""How many failures are worth a line each."""
MANY: Final = 100
"""Failures among which the first few are looked for."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """Of an item that could not be put or cut."""

    times: int
    """In a row."""
    until: float
    """When to try again."""
    error: KernelError


class Patience:
    """Which items failed, and when each is to be tried again."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Nothing has failed yet; ``clock`` counts seconds."""
        self._clock = clock
        self._waiting: dict[Key, _Failure] = {}
        self.longest = BRISK
        """Nothing waits for more seconds than that."""
        self.taken: dict[Key, None] = {}
        """Items whose slot somebody else's object fills, the one that was tried longest ago first."""

    def learn(self, done: Iterable[Op], failed: Iterable[tuple[Op, KernelError]]) -> None:
        """Take in what became of a pass."""
        for op in done:
            self._waiting.pop(op.item.key, None)
            self.taken.pop(op.item.key, None)
        for op, error in failed:
            self.taken.pop(op.item.key, None)
            if isinstance(op, Put) and isinstance(error, AlreadyThere):
                self.taken[op.item.key] = None
            times = self._waiting[op.item.key].times if op.item.key in self._waiting else 0
            until = self._clock() + min(BACKOFF[min(times, len(BACKOFF) - 1)], self.longest)
            self._waiting[op.item.key] = _Failure(times + 1, until, error)

    def leave_out(self, ops: Sequence[Op]) -> Sequence[Op]:
        """``ops`` without those whose time has not come, and without what is on a device whose time has not."""
        if not self._waiting:
            return ops
        making = {device(op.item): op.item.key for op in ops if makes_device(op)}
        # What no pass asks for any more has come right by itself, or is wanted no longer; and what failed on a device
        # that was not there may well succeed once it is.
        asked = {op.item.key for op in ops if device(op.item) not in making} | set(making.values())
        self._waiting = {key: entry for key, entry in self._waiting.items() if key in asked}
        self.taken = {key: None for key in self.taken if key in asked}
        now = self._clock()
        early = {key for key, failure in self._waiting.items() if failure.until > now}
        missing = {name for name, key in making.items() if key in early}
        return [op for op in ops if op.item.key not in early and device(op.item) not in missing]

    def has(self, key: Key) -> bool:
        """Whether this item failed and waits."""
        return key in self._waiting

    def failing(self) -> dict[Key, str]:
        """What failed and waits, and what came back."""
        return {key: str(failure.error) for key, failure in self._waiting.items()}

    def ends(self) -> float:
        """When the first of them is to be tried again; never if nothing failed."""
        return min((failure.until for failure in self._waiting.values()), default=float("inf"))

    def complaints(self) -> dict[str, str]:
        """What fails, in words; of very much a part, and how much more there is."""
        texts = sorted({str(failure.error) for failure in islice(self._waiting.values(), MANY)})
        said = {text: f"The kernel refused: {text}" for text in texts[:SAID_AT_ONCE]}
        if (more := len(self._waiting) - len(said)) > 0:
            said["more"] = f"The kernel refused {more} more operations"
        return said


def makes_device(op: Op) -> bool:
    """Whether a device is there only if this succeeds; one that is merely changed is there anyway."""
    return isinstance(op, Put) and isinstance(op.item, Link) and (op.old is None or must_rebuild(op.item, op.old))
