"""What has come of asking one peer in one address family.

Rules of this file
  1. Peers are asked in *turns*: one or more questions at a time, by one or both ways.  A way is well in a turn if any
     question by it was answered.
  2. That an agent does not answer is not that its host does not: the kernel goes on without one, and answers ICMP.
     Who has no agent of ours is asked by ICMP alone after a while, and now and then whether there is one yet.
  3. No clock: every moment is given, in seconds of a clock that never steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, NamedTuple

from pyflannel.probes.outlook import Line
from pyflannel.probes.pathmtu import Search
from pyflannel.probes.schedule import PERIOD
from pyflannel.probes.trail import KEPT, LOST_AFTER, WINDOW, Trail
from pyflannel.probes.wire import SHORTEST

LOSSY_FROM: Final = 3
"""Misses within the window."""
CLEAN_AFTER: Final = 10
"""Answers one after another, after which what was lossy is no more; twice as many each time it comes back soon."""
RELAPSE_WITHIN: Final = 60.0
"""Seconds."""
LOOK_CLOSER: Final = 8
"""Turns for which one that was missed makes us ask more often."""
NO_AGENT_AFTER: Final = 3
"""Turns in which ICMP was answered and our own protocol not."""
NEW_FOR: Final = 12
"""Turns in which one that has never answered is asked as often as all others."""
ASK_FOR_AGENT_EVERY: Final = 16
ASK_UNSURE_END_EVERY: Final = 8
TURNS: Final = 16
"""They are counted up to this, of which all that is done every so many turns has to be a divisor."""

SHORTEST_PATIENCE: Final = 0.3
LONGEST_PATIENCE: Final = 2.0
FIRST_PATIENCE: Final = 1.0
"""Seconds for an answer: four times what it took before, within bounds."""

UDP_HEADERS: Final = {4: 28, 6: 48}
"""Octets of IP and UDP header; with ICMP echo it is as many."""


class Path(Enum):
    """Which way a question goes."""

    OVERLAY = "through the overlay"
    UNDERLAY = "beside it"


class Means(Enum):
    """How it is asked."""

    OWN = "our own protocol"
    ECHO = "ICMP echo"


@dataclass(frozen=True, slots=True)
class Ask:
    """One question."""

    path: Path
    means: Means
    size: int = 0
    """Octets of the IP packet; 0: as few as it takes, and then it counts for how the way is."""


class Glance(NamedTuple):
    """What people are told of a line, besides what is wrong with it."""

    heard: float | None = None
    """When it last answered; None: it has never done so."""
    rtt: float | None = None
    loss: float | None = None
    mtu: int | None = None
    without_agent: bool = False
    """There was an agent of ours, and there is none now."""


class Track:
    """One line, and all that is known of it."""

    __slots__ = (
        *("_clean_after", "_lossy_until", "agent", "awaited", "line", "lossy"),
        *("mtu", "open", "overlay", "silent", "turn", "underlay"),
    )

    def __init__(self, line: Line, device: int, overlay: Trail | None = None, underlay: Trail | None = None) -> None:
        """Nothing is known but those ways; ``device`` is the largest packet that containers may send."""
        self.line = line
        self.overlay, self.underlay = overlay or Trail(), underlay or Trail()
        self.mtu = Search(device, SHORTEST + UDP_HEADERS[line.end.version])
        self.agent = False
        """An agent of ours has answered, or asked."""
        self.lossy = False
        self.open = 0
        """Questions of this turn that are not over yet."""
        self.awaited = 0
        """Questions, of former turns as well, to which an answer would count."""
        self.turn = 1
        """Of ``TURNS``, by which it is decided what is asked now and then only."""
        self.silent = 0
        """Turns in which ICMP was answered and our own protocol not, up to ``NO_AGENT_AFTER``."""
        self._lossy_until: float | None = None
        """Until when it was, if that is no longer ago than counts."""
        self._clean_after = CLEAN_AFTER

    def trail(self, path: Path) -> Trail:
        """That way."""
        return self.overlay if path is Path.OVERLAY else self.underlay

    @property
    def ever(self) -> bool:
        """Whether its end of the overlay, or, where that need not be there, its host has ever answered."""
        return self._judged.heard is not None

    @property
    def _judged(self) -> Trail:
        return self.overlay if self.line.sure or self.overlay.heard is not None else self.underlay

    @property
    def glance(self) -> Glance:
        """What there is to tell."""
        trail = self._judged
        return Glance(trail.heard, trail.rtt, trail.loss, self.mtu.best, self.agent and self.agent_silent)

    @property
    def resting(self) -> bool:
        """Whether nothing is waited for, and there is nothing to be remembered but what ``rest`` has a place for."""
        doubtful = self.lossy or self._lossy_until is not None or not self.mtu.settled
        return not (self.awaited or doubtful or self.overlay.error or self.underlay.error)

    @property
    def misses(self) -> int:
        """Turns without an answer, up to now."""
        return self._judged.misses

    @property
    def well(self) -> bool:
        """Whether there is nothing wrong with it that anybody should be told."""
        judged = self._judged
        return judged.misses == 0 and judged.heard is not None and not self.lossy and not self.mtu.small

    @property
    def agent_silent(self) -> bool:
        """Nobody speaks our protocol there, or does so no longer."""
        return self.silent >= NO_AGENT_AFTER

    @property
    def patience(self) -> float:
        """Seconds to wait for an answer."""
        rtt = self.overlay.rtt if self.overlay.rtt is not None else self.underlay.rtt
        return FIRST_PATIENCE if rtt is None else min(max(4 * rtt, SHORTEST_PATIENCE), LONGEST_PATIENCE)

    @property
    def outdated(self) -> bool:
        """Whether the peer has been heard through the overlay since it was last asked in vain."""
        hailed = self.overlay.hailed
        return self.misses > 0 and hailed is not None and hailed > self.overlay.asked

    @property
    def urgent(self) -> bool:
        """Whether there is something to find out soon."""
        return self.pause < PERIOD

    @property
    def pause(self) -> float:
        """Seconds from the end of a turn to the next."""
        judged = self._judged
        if 0 < judged.misses < LOST_AFTER or self.outdated:
            return 0.0
        if judged.heard is None:
            return PERIOD if judged.misses < NEW_FOR else 2 * PERIOD
        if judged.misses == 0:
            if self.lossy or self.mtu.doubtful:
                return 0.1
            if judged.missed(LOOK_CLOSER):
                return 0.5
        return PERIOD

    def asks(self, now: float, own: bool, echo: bool) -> tuple[Ask, ...]:
        """The questions of the next turn; ``own`` and ``echo`` say what we are able to ask."""
        able = [means for means, there in ((Means.OWN, own), (Means.ECHO, echo)) if there]
        wanted = (ask for ask in self._questions(now) if ask.path is Path.OVERLAY or self.line.host is not None)
        return tuple(dict.fromkeys(ask if ask.means in able else replace(ask, means=able[0]) for ask in wanted if able))

    def begin(self, asks: tuple[Ask, ...], now: float) -> None:
        """A turn, in which this is asked."""
        self.turn = (self.turn + 1) % TURNS
        self.open = len(asks)
        for path in Path:
            self.trail(path).begin(now, sum(ask.path is path and not ask.size for ask in asks))

    def _questions(self, now: float) -> Iterator[Ask]:
        judged = self._judged
        if judged.misses == 0 and judged.heard is not None:
            yield from self._usual(now)
        elif judged.misses >= LOST_AFTER:
            yield from self._sparing()
        elif judged.misses == 0:
            yield from self._thorough(Path.OVERLAY if judged is self.overlay else Path.UNDERLAY)
        else:
            yield from self._thorough(Path.OVERLAY)
            yield from self._thorough(Path.UNDERLAY)

    def _usual(self, now: float) -> Iterator[Ask]:
        path = Path.OVERLAY if self._judged is self.overlay else Path.UNDERLAY
        if path is Path.UNDERLAY and self.turn % ASK_UNSURE_END_EVERY == 2:
            yield from self._thorough(Path.OVERLAY)
        if not self.agent_silent or self.turn % ASK_FOR_AGENT_EVERY == 0:
            yield Ask(path, Means.OWN)
        if self.silent or not self.agent:
            yield Ask(path, Means.ECHO)
        if path is Path.OVERLAY and (size := self.mtu.wants(now)) is not None:
            yield Ask(path, Means.ECHO if self.silent or not self.agent else Means.OWN, size)

    def _thorough(self, path: Path) -> Iterator[Ask]:
        own, echo = Ask(path, Means.OWN), Ask(path, Means.ECHO)
        if self.agent_silent:
            yield echo
        elif path is Path.OVERLAY or self.misses == 0:
            yield own
            yield echo
        else:
            yield own
            if self.misses == 1:
                yield echo

    def _sparing(self) -> Iterator[Ask]:
        """Of a peer that is lost: enough to see it come back, and little enough for all of them to be asked."""
        judged = Path.OVERLAY if self._judged is self.overlay else Path.UNDERLAY
        first, second = (Means.OWN, Means.ECHO) if self.agent else (Means.ECHO, Means.OWN)
        yield Ask(judged, first)
        if self.turn % 4 == 0:
            yield Ask(judged, second)
        if judged is Path.OVERLAY and (self.underlay.misses < LOST_AFTER or self.turn % 2):
            yield Ask(Path.UNDERLAY, second if self.turn % 4 == 3 else first)

    def answer(self, ask: Ask, turn: int, asked: float, now: float, every: float) -> None:
        """A question of that turn is answered; ``every`` is how often a path that is wide enough is looked at."""
        if ask.means is Means.OWN:
            self.agent, self.silent = True, 0
        if ask.size:
            self.mtu.passed(ask.size, now, every)
            return
        trail = self.trail(ask.path)
        back = trail is self.overlay and trail.misses >= LOST_AFTER
        trail.answer(turn, asked, now)
        if back:
            self.mtu.restart()
        self._reckon(now)

    def miss(self, ask: Ask, now: float) -> None:
        """None has come in time."""
        trail = self.trail(ask.path)
        if ask.size:
            # Where small ones get lost now and then, large ones do as well: that says nothing of their size.
            if trail.misses == 0 and (self.mtu.small or not trail.missed(LOOK_CLOSER)):
                self.mtu.lost(ask.size, now)
            return
        if ask.means is Means.OWN and trail.done:
            self.silent = min(self.silent + 1, NO_AGENT_AFTER)
        trail.close(now)
        self._reckon(now)

    def hail(self, path: Path, run: int, number: int, now: float) -> None:
        """The peer has asked us."""
        trail = self.trail(path)
        if number:
            trail.hails.note(run, number)
        trail.hailed = now
        self.agent, self.silent = True, 0

    def forgive(self) -> None:
        """What it missed was our own doing."""
        for trail in (self.overlay, self.underlay):
            trail.misses, trail.window, trail.turns, trail.failing = 0, 0, 0, None

    def _reckon(self, now: float) -> None:
        judged = self._judged
        if self._lossy_until is not None and now - self._lossy_until >= RELAPSE_WITHIN:
            self._lossy_until = None
        if not self.lossy and judged.misses < LOST_AFTER and judged.missed(WINDOW) >= LOSSY_FROM:
            self.lossy = judged.missed(CLEAN_AFTER) > 0
            relapse = self._lossy_until is not None
            self._clean_after = min(2 * self._clean_after, KEPT) if relapse else CLEAN_AFTER
        if self.lossy and (not judged.missed(self._clean_after) or judged.misses >= LOST_AFTER):
            self.lossy, self._lossy_until = False, now
