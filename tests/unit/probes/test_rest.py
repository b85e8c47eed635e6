"""A track that is folded whenever it rests, beside a twin that never is: nobody can tell them apart."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflannel.probes import rest
from pyflannel.probes.track import CLEAN_AFTER, RELAPSE_WITHIN, Means, Path, Track
from pyflannel.probes.trail import LOST_AFTER
from pyflannel.probes.verdict import judge
from pyflannel.probes.wire import Arrivals
from tests.support.probe_world import HERE, MTU, line

WELL = {(Path.OVERLAY, Means.OWN)}
SMALL = {True: 136, False: 225}
"""Octets that are kept of a peer that is well, with what Python adds: two ways are asked where its end is not sure."""


class Twins:
    """The two of them, to whom the same happens."""

    def __init__(self, *, sure: bool = True) -> None:
        self.line = line(1, sure=sure)
        self.kept, self.whole, self.now = Track(self.line, MTU), Track(self.line, MTU), 1000.0
        self.folded = 0

    def both(self, deed: Callable[[Track], object]) -> None:
        deed(self.kept)
        deed(self.whole)
        self.compare()

    def compare(self) -> None:
        """They are alike in all that anybody asks of them; now and then one is folded and unfolded."""
        if self.kept.resting:
            record = rest.fold(self.kept)
            assert rest.glance(record, self.line.sure) == self.kept.glance
            self.kept = rest.unfold(record, self.line, self.kept.mtu.device)
            assert rest.fold(self.kept) == record
            self.folded += 1
        kept, whole = ((each.pause, each.patience, each.glance, judge(each, HERE)) for each in (self.kept, self.whole))
        assert kept == whole
        # Who is well is not even judged.
        assert not (self.whole.well and judge(self.whole, HERE, silence=True, moved=True).troubles)
        assert self.asks(self.kept) == self.asks(self.whole)
        assert self.kept.overlay.hails.of(7) == self.whole.overlay.hails.of(7)

    def asks(self, track: Track) -> object:
        return track.asks(self.now, own=True, echo=True)

    def turn(self, answered: set[tuple[Path, Means]], most: int = 9000) -> None:
        """A turn in which this is answered, and no packet larger than ``most``."""
        self.now += 2.0

        def play(track: Track) -> None:
            asks = track.asks(self.now, own=True, echo=True)
            track.begin(asks, self.now)
            track.awaited = len(asks)
            for ask in sorted(asks, key=lambda ask: (ask.path, ask.means) not in answered):
                trail = track.trail(ask.path)
                trail.number += ask.means is Means.OWN
                if (ask.path, ask.means) in answered and ask.size <= most:
                    trail.answered, track.overlay.reported = trail.number, Arrivals(trail.number, 0b1011)
                    track.answer(ask, trail.turn, self.now, self.now + 0.01, 60.0)
                else:
                    track.miss(ask, self.now + 1.0)
            track.awaited = track.open = 0

        self.both(play)

    def restart(self) -> None:
        if self.kept.resting:
            self.kept = rest.unfold(rest.restart(rest.fold(self.kept)), self.line, MTU)
        else:
            self.kept.mtu.restart()
        self.whole.mtu.restart()
        self.compare()

    def hail(self, path: Path, run: int, number: int) -> None:
        self.both(lambda track: track.hail(path, run, number, self.now))


ways = st.sets(st.tuples(st.sampled_from(Path), st.sampled_from(Means)))
turns = st.one_of(st.sets(st.just((Path.OVERLAY, Means.OWN)), min_size=1), ways)
events = st.one_of(
    st.tuples(st.just("turn"), turns, st.sampled_from([9000, 9000, 9000, 1000])),
    st.tuples(st.just("hail"), st.sampled_from(Path), st.sampled_from([0, 7, 9]), st.integers(0, 50)),
    st.tuples(st.sampled_from(["forgive", "restart", "pass the time"])),
)


@given(st.booleans(), st.lists(events, max_size=80))
def test_nothing_hangs_on_whether_a_track_was_folded(sure: bool, happens: list[tuple[object, ...]]) -> None:
    twins = Twins(sure=sure)
    for what in happens:
        match what:
            case ("turn", set() as answered, int(most)):
                twins.turn(answered, most)
            case ("hail", Path() as path, int(run), int(number)):
                twins.hail(path, run, number)
            case ("forgive",):
                twins.both(Track.forgive)
            case ("restart",):
                twins.restart()
            case _:
                twins.now += 45.0
                twins.compare()


@pytest.mark.parametrize("sure", [True, False])
@pytest.mark.parametrize("means", list(Means))
def test_who_is_well_takes_little_room(sure: bool, means: Means) -> None:
    twins = Twins(sure=sure)
    for _ in range(40):
        twins.turn({(Path.OVERLAY, means)})
    assert twins.folded == 40
    assert sys.getsizeof(rest.fold(twins.whole)) <= SMALL[sure]


def test_a_host_that_is_lost_can_rest_as_well() -> None:
    twins = Twins()
    twins.turn(WELL)
    for _ in range(2 * LOST_AFTER):
        twins.turn(set())
    assert twins.whole.misses == 2 * LOST_AFTER
    assert twins.whole.resting


def test_who_was_never_asked_takes_no_room() -> None:
    track = rest.unfold(rest.UNASKED, line(1), MTU)
    assert (track.ever, track.mtu.device, judge(track, HERE)) == (False, MTU, judge(Track(line(1), MTU), HERE))
    assert rest.glance(rest.UNASKED, sure=True) == track.glance
    assert rest.restart(rest.UNASKED) == rest.UNASKED


@pytest.mark.parametrize("trouble", ["awaited", "lossy", "narrow", "error"])
def test_what_there_is_no_place_for_is_kept_whole(trouble: str) -> None:
    twins = Twins()
    twins.turn(WELL)
    track = twins.whole
    assert track.resting
    match trouble:
        case "awaited":
            track.awaited = 1
        case "lossy":
            track.lossy = True
        case "narrow":
            track.mtu.lost(MTU, twins.now)
        case _:
            track.overlay.error = "Network is unreachable"
    assert not track.resting


def test_what_was_lossy_rests_again_when_that_no_longer_counts() -> None:
    twins = Twins()
    for answered in (WELL, set[tuple[Path, Means]]()) * 4:
        twins.turn(answered)
    assert (twins.whole.lossy, twins.whole.resting) == (True, False)
    for _ in range(CLEAN_AFTER):
        twins.turn(WELL)
    assert (twins.whole.lossy, twins.whole.resting) == (False, False)
    twins.now += RELAPSE_WITHIN
    twins.turn(WELL)
    assert (twins.whole.lossy, twins.whole.resting) == (False, True)
