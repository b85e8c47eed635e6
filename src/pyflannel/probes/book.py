"""All peers: who is asked what next, which answers are still to come, and what is wrong as a whole.

Rules of this file
  1. Values in, values out: questions are handed out (``round``), and what became of them is told (``answered``,
     ``refused``, ``expire``).  Every moment is given, in seconds of a clock that never steps; chance is passed in.
  2. An answer counts if it bears the nonce of a question and comes from where that was sent.  It counts when it is late
     as well: the peer is there.
  3. What is the same with everybody is said once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from pyflannel.conditions import (
    CUT_OFF,
    ONE_WAY,
    PATH_MTU_SMALL,
    PEER_LOSSY,
    PEER_SILENT,
    PEER_UNREACHABLE,
    SUBNET_SILENT,
    TUNNEL_BLOCKED,
)
from pyflannel.health import Kind
from pyflannel.lease.model import Subnet
from pyflannel.probes.outlook import Key, Line, Outlook
from pyflannel.probes.schedule import PERIOD, Budget, Schedule
from pyflannel.probes.sight import Reach, Sight
from pyflannel.probes.track import Ask, Means, Path, Track
from pyflannel.probes.verdict import UNKNOWN, Verdict, judge
from pyflannel.probes.wire import Arrivals, Packet
from pyflannel.state import IPAddress

KINDS: Final = (
    *(CUT_OFF, PEER_UNREACHABLE, TUNNEL_BLOCKED, ONE_WAY),
    *(SUBNET_SILENT, PEER_LOSSY, PATH_MTU_SMALL, PEER_SILENT),
)
"""All that a book tells of."""
LATE: Final = 4.0
"""Seconds for which an answer counts after the question was given up."""
ARRIVE_PER_SECOND: Final = 50
"""How many of its peers may ask a newcomer in a second, so that it can answer them all."""
SILENCE_OF: Final = 8
"""So many peers, one after another, and nobody in between answers: then it is us."""
SILENCE_FOR: Final = 3.0
NAMED_SILENT: Final = 8
"""Peers that never answered are named one by one if they are no more than this."""


class Chance(Protocol):
    """A source of randomness: ``random.Random``, or a sequence in tests."""

    def random(self) -> float:
        """From 0 to 1, without 1."""
        ...

    def getrandbits(self, k: int, /) -> int:
        """So many bits."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be sent."""

    nonce: int
    ask: Ask
    target: IPAddress
    source: IPAddress | None
    """None: as the kernel chooses."""
    number: int


@dataclass(slots=True)
class _Pending:
    question: Question
    track: Track
    turn: int
    asked: float
    deadline: float
    over: bool = False
    """It was given up."""


