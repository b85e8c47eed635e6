"""Commands about peers, whatever is asked for, when, and however long they take or often they fail.

That there are never two commands for one subnet at a time is checked by the shell itself, at each run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflannel.hooks.record import read
from pyflannel.hooks.runner import HookRunner
from pyflannel.state import Hook
from tests.support.fake_shell import ADD, CHECK, REMOVE, FakeShell
from tests.support.hook_stage import Stage, hook

SETTLED = 1000.0
"""Seconds after which every patience has had its way."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted from some moment on, and for how long."""

    hooks: tuple[Hook, ...]
    seconds: float
    ends: bool
    """The agent ends then, and another one comes."""


def wishes(check: bool = False) -> st.SearchStrategy[list[Wish]]:
    one = st.builds(
        lambda data: tuple(hook(number, text, check=check) for number, text in data.items()),
        st.dictionaries(st.integers(1, 3), st.sampled_from(["", "a", "b"]), max_size=3),
    )
    return st.lists(st.builds(Wish, one, st.sampled_from([0.0, 0.3, 1.0, 7.0]), st.booleans()), min_size=1, max_size=8)


DURATIONS = st.lists(st.sampled_from([0.0, 0.2, 1.0, 5.0]), max_size=20)
STATUSES = st.lists(st.sampled_from([None, 0, 2]), max_size=6)


def carry_out(stage: Stage, wishes: list[Wish]) -> None:
    """One agent after another, the last one until nothing happens any more."""
    parts: list[list[Wish]] = [[]]
    for wish in wishes:
        parts[-1].append(wish)
        if wish.ends:
            parts.append([])
    # An agent that comes when all is over wants what was wanted last.
    parts[-1] = parts[-1] or [wishes[-1]]
    for number, part in enumerate(parts):

        async def scenario(runner: HookRunner, part: list[Wish] = part, last: bool = number == len(parts) - 1) -> None:
            for wish in part:
                stage.want(runner, wish.hooks)
                await asyncio.sleep(wish.seconds)
            await asyncio.sleep(SETTLED if last else 0.0)

        stage.agent(scenario)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stage")


def fresh(home: Path) -> Path:
    """The same place, after a boot: so many places would take longer to make than to use."""
    for left in home.iterdir():
        left.unlink()
    return home


def made(hooks: tuple[Hook, ...]) -> dict[str, str]:
    return {str(item.subnet): f"{item.host} {item.data}".strip() for item in hooks}


@pytest.mark.parametrize("at_once", [1, 3])
@given(wanted=wishes(), durations=DURATIONS)
def test_in_the_end_there_is_what_was_wanted_last(
    home: Path, at_once: int, wanted: list[Wish], durations: list[float]
) -> None:
    taken = chain(durations, repeat(0.0))
    stage = Stage(fresh(home), FakeShell(takes=lambda: next(taken)), at_once)
    carry_out(stage, wanted)
    assert stage.shell.world == made(wanted[-1].hooks)
    assert {entry.hook for entry in read(stage.file, "boot").values()} == set(wanted[-1].hooks)
    assert stage.shell.most <= at_once


@given(wanted=wishes(), durations=DURATIONS, statuses=STATUSES)
def test_nothing_is_made_by_new_values_before_it_is_removed_by_the_old(
    home: Path, wanted: list[Wish], durations: list[float], statuses: list[int | None]
) -> None:
    taken, given_ = chain(durations, repeat(0.0)), chain(statuses, repeat(None))
    shell = FakeShell(status=lambda line, subnet: next(given_), takes=lambda: next(taken))
    stage = Stage(fresh(home), shell, 3)
    carry_out(stage, wanted)
    for subnet in {subnet for _, subnet, _ in shell.runs}:
        in_force = ""
        for line, value in runs(shell, subnet):
            if line == ADD:
                assert in_force in ("", value)
            else:
                assert in_force == value
            in_force = value if line == ADD else ""


def runs(shell: FakeShell, subnet: str) -> Iterator[tuple[str, str]]:
    """Without a removal that follows another one of the same: it was tried once more."""
    before = None
    for line, where, value in shell.runs:
        if where == subnet and not (line == REMOVE and before == (line, value)):
            yield line, value
            before = (line, value)


@given(wanted=wishes(check=True), statuses=STATUSES, lost=st.sets(st.integers(1, 3)))
def test_with_a_check_everything_is_there_in_the_end_whatever_failed_or_was_lost(
    home: Path, wanted: list[Wish], statuses: list[int | None], lost: set[int]
) -> None:
    given_ = chain(statuses, repeat(None))
    shell = FakeShell(status=lambda line, subnet: None if line == CHECK else next(given_))
    stage = Stage(fresh(home), shell)
    carry_out(stage, wanted)
    for number in lost:
        shell.world.pop(f"10.2.{number}.0/24", None)
    carry_out(stage, [Wish(wanted[-1].hooks, 0.0, ends=False)])
    assert set(made(wanted[-1].hooks)) <= set(shell.world)
