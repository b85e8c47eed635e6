"""All peers: who is asked what next, which answers are still to come, and what is wrong as a whole.

Rules of this file
  1. Values in, values out: questions are handed out (``round``), and what became of them is told (``answered``,
     ``refused``, ``expire``).  Every moment is given, in seconds of a clock that never steps; chance is passed in.
  2. An answer counts if it bears the nonce of a question and comes from where that was sent.  It counts when it is late
     as well: the peer is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, Protocol

from pyflannel.health import Kind
from pyflannel.lease.model import Subnet
from pyflannel.probes import rest
from pyflannel.probes.outlook import BLIND, Hosts, Key, Line, Outlook
from pyflannel.probes.schedule import MOST, PERIOD, QUICK_TICK, TICK, Budget, Schedule
from pyflannel.probes.sight import Reach, Sight
from pyflannel.probes.summary import summed_up
from pyflannel.probes.track import Ask, Glance, Means, Path, Track
from pyflannel.probes.verdict import Verdict, judge, untroubled
from pyflannel.probes.wire import Arrivals, Packet
from pyflannel.state import IPAddress

LATE: Final = 4.0
"""Seconds for which an answer counts after the question was given up."""
ARRIVE_PER_SECOND: Final = 50
"""How many of its peers may ask a newcomer in a second, so that it can answer them all."""
DOUBT_AFTER: Final = 0.2
"""Seconds from our last question on, after which a peer in doubt about the way from us is given another."""
SILENCE_OF: Final = 8
"""So many peers, one after another, and nobody in between answers: then it is us."""
SILENCE_FOR: Final = 3.0
INSIST_ON: Final = 2
"""So many peers, with no answer in between, are asked again before others are."""


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
        self._outlook = BLIND
        self._hosts = Hosts(())
        self._tracks: dict[Key, Track | bytes] = {}
        """Of every line, in the form of ``rest`` while there is nothing to do about it."""
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
        if outlook is was:
            return
        self._hosts = Hosts(outlook.leases.values())
        for key in [key for key in self._tracks if key not in outlook.leases]:
            self._forget(key)
        alike = replace(was, leases=outlook.leases) == outlook
        spread = len(outlook.leases) / ARRIVE_PER_SECOND
        for key, lease in outlook.leases.items():
            if alike and was.leases.get(key) == lease:
                continue
            if key not in self._tracks or was.line(key) != outlook.line(key):
                self._forget(key)
                self._tracks[key] = rest.UNASKED
            elif isinstance(known := self._tracks[key], bytes):
                self._tracks[key] = rest.restart(known)
            else:
                known.line, known.mtu.device = outlook.line(key), outlook.mtu
                known.mtu.restart()
            self._hurry(key, now + spread * self._chance.random())

    def stir(self, now: float) -> None:
        """Something was put right here: some of those that are in trouble are asked at once."""
        for key in list(islice(self._troubled, MOST)):
            self._hurry(key, now)

    def _forget(self, key: Key) -> None:
        self._tracks.pop(key, None)
        self._schedule.drop(key)
        self._unanswered.discard(key)
        self._changed |= self._troubled.pop(key, None) is not None

    def _track(self, key: Key) -> Track:
        """What is known of a line: to be put back by whoever changes something about it."""
        known = self._tracks[key]
        return rest.unfold(known, self._outlook.line(key), self._outlook.mtu) if isinstance(known, bytes) else known

    def _put_back(self, track: Track) -> None:
        self._tracks[track.line.key] = rest.fold(track) if track.resting else track

    def pause(self, now: float, wall: float) -> float:
        """Seconds until there is something to do; ``wall`` is the Unix time at ``now``."""
        if self._busy(now + TICK):
            return QUICK_TICK
        if len(self._tracks) <= MOST:
            return TICK - wall % TICK
        moments = [pending.deadline for pending in self._pending.values() if not pending.over]
        if (opens := self._budget.opens) > now:
            moments.append(opens)
        return min(PERIOD - wall % PERIOD, max(min(moments, default=now + PERIOD) - now, QUICK_TICK))

    def _busy(self, soon: float) -> bool:
        """Whether there is something in doubt, that is waited for or to be asked by then.

        Of one that has never answered nothing is awaited until its time is up, and while as much was asked as may be
        there is nothing to ask.
        """
        waiting = (pending for pending in self._pending.values() if not pending.over and pending.track.urgent)
        doubted = any(pending.track.ever or pending.deadline < soon for pending in waiting)
        return doubted or max(self._schedule.next_urgent(), self._budget.opens) < soon

    def round(self, now: float) -> Iterator[Question]:
        """The questions to send at this moment."""
        # Where one after another does not answer, the next one tells more than to insist.
        widely = len(self._unanswered) > INSIST_ON
        while (left := self._budget.left(now)) and (key := self._schedule.first(now, widely)) is not None:
            track = self._track(key)
            asks = track.asks(now, key.version in self.own, key.version in self.echo)
            if len(asks) > left:
                return
            self._schedule.over(key)
            if not asks:
                self._schedule.put(key, now + PERIOD)
                continue
            track.begin(asks, now)
            self._tracks[key] = track
            for ask in asks:
                self._budget.spend(now)
                yield self._question(track, ask, now)

    def _question(self, track: Track, ask: Ask, now: float) -> Question:
        line, trail = track.line, track.trail(ask.path)
        through = ask.path is Path.OVERLAY
        target = line.end if through or line.host is None else line.host
        source = (self._outlook.ends if through else self._outlook.host).get(target.version)
        trail.number += ask.means is Means.OWN and not ask.size
        # Which of the large ones arrive is another question.
        number = 0 if ask.size else trail.number
        question = Question(self._chance.getrandbits(64), ask, target, source, number)
        self._pending[question.nonce] = _Pending(question, track, trail.turn, now, now + track.patience)
        track.awaited += 1
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
        track.awaited -= 1
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
                pending.track.awaited -= 1
                if self._knows(pending.track):
                    self._put_back(pending.track)

    def _close(self, track: Track, now: float, in_turn: bool) -> None:
        """A question is over; after the last of a turn the next turn is arranged."""
        if not self._knows(track):
            return
        key = track.line.key
        track.open -= in_turn
        if in_turn and track.open <= 0:
            urgent, pause = track.urgent, track.pause
            due = now + pause * (1.0 if urgent else 0.9 + 0.2 * self._chance.random())
            self._schedule.put(key, due, urgent)
        if track.misses == 0 or (track.open <= 0 and not track.outdated):
            self._judge(track)
        self._put_back(track)

    def _knows(self, track: Track) -> bool:
        """Whether it is not one of former times, of a peer that is gone or is asked elsewhere now."""
        return self._tracks.get(track.line.key) is track

    def _grow_silent(self, track: Track) -> None:
        """Who answered the last time does so no more."""
        if self._knows(track):
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
                track = self._track(key)
                track.forgive()
                self._put_back(track)
            self._hurry(key, now)
        self._judge_all(was)

    def _hurry(self, key: Key, due: float) -> None:
        """Ask it then, unless it is being asked."""
        known = self._tracks[key]
        if isinstance(known, bytes) or known.open <= 0:
            self._schedule.put(key, due, urgent=True)

    def _every(self) -> float:
        """Seconds between looks at a path that is wide enough: one of all peers is looked at in a period.

        A little less, so that with a single peer it is due in each of its turns.
        """
        return PERIOD * (len(self._tracks) * (0.8 + 0.4 * self._chance.random()) - 0.4)

    def whose(self, source: IPAddress) -> Key | None:
        """The peer that has this address; None for a stranger."""
        if (key := self._outlook.at(source)) is not None:
            return key
        keys = (key for lease in self._hosts.of(source) for key in self._outlook.keys(lease.subnet))
        return next((key for key in keys if self._outlook.line(key).host == source), None)

    def hail(self, source: IPAddress, path: Path, packet: Packet, now: float) -> tuple[Arrivals, Arrivals] | None:
        """A peer asks us: what to report to it of both ways.  None for a stranger."""
        key = self.whose(source)
        if key is None:
            return None
        track = self._track(key)
        track.hail(path, packet.run, packet.number, now)
        self._put_back(track)
        if track.misses if path is Path.OVERLAY else self._is_doubted(track, now):
            self._hurry(key, now)
        return track.overlay.hails.of(packet.run), track.underlay.hails.of(packet.run)

    def _is_doubted(self, track: Track, now: float) -> bool:
        """Whether a peer that asks us beside the overlay should hear from us through it: it has not for a while."""
        return track.line.sure and track.overlay.asked + DOUBT_AFTER < now

    def _judge_all(self, keys: Iterable[Key]) -> None:
        for key in keys:
            if key in self._tracks:
                self._judge(self._track(key))

    def _judge(self, track: Track) -> None:
        if track.well and track.line.key not in self._troubled:
            return
        silence = len(self._unanswered) >= SILENCE_OF
        verdict = judge(track, self._here(track.line), silence, track.misses > 0 and self._has_moved(track.line))
        was = self._troubled.pop(track.line.key, None)
        if verdict.troubles:
            self._troubled[track.line.key] = verdict
        self._changed |= (was.troubles if was is not None else ()) != verdict.troubles

    def _has_moved(self, line: Line) -> bool:
        """Whether its host is reached by another subnet."""
        leases = self._hosts.of(line.host) if line.host is not None else ()
        keys = {key for lease in leases for key in self._outlook.keys(lease.subnet)} - {line.key}
        others = (self._track(key) for key in keys if key.version == line.end.version)
        return any(each.overlay.heard is not None and each.overlay.misses == 0 for each in others)

    def _here(self, line: Line) -> IPAddress | None:
        return None if line.host is None else self._outlook.host.get(line.host.version)

    def sights(self, now: float, wall: float, of: Iterable[Subnet] | None = None) -> dict[Subnet, Sight]:
        """What is known of each peer, or of those of ``of`` that are peers; ``wall`` is the Unix time at ``now``."""
        cut_off = self.cut_off(now)
        outlook, found = self._outlook, dict[Subnet, Sight]()
        for key in outlook.leases if of is None else [key for subnet in of for key in outlook.keys(subnet)]:
            subnet, sight = outlook.leases[key].subnet, self._sight(key, wall - now, cut_off)
            if (other := found.setdefault(subnet, sight)) is not sight:
                found[subnet] = worst([other, sight])
        return found

    def _glance(self, key: Key) -> Glance:
        known = self._tracks[key]
        return rest.glance(known, key.version in self._outlook.ends) if isinstance(known, bytes) else known.glance

    def _sight(self, key: Key, ahead: float, cut_off: bool) -> Sight:
        glance = self._glance(key)
        verdict = self._troubled.get(key) or untroubled(glance)
        reach, reason = verdict.reach, verdict.reason
        if cut_off and glance.heard is not None:
            reach, reason = Reach.LOST, "no host answers"
        heard = None if glance.heard is None else glance.heard + ahead
        return Sight(reach, reason, glance.rtt, glance.loss, glance.mtu, heard)

    def cut_off(self, now: float) -> bool:
        """Whether nobody answers that used to."""
        if len(self._unanswered) < 2 or self._answered_at is None or now - self._answered_at < SILENCE_FOR:
            return False
        silent = (key in self._unanswered or self._glance(key).heard is None for key in self._tracks)
        return len(self._unanswered) >= SILENCE_OF or all(silent)

    def news(self, now: float) -> bool:
        """Whether ``troubles`` has something else to say than the last time."""
        return self._changed or self.cut_off(now) != self._was_cut_off

    def troubles(self, now: float) -> dict[Kind, dict[str, str]]:
        """Every trouble there is: of each kind the words, by subject."""
        cut_off = self.cut_off(now)
        self._changed, self._was_cut_off = False, cut_off
        verdicts = ((self._outlook.leases[key].subnet, verdict) for key, verdict in self._troubled.items())
        return summed_up(verdicts, cut_off, self._anybody)

    def _anybody(self) -> bool:
        """Whether any peer's containers are reached."""
        verdicts = (self._troubled.get(key) or untroubled(self._glance(key)) for key in self._tracks)
        return any(verdict.reach in (Reach.REACHED, Reach.LOSSY) for verdict in verdicts)


_BADNESS: Final = {Reach.REACHED: 0, Reach.UNKNOWN: 1, Reach.LOSSY: 2, Reach.LOST: 3}


def worst(sights: Iterable[Sight]) -> Sight:
    """Of a peer in several families: what is said of the one that is worst off."""
    return max(sights, key=lambda sight: _BADNESS[sight.reach], default=Sight())
