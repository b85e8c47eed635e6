from __future__ import annotations

import logging

import pytest

from pyflannel.health import LINES, WINDOW, Condition, Health, Kind, Severity

CABLE = Kind("cable", Severity.ERROR, "The cable is out.", "Put it in.", blocks_ready=True)
DUST = Kind("dust", Severity.WARNING, "There is dust.", "Wipe it.")
SILENCE = Kind("silence", Severity.ERROR, "Nobody speaks.", "Listen.", hidden_by=(CABLE,))


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock, caplog: pytest.LogCaptureFixture) -> Health:
    caplog.set_level(logging.INFO, "pyflannel")
    return Health(clock, clock)


def test_a_condition_is_told_once_and_stays(health: Health, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    health.set(DUST, "on the fan")
    clock.time += 5
    health.set(DUST, "on the fan")
    assert health.present() == (Condition(DUST, "", "on the fan", 1000.0),)
    assert caplog.messages == ["on the fan"]
    assert (caplog.records[0].levelno, caplog.records[0].filename) == (logging.WARNING, "test_health.py")


def test_what_it_says_may_change_and_its_age_does_not(
    health: Health, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    health.set(DUST, "on the fan")
    clock.time += 5
    health.set(DUST, "everywhere")
    assert health.present() == (Condition(DUST, "", "everywhere", 1000.0),)
    assert caplog.messages == ["on the fan", "everywhere"]


def test_its_end_is_told_if_it_was_there(health: Health, caplog: pytest.LogCaptureFixture) -> None:
    assert not health.clear(DUST, said="all clean")
    health.set(DUST, "on the fan")
    assert health.clear(DUST, said="all clean")
    assert (health.present(), caplog.messages) == ((), ["on the fan", "all clean"])
    assert caplog.records[1].levelno == logging.INFO


def test_there_may_be_several_of_a_kind(health: Health, caplog: pytest.LogCaptureFixture) -> None:
    health.set_all(DUST, {"fan": "some", "case": "much"})
    health.set_all(DUST, {"case": "much", "desk": "a little"})
    assert {record.filename for record in caplog.records} == {"test_health.py"}
    assert [(each.subject, each.text) for each in health.present()] == [("case", "much"), ("desk", "a little")]


def test_the_worst_and_oldest_come_first_and_consequences_not_at_all(health: Health, clock: Clock) -> None:
    health.set(DUST, "d")
    clock.time += 1
    health.set(SILENCE, "s")
    clock.time += 1
    assert [each.kind for each in health.present()] == [SILENCE, DUST]
    health.set(CABLE, "c")
    assert [each.kind for each in health.present()] == [CABLE, DUST]
    health.clear(CABLE)
    assert [each.kind for each in health.present()] == [SILENCE, DUST]


def test_only_some_conditions_stand_in_the_way_of_being_ready(health: Health) -> None:
    health.set(DUST, "d")
    health.set(CABLE, "c")
    assert [condition.kind for condition in health.blocked] == [CABLE]


def test_a_flood_is_told_in_part_and_then_by_number(
    health: Health, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(LINES + 30):
        health.set(DUST, f"speck {number}", str(number))
    assert len(caplog.messages) == LINES
    assert len(health.present()) == LINES + 30
    health.set(CABLE, "out")
    assert caplog.messages[-1] == "out"
    clock.time += WINDOW
    health.set(DUST, "one more", "x")
    assert caplog.messages[-2:] == ["dust: 30 more lines in the last minutes", "one more"]
