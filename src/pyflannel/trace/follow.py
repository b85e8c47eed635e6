"""A packet followed from one end of its way to the other, and its answer back.

Rules of this file
  1. There are up to four legs: this host and the other, there and back.  The first on which it ends is the last one.
  2. What another host does is its own word, where its agent gives it.  Without that nothing is assumed: the first half
     stands, and the end cannot be told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from pyflannel.linux.lookup import Kind
from pyflannel.trace import gather
from pyflannel.trace.facts import Crossing, Flow, Hop, Mood, Outer, Overlay, Peer, Point, contains
from pyflannel.trace.messages import BadMessage, Half, Question, question, read_answer
from pyflannel.trace.passages import disguise
from pyflannel.trace.sending import outer
from pyflannel.trace.walk import arriving, departing, until_end


class NoAnswer(Exception):
    """The agent of another host cannot be asked, or does not answer; the message says why."""


class NotHere(Exception):
    """The source of the packet is not on this host; the message says where it is."""


Ask = Callable[[Peer, bytes], bytes]
"""Has the agent of a peer answer a question; ``NoAnswer`` otherwise."""


class Verdict(Enum):
    """How it comes out."""

    ARRIVES = "arrives"
    """And so does the answer."""
    ENDS = "ends"
    UNTOLD = "cannot be told"


@dataclass(frozen=True, slots=True)
class Leg:
    """One host's part of the way."""

    host: str
    """Empty for this host."""
    back: bool
    hops: tuple[Hop, ...]


@dataclass(frozen=True, slots=True)
class Trace:
    """Where a packet ends, and why."""

    flow: Flow
    verdict: Verdict
    sentence: str
    """One sentence for people."""
    remedy: str
    """What to do; empty where there is nothing."""
    legs: tuple[Leg, ...]


def follow(overlay: Overlay, flow: Flow, ask: Ask, run_dir: Path | None = None) -> Trace:
    """Follow ``flow`` from this host; ``NotHere`` if it does not begin here, ``CannotLook`` if nothing can be known."""
    crossing = gather.depart(overlay, flow, run_dir)
    _refuse_strangers(overlay, crossing, flow)
    legs = [Leg("", False, until_end(departing(overlay, crossing, flow)))]
    peer = _next(overlay, crossing, flow)
    if _ended(legs):
        return _trace(flow, legs)
    if peer is None:
        return _trace(flow, [*legs, *_rest(overlay, crossing, flow, run_dir)])
    around = outer(overlay, crossing)
    seen = _seen(overlay, crossing, flow)
    try:
        half = _asked(ask, peer, seen, around)
    except NoAnswer as error:
        legs.append(Leg(peer.name, False, (Hop(Point.AGENT, Mood.UNSURE, str(error), _SILENT),)))
        return _trace(flow, legs)
    legs.append(Leg(peer.name, False, half.there))
    if half.trouble and not _ended(legs):
        legs.append(Leg(peer.name, False, (Hop(Point.AGENT, Mood.UNSURE, f"its agent says: {half.trouble}"),)))
    if half.back and not _ended(legs):
        legs.append(Leg(peer.name, True, half.back))
    if half.outer is None and not half.trouble and not _ended(legs):
        text = "its agent does not say how the answer leaves"
        legs.append(Leg(peer.name, True, (Hop(Point.AGENT, Mood.UNSURE, text),)))
    if half.outer is not None and not _ended(legs):
        answer = flow.answer()
        home = gather.arrive(overlay, answer, half.outer, run_dir)
        legs.append(Leg("", True, until_end(arriving(overlay, home, answer, half.outer))))
    return _trace(flow, legs)


def receive(overlay: Overlay, flow: Flow, around: Outer, run_dir: Path | None = None) -> Half:
    """The half of a packet that comes to this host as ``around`` says, and of its answer on its way out."""
    try:
        crossing = gather.arrive(overlay, flow, around, run_dir)
        there = until_end(arriving(overlay, crossing, flow, around))
        if there[-1].mood is Mood.END:
            return Half(there)
        answer = flow.answer()
        leaving = gather.depart(overlay, answer, run_dir)
        back = until_end(departing(overlay, leaving, answer))
        ended = back[-1].mood is Mood.END
        return Half(there, back, None if ended else outer(overlay, leaving))
    except gather.CannotLook as error:
        return Half((), trouble=str(error))


