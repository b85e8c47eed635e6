"""The corpus of tests/fuzz, and a few thousand inputs bred anew in every run; ``make fuzz`` tries a million.

A failure shows the input as a file of the corpus has it: put it there, and every later run tries it again.
"""

from __future__ import annotations

import os

import pytest

from pyflannel.lease.model import Snapshot, Unreadable
from tests.fuzz import kept
from tests.fuzz.chunks import KINDS, run
from tests.fuzz.readers import READERS, SEEDS, read_rows
from tests.support.hostile import judge, judge_config

CASES = kept.cases()
CONFIGS = kept.inputs("configs")
FRESH = {"records": 4000, "configs": 4000, "http": 200, "rows": 200}


@pytest.mark.parametrize("name", CASES)
def test_kept_records_do_no_harm(name: str) -> None:
    case = CASES[name]
    for seed in range(3):
        judge(case.world, case.records, seed)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.outcome])
def test_of_kept_records_becomes_what_their_file_says(name: str) -> None:
    case = CASES[name]
    assert outcome(case).startswith(case.outcome)


def outcome(case: kept.Case) -> str:
    """What becomes of the last record."""
    if b"/" in case.records[-1].name:
        return "is not looked at"
    events = [record.understood() for record in case.records]
    last = events[-1]
    if isinstance(last, Unreadable):
        return f"is unreadable: {last.reason}"
    readable = tuple(event for event in events if not isinstance(event, Unreadable))
    if last.subnet == case.world.view.own:
        return "is our own"
    reason = case.world.network(Snapshot(9, (*readable, *case.world.honest))).ignored.get(last.subnet)
    return "counts" if reason is None else f"is ignored: {reason}"


@pytest.mark.parametrize("name", CONFIGS)
def test_kept_configurations_are_usable_unless_they_are_named_bad(name: str) -> None:
    assert judge_config(CONFIGS[name].decode(errors="replace")) != name.startswith("bad-")


def test_a_file_of_records_says_what_it_was_written_from() -> None:
    for case in CASES.values():
        again = kept.Case.read(case.write())
        assert (again.world, again.outcome) == (case.world, case.outcome)
        assert [(record.name, record.value) for record in again.records] == [
            (record.name, record.value) for record in case.records
        ]


def test_kept_records_read_alike_in_a_file_of_sqlite() -> None:
    read_rows([record for case in CASES.values() for record in case.records])


@pytest.mark.parametrize("kind", READERS)
def test_kept_input_of_a_reader_is_read_or_refused(kind: str) -> None:
    for data in (*SEEDS[kind], *kept.inputs(kind).values()):
        READERS[kind](data)


@pytest.mark.parametrize("kind", KINDS)
def test_freshly_bred_input_does_no_harm(kind: str) -> None:
    seed = os.urandom(4).hex()
    result = run(seed, 0, kind, FRESH.get(kind, 1000))
    assert not result.findings, f"{result.findings[0].data!r}: {result.findings[0].error}"
