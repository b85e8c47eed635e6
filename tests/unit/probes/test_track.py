from __future__ import annotations

import pytest

from pyflannel.probes.schedule import PERIOD
from pyflannel.probes.track import (
    FIRST_PATIENCE,
    LONGEST_PATIENCE,
    NO_AGENT_AFTER,
    SHORTEST_PATIENCE,
    Ask,
    Means,
    Path,
    Track,
)
from pyflannel.probes.trail import LOST_AFTER
from tests.support.probe_world import line

OWN, ECHO = Means.OWN, Means.ECHO
OVERLAY, UNDERLAY = Path.OVERLAY, Path.UNDERLAY


def play(track: Track, *answered: Means, now: float = 0.0) -> set[tuple[Path, Means]]:
    """One turn in which the overlay answers by these means; what was asked."""
    asks = track.asks(now, own=True, echo=True)
    track.begin(asks, now)
    for ask in asks:
        if ask.path is OVERLAY and ask.means in answered:
            track.answer(ask, track.overlay.turn, now, now + 0.001, 60.0)
    for ask in asks:
        if not (ask.path is OVERLAY and ask.means in answered):
            track.miss(ask, now + 1)
    return {(ask.path, ask.means) for ask in asks}


def test_of_a_stranger_both_protocols_are_tried_and_then_its_own_alone() -> None:
    track = Track(line(1), 0)
    assert play(track, OWN, ECHO) == {(OVERLAY, OWN), (OVERLAY, ECHO)}
    assert play(track, OWN, ECHO) == {(OVERLAY, OWN)}


def test_who_has_no_agent_is_asked_by_echo_alone_after_a_while() -> None:
    track = Track(line(1), 0)
    for _ in range(NO_AGENT_AFTER):
        assert play(track, ECHO) == {(OVERLAY, OWN), (OVERLAY, ECHO)}
    assert play(track, ECHO) == {(OVERLAY, ECHO)}
    assert track.overlay.loss == 0.0
    assert any((OVERLAY, OWN) in play(track, ECHO) for _ in range(20))


def test_who_asks_us_has_an_agent() -> None:
    track = Track(line(1), 0)
    for _ in range(NO_AGENT_AFTER):
        play(track, ECHO)
    track.hail(OVERLAY, run=5, number=1, now=1.0)
    assert (OVERLAY, OWN) in play(track, OWN)


def test_in_doubt_both_ways_are_asked_at_once_and_without_delay() -> None:
    track = Track(line(1), 0)
    play(track, OWN)
    play(track)
    assert (track.misses, track.pause) == (1, 0.0)
    assert play(track) == {(OVERLAY, OWN), (OVERLAY, ECHO), (UNDERLAY, OWN), (UNDERLAY, ECHO)}
    assert play(track) == {(OVERLAY, OWN), (OVERLAY, ECHO), (UNDERLAY, OWN)}
    assert (track.misses, track.pause) == (LOST_AFTER, PERIOD)
    assert len(play(track)) <= 2


def test_who_has_no_host_address_is_asked_through_the_overlay_only() -> None:
    known = line(1)
    track = Track(type(known)(known.subnet, known.end, None), 0)
    for _ in range(5):
        assert {path for path, _ in play(track)} == {OVERLAY}


@pytest.mark.parametrize(
    ("rtt", "patience"), [(None, FIRST_PATIENCE), (0.0001, SHORTEST_PATIENCE), (0.2, 0.8), (9.0, LONGEST_PATIENCE)]
)
def test_the_patience_is_that_of_somebody_who_knows_the_way(rtt: float | None, patience: float) -> None:
    track = Track(line(1), 0)
    track.overlay.rtt = rtt
    assert track.patience == patience


def test_what_comes_back_after_an_outage_is_not_lossy() -> None:
    track = Track(line(1), 0)
    play(track, OWN)
    for _ in range(10):
        play(track)
    play(track, OWN, ECHO)
    assert (track.lossy, track.overlay.loss) == (False, 0.0)


def test_a_path_that_is_lossy_again_and_again_takes_longer_to_be_trusted() -> None:
    track = Track(line(1), 0)

    def trusted_again_after() -> int:
        for _ in range(4):
            play(track)
            play(track, OWN, ECHO)
        return next(count for count in range(100) if not track.lossy or not play(track, OWN, ECHO))

    first, second, third = (trusted_again_after() for _ in range(3))
    assert 0 < first < second < third


def test_a_large_packet_that_is_lost_says_nothing_of_the_way() -> None:
    track = Track(line(1), 1450)
    play(track, OWN)
    asks = track.asks(1.0, own=True, echo=True)
    assert asks == (Ask(OVERLAY, OWN), Ask(OVERLAY, OWN, 1450))
    track.begin(asks, 1.0)
    track.answer(asks[0], track.overlay.turn, 1.0, 1.001, 60.0)
    track.miss(asks[1], 2.0)
    assert (track.misses, track.overlay.loss) == (0, 0.0)
    assert track.mtu.doubtful


def test_what_is_forgiven_leaves_no_trace() -> None:
    track = Track(line(1), 0)
    play(track, OWN)
    for _ in range(5):
        play(track)
    track.forgive()
    assert (track.misses, track.overlay.loss, track.underlay.misses) == (0, None, 0)
    assert track.ever
