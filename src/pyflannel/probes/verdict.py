"""What a track means: how the peer is reached, and what a person should know about that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pyflannel.conditions import (
    ONE_WAY,
    PATH_MTU_SMALL,
    PEER_LOSSY,
    PEER_SILENT,
    PEER_UNREACHABLE,
    SUBNET_SILENT,
    TUNNEL_BLOCKED,
)
from pyflannel.health import Kind
from pyflannel.probes.sight import OURS_ARRIVE, THEIRS_ARRIVE, Reach
from pyflannel.probes.track import Glance, Track
from pyflannel.probes.trail import LOST_AFTER, WINDOW, Trail
from pyflannel.state import IPAddress

HAIL_COUNTS_FOR: Final = 10.0
"""Seconds: a peer that is in doubt about us asks more often."""
REPORT_LAG: Final = 4
"""Questions by which a report may be behind: those through the tunnel are overtaken by those beside it, which are not
all asked in our own protocol."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one line is."""

    reach: Reach
    reason: str = ""
    """In a few words; empty if it is well."""
    troubles: tuple[tuple[Kind, str], ...] = ()
    """Each with a whole sentence."""


WELL: Final = Verdict(Reach.REACHED)
UNKNOWN: Final = Verdict(Reach.UNKNOWN, "not asked yet")
WITHOUT_AGENT: Final = Verdict(Reach.REACHED, "its agent does not answer, its containers are reached")


def judge(track: Track, here: IPAddress | None, silence: bool = False, moved: bool = False) -> Verdict:
    """How a line is.

    ``here`` is our address on the underlay, for people.  ``silence``: nobody at all answers at the moment, so a single
    miss is enough.  ``moved``: its host is reached by another subnet, so this one is most likely of a former time.
    """
    if moved and track.line.sure and track.overlay.misses >= LOST_AFTER:
        return _superseded(track)
    if not track.ever:
        if track.misses < LOST_AFTER:
            return UNKNOWN
        return _blocked(track, here) if track.line.sure and _host_answers(track) else _never(track)
    if track.misses >= (1 if silence else LOST_AFTER):
        return _lost(track, here)
    troubles = [*_narrow(track), *_lossy(track)]
    if troubles:
        reach = Reach.LOSSY if track.lossy else Reach.REACHED
        return Verdict(reach, "; ".join(reason for _, reason, _ in troubles), tuple((k, t) for k, _, t in troubles))
    return untroubled(track.glance)


def untroubled(glance: Glance) -> Verdict:
    """How a line is of which there is no trouble to tell."""
    if glance.heard is None:
        return UNKNOWN
    return WITHOUT_AGENT if glance.without_agent else WELL


def _host_answers(track: Track) -> bool:
    """Whether the host itself does, asked since the overlay failed, by one of the ways to ask it at least."""
    under, failing = track.underlay, track.overlay.failing
    return under.misses < LOST_AFTER and under.heard is not None and failing is not None and under.heard >= failing


def _came(trail: Trail, since: float | None) -> bool:
    """Whether a question of the peer came in this way after that, and not long before we last asked in vain."""
    return since is not None and trail.came is not None and trail.came > max(since, trail.asked - HAIL_COUNTS_FOR)


def _lost(track: Track, here: IPAddress | None) -> Verdict:
    line, failing = track.line, track.overlay.failing
    if track.overlay.heard is None or not (_host_answers(track) or _came(track.overlay, failing)):
        if _came(track.underlay, track.underlay.failing):
            text = f"{line.subnet}: packets of {line.host} arrive at {here}, and nothing that we send is answered"
            return _verdict(ONE_WAY, "its packets arrive, ours do not", text)
        text = f"{line.subnet}: {line.host or line.end} does not answer any more{_error(track)}"
        return _verdict(PEER_UNREACHABLE, "does not answer any more", text)
    if not line.sure:
        text = f"{line.subnet}: its host {line.host} answers, {line.end} does so no longer"
        return Verdict(Reach.UNKNOWN, f"its host answers, {line.end} does not", ((SUBNET_SILENT, text),))
    return _blocked(track, here)


def _blocked(track: Track, here: IPAddress | None) -> Verdict:
    """The host answers, the overlay does not: in which direction?"""
    line, over = track.line, track.overlay
    carrier = line.carrier or "what is sent to its containers"
    # One question may have been answered and the answer cut off by the very fault, so it takes two.
    if over.reported.newest > max(over.answered + 1, over.number - REPORT_LAG):
        return _one_way(track, f"{carrier} from {line.host} to {here}", OURS_ARRIVE)
    if _came(over, over.failing):
        return _one_way(track, f"{carrier} from {here} to {line.host}", THEIRS_ARRIVE)
    doubt = "" if track.agent else ", unless that host answers no ICMP echo there"
    text = (
        f"{line.subnet}: the host {line.host} answers, {line.end} does not: "
        f"{carrier} between {here} and {line.host} is probably blocked{doubt}{_error(track)}"
    )
    return _verdict(TUNNEL_BLOCKED, f"its host answers, but nothing comes through: {carrier} blocked?", text)


def _one_way(track: Track, what: str, reason: str) -> Verdict:
    text = f"{track.line.subnet}: packets pass in one direction only: {what} is probably blocked"
    return _verdict(ONE_WAY, reason, text)


def _never(track: Track) -> Verdict:
    line = track.line
    text = f"{line.subnet}: neither {line.end} nor its host {line.host} has answered yet{_error(track)}"
    return Verdict(Reach.UNKNOWN, "has never answered", ((PEER_SILENT, text),))


def _superseded(track: Track) -> Verdict:
    line = track.line
    text = f"{line.subnet}: its host {line.host} has another subnet, by which it is reached: is this lease an old one?"
    return Verdict(Reach.UNKNOWN, "its host is reached by another subnet", ((PEER_SILENT, text),))


def _narrow(track: Track) -> list[tuple[Kind, str, str]]:
    search = track.mtu
    if not search.small:
        return []
    most = f"those of {search.best}" if search.best and not search.searching else "smaller ones"
    text = f"{track.line.subnet}: packets of {search.device} octets do not come through to {track.line.end}, {most} do"
    return [(PATH_MTU_SMALL, f"packets of {search.device} octets do not pass, {most} do", text)]


def _lossy(track: Track) -> list[tuple[Kind, str, str]]:
    if not track.lossy:
        return []
    trail = track.overlay if track.overlay.heard is not None else track.underlay
    text = f"{track.line.subnet}: many questions to {track.line.end} are not answered{_direction(trail)}"
    return [(PEER_LOSSY, "many packets get lost", text)]


def _direction(trail: Trail) -> str:
    """Where our questions and the answers to them get lost, as far as the peer has told.

    In words that do not change with every packet.
    """
    if not trail.reported.newest:
        return ""
    asked = min(WINDOW, trail.reported.newest)
    arrived = (trail.reported.seen & (1 << asked) - 1).bit_count()
    there, missed = asked - arrived, trail.missed(WINDOW)
    if there * 4 >= missed * 3:
        return ": most get lost on the way there"
    return ": most arrive there, and the answers get lost" if there * 4 <= missed else ": lost in both directions"


def _error(track: Track) -> str:
    return f" (sending: {track.overlay.error})" if track.overlay.error else ""


def _verdict(kind: Kind, reason: str, text: str) -> Verdict:
    return Verdict(Reach.LOST, reason, ((kind, text),))
