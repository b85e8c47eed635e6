from __future__ import annotations

from pyflannel.probes.allowance import Allowance


def test_a_few_at_once_and_then_as_many_as_time_brings() -> None:
    now = 100.0
    allowance = Allowance(0.5, 3.0, lambda: now)
    assert [allowance.spend() for _ in range(4)] == [True, True, True, False]
    now += 2.0
    assert [allowance.spend(), allowance.spend()] == [True, False]


def test_a_long_rest_brings_no_more_than_at_first() -> None:
    now = 100.0
    allowance = Allowance(20.0, 2.0, lambda: now)
    now += 1000.0
    assert [allowance.spend() for _ in range(3)] == [True, True, False]
