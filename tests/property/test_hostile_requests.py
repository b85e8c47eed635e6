"""Whatever is sent to the agent's surfaces: it is answered in HTTP or not at all, and costs the agent nothing."""

from __future__ import annotations

import asyncio
import logging
import socket

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflannel.health import Health
from pyflannel.settings import Settings
from pyflannel.telemetry.desk import Desk
from pyflannel.telemetry.http import Limits, Request, Response, converse
from pyflannel.telemetry.surfaces import Surface
from pyflannel.telemetry.views import ROUTES, answer
from tests.support.loops import run

LIMITS = Limits(idle=10.0, head=10.0, piece=10.0)
"""Never come to: every visitor here ends what it says."""
DESK = Desk(Settings(), Health())
WELL = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"

words = st.sampled_from(
    [
        *(b"GET ", b"HEAD ", b"POST ", b"CONNECT ", b"/", b"/status", b"/metrics", b"/ask?q=zz&subnet=", b"/readyz"),
        *(b" HTTP/1.1", b" HTTP/1.0", b" HTTP/9.9", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"Host: x\r\n", b"Host:"),
        *(
            b"Content-Length: 5\r\n",
            b"Content-Length: -1\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: close\r\n",
        ),
        *(
            b"Expect: 100-continue\r\n",
            b"Upgrade: websocket\r\n",
            b"5\r\nhello\r\n0\r\n\r\n",
            b"%00",
            b"\0",
            b"\xff",
            b"?",
        ),
    ]
)
requests = st.lists(st.just(WELL) | st.binary(max_size=40) | st.lists(words, max_size=12).map(b"".join), max_size=6)


async def _answer(request: Request) -> Response:
    return await answer(DESK, ROUTES[Surface.CONTROL], request)


async def _told(portions: list[bytes], leaves: bool) -> bytes:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(converse(reader, writer, _answer, LIMITS), name="conversation")
        their_reader, their_writer = await asyncio.open_connection(sock=theirs)
        for portion in portions:
            their_writer.write(portion)
            await asyncio.sleep(0)
        if leaves:
            their_writer.transport.abort()
            return b""
        their_writer.write_eof()
        told = await their_reader.read()
        their_writer.close()
    return told


def statuses(told: bytes) -> list[int]:
    """Of all answers in ``told``; fails if there is anything in it but answers."""
    found = []
    while told:
        reader = h11.Connection(h11.CLIENT)
        reader.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
        reader.send(h11.EndOfMessage())
        reader.receive_data(told)
        head = reader.next_event()
        assert isinstance(head, h11.Response)
        found.append(head.status_code)
        while not isinstance(event := reader.next_event(), h11.EndOfMessage):
            assert isinstance(event, h11.Data), told
        told = reader.trailing_data[0]
    return found


class Listening(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@given(requests, st.booleans())
def test_nothing_that_is_sent_troubles_the_agent(portions: list[bytes], leaves: bool) -> None:
    listening, logger = Listening(), logging.getLogger("pyflannel")
    logger.addHandler(listening)
    try:
        told = run(_told(portions, leaves))
    finally:
        logger.removeHandler(listening)
    assert not listening.said
    if b"HEAD" not in b"".join(portions):
        assert all(status in (200, 400, 404, 405, 413, 431, 501, 503) for status in statuses(told))


@pytest.mark.parametrize("times", [1, 3])
def test_requests_that_are_well_formed_are_all_answered(times: int) -> None:
    assert statuses(run(_told([WELL] * times, False))) == [200] * times


@given(st.binary(max_size=200))
def test_what_comes_after_a_request_does_not_spoil_its_answer(after: bytes) -> None:
    assert statuses(run(_told([WELL, after], False)))[0] == 200
