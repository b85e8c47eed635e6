"""A wire to a server on loopback that can be cut off, or slowed down, without either end being told.

    async with Relay(etcd.url) as relay:
        ...  # connect to relay.url
        relay.hold()

Runs in the loop of the test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from urllib.parse import urlsplit

_CHUNK = 1 << 16


class Relay:
    """Passes on what either side says, from the start of the ``async with`` block to its end."""

    def __init__(self, url: str, answers_after_s: float = 0.0) -> None:
        """What the server says arrives so many seconds after it was said."""
        self._target = urlsplit(url)
        self._delay_s = answers_after_s
        self._open = asyncio.Event()
        self._open.set()
        self._said = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.url = ""
        self.bytes_sent = 0
        """What clients said so far, whether it was passed on or not."""
        self.connections = 0
        """How many were accepted so far."""

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"{self._target.scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self.cut()
        await self._server.wait_closed()

    def hold(self) -> None:
        """Swallow everything from now on, as a cable cut far away does; new connections are accepted all the same."""
        self._open.clear()

    def resume(self) -> None:
        """Pass on what was held, and what comes."""
        self._open.set()

    async def cut(self) -> None:
        """End all connections; both sides are told.  New ones are served."""
        self.resume()
        tasks = tuple(self._tasks)
        for writer in self._writers:
            writer.transport.abort()
        if tasks:
            await asyncio.wait(tasks)

    async def heard_more(self, octets: int) -> None:
        """Wait until clients have said at least so much more."""
        enough = self.bytes_sent + octets
        while self.bytes_sent < enough:
            self._said.clear()
            await self._said.wait()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # From now on ``cut`` knows of it, even if nothing was done for it yet.
        self.connections += 1
        self._writers.add(writer)
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError):
                there, back = await asyncio.open_connection(self._target.hostname, self._target.port)
                self._writers.add(back)
                try:
                    await _first_of(self._upwards(reader, back), self._downwards(there, writer))
                finally:
                    back.transport.abort()
                    self._writers.discard(back)
        finally:
            writer.transport.abort()
            self._writers.discard(writer)

    async def _upwards(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while said := await reader.read(_CHUNK):
            self.bytes_sent += len(said)
            self._said.set()
            await self._open.wait()
            writer.write(said)

    async def _downwards(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while said := await reader.read(_CHUNK):
            await self._open.wait()
            loop.call_later(self._delay_s, _write, writer, said)
        await self._open.wait()


def _write(writer: asyncio.StreamWriter, said: bytes) -> None:
    if not writer.transport.is_closing():
        writer.write(said)


async def _first_of(*works: Coroutine[object, object, None]) -> None:
    """Do all until one is done or fails."""
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
