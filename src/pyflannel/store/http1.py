"""A small HTTP/1.1 client: one host, one kept connection, bounds on everything.

Rules of this file
  1. It knows HTTP, and nothing of who is asked what.
  2. Nothing waits without bound, and nothing is read without bound.
  3. Failures are ``OSError`` (no connection, or it broke; ``TimeoutError`` is one) and ``BadAnswer``.  A status such as
     404 is an answer, not a failure.
  4. A connection is kept only after an answer was read to its end; in any other case it is closed, and the next request
     opens a new one.  Several requests at once are several connections.
  5. A kept connection on which anything came unasked is closed too: load balancers say 408 before they hang up, and the
     next request must not take that for its answer.
"""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TypeAlias

import h11

Header: TypeAlias = tuple[str, str]
Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Opener: TypeAlias = Callable[[], Awaitable[Streams]]

LONGEST_S = 60.0
"""Seconds after which an answer is given up though it is still coming in."""

_CHUNK = 64 * 1024
_HEAD_LIMIT = 64 * 1024
_BODY_LIMIT = 64 * 1024 * 1024


class BadAnswer(Exception):
    """What came back is not HTTP, is cut off, or is more than we take."""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer, whole."""

    status: int
    headers: tuple[Header, ...]
    """Names in lower case."""
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of the first header of that (lower-case) name."""
        return next((value for key, value in self.headers if key == name), None)


def basic_auth(user: str, password: str) -> Header:
    """The header by which a user and a password are shown."""
    return "authorization", "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def tcp(host: str, port: int, context: ssl.SSLContext | None = None) -> Opener:
    """Connect to a port, with TLS if there is a context for it."""
    return lambda: asyncio.open_connection(host, port, ssl=context)


def unix(path: str) -> Opener:
    """Connect to a socket of this machine."""
    return lambda: asyncio.open_unix_connection(path)


class Client:
    """Requests to one host."""

    def __init__(
        self, opener: Opener, host: str, *, connect_s: float = 3.0, answer_s: float = 5.0, body_limit: int = _BODY_LIMIT
    ) -> None:
        """``host`` goes into the Host header.  An answer of more than ``body_limit`` bytes is a ``BadAnswer``."""
        self._opener = opener
        self._host = host
        self._connect_s = connect_s
        self._answer_s = answer_s
        self._body_limit = body_limit
        self._kept: _Connection | None = None

    async def request(self, method: str, target: str, *, headers: Sequence[Header] = (), body: bytes = b"") -> Response:
        """Ask, and read the whole answer."""
        async with self.exchange(method, target, headers=headers, body=body) as answer:
            content = await answer.body(self._answer_s)
            return Response(answer.status, answer.headers, content)

    @asynccontextmanager
    async def exchange(
        self, method: str, target: str, *, headers: Sequence[Header] = (), body: bytes = b""
    ) -> AsyncIterator[Answer]:
        """Ask, and read the head of the answer; its body is read, or left, inside the block."""
        connection = await self._connection()
        try:
            async with _bounded(self._answer_s):
                head = await connection.ask(self._request(method, target, headers, body), body)
            yield Answer(connection, head, self._body_limit)
        finally:
            if connection.is_reusable() and self._kept is None:
                self._kept = connection
            else:
                await connection.close()

    async def reach(self) -> None:
        """Have a connection for the next request.  If this fails, then that request surely was not made."""
        connection = await self._connection()
        if self._kept is None:
            self._kept = connection
        else:
            await connection.close()

    async def close(self) -> None:
        """Close the connection that is kept."""
        kept, self._kept = self._kept, None
        if kept is not None:
            await kept.close()

    async def _connection(self) -> _Connection:
        kept, self._kept = self._kept, None
        if kept is not None:
            usable = False
            try:
                usable = await kept.is_silent()
            finally:
                if not usable:
                    await kept.close()
            if usable:
                return kept
        async with _bounded(self._connect_s):
            return _Connection(*await self._opener())

    def _request(self, method: str, target: str, headers: Sequence[Header], body: bytes) -> h11.Request:
        length = [("content-length", str(len(body)))] if body or method in ("PUT", "POST") else []
        return h11.Request(method=method, target=target, headers=[("host", self._host), *length, *headers])


