"""Rows: asked of whom, how often, and for how long, in a time that jumps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from pyflannel.lease.model import Subnet
from pyflannel.probes.errands import NoAnswer
from pyflannel.probes.rows import Cell, How, answer, read_question
from pyflannel.telemetry.document import Document
from pyflannel.telemetry.matrix import OTHERWISE, SILENT, Name, Row
from pyflannel.telemetry.page.rows import AGAIN, AT_ONCE, KEPT, PAUSE, SELDOM, Ask, Rows
from tests.support.builders import subnet
from tests.support.loops import run_jumping
from tests.support.status import NOW, PEER, document

OWN, FAST = ("10.2.71.0/24", None), ("10.2.41.0/24", None)


class Peers:
    """Those of one host: each takes so long to answer, and some do not."""

    def __init__(self, count: int, takes: float = 0.001) -> None:
        self.document: Document = document(
            peers=[replace(PEER, subnet=f"10.2.{41 + each}.0/24") for each in range(count)]
        )
        self.takes = takes
        self.silent: set[Subnet] = set()
        self.asked: list[tuple[float, Subnet]] = []
        self.most = self._now = 0
        self.answer: Callable[[Subnet, bytes], bytes] = _answer
        self.able = True

    def ask(self) -> Ask | None:
        return self._ask if self.able else None

    async def _ask(self, of: Subnet, question: bytes) -> bytes:
        self.asked.append((asyncio.get_running_loop().time(), of))
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            await asyncio.sleep(3.0 if of in self.silent else self.takes)
        finally:
            self._now -= 1
        if of in self.silent:
            raise NoAnswer("asked 4 times")
        return self.answer(of, question)


def _answer(of: Subnet, question: bytes) -> bytes:
    return answer([Cell(How.ITSELF if each == of else How.REACHED, 0.001, 0.0) for each in read_question(question)])


def looking(peers: Peers, scenario: Callable[[Rows], Awaitable[None]]) -> Rows:
    """Run ``scenario`` while somebody looks at the page of a host with these peers."""

    async def all_of_it() -> Rows:
        rows = Rows(peers.ask, lambda: NOW + asyncio.get_running_loop().time())
        async with rows.looked_at():
            rows.see(peers.document)
            await scenario(rows)
        return rows

    return run_jumping(all_of_it())


def told(rows: Rows) -> dict[Name, Row]:
    return {host: rows.latest.row(host) for host in rows.latest.hosts}


def test_every_host_tells_its_own_row_and_ours_is_there_at_once() -> None:
    async def scenario(rows: Rows) -> None:
        assert list(rows.latest.rows) == [OWN]
        await asyncio.sleep(4 * PAUSE)
        found = told(rows)
        assert found[FAST].cells[OWN] == Cell(How.REACHED, 0.001, 0.0)
        assert found[FAST].cells[FAST] == Cell(How.ITSELF, 0.001, 0.0)
        assert found[FAST].at is not None
        assert found[OWN].at is None
        assert not [row for row in found.values() if row.why]

    looking(Peers(3), scenario)


def test_nobody_is_asked_while_nobody_looks_and_nothing_is_kept() -> None:
    peers = Peers(3)

    async def scenario() -> None:
        rows = Rows(peers.ask)
        rows.see(peers.document)
        await asyncio.sleep(60)
        assert peers.asked == []
        async with rows.looked_at():
            await asyncio.sleep(60)
        asked = len(peers.asked)
        assert asked
        await asyncio.sleep(60)
        assert len(peers.asked) == asked
        assert rows.latest.hosts == ()
        assert len(asyncio.all_tasks()) == 1

    run_jumping(scenario())


def test_however_many_look_and_are_there_the_peers_are_asked_as_often() -> None:
    peers = Peers(31, takes=0.7)

    async def scenario(rows: Rows) -> None:
        async with rows.looked_at(), rows.looked_at():
            await asyncio.sleep(60.1)

    looking(peers, scenario)
    assert len(peers.asked) <= 60 / PAUSE + 1
    assert peers.most <= AT_ONCE
    turns = [at for at, of in peers.asked if of == peers.asked[0][1]]
    assert len(turns) >= 3, "every row is told again before it is faded"


def test_the_last_who_leaves_ends_it_and_not_the_first() -> None:
    peers = Peers(1)

    async def scenario(rows: Rows) -> None:
        async with rows.looked_at():
            await asyncio.sleep(1)
        before = len(peers.asked)
        await asyncio.sleep(2 * AGAIN)
        assert len(peers.asked) > before

    looking(peers, scenario)


def test_a_host_that_answers_nothing_does_not_tell_and_is_asked_seldom() -> None:
    peers = Peers(2)
    peers.silent.add(subnet("10.2.42.0/24"))

    async def scenario(rows: Rows) -> None:
        await asyncio.sleep(6 * SELDOM)
        assert told(rows)["10.2.42.0/24", None] == Row(why=SILENT)
        assert told(rows)[FAST].why == ""

    looking(peers, scenario)
    times = [at for at, of in peers.asked if of in peers.silent]
    assert 4 <= len(times) <= 6


def test_nonsense_is_no_more_than_a_row_that_is_not_told() -> None:
    peers = Peers(2)
    bad = subnet("10.2.42.0/24")
    peers.answer = lambda of, question: b"\xff" * 1200 if of == bad else _answer(of, question)

    async def scenario(rows: Rows) -> None:
        await asyncio.sleep(4)
        assert told(rows)["10.2.42.0/24", None] == Row(why=OTHERWISE)
        assert told(rows)[FAST].cells["10.2.42.0/24", None].how is How.REACHED

    looking(peers, scenario)


def test_a_row_stands_for_a_while_when_its_host_falls_silent() -> None:
    peers = Peers(1)

    async def scenario(rows: Rows) -> None:
        await asyncio.sleep(2)
        before = told(rows)[FAST]
        peers.silent.add(subnet("10.2.41.0/24"))
        await asyncio.sleep(KEPT / 2)
        assert before.cells == told(rows)[FAST].cells
        await asyncio.sleep(KEPT)
        assert told(rows)[FAST] == Row(why=SILENT)
        peers.silent.clear()
        await asyncio.sleep(2 * SELDOM)
        assert told(rows)[FAST].why == ""

    looking(peers, scenario)


def test_a_host_that_is_gone_takes_its_row_along_and_a_new_one_is_asked() -> None:
    peers = Peers(1)

    async def scenario(rows: Rows) -> None:
        await asyncio.sleep(2)
        rows.see(document(peers=[replace(PEER, subnet="10.2.99.0/24")]))
        assert set(rows.latest.rows) == {OWN}
        await asyncio.sleep(2 * AGAIN)
        assert set(rows.latest.rows) == {OWN, ("10.2.99.0/24", None)}
        rows.see(document(peers=[]))
        assert rows.latest.hosts == ()

    looking(peers, scenario)


def test_a_name_that_is_no_subnet_is_not_asked_for() -> None:
    peers = Peers(0)
    peers.document = document(peers=[replace(PEER, subnet="<b>")])

    async def scenario(rows: Rows) -> None:
        await asyncio.sleep(2)
        assert told(rows)["<b>", None] == Row(why=SILENT)

    looking(peers, scenario)
    assert peers.asked == []


def test_between_two_agents_nobody_is_asked() -> None:
    peers = Peers(2)
    peers.able = False

    async def scenario(rows: Rows) -> None:
        await asyncio.sleep(10)
        assert peers.asked == []
        peers.able = True
        await asyncio.sleep(2)
        assert peers.asked

    looking(peers, scenario)
