"""What is said of a line in each state that it can be in; how it comes about is tested with the book."""

from __future__ import annotations

from ipaddress import IPv4Address

from pyflannel.conditions import PATH_MTU_SMALL, PEER_LOSSY, PEER_SILENT, PEER_UNREACHABLE, TUNNEL_BLOCKED
from pyflannel.probes.pathmtu import TRIES
from pyflannel.probes.sight import Reach
from pyflannel.probes.track import Ask, Means, Path, Track
from pyflannel.probes.trail import LOST_AFTER
from pyflannel.probes.verdict import UNKNOWN, WELL, judge
from pyflannel.probes.wire import Arrivals
from tests.support.probe_world import HERE, line

OVERLAY, UNDERLAY = Ask(Path.OVERLAY, Means.OWN), Ask(Path.UNDERLAY, Means.OWN)


def turn(track: Track, now: float, *answered: Ask) -> None:
    """One turn, of which these questions are answered."""
    asks = track.asks(now, own=True, echo=True)
    track.begin(asks, now)
    for ask in asks:
        if Ask(ask.path, Means.OWN, ask.size) in answered:
            track.answer(ask, track.trail(ask.path).turn, now, now + 0.01, 60.0)
        else:
            track.miss(ask, now + 1)


def known() -> Track:
    track = Track(line(1), 0)
    turn(track, 0.0, OVERLAY)
    assert judge(track, HERE) is WELL
    return track


def test_before_it_was_asked_often_enough_nothing_is_said() -> None:
    track = Track(line(1), 0)
    assert judge(track, HERE) is UNKNOWN
    turn(track, 0.0)
    assert judge(track, HERE) is UNKNOWN
    for now in range(1, LOST_AFTER):
        turn(track, float(now))
    ((kind, text),) = judge(track, HERE).troubles
    assert kind is PEER_SILENT
    assert text == "10.2.1.0/24: neither 10.2.1.0 nor its host 172.16.0.2 has answered yet"


def test_a_single_miss_is_enough_while_nobody_answers() -> None:
    track = known()
    turn(track, 10.0)
    assert judge(track, HERE) is WELL
    assert judge(track, HERE, silence=True).reach is Reach.LOST


def test_the_kernels_reason_is_repeated() -> None:
    track = known()
    for now in range(10, 10 + LOST_AFTER):
        turn(track, float(now))
    track.overlay.error = "Network is unreachable"
    ((kind, text),) = judge(track, HERE).troubles
    assert kind is PEER_UNREACHABLE
    assert text == "10.2.1.0/24: 172.16.0.2 does not answer any more (sending: Network is unreachable)"


def test_where_packets_travel_as_they_are_no_port_is_named() -> None:
    track = Track(line(1, carrier=""), 0)
    turn(track, 0.0, OVERLAY)
    for now in range(10, 10 + LOST_AFTER):
        turn(track, float(now), UNDERLAY)
    ((kind, text),) = judge(track, IPv4Address("172.16.0.1")).troubles
    assert kind is TUNNEL_BLOCKED
    assert "what is sent to its containers between 172.16.0.1 and 172.16.0.2 is probably blocked" in text


def test_a_path_can_be_narrow_and_lossy_at_once() -> None:
    track = Track(line(1), 1450)
    turn(track, 0.0, OVERLAY)
    for _ in range(TRIES):
        track.miss(Ask(Path.OVERLAY, Means.OWN, 1450), 1.0)
    track.lossy = True
    verdict = judge(track, HERE)
    assert verdict.reach is Reach.LOSSY
    assert [kind for kind, _ in verdict.troubles] == [PATH_MTU_SMALL, PEER_LOSSY]
    assert verdict.reason == "packets of 1450 octets do not pass, smaller ones do; many packets get lost"


def test_the_direction_in_which_packets_get_lost_is_said_where_the_peer_tells() -> None:
    track = known()
    track.lossy = True
    track.overlay.window, track.overlay.turns = 0b1110, 20
    for seen, words in (
        (0xFFFF1, "most get lost on the way there"),
        (0xFFFFF, "most arrive there, and the answers get lost"),
        (0xFFFF9, "lost in both directions"),
    ):
        track.overlay.reported = Arrivals(1000, seen)
        ((_, text),) = judge(track, HERE).troubles
        assert text.endswith(words)