class Answer:
    """The head of an answer, and the way to its body."""

    def __init__(self, connection: _Connection, head: h11.Response, body_limit: int) -> None:
        """``connection`` has just read ``head``."""
        self.status = head.status_code
        self.headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers)
        self._connection = connection
        self._body_limit = body_limit
        self._content = bytearray()

    async def body(self, within_s: float) -> bytes:
        """The whole body; ``TimeoutError`` if nothing comes for ``within_s``.  It may come later: ask again, or leave.

        A long body on a thin line may take its time, though no longer than ``LONGEST_S`` beyond ``within_s``.
        """
        length = dict(self.headers).get("content-length", "0")
        if int(length) > self._body_limit:
            raise BadAnswer(f"answer of {length} bytes, more than {self._body_limit}")
        now = asyncio.get_running_loop().time
        latest = now() + within_s + LONGEST_S
        async with _bounded(within_s) as limit:
            async for piece in self._connection.pieces():
                limit.reschedule(min(now() + within_s, latest))
                self._content += piece
                if len(self._content) > self._body_limit:
                    raise BadAnswer(f"answer of more than {self._body_limit} bytes")
        return bytes(self._content)


class _Connection:
    """h11 between two streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_LIMIT)

    async def is_silent(self) -> bool:
        """Whether the other side, which was asked nothing, neither hung up nor said something."""
        try:
            async with asyncio.timeout(0):
                await self._reader.read(1)
        except TimeoutError as nothing:
            return nothing.errno is None and not self._writer.is_closing()
        except OSError:
            return False
        return False

    def is_reusable(self) -> bool:
        """Whether the exchange came to its end on both sides; if so the next one may begin."""
        ended = self._http.our_state is h11.DONE and self._http.their_state is h11.DONE
        if not ended or self._http.trailing_data[0]:
            return False
        self._http.start_next_cycle()
        return True

    async def ask(self, request: h11.Request, body: bytes) -> h11.Response:
        for event in (request, h11.Data(data=body), h11.EndOfMessage()):
            self._writer.write(self._http.send(event) or b"")
        await self._writer.drain()
        while True:
            answer = await self._event()
            if isinstance(answer, h11.Response):
                return answer
            if not isinstance(answer, h11.InformationalResponse):
                raise BadAnswer("connection closed without an answer")

    async def pieces(self) -> AsyncIterator[bytes]:
        while True:
            event = await self._event()
            if isinstance(event, h11.EndOfMessage):
                return
            if isinstance(event, h11.Data):
                yield bytes(event.data)

    async def _event(self) -> h11.Event:
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                closed = self._http.trailing_data[1]
                text = "connection closed in the middle of an answer" if closed else f"not an HTTP answer: {error}"
                raise BadAnswer(text) from error
            if isinstance(event, h11.Event):
                return event
            if event is h11.PAUSED:
                raise BadAnswer("an answer nobody asked for")
            received = await self._reader.read(_CHUNK)
            if not received and self._http.their_state is h11.SEND_RESPONSE:
                raise BadAnswer("connection closed without an answer")
            self._http.receive_data(received)

    async def close(self) -> None:
        # Politeness has no bound: a TLS peer that hangs would be waited for when closing.
        self._writer.transport.abort()
        with suppress(OSError):
            await self._writer.wait_closed()


@asynccontextmanager
async def _bounded(seconds: float) -> AsyncIterator[asyncio.Timeout]:
    try:
        async with asyncio.timeout(seconds) as limit:
            yield limit
    except TimeoutError as error:
        if error.errno is not None:
            raise  # the kernel's own, ETIMEDOUT
        raise TimeoutError(f"no answer within {seconds:g} s") from error
