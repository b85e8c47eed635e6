from __future__ import annotations

from pyflannel.probes.tally import Tally
from pyflannel.probes.wire import NOTHING, Arrivals


def test_what_comes_in_is_counted_in_any_order() -> None:
    tally = Tally()
    for number in (3, 1, 5, 4, 4):
        tally.note(7, number)
    assert tally.of(7) == Arrivals(5, 0b10111)


def test_what_is_too_far_behind_or_far_ahead_is_no_danger() -> None:
    tally = Tally()
    tally.note(7, 100)
    tally.note(7, 10)
    assert tally.of(7) == Arrivals(100, 1)
    tally.note(7, 2**32 - 1)
    assert tally.of(7) == Arrivals(2**32 - 1, 1)


def test_another_run_begins_anew_and_is_told_nothing_of_the_former() -> None:
    tally = Tally()
    tally.note(7, 100)
    assert tally.of(8) == NOTHING
    tally.note(8, 2)
    assert (tally.of(7), tally.of(8)) == (NOTHING, Arrivals(2, 1))
