"""An HTTP proxy before a server on loopback, which spoils answers when it is told to.

async with HttpProxy(etcd.port) as proxy:
    proxy.spoil(CUT_SHORT, 3)
    ...  # use proxy.url
    await proxy.over()
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from types import TracebackType

from tests.support.fake_http import ok


class Then(Enum):
    """What becomes of a connection after an answer."""

    STAYS = "open for the next request"
    CLOSES = "closed"
    HANGS = "open, but nothing more is said"


@dataclass(frozen=True, slots=True)
class Fault:
    """What becomes of an answer: head and body of the true one go in, what is sent comes out."""

    spoil: Callable[[bytes, bytes], bytes]
    then: Then = Then.STAYS
    asks: bool = True
    """Whether the server is asked at all; if not, head and body are empty."""


def instead(answer: bytes, then: Then = Then.STAYS) -> Fault:
    """Say this, whatever was asked."""
    return Fault(lambda _head, _body: answer, then, asks=False)


UNHEARD = Fault(lambda _head, _body: b"", Then.CLOSES)
"""The server does what it is asked, but nobody hears of that."""
SILENT = instead(b"", Then.HANGS)


class HttpProxy:
    """Lives as long as the ``async with`` block."""

    def __init__(self, port: int) -> None:
        self.target = port
        """Where requests go; may be changed, and connections stay."""
        self._fault: Fault | None = None
        self._only = ""
        self._left = 0
        self._over = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    def spoil(self, fault: Fault, times: int = 1, *, only: str = "") -> None:
        """Let this become of the answers to the next requests, or the next whose first line begins with ``only``."""
        self._fault, self._left, self._only = fault, times, only
        self._over.clear()

    async def over(self) -> None:
        """Wait until the last request to be spoiled has come in."""
        await self._over.wait()

    async def __aenter__(self) -> HttpProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._answer(reader, writer):
                    pass
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        request = head + await reader.readexactly(_length(head))
        fault = self._next_fault(head.decode())
        if fault is None:
            await self._pass_on(request, writer)
            return True
        answer = fault.spoil(*(await self._asked(request) if fault.asks else (b"", b"")))
        writer.write(answer)
        await writer.drain()
        if fault.then is Then.HANGS:
            await reader.read()
        return fault.then is Then.STAYS

    def _next_fault(self, request: str) -> Fault | None:
        if self._left == 0 or not request.startswith(self._only):
            return None
        self._left -= 1
        if self._left == 0:
            self._over.set()
        return self._fault

    async def _pass_on(self, request: bytes, writer: asyncio.StreamWriter) -> None:
        """Hand on the true answer as it comes: of a watch, first the head and perhaps much later the body."""
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        try:
            back.write(request)
            head = await there.readuntil(b"\r\n\r\n")
            writer.write(head)
            if _is_chunked(head):
                while (size := int(await _line(there, writer), 16)) > 0:
                    writer.write(await there.readexactly(size + 2))
                await _line(there, writer)
            else:
                writer.write(await there.readexactly(_length(head)))
            await writer.drain()
        finally:
            back.transport.abort()

    async def _asked(self, request: bytes) -> tuple[bytes, bytes]:
        """The true answer, whole."""
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        try:
            back.write(request)
            head, body = await there.readuntil(b"\r\n\r\n"), b""
            if not _is_chunked(head):
                return head, await there.readexactly(_length(head))
            while (size := int(await there.readuntil(b"\r\n"), 16)) > 0:
                body += (await there.readexactly(size + 2))[:-2]
            return head, body
        finally:
            back.transport.abort()


async def _line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    line = await reader.readuntil(b"\r\n")
    writer.write(line)
    return line


def with_body(head: bytes, body: bytes) -> bytes:
    """An answer with the status and the index of ``head``, and this body."""
    first, *lines = head.decode().split("\r\n")
    index = [line for line in lines if line.lower().startswith("x-etcd-index")]
    return ok(body.decode(), *index, status=first.split(" ", 1)[1])


def _length(head: bytes) -> int:
    fields = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:] if line)
    return int(fields.get("content-length", "0"))


def _is_chunked(head: bytes) -> bool:
    return b"transfer-encoding: chunked" in head.lower()
