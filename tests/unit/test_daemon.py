"""The agent's start, as far as it can be seen without a kernel: waiting for a network configuration."""

from __future__ import annotations

import asyncio
import logging

import pytest

from pyflannel.daemon import find_network
from pyflannel.footing import Footing
from pyflannel.health import Health
from pyflannel.store.api import Unavailable
from tests.support.loops import run_jumping
from tests.support.memory_store import MemoryData, MemoryStore

GOOD = '{"Network":"10.2.0.0/16","Backend":{"Type":"vxlan"}}'


def wait_through(steps: list[str | None], caplog: pytest.LogCaptureFixture) -> list[str]:
    """Let the configuration be each of ``steps`` for a minute, then good; what was said meanwhile."""
    data = MemoryData(config=steps[0])

    async def administrator() -> None:
        for text in [*steps[1:], GOOD]:
            await asyncio.sleep(60)
            data.config = text

    async def scenario() -> str:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(administrator(), name="administrator")
            found = await find_network([MemoryStore(data)], Health())
        assert not isinstance(found, Footing)
        _, configured = found
        assert configured.text == GOOD
        return configured.backend.type

    with caplog.at_level(logging.WARNING, "pyflannel"):
        assert run_jumping(scenario()) == "vxlan"
    return [record.getMessage() for record in caplog.records]


def test_a_missing_configuration_is_waited_for_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    (line,) = wait_through([None], caplog)
    assert line == "Couldn't fetch network config: /coreos.com/network/config in memory store: no such key"


def test_a_bad_configuration_is_waited_out_and_explained_once(caplog: pytest.LogCaptureFixture) -> None:
    (line,) = wait_through(['{"Network":"nonsense","Backend":{"Type":"vxlan"}}'], caplog)
    assert line.startswith("the network configuration at /coreos.com/network/config in memory store cannot be used: ")
    assert "nonsense" in line


def test_what_is_wrong_is_said_again_only_when_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    lines = wait_through([None, "{", '{"Network":"10.2.0.0/16","Backend":{"Type":"ipsec"}}'], caplog)
    assert len(lines) == 3
    assert '"ipsec"' in lines[2]
    assert "wireguard" in lines[2]


def test_an_option_of_the_backend_that_is_wrong_is_waited_out_too(caplog: pytest.LogCaptureFixture) -> None:
    (line,) = wait_through(['{"Network":"10.2.0.0/16","Backend":{"Type":"vxlan","VNI":"one"}}'], caplog)
    assert "Backend.VNI" in line


def test_a_store_that_does_not_answer_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    tries = iter([Unavailable("etcd v3 at http://127.0.0.1:1: connection refused")] * 5)
    store = MemoryStore(MemoryData(config=GOOD), fault=lambda _: next(tries, None))
    with caplog.at_level(logging.WARNING, "pyflannel"):
        run_jumping(find_network([store], Health()))
    (line,) = [record.getMessage() for record in caplog.records]
    assert "connection refused" in line


def test_what_was_last_known_is_asked_for_once_and_only_when_no_store_answers() -> None:
    asked: list[None] = []

    async def recall() -> None:
        asked.append(None)

    tries = iter([Unavailable("etcd v3 at http://127.0.0.1:1: connection refused")] * 5)
    store = MemoryStore(MemoryData(config=GOOD), fault=lambda _: next(tries, None))
    run_jumping(find_network([store], Health(), recall))
    assert len(asked) == 1
    run_jumping(find_network([store], Health(), recall))
    assert len(asked) == 1
