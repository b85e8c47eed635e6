"""Inputs by the chunk.

What is in a chunk depends on the seed and its number alone: what is found once is found again.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.fuzz import kept
from tests.fuzz.breed import Breeder
from tests.fuzz.readers import READERS, SEEDS, read_rows
from tests.support.hostile import WORLDS, Record, World, judge, judge_config

SLOW_S: Final = 10.0
"""Seconds of processor time: whoever can make us think for so long about one input can stop us."""
KINDS: Final = ("records", "configs", *READERS, "rows")


@dataclass(frozen=True, slots=True)
class Finding:
    """An input that does what it must not."""

    kind: str
    data: bytes
    """As a file of the corpus has it."""
    error: str
    place: str
    """Where in the code, so that one fault is told once."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a chunk."""

    kind: str
    inputs: int
    seconds: float
    """Of processor time."""
    findings: tuple[Finding, ...]


def run(seed: str, number: int, kind: str, size: int) -> Result:
    """Breed chunk ``number`` of a kind, of at least ``size`` inputs, and try them all."""
    cases, configs = kept.cases(), kept.inputs("configs")
    known = [record for case in cases.values() for record in case.records]
    breeder = Breeder(f"{seed}/{kind}/{number}", known, list(configs.values()))
    began, done, findings = time.process_time(), 0, list[Finding]()
    while done < size:
        count, finding = _ONE[kind](breeder) if kind in _ONE else _read(breeder, kind)
        done += count
        findings += [finding] if finding is not None else []
    return Result(kind, done, time.process_time() - began, tuple(findings))


def _records(breeder: Breeder) -> tuple[int, Finding | None]:
    records, world = breeder.records(), breeder.rng.choice(list(WORLDS.values()))
    seed = breeder.rng.randrange(1 << 30)
    failure = _tried(lambda: judge(world, records, seed))
    if failure is None:
        return len(records), None
    least = _least(world, records, seed)
    return len(records), Finding("records", kept.Case(world, tuple(least)).write().encode(), *failure)


def _least(world: World, records: list[Record], seed: int) -> list[Record]:
    """As few of them as do it too."""
    for record in records:
        fewer = [other for other in records if other is not record]
        if _tried(lambda fewer=fewer: judge(world, fewer, seed)) is not None:  # type: ignore[misc]
            return _least(world, fewer, seed)
    return records


def _configs(breeder: Breeder) -> tuple[int, Finding | None]:
    text = breeder.config()
    failure = _tried(lambda: judge_config(text))
    return 1, failure and Finding("configs", text.encode(errors="surrogatepass"), *failure)


def _rows(breeder: Breeder) -> tuple[int, Finding | None]:
    records = breeder.records(100)
    failure = _tried(lambda: read_rows(records))
    case = kept.Case(WORLDS["plain"], tuple(records))
    return len(records), failure and Finding("records", case.write().encode(), *failure)


def _read(breeder: Breeder, kind: str) -> tuple[int, Finding | None]:
    seeds = _seeds(kind)
    data = breeder.noise(60) if breeder.rng.random() < 0.05 else breeder.harmed(breeder.rng.choice(seeds))
    failure = _tried(lambda: READERS[kind](data))
    return 1, failure and Finding(kind, data, *failure)


def _seeds(kind: str) -> Sequence[bytes]:
    return (*SEEDS[kind], *kept.inputs(kind).values())


_ONE: Final[dict[str, Callable[[Breeder], tuple[int, Finding | None]]]] = {
    "records": _records,
    "configs": _configs,
    "rows": _rows,
}


def _tried(attempt: Callable[[], object]) -> tuple[str, str] | None:
    """What went wrong and where; None if nothing did."""
    began = time.process_time()
    try:
        attempt()
    # Whatever comes out here is what we look for: nothing may.
    except Exception as exc:
        where = traceback.extract_tb(exc.__traceback__)[-1]
        return "".join(traceback.format_exception(exc)), f"{type(exc).__name__} at {where.filename}:{where.lineno}"
    seconds = time.process_time() - began
    return (f"it took {seconds:.1f} s of processor time", "slow") if seconds > SLOW_S else None
