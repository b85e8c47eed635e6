from __future__ import annotations

from pyflannel.probes.trail import Trail


def test_a_late_answer_takes_the_miss_back() -> None:
    trail = Trail()
    trail.begin(0.0, 1)
    trail.answer(1, 0.0, 0.1)
    for _ in range(2):
        trail.begin(2.0, 1)
        trail.close(3.0)
    trail.begin(3.0, 1)
    assert (trail.misses, trail.window) == (2, 0b11)
    trail.answer(2, 2.0, 3.5)
    assert (trail.misses, trail.window) == (0, 0b01)
    trail.answer(4, 3.0, 3.6)
    assert trail.window == 0b010


def test_a_turn_is_missed_once_however_many_questions_it_has() -> None:
    trail = Trail()
    trail.begin(0.0, 3)
    for _ in range(3):
        trail.close(3.0)
    assert (trail.misses, trail.loss, trail.failing) == (1, 1.0, 3.0)
    trail.begin(5.0, 1)
    trail.close(8.0)
    assert (trail.misses, trail.failing) == (2, 3.0)
