"""One visitor of a small HTTP/1.1 server: its requests, one after another, and what is answered.

Rules of this file
  1. It knows HTTP, and nothing of what is asked.
  2. Nothing waits without bound, nothing is kept without bound, and no body is taken.
  3. Whatever a visitor sends, the worst that comes of it is an error told to that visitor, and the end of the
     conversation.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

import h11

log = logging.getLogger(__name__)

HEAD: Final = 8 * 1024
"""Bytes of a request's head, at most."""
FIELDS: Final = 8
"""Fields of a query, at most."""
TEXT: Final = "text/plain; charset=utf-8"
_PORTION: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a visitor may take, in seconds."""

    idle: float = 30.0
    """To begin a request, from its arrival or from the last answer on."""
    head: float = 5.0
    """To end it."""
    piece: float = 10.0
    """To take a piece of the answer."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    """The last value of each field."""
    host: str = ""
    """By which name or address the visitor came here; empty if it did not say."""


Body: TypeAlias = bytes | AsyncGenerator[bytes, None]
"""What comes in pieces may go on for ever, as server-sent events do; it is closed when the visitor leaves."""


@dataclass(frozen=True, slots=True)
class Response:
    """What is answered."""

    status: int
    body: Body = b""
    type: str = TEXT
    headers: tuple[tuple[str, str], ...] = ()


Answer: TypeAlias = Callable[[Request], Awaitable[Response]]


async def converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer, limits: Limits = Limits()
) -> None:
    """Answer all that is asked until the visitor leaves, or asks too much; then the connection is closed."""
    visit = _Visit(reader, writer, limits)
    try:
        while (asked := await visit.request()) is not None:
            if not await visit.respond(asked, await answer(asked) if isinstance(asked, Request) else asked):
                break
        await visit.take_leave()
    except (OSError, h11.ProtocolError):
        pass  # it left, or takes too long
    except Exception:
        # Our bug, in the one part of the agent that no packet depends on: it is told, and costs this visitor only.
        log.exception("Answering a visitor")
    finally:
        writer.transport.abort()


class _Visit:
    """The bytes of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limits: Limits) -> None:
        self._reader, self._writer, self._limits = reader, writer, limits
        # Whoever drains waits until all is on its way: an answer is not cut off by the end of the conversation.
        writer.transport.set_write_buffer_limits(0)
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD)

    async def request(self) -> Request | Response | None:
        """What is asked next, or what to answer instead; None if there is nothing any more."""
        connection = self._connection
        if connection.our_state is h11.DONE and connection.their_state is h11.DONE:
            connection.start_next_cycle()
        if connection.our_state is not h11.IDLE:
            return None
        try:
            event = connection.next_event()
            if event is h11.NEED_DATA and not connection.trailing_data[0]:
                event = await self._next(self._limits.idle)
            async with asyncio.timeout(self._limits.head):
                while event is h11.NEED_DATA:
                    event = await self._next(None)
            if not isinstance(event, h11.Request):
                return None
            if not isinstance(connection.next_event(), h11.EndOfMessage):
                return Response(413, b"a request has no body here\n")
        except h11.RemoteProtocolError as exc:
            # Not in words of its own: there may be anything in them.
            return Response(exc.error_status_hint, f"{HTTPStatus(exc.error_status_hint).phrase}\n".encode())
        try:
            return _read(event)
        except ValueError:
            return Response(400, b"Bad Request: no such target can be asked for\n")

    async def respond(self, asked: Request | Response, response: Response) -> bool:
        """Send an answer; False if no further one can follow."""
        last = not isinstance(asked, Request)
        head = isinstance(asked, Request) and asked.method == "HEAD"
        headers = [("Date", time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()))]
        headers += [("Content-Type", response.type), ("X-Content-Type-Options", "nosniff")]
        headers += [*response.headers, *([("Connection", "close")] if last else [])]
        body = response.body
        if isinstance(body, bytes):
            headers.append(("Content-Length", str(len(body))))
        phrase = HTTPStatus(response.status).phrase
        await self._send(h11.Response(status_code=response.status, headers=headers, reason=phrase.encode()))
        if isinstance(body, bytes):
            await self._send(h11.Data(data=b"" if head else body))
        else:
            async with aclosing(body) as pieces:
                if not head:
                    async for piece in pieces:
                        await self._send(h11.Data(data=piece))
        await self._send(h11.EndOfMessage())
        return not last

    async def take_leave(self) -> None:
        """Say that nothing more comes, and have the visitor read what did before the connection goes."""
        if self._writer.can_write_eof():
            self._writer.write_eof()
        async with asyncio.timeout(self._limits.head):
            while await self._reader.read(_PORTION):
                pass

    async def _next(self, limit: float | None) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        async with asyncio.timeout(limit):
            self._connection.receive_data(await self._reader.read(_PORTION))
        return self._connection.next_event()

    async def _send(self, event: h11.Event) -> None:
        data = self._connection.send(event)
        if data:
            self._writer.write(data)
            async with asyncio.timeout(self._limits.piece):
                await self._writer.drain()


def _read(event: h11.Request) -> Request:
    """``ValueError`` for a target that is none."""
    target = urlsplit(event.target.decode("ascii"))
    query = dict(parse_qsl(target.query, keep_blank_values=True, max_num_fields=FIELDS, errors="strict"))
    host = next((value.decode("latin-1") for name, value in event.headers if name == b"host"), "")
    return Request(event.method.decode("ascii"), unquote(target.path, errors="strict"), query, host)
