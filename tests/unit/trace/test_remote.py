"""The agent's end: it answers who asks well and not too often, and never lets a question harm it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from pyflannel.network import Network
from pyflannel.trace.facts import Mood
from pyflannel.trace.messages import Half, Question, question, read_answer
from pyflannel.trace.remote import BURST, RATE, Respondent
from tests.support.crossings import ARRIVED, COMING, network
from tests.support.machines import eventually
from tests.support.one_host import one_host

STRANGER = ip_address("192.0.2.1")
ASKED = question(Question(ARRIVED, COMING))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def answered(respondent: Respondent, *raw: bytes) -> list[Half]:
    async def scenario() -> list[Half]:
        return [read_answer(await respondent(each)) for each in raw]

    return asyncio.run(scenario())


def test_nonsense_is_answered_with_the_reason() -> None:
    (half,) = answered(Respondent(network, Clock()), b"nonsense")
    assert "not understood" in half.trouble
    assert half.there == ()


def test_an_agent_without_a_network_says_so() -> None:
    nothing: Network | None = None
    (half,) = answered(Respondent(lambda: nothing, Clock()), ASKED)
    assert "not started" in half.trouble


def test_too_many_questions_are_refused_until_time_has_passed() -> None:
    clock = Clock()
    respondent = Respondent(network, clock)
    halves = answered(respondent, *[b"nonsense"] * (int(BURST) + 1))
    assert ["too many" in half.trouble for half in halves] == [False] * int(BURST) + [True]
    clock.now += 1 / RATE
    first, second = answered(respondent, b"nonsense", b"nonsense")
    assert "too many" not in first.trouble
    assert "too many" in second.trouble


def test_what_is_none_of_this_networks_business_is_not_looked_at() -> None:
    for flow in (replace(ARRIVED, source=STRANGER), replace(ARRIVED, destination=STRANGER)):
        (half,) = answered(Respondent(network, Clock()), question(Question(flow, COMING)))
        assert "none of this network" in half.trouble
        assert half.there == ()


@pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge", "iptables")
def test_a_look_that_nobody_waits_for_any_more_is_over_before_the_next_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, done = tmp_path / "log", tmp_path / "done"
    tool = tmp_path / "iptables-save"
    tool.write_text(f"#!/bin/sh\necho begins >>{log}\nwhile [ ! -e {done} ]; do sleep 0.01; done\necho ends >>{log}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    async def scenario(space: str) -> None:
        respondent = Respondent(network, Clock(), netns=space)
        loop = asyncio.get_running_loop()
        first = loop.create_task(respondent(ASKED))
        await asyncio.to_thread(eventually, log.exists, "the first look")
        first.cancel()
        second = loop.create_task(respondent(ASKED))
        await asyncio.wait({second}, timeout=0.5)
        done.touch()
        await second

    with one_host() as host:
        asyncio.run(scenario(str(host.space.path)))
    said = log.read_text().split()
    assert said == ["begins", "ends"] * (len(said) // 2)
    assert len(said) > 4


@pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge", "iptables")
def test_a_question_is_answered_from_what_the_kernel_says() -> None:
    with one_host() as host:
        (half,) = answered(Respondent(network, Clock(), netns=str(host.space.path)), ASKED)
    assert {hop.mood for hop in (*half.there, *half.back)} == {Mood.PASS}
    assert half.outer is not None
