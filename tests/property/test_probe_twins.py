"""Whatever the moment at which something breaks between two hosts: both soon tell the same true story, and its end.

A story that changes while nothing else does (blocked, one way, blocked again) is one that nobody believes.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyflannel.probes.track import Path
from tests.support.probe_twins import Twins

SOON = 5.0
"""Seconds in which a person should know."""
LONG = 20.0

BOTH = frozenset((number, path) for number in (0, 1) for path in Path)
FAULTS = {
    "one-way": frozenset({(0, Path.OVERLAY)}),
    "tunnel-blocked": frozenset((number, Path.OVERLAY) for number in (0, 1)),
    "peer-unreachable": BOTH,
}

seeds = st.integers(0, 2**32 - 1)
moments = st.floats(8.0, 14.0)


def well(seed: int, moment: float) -> Twins:
    """Two hosts that have known each other for so long."""
    twins = Twins(seed)
    twins.run(moment)
    assert twins.said == []
    return twins


def stories(twins: Twins) -> list[list[frozenset[str]]]:
    """What each of them has said, one thing after another."""
    return [[codes for _, who, codes in twins.said if who == number] for number in (0, 1)]


@pytest.mark.parametrize("code", FAULTS)
@given(seed=seeds, moment=moments)
@settings(max_examples=60, deadline=None)
def test_both_tell_the_same_story_once_and_its_end(code: str, seed: int, moment: float) -> None:
    twins = well(seed, moment)
    twins.shut |= FAULTS[code]
    told = frozenset({code})
    twins.until(lambda: twins.codes(0) == twins.codes(1) == told, SOON)
    twins.run(LONG)
    twins.shut.clear()
    twins.until(lambda: not twins.codes(0) and not twins.codes(1), SOON)
    twins.run(LONG)
    assert stories(twins) == [[told, frozenset()]] * 2


@given(seed=seeds, moment=moments, most=st.integers(200, 1449), seconds=st.floats(0.0, LONG))
@settings(max_examples=60, deadline=None)
def test_a_path_that_has_become_narrow_is_told_of_and_so_is_its_repair(
    seed: int, moment: float, most: int, seconds: float
) -> None:
    twins = well(seed, moment)
    twins.most = most
    told = frozenset({"path-mtu-small"})
    twins.until(lambda: twins.codes(0) == twins.codes(1) == told, SOON)
    twins.run(seconds)
    twins.most = 9000
    twins.until(lambda: not twins.codes(0) and not twins.codes(1), SOON)
    twins.run(LONG)
    assert stories(twins) == [[told, frozenset()]] * 2


@given(seed=seeds, moment=moments)
@settings(max_examples=30, deadline=None)
def test_what_is_blocked_after_it_passed_one_way_is_called_blocked(seed: int, moment: float) -> None:
    twins = well(seed, moment)
    twins.shut |= FAULTS["one-way"]
    twins.run(LONG)
    twins.shut |= FAULTS["tunnel-blocked"]
    told = frozenset({"tunnel-blocked"})
    twins.until(lambda: twins.codes(0) == twins.codes(1) == told, 3 * SOON)
    twins.run(LONG)
    one_way = frozenset({"one-way"})
    assert stories(twins) == [[one_way, told]] * 2
