"""What is not well at the moment: a list of named conditions.

Whoever notices a trouble sets its condition, as often as it likes, and clears it when the trouble is over.  The log is
one view of that: a line when a condition comes, one when it says something else, one when it is gone; and where very
many come at once, a few of them and how many more there were.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

log = logging.getLogger(__name__)

LINES: Final = 20
"""Lines of one kind that go into the log within ``WINDOW``."""
WINDOW: Final = 60.0
"""Seconds."""


class Severity(IntEnum):
    """How bad it is; the numbers are those of ``logging``."""

    NOTICE = logging.INFO
    """Somebody may want to know."""
    WARNING = logging.WARNING
    """Some peer, or some precaution, is missing; containers of this host go on."""
    ERROR = logging.ERROR
    """Traffic of this host is at risk, or a person has to act before it is."""


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """A trouble that can be named."""

    code: str
    """For programs: never changes its meaning."""
    severity: Severity
    means: str
    """What it is, and what goes on working."""
    remedy: str
    """What a person can do."""
    hidden_by: tuple[Kind, ...] = ()
    """Kinds of which this one is only a consequence."""
    blocks_ready: bool = False
    """While it is there nobody should rely on this host's network."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A trouble that is there."""

    kind: Kind
    subject: str
    """What it is about, where there can be several of a kind; empty otherwise."""
    text: str
    since: float
    """Unix time."""


class Health:
    """The conditions of one agent."""

    def __init__(self, now: Callable[[], float] = time.time, clock: Callable[[], float] = time.monotonic) -> None:
        """All is well.  ``now`` is the time for people; ``clock`` counts seconds and never steps."""
        self._now, self._clock = now, clock
        self._conditions: dict[tuple[Kind, str], Condition] = {}
        self._windows: dict[Kind, _Window] = {}

    def set(self, kind: Kind, text: str, subject: str = "") -> None:
        """There is this trouble, in these words."""
        self._set(kind, text, subject)

    def clear(self, kind: Kind, subject: str = "", said: str = "") -> bool:
        """It is over; ``said`` goes into the log if it was there at all, which is returned."""
        there = self._conditions.pop((kind, subject), None) is not None
        if there and said:
            log.info("%s", said, stacklevel=2)
        return there

    def set_all(self, kind: Kind, texts: Mapping[str, str]) -> None:
        """Of this kind there are these troubles, by subject, and no others."""
        for _, subject in [key for key in self._conditions if key[0] is kind and key[1] not in texts]:
            self._conditions.pop((kind, subject))
        for subject, text in texts.items():
            self._set(kind, text, subject)

    def present(self) -> tuple[Condition, ...]:
        """What is there and not merely a consequence, the worst first, the oldest first."""
        kinds = {kind for kind, _ in self._conditions}
        shown = [each for each in self._conditions.values() if not kinds & set(each.kind.hidden_by)]
        return tuple(sorted(shown, key=lambda each: (-each.kind.severity, each.since, each.kind.code, each.subject)))

    @property
    def blocked(self) -> tuple[Condition, ...]:
        """Why nobody should rely on this host's network; empty if they can."""
        return tuple(each for each in self.present() if each.kind.blocks_ready)

    def _set(self, kind: Kind, text: str, subject: str) -> None:
        known = self._conditions.get((kind, subject))
        if known is not None and known.text == text:
            return
        since = self._now() if known is None else known.since
        self._conditions[kind, subject] = Condition(kind, subject, text, since)
        self._tell(kind, text)

    def _tell(self, kind: Kind, text: str) -> None:
        window = self._windows.get(kind)
        if window is None or self._clock() - window.begun >= WINDOW:
            if window is not None and window.lines > LINES:
                log.log(kind.severity, "%s: %d more lines in the last minutes", kind.code, window.lines - LINES)
            window = self._windows[kind] = _Window(self._clock())
        window.lines += 1
        if window.lines <= LINES:
            # As from whoever set it.
            log.log(kind.severity, "%s", text, stacklevel=4)


@dataclass(slots=True)
class _Window:
    begun: float
    lines: int = 0