_SILENT = "see whether flanneld runs there, and is one that answers (Go flanneld does not): flannelctl peers"


def _refuse_strangers(overlay: Overlay, crossing: Crossing, flow: Flow) -> None:
    local = crossing.back is not None and crossing.back.kind is Kind.LOCAL
    if crossing.entry is not None or local or contains(overlay.own, flow.source):
        return
    peer = overlay.peer(flow.source) or overlay.host(flow.source)
    where = "no container or address of this host" if peer is None else f"on {peer.name}, so ask there"
    raise NotHere(f"{flow.source} is {where}")


def _next(overlay: Overlay, crossing: Crossing, flow: Flow) -> Peer | None:
    """The host it is sent to; None if it stays here, or goes where no agent is."""
    if contains(overlay.own, flow.destination) or crossing.leaves is None:
        return None
    return overlay.peer(flow.destination)


def _rest(overlay: Overlay, crossing: Crossing, flow: Flow, run_dir: Path | None) -> list[Leg]:
    """What follows where no other host of the network is concerned."""
    leaves = crossing.leaves
    if leaves is None or contains(overlay.own, flow.destination) or leaves.kind == "bridge":
        answer = flow.answer()
        return [Leg("", True, until_end(departing(overlay, gather.depart(overlay, answer, run_dir), answer)))]
    text = f"it leaves by {leaves.name} for where no agent of this network is: what happens there cannot be told"
    return [Leg("", False, (Hop(Point.AGENT, Mood.UNSURE, text),))]


def _seen(overlay: Overlay, crossing: Crossing, flow: Flow) -> Flow:
    """The packet as the other host sees it: with another source where this one disguises it."""
    leaves = crossing.leaves
    if leaves is None or not disguise(crossing, flow):
        return flow
    version = flow.source.version
    own = [each.ip for each in leaves.addresses if each.version == version]
    own += [each for each in overlay.addresses if each.version == version]
    return replace(flow, source=own[0]) if own else flow


def _asked(ask: Ask, peer: Peer, flow: Flow, around: Outer | None) -> Half:
    if around is None:
        raise NoAnswer("how the packet gets there is not known")
    raw = ask(peer, question(Question(flow, around)))
    try:
        return read_answer(raw)
    except BadMessage as error:
        raise NoAnswer(f"what its agent answers is not understood: {error}") from error


def _ended(legs: list[Leg]) -> bool:
    return any(hop.mood is Mood.END for leg in legs for hop in leg.hops)


def _trace(flow: Flow, legs: list[Leg]) -> Trace:
    for leg, hop in _hops(legs, Mood.END):
        what = "It arrives, but the answer ends" if leg.back else "It ends"
        sentence = f"{what} {_place(leg)}, at {hop.point}: {hop.text}."
        return Trace(flow, Verdict.ENDS, sentence, hop.remedy, tuple(legs))
    for leg, hop in _hops(legs, Mood.UNSURE):
        sentence = f"It cannot be told: {_place(leg)}, {hop.text}."
        if hop.point is Point.AGENT and leg.host:
            sentence = f"It leaves this host well, but what happens {_place(leg)} cannot be told: {hop.text}."
        return Trace(flow, Verdict.UNTOLD, sentence, hop.remedy, tuple(legs))
    return Trace(flow, Verdict.ARRIVES, "It arrives, and so does the answer.", "", tuple(legs))


def _hops(legs: list[Leg], mood: Mood) -> Iterator[tuple[Leg, Hop]]:
    return ((leg, hop) for leg in legs for hop in leg.hops if hop.mood is mood)


def _place(leg: Leg) -> str:
    return f"on {leg.host}" if leg.host else "on this host"
