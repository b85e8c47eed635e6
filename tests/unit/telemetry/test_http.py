"""One visitor's conversation, byte by byte; contract tests over real sockets are in tests/contract/test_surfaces.py."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest

from pyflannel.telemetry.http import FIELDS, HEAD, Limits, Request, Response, converse
from tests.support.loops import run

SHORT = Limits(idle=0.2, head=0.2, piece=0.2)


async def echo(request: Request) -> Response:
    """Says what was asked."""
    return Response(200, f"{request.method} {request.path} {dict(request.query)}".encode())


async def talk(
    sent: bytes,
    answer: Callable[[Request], Awaitable[Response]] = echo,
    *,
    limits: Limits = Limits(),  # noqa: B008
    half_close: bool = True,
) -> bytes:
    """All that a visitor is told who sends this, and then no more."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(converse(reader, writer, answer, limits), name="conversation")
        their_reader, their_writer = await asyncio.open_connection(sock=theirs)
        their_writer.write(sent)
        if half_close:
            their_writer.write_eof()
        told = await their_reader.read()
        their_writer.close()
    return told


def told(sent: bytes, answer: Callable[[Request], Awaitable[Response]] = echo) -> bytes:
    return run(talk(sent, answer))


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_a_request_is_answered_with_its_length_and_kind() -> None:
    answer = told(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Type: text/plain; charset=utf-8" in head
    assert b"Content-Length: %d" % len(body) in head
    assert body == b"GET /status {}"


def test_requests_sent_all_at_once_are_answered_in_their_order() -> None:
    answer = told(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(50)))
    assert [part.split(b" ", 1)[0] for part in answer.split(b"GET /")[1:]] == [b"%d" % number for number in range(50)]


def test_a_visitor_that_says_it_sends_no_more_is_answered_all_the_same() -> None:
    assert status(told(b"GET / HTTP/1.0\r\n\r\n")) == 200


def test_the_head_of_an_answer_is_that_of_get_without_the_body() -> None:
    answer = told(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"Content-Length: 9\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


def test_a_target_is_taken_apart() -> None:
    answer = told(b"GET /a%20b?subnet=10.2.0.0%2F16&q=&q=00ff HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.endswith(b"GET /a b {'subnet': '10.2.0.0/16', 'q': '00ff'}")
    assert told(b"GET http://x/status HTTP/1.1\r\nHost: x\r\n\r\n").endswith(b"GET /status {}")


@pytest.mark.parametrize("target", [b"http://[::1/", b"/%ff", b"/?" + b"&".join([b"a=1"] * (FIELDS + 1)), b"/?q=%fe"])
def test_a_target_that_is_none_is_refused(target: bytes) -> None:
    assert status(told(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % target)) == 400


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200, 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 2 * HEAD + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 2 * HEAD, 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 413),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    ],
)
def test_what_is_no_request_of_ours_is_refused_and_ends_the_conversation(sent: bytes, expected: int) -> None:
    answer = told(sent + b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status(answer) == expected
    assert b"Connection: close" in answer
    assert b"GET /next" not in answer


def test_a_visitor_that_says_nothing_is_seen_off() -> None:
    assert run(talk(b"", limits=SHORT, half_close=False)) == b""


def test_a_visitor_that_does_not_come_to_the_point_is_seen_off() -> None:
    assert run(talk(b"GET / HTTP/1.1\r\nHost: x\r\n", limits=SHORT, half_close=False)) == b""


def test_a_visitor_that_does_not_take_the_answer_is_seen_off() -> None:
    async def endless() -> AsyncGenerator[bytes, None]:
        while True:
            yield b"x" * 100_000

    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        theirs.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        reader, writer = await asyncio.open_connection(sock=ours)
        with theirs:
            await converse(reader, writer, lambda _: _now(Response(200, endless())), SHORT)

    run(scenario())


def test_pieces_come_one_by_one_and_are_closed_when_the_visitor_leaves() -> None:
    closed = asyncio.Event()

    async def events() -> AsyncGenerator[bytes, None]:
        try:
            for number in range(1_000_000):
                yield b"data: %d\n\n" % number
                await asyncio.sleep(0.01)
        finally:
            closed.set()

    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(
                converse(reader, writer, lambda _: _now(Response(200, events(), "text/event-stream"))), name="visit"
            )
            their_reader, their_writer = await asyncio.open_connection(sock=theirs)
            their_writer.write(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
            await their_reader.readuntil(b"data: 1\n")
            their_writer.transport.abort()
            await closed.wait()

    run(scenario())


def test_an_answer_in_pieces_arrives_whole() -> None:
    async def pieces() -> AsyncGenerator[bytes, None]:
        for number in range(100):
            yield b"%02d" % number * 5000

    answer = told(b"GET / HTTP/1.0\r\n\r\n", lambda _: _now(Response(200, pieces())))
    assert answer.partition(b"\r\n\r\n")[2] == b"".join(b"%02d" % number * 5000 for number in range(100))


def test_a_bug_of_ours_costs_the_visitor_and_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_request: Request) -> Awaitable[Response]:
        raise ZeroDivisionError

    assert told(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", fail) == b""
    assert "ZeroDivisionError" in caplog.text


async def _now(response: Response) -> Response:
    return response
