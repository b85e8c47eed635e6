from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from pyflannel.cli.peers import AT_ONCE, peers
from pyflannel.probes.rows import Cell, How, answer, read_question
from pyflannel.telemetry.document import Document, write
from pyflannel.telemetry.http import Request, Response
from tests.support.served import served, told
from tests.support.status import PEER, document

LOST = replace(PEER, subnet="10.2.9.0/24", state="unreachable", reason="no answer for 20 s")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "flanneld.sock"


def test_every_peer_has_a_row_and_all_reached_ends_with_0(path: Path) -> None:
    with told(path, document(peers=[PEER, replace(PEER, subnet="10.2.9.0/24", state="unknown")])):
        result = CliRunner().invoke(peers, ["--socket", str(path)])
    assert result.exit_code == 0, result.output
    header, first, second = result.output.splitlines()
    assert header.split() == ["SUBNET", "HOST", "STATE", "RTT", "LOSS", "MTU", "CHANGED", "REASON"]
    assert first.startswith("10.2.9.0/24")
    assert second.startswith("10.2.41.0/24")


def test_a_peer_that_is_not_reached_says_why_and_ends_with_1(path: Path) -> None:
    with told(path, document(peers=[LOST])):
        result = CliRunner().invoke(peers, ["--socket", str(path)])
    assert result.exit_code == 1
    assert result.output.splitlines()[1].endswith("no answer for 20 s")


def test_programs_get_a_list(path: Path) -> None:
    with told(path, document(peers=[PEER, LOST])):
        result = CliRunner().invoke(peers, ["--json", "--socket", str(path)])
    assert [peer["reason"] for peer in json.loads(result.output)] == ["", "no answer for 20 s"]


FAST, SLOW, SILENT = "10.2.41.0/24", "10.2.9.0/24", "10.2.100.0/24"


class Agent:
    """One that says this of itself, and asks its peers."""

    def __init__(self, said: Document) -> None:
        self.said = said
        self.asked: list[str] = []
        self.most = self._now = 0

    async def answer(self, request: Request) -> Response:
        if request.path == "/status":
            return Response(200, b"".join(write(self.said)), "application/json")
        here = request.query["subnet"]
        self.asked.append(here)
        self._now += 1
        self.most = max(self.most, self._now)
        await asyncio.sleep(0.01)
        self._now -= 1
        if here == SILENT:
            return Response(504, b"asked 4 times")
        named = read_question(bytes.fromhex(request.query["q"]))
        return Response(200, answer([self._cell(here, str(there)) for there in named]))

    def _cell(self, here: str, there: str) -> Cell:
        return Cell(How.ITSELF) if here == there else Cell(How.REACHED, 0.002 if here == SLOW else 0.0005, 0.0)


def matrix_of(path: Path, agent: Agent, *flags: str) -> tuple[int, str]:
    with served(path, agent.answer):
        result = CliRunner().invoke(peers, ["--matrix", "--socket", str(path), *flags])
    return result.exit_code, result.output


def test_the_matrix_is_asked_of_every_host_a_few_at_a_time(path: Path) -> None:
    agent = Agent(document(peers=[PEER, *(replace(PEER, subnet=each) for each in (SLOW, SILENT))]))
    status, output = matrix_of(path, agent)
    assert sorted(agent.asked) == sorted((FAST, SLOW, SILENT))
    assert agent.most <= AT_ONCE
    assert [line.split() for line in output.splitlines()] == [
        ["FROM", "\\", "TO", "(ms)", "1", "2", "3", "4"],
        ["1", SLOW, "2.0", "2.0", "2.0"],
        ["2", FAST, "0.50", "0.50", "0.50"],
        ["3", "10.2.71.0/24", "1.2", "1.2", "1.2"],
        ["4", SILENT, "does", "not", "tell:", "no", "answer", "comes"],
    ]
    assert status == 0


def test_what_another_host_says_counts_for_the_status_as_well(path: Path) -> None:
    agent = Agent(document(peers=[PEER]))
    agent._cell = lambda here, there: Cell(How.ITSELF if here == there else How.ARRIVES)  # type: ignore[method-assign]
    status, output = matrix_of(path, agent, "--json")
    assert status == 1
    assert json.loads(output)["rows"][0]["to"][1]["state"] == "arrives"


def test_who_has_very_many_peers_asks_those_that_are_shown(path: Path) -> None:
    agent = Agent(document(peers=[replace(PEER, subnet=f"10.3.{each}.0/24") for each in range(100)]))
    status, output = matrix_of(path, agent)
    assert (status, len(agent.asked)) == (0, 31)
    assert output.splitlines()[-1] == "32 of 101 hosts: those in trouble first"


def test_where_there_are_no_peers_there_is_no_matrix(path: Path) -> None:
    agent = Agent(document(peers=()))
    assert matrix_of(path, agent) == (0, "")
    assert json.loads(matrix_of(path, agent, "--json")[1])["hosts"] == []
    assert agent.asked == []
