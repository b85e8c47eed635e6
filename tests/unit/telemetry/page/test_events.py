"""Listeners: what they are told when, in a time that jumps, and what they cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from pyflannel.lease.model import Subnet
from pyflannel.telemetry.document import Document
from pyflannel.telemetry.page.events import BEAT, MOST, SELDOM, Audience
from pyflannel.telemetry.page.rows import Rows
from tests.support.loops import run_jumping
from tests.support.sse import events
from tests.support.status import NOW, TROUBLE, document


class Agent:
    """One to look at."""

    def __init__(self, cost_s: float = 0.0) -> None:
        self.document = document()
        self.looks = 0
        self.cost_s = cost_s

    async def look(self) -> Document:
        self.looks += 1
        end = time.thread_time() + self.cost_s
        while time.thread_time() < end:
            pass
        return self.document


def listened_to(agent: Agent) -> Audience:
    """Those who listen to ``agent``, whose peers nobody asks."""
    return Audience(agent.look, Rows(lambda: None), lambda: NOW)


def body(audience: Audience) -> AsyncGenerator[bytes, None]:
    """What is told to one more listener."""
    response = audience.admit()
    assert response.status == 200
    assert response.type.startswith("text/event-stream")
    assert not isinstance(response.body, bytes)
    return response.body


async def heard(audience: Audience, seconds: float) -> list[tuple[str, Any]]:
    """What somebody hears who stays this long."""
    told = b""
    async with aclosing(body(audience)) as pieces:
        try:
            async with asyncio.timeout(seconds):
                async for piece in pieces:
                    told += piece
        except TimeoutError:
            pass
    return list(events(told))


def test_everything_comes_first_and_then_the_time_now_and_then() -> None:
    async def scenario() -> None:
        agent = Agent()
        told = await heard(listened_to(agent), 3 * BEAT + 0.5)
        assert [name for name, _ in told] == ["time", "all", "hosts", "row", "time", "time", "time"]
        assert told[0][1] == NOW

    run_jumping(scenario())


def test_a_condition_is_told_within_a_second_and_so_is_its_end() -> None:
    async def scenario() -> None:
        agent = Agent()
        audience = listened_to(agent)
        async with aclosing(body(audience)) as pieces, asyncio.timeout(3):
            while b"event: all" not in await anext(pieces):
                pass
            agent.document = document(TROUBLE)
            while TROUBLE.code.encode() not in await anext(pieces):
                pass
            agent.document = document()
            while b'"conditions":[]' not in await anext(pieces):
                pass

    run_jumping(scenario())


def test_the_agent_is_looked_at_once_a_second_for_all_together_and_not_at_all_for_nobody() -> None:
    async def scenario() -> None:
        agent = Agent()
        audience = listened_to(agent)
        await asyncio.sleep(60)
        assert agent.looks == 0
        async with asyncio.TaskGroup() as tasks:
            for _ in range(MOST):
                tasks.create_task(heard(audience, 10.5), name="listener")
        assert agent.looks == 11
        await asyncio.sleep(60)
        assert agent.looks == 11

    run_jumping(scenario())


def test_who_comes_back_is_not_told_what_was_seen_long_ago() -> None:
    async def scenario() -> None:
        agent = Agent()
        audience = listened_to(agent)
        await heard(audience, 1)
        agent.document = document(TROUBLE)
        told = await heard(audience, 0.1)
        assert told[1][1]["conditions"][0]["code"] == TROUBLE.code

    run_jumping(scenario())


def test_what_takes_long_to_describe_is_described_less_often() -> None:
    async def scenario() -> None:
        agent = Agent(cost_s=0.02)
        await heard(listened_to(agent), 30.5)
        # Every second would be 31 times.
        assert agent.looks <= 30 / SELDOM + 2

    run_jumping(scenario())


def test_there_is_room_for_so_many_and_again_for_one_when_one_has_left() -> None:
    async def scenario() -> None:
        audience = listened_to(Agent())
        present = [body(audience) for _ in range(MOST)]
        for pieces in present:
            await anext(pieces)
        refused = audience.admit()
        assert refused.status == 503
        assert ("Retry-After", "10") in refused.headers
        await present.pop().aclose()
        present.append(body(audience))
        for pieces in present:
            await pieces.aclose()

    run_jumping(scenario())


def test_what_ends_the_asking_is_told_to_those_who_listen_and_they_can_come_back() -> None:
    async def scenario() -> None:
        asked: list[Subnet] = []

        async def ask(subnet: Subnet, _question: bytes) -> bytes:
            asked.append(subnet)
            raise RuntimeError("a bug")

        audience = Audience(Agent().look, Rows(lambda: ask))
        with pytest.raises(ExceptionGroup):
            await heard(audience, 10)
        with pytest.raises(ExceptionGroup):
            await heard(audience, 10)
        assert len(asked) == 2

    run_jumping(scenario())


def test_one_that_never_began_to_listen_takes_nobody_s_room() -> None:
    async def scenario() -> None:
        audience = listened_to(Agent())
        for _ in range(2 * MOST):
            await body(audience).aclose()
        assert audience.admit().status == 200

    run_jumping(scenario())
