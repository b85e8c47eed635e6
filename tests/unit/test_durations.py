"""Durations, added up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyflannel.durations import BOUNDS, Durations


def test_nothing_noted_is_nothing_counted() -> None:
    durations = Durations()
    assert durations.count == 0
    assert list(durations.up_to()) == [(bound, 0) for bound in BOUNDS]


def test_what_equals_a_bound_is_below_it_and_what_exceeds_all_is_counted_all_the_same() -> None:
    durations = Durations((1.0, 2.0))
    for seconds in (1.0, 1.5, 60.0):
        durations.note(seconds)
    assert list(durations.up_to()) == [(1.0, 1), (2.0, 2)]
    assert (durations.count, durations.total) == (3, 62.5)


@given(st.lists(st.floats(0, 100)))
def test_each_bound_has_as_many_below_as_were_noted_below(noted: list[float]) -> None:
    durations = Durations()
    for seconds in noted:
        durations.note(seconds)
    assert durations.count == len(noted)
    assert all(count == sum(each <= bound for each in noted) for bound, count in durations.up_to())
