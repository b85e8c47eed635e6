"""News of changes to the firewall's rules: what the kernel's and the fake one promise alike."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing

import pytest

from pyflannel.guard import RuleChanges
from pyflannel.linux.nftevents import RuleEvents
from tests.support import loops
from tests.support.namespaces import Namespace
from tests.support.tables import Changes

SOON = 0.05
"""Seconds.  A change is announced before the program that made it ends: waiting longer would show nothing more."""


class Fake:
    """Changes that are only said to happen."""

    def __init__(self) -> None:
        self._made = Changes()

    def listen(self) -> RuleChanges:
        return self._made

    def change(self) -> None:
        self._made.ring()


class Real:
    """Changes to the rules of a namespace."""

    def __init__(self, space: Namespace) -> None:
        self._space = space

    def listen(self) -> RuleChanges:
        return RuleEvents(self._space.name)

    def change(self) -> None:
        self._space.run("iptables-nft -A FORWARD -j ACCEPT")


@pytest.fixture(
    params=["fake", pytest.param("kernel", marks=pytest.mark.needs("root", "netns", "iptables-nft"))],
)
def source(request: pytest.FixtureRequest) -> Iterator[Fake | Real]:
    if request.param == "fake":
        yield Fake()
        return
    with Namespace("events") as space:
        yield Real(space)


def listening(source: Fake | Real, scenario: Callable[[RuleChanges], Awaitable[None]]) -> None:
    async def whole() -> None:
        with closing(source.listen()) as changes:
            await scenario(changes)

    loops.run(whole())


async def silent(changes: RuleChanges) -> bool:
    try:
        async with asyncio.timeout(SOON):
            await changes.wait(0)
    except TimeoutError:
        return True
    return False


def test_without_a_change_there_is_nothing_to_tell(source: Fake | Real) -> None:
    async def scenario(changes: RuleChanges) -> None:
        assert await silent(changes)

    listening(source, scenario)


def test_a_change_ends_the_waiting(source: Fake | Real) -> None:
    async def scenario(changes: RuleChanges) -> None:
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(changes.wait(0))
            await asyncio.sleep(0)
            assert not waiting.done()
            source.change()

    listening(source, scenario)


def test_changes_while_nobody_waits_are_told_once(source: Fake | Real) -> None:
    async def scenario(changes: RuleChanges) -> None:
        for _ in range(3):
            source.change()
        await changes.wait(SOON)
        assert await silent(changes)
        source.change()
        assert not await silent(changes)

    listening(source, scenario)


def test_changes_while_it_settles_are_folded_into_one(source: Fake | Real) -> None:
    async def scenario(changes: RuleChanges) -> None:
        source.change()
        asyncio.get_running_loop().call_later(SOON / 10, source.change)
        await changes.wait(10 * SOON)
        assert await silent(changes)

    listening(source, scenario)


def test_giving_up_waiting_loses_nothing(source: Fake | Real) -> None:
    async def scenario(changes: RuleChanges) -> None:
        source.change()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SOON):
                await changes.wait(3600)
        assert not await silent(changes)

    listening(source, scenario)


def test_closing_twice_is_fine(source: Fake | Real) -> None:
    async def scenario(changes: RuleChanges) -> None:
        changes.close()

    listening(source, scenario)
