from __future__ import annotations

from collections.abc import Hashable
from typing import TypeVar

from pyflannel.probes.schedule import MOST, PERIOD, Budget, Schedule

K = TypeVar("K", bound=Hashable)


def take(schedule: Schedule[K], now: float) -> K | None:
    """Whose turn it is, and give it."""
    key = schedule.first(now)
    if key is not None:
        schedule.over(key)
    return key


def test_no_more_is_spent_in_a_period_than_there_is() -> None:
    budget = Budget()
    assert budget.opens < 0.0
    for _ in range(MOST):
        assert budget.left(10.0) > 0
        budget.spend(10.0)
    assert budget.left(10.0) == budget.left(10.0 + PERIOD - 0.01) == 0
    assert budget.opens == 10.0 + PERIOD
    assert budget.left(10.0 + PERIOD) == MOST


def test_turns_come_in_the_order_they_are_due() -> None:
    schedule: Schedule[str] = Schedule()
    for due, key in ((3.0, "c"), (1.0, "a"), (2.0, "b")):
        schedule.put(key, due)
    assert take(schedule, 0.5) is None
    assert [take(schedule, 2.5) for _ in range(3)] == ["a", "b", None]


def test_the_last_word_about_a_turn_counts() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.put("a", 1.0)
    schedule.put("a", 5.0, urgent=True)
    schedule.put("b", 1.0)
    schedule.drop("b")
    schedule.drop("never there")
    assert take(schedule, 4.0) is None
    assert schedule.next_urgent() == 5.0
    assert take(schedule, 5.0) == "a"
    assert schedule.next_urgent() == float("inf")


def test_who_is_in_doubt_comes_first_and_nobody_waits_for_ever() -> None:
    schedule: Schedule[int] = Schedule()
    for number in range(40):
        schedule.put(number, 1.0, urgent=True)
        schedule.put(100 + number, 0.0)
    turns = [key for _ in range(16) if (key := take(schedule, 2.0)) is not None]
    assert turns[0] == 0
    assert [key for key in turns if key >= 100] == [100, 101]


def test_who_is_in_doubt_comes_last_if_that_is_wanted() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.put("doubted", 1.0, urgent=True)
    schedule.put("other", 1.0)
    assert schedule.first(2.0, usual_first=True) == "other"
    assert schedule.first(2.0) == "doubted"


def test_a_turn_that_was_not_given_is_still_the_next() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.put("a", 1.0)
    schedule.put("b", 2.0)
    assert schedule.first(3.0) == schedule.first(3.0) == take(schedule, 3.0) == "a"
    assert schedule.first(3.0) == "b"


def test_who_waits_and_is_in_doubt_suddenly_waits_no_longer_with_the_others() -> None:
    schedule: Schedule[str] = Schedule()
    for key in ("a", "b"):
        schedule.put(key, 1.0)
    assert schedule.first(2.0) == "a"
    schedule.put("b", 2.0, urgent=True)
    assert schedule.next_urgent() == 2.0
    assert schedule.first(2.0) == "b"
    assert schedule.next_urgent() < 2.0
    schedule.drop("b")
    assert [take(schedule, 2.0), take(schedule, 2.0)] == ["a", None]


def test_who_was_put_off_again_and_again_has_one_turn() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.put("first", 0.0)
    for due in (1.0, 2.0, 3.0):
        schedule.put("later", due)
        assert schedule.first(due) == "first"
    assert [take(schedule, 3.0) for _ in range(3)] == ["first", "later", None]