class Book:
    """What is known of all peers."""

    def __init__(self, chance: Chance, run: int) -> None:
        """Nobody is known; ``run`` is what tells this run of the agent from another."""
        self.own: frozenset[int] = frozenset((4, 6))
        """The address families in which we can ask our own way."""
        self.echo: frozenset[int] = frozenset((4, 6))
        """Those in which we can ask by ICMP echo."""
        self.run = run
        self._chance = chance
        self._outlook: Outlook | None = None
        self._tracks: dict[Key, Track] = {}
        self._verdicts: dict[Key, Verdict] = {}
        self._hosts: dict[IPAddress, Key] = {}
        """Whose packets come from which address: of all peers, both their end and their host."""
        self._shared: dict[IPAddress, list[Key]] = {}
        """Hosts that several peers name."""
        self._schedule: Schedule[Key] = Schedule()
        self._budget = Budget()
        self._pending: dict[int, _Pending] = {}
        self._troubled: dict[Key, Verdict] = {}
        self._unanswered: set[Key] = set()
        """Who used to answer and has not, since anybody did."""
        self._answered_at: float | None = None
        """When anybody answered, be it beside the overlay only."""
        self._reached_at = 0.0
        """When anybody was reached."""
        self._changed, self._was_cut_off = True, False

    @property
    def empty(self) -> bool:
        """Whether there is nobody to ask."""
        return not self._tracks

    def look(self, outlook: Outlook, now: float) -> None:
        """These are the peers now.  What is known of those that are asked at the same addresses stays."""
        was, self._outlook = self._outlook, outlook
        same = was is not None and (was.ends, was.host, was.mtu) == (outlook.ends, outlook.host, outlook.mtu)
        lines = {line.key: line for group in outlook.lines.values() for line in group}
        for key in [key for key in self._tracks if key not in lines]:
            self._schedule.drop(key)
            self._unanswered.discard(key)
            del self._tracks[key], self._verdicts[key]
            self._changed |= self._troubled.pop(key, None) is not None
        spread = len(lines) / ARRIVE_PER_SECOND
        for key, line in lines.items():
            known = self._tracks.get(key)
            if known is None or (known.line is not line and known.line != line):
                self._tracks[key] = Track(line, outlook.mtu)
                self._put(key, UNKNOWN)
            elif same and known.line is line:
                continue
            else:
                known.line, known.mtu.device = line, outlook.mtu
                known.mtu.restart()
            self._hurry(key, now + spread * self._chance.random())
        named: defaultdict[IPAddress, list[Key]] = defaultdict(list)
        for key, line in lines.items():
            if line.host is not None:
                named[line.host].append(key)
        self._shared = {host: keys for host, keys in named.items() if len(keys) > 1}
        self._hosts = {host: keys[-1] for host, keys in named.items()}
        self._hosts |= {line.end: key for key, line in lines.items()}

    def busy(self, now: float, within: float) -> bool:
        """Whether there is something in doubt, that is waited for or to be asked within so many seconds."""
        doubted = any(pending.track.urgent and not pending.over for pending in self._pending.values())
        return doubted or self._schedule.next_urgent() < now + within

    def round(self, now: float) -> Iterator[Question]:
        """The questions to send at this moment."""
        while (left := self._budget.left(now)) and (turn := self._schedule.take(now)) is not None:
            key, urgent = turn
            track = self._tracks[key]
            asks = track.asks(now, key[1] in self.own, key[1] in self.echo)
            if not asks:
                self._schedule.put(key, now + PERIOD)
            elif len(asks) > left:
                self._schedule.put(key, now - PERIOD, urgent)
                return
            track.begin(asks, now)
            for ask in asks:
                self._budget.spend(now)
                yield self._question(track, ask, now)

    def _question(self, track: Track, ask: Ask, now: float) -> Question:
        assert self._outlook is not None
        line, trail = track.line, track.trail(ask.path)
        through = ask.path is Path.OVERLAY
        target = line.end if through or line.host is None else line.host
        source = (self._outlook.ends if through else self._outlook.host).get(target.version)
        trail.number += ask.means is Means.OWN and not ask.size
        # Which of the large ones arrive is another question.
        number = 0 if ask.size else trail.number
        question = Question(self._chance.getrandbits(64), ask, target, source, number)
        self._pending[question.nonce] = _Pending(question, track, trail.turn, now, now + track.patience)
        return question

    def answered(self, nonce: int, means: Means, source: IPAddress, now: float, report: Packet | None = None) -> bool:
        """An answer has come from ``source``; False if it is none to a question of ours."""
        pending = self._pending.get(nonce)
        if pending is None or pending.question.target != source or pending.question.ask.means is not means:
            return False
        del self._pending[nonce]
        track, ask = pending.track, pending.question.ask
        if report is not None:
            track.overlay.reported, track.underlay.reported = report.overlay, report.underlay
            if not ask.size:
                trail = track.trail(ask.path)
                trail.answered = max(trail.answered, pending.question.number)
        track.answer(ask, pending.turn, pending.asked, now, self._every())
        self._answered_at = now
        if track.misses == 0:
            self._break_silence(now)
        self._close(track, now, not pending.over)
        return True

    def refused(self, nonce: int, why: str, now: float) -> None:
        """A question could not be sent."""
        if (pending := self._pending.get(nonce)) is not None:
            pending.deadline = now
            if not pending.question.ask.size:
                pending.track.trail(pending.question.ask.path).error = why

    def expire(self, now: float) -> None:
        """Give up what has not been answered in time."""
        for nonce, pending in list(self._pending.items()):
            if not pending.over and pending.deadline <= now:
                pending.over = True
                before = pending.track.misses
                pending.track.miss(pending.question.ask, now)
                if before == 0 < pending.track.misses and pending.track.ever:
                    self._grow_silent(pending.track)
                self._close(pending.track, now, True)
            elif pending.deadline + LATE <= now:
                del self._pending[nonce]

    def _close(self, track: Track, now: float, in_turn: bool) -> None:
        """A question is over; after the last of a turn the next turn is arranged."""
        key = track.line.key
        if self._tracks.get(key) is not track:
            return
        track.open -= in_turn
        if in_turn and track.open <= 0:
            urgent, pause = track.urgent, track.pause
            due = now + pause * (1.0 if urgent else 0.9 + 0.2 * self._chance.random())
            self._schedule.put(key, due, urgent)
        self._judge(key, track)

    def _grow_silent(self, track: Track) -> None:
        """Who answered the last time does so no more."""
        if self._tracks.get(track.line.key) is track:
            self._unanswered.add(track.line.key)
            if len(self._unanswered) == SILENCE_OF:
                self._judge_all(self._unanswered)

    def _break_silence(self, now: float) -> None:
        """Somebody is reached.  If nobody was before, it was us, and is over: all are asked at once."""
        was, self._unanswered = self._unanswered, set()
        since, self._reached_at = self._reached_at, now
        if len(was) < SILENCE_OF:
            return
        for key in was & self._tracks.keys():
            if now - since >= SILENCE_FOR:
                self._tracks[key].forgive()
            self._hurry(key, now)
        self._judge_all(was)

    def _hurry(self, key: Key, due: float) -> None:
        """Ask it then, unless it is being asked."""
        track = self._tracks.get(key)
        if track is not None and track.open <= 0:
            self._schedule.put(key, due, urgent=True)

    def _every(self) -> float:
        """Seconds between looks at a path that is wide enough: one of all peers is looked at in a period."""
        return PERIOD * len(self._tracks) * (0.8 + 0.4 * self._chance.random())

    def whose(self, source: IPAddress) -> Key | None:
        """The peer that has this address; None for a stranger."""
        return self._hosts.get(source)

    def hail(self, source: IPAddress, path: Path, packet: Packet, now: float) -> tuple[Arrivals, Arrivals] | None:
        """A peer asks us: what to report to it of both ways.  None for a stranger."""
        key = self._hosts.get(source)
        if key is None:
            return None
        track = self._tracks[key]
        track.hail(path, packet.run, packet.number, now)
        if track.misses and path is Path.OVERLAY:
            self._hurry(key, now)
            self._judge(key, track)
        return track.overlay.hails.of(packet.run), track.underlay.hails.of(packet.run)

    def _judge_all(self, keys: Iterable[Key]) -> None:
        for key in keys:
            if (track := self._tracks.get(key)) is not None:
                self._judge(key, track)

    def _judge(self, key: Key, track: Track) -> None:
        silence = len(self._unanswered) >= SILENCE_OF
        self._put(key, judge(track, self._here(track.line), silence, track.misses > 0 and self._has_moved(track.line)))

    def _has_moved(self, line: Line) -> bool:
        """Whether its host is reached by another subnet."""
        others = self._shared.get(line.host, ()) if line.host is not None else ()
        subnet, version = line.key
        named = (self._tracks[key] for key in others if key[0] != subnet and key[1] == version)
        return any(each.overlay.heard is not None and each.overlay.misses == 0 for each in named)

    def _put(self, key: Key, verdict: Verdict) -> None:
        self._verdicts[key] = verdict
        was = self._troubled.pop(key, None) if not verdict.troubles else self._troubled.get(key)
        if verdict.troubles:
            self._troubled[key] = verdict
        self._changed |= (was.troubles if was is not None else ()) != verdict.troubles

    def _here(self, line: Line) -> IPAddress | None:
        if self._outlook is None or line.host is None:
            return None
        return self._outlook.host.get(line.host.version)

    def sights(self, now: float, wall: float, of: Iterable[Subnet] | None = None) -> dict[Subnet, Sight]:
        """What is known of each peer, or of those of ``of`` that are peers; ``wall`` is the Unix time at ``now``."""
        outlook = self._outlook
        cut_off = self.cut_off(now)
        if outlook is None:
            return {}
        return {
            subnet: worst([self._sight(line.key, wall - now, cut_off) for line in lines])
            for subnet in (outlook.lines if of is None else of)
            if (lines := outlook.lines.get(subnet)) is not None
        }

    def _sight(self, key: Key, ahead: float, cut_off: bool) -> Sight:
        track, verdict = self._tracks[key], self._verdicts[key]
        trail = track.overlay if track.line.sure or track.overlay.heard is not None else track.underlay
        reach, reason = verdict.reach, verdict.reason
        if cut_off and track.ever:
            reach, reason = Reach.LOST, "no host answers"
        heard = None if trail.heard is None else trail.heard + ahead
        return Sight(reach, reason, trail.rtt, trail.loss, track.mtu.best, heard)

    def cut_off(self, now: float) -> bool:
        """Whether nobody answers that used to."""
        if len(self._unanswered) >= SILENCE_OF and self._answered_at is not None:
            return now - self._answered_at >= SILENCE_FOR
        if len(self._unanswered) < 2:
            return False
        known = [key for key, track in self._tracks.items() if track.ever]
        return len(known) > 1 and all(self._is(key, PEER_UNREACHABLE) for key in known)

    def _is(self, key: Key, kind: Kind) -> bool:
        return any(each is kind for each, _ in self._verdicts[key].troubles)

    def news(self, now: float) -> bool:
        """Whether ``troubles`` has something else to say than the last time."""
        return self._changed or self.cut_off(now) != self._was_cut_off

    def troubles(self, now: float) -> dict[Kind, dict[str, str]]:
        """Every trouble there is: of each kind the words, by subject."""
        cut_off = self.cut_off(now)
        self._changed, self._was_cut_off = False, cut_off
        found: dict[Kind, dict[str, str]] = {}
        for (subnet, _), verdict in self._troubled.items():
            for kind, text in verdict.troubles:
                found.setdefault(kind, {}).setdefault(str(subnet), text)
        if cut_off:
            found.pop(PEER_UNREACHABLE, None)
            found.pop(ONE_WAY, None)
            found[CUT_OFF] = {"": "none of the hosts that used to answer does so any more: is this host cut off?"}
        if len(blocked := found.get(TUNNEL_BLOCKED, {})) > 1 and not self._anybody():
            first = next(iter(blocked.values()))
            found[TUNNEL_BLOCKED] = {"": f"nothing comes through the overlay to any host that answers, as to {first}"}
        if len(silent := found.get(PEER_SILENT, {})) > NAMED_SILENT:
            names = ", ".join(list(silent)[:3])
            text = f"more than {NAMED_SILENT} hosts have never answered, among them those of {names}"
            found[PEER_SILENT] = {"": text}
        return found

    def _anybody(self) -> bool:
        """Whether any peer's containers are reached."""
        return any(verdict.reach in (Reach.REACHED, Reach.LOSSY) for verdict in self._verdicts.values())


_BADNESS: Final = {Reach.REACHED: 0, Reach.UNKNOWN: 1, Reach.LOSSY: 2, Reach.LOST: 3}


def worst(sights: Iterable[Sight]) -> Sight:
    """Of a peer in several families: what is said of the one that is worst off."""
    return max(sights, key=lambda sight: _BADNESS[sight.reach], default=Sight())
