from __future__ import annotations

from pyflannel.probes.schedule import MOST, PERIOD, Budget, Schedule


def test_no_more_is_spent_in_a_period_than_there_is() -> None:
    budget = Budget()
    for _ in range(MOST):
        assert budget.left(10.0) > 0
        budget.spend(10.0)
    assert budget.left(10.0) == budget.left(10.0 + PERIOD - 0.01) == 0
    assert budget.left(10.0 + PERIOD) == MOST


def test_turns_come_in_the_order_they_are_due() -> None:
    schedule: Schedule[str] = Schedule()
    for due, key in ((3.0, "c"), (1.0, "a"), (2.0, "b")):
        schedule.put(key, due)
    assert schedule.take(0.5) is None
    assert [schedule.take(2.5) for _ in range(3)] == [("a", False), ("b", False), None]


def test_the_last_word_about_a_turn_counts() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.put("a", 1.0)
    schedule.put("a", 5.0, urgent=True)
    schedule.put("b", 1.0)
    schedule.drop("b")
    schedule.drop("never there")
    assert schedule.take(4.0) is None
    assert schedule.next_urgent() == 5.0
    assert schedule.take(5.0) == ("a", True)
    assert schedule.next_urgent() == float("inf")


def test_who_is_in_doubt_comes_first_and_nobody_waits_for_ever() -> None:
    schedule: Schedule[int] = Schedule()
    for number in range(40):
        schedule.put(number, 1.0, urgent=True)
        schedule.put(100 + number, 0.0)
    turns = [turn for _ in range(16) if (turn := schedule.take(2.0)) is not None]
    assert turns[0] == (0, True)
    assert [key for key, urgent in turns if not urgent] == [100, 101]
