"""A server of ours in a thread of its own, for visitors that block."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pyflannel.health import Health
from pyflannel.telemetry.document import Document, write
from pyflannel.telemetry.http import Request, Response
from pyflannel.telemetry.server import ControlSocket, Server


@contextmanager
def served(path: Path, answer: Callable[[Request], Awaitable[Response]]) -> Iterator[None]:
    """Answer at a control socket for as long as the block takes."""
    loop = asyncio.new_event_loop()
    server = loop.create_task(Server([(ControlSocket(path), answer)], Health()).run(), name="server")

    def run() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(server)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        _await_somebody(path)
        yield
    finally:
        loop.call_soon_threadsafe(server.cancel)
        thread.join(10)
        loop.close()


@contextmanager
def told(path: Path, *documents: Document) -> Iterator[list[str]]:
    """An agent at ``path`` that tells these one after another, and the last one from then on; yields what was asked."""
    asked: list[str] = []

    async def answer(request: Request) -> Response:
        asked.append(request.path)
        said = documents[min(len(asked), len(documents)) - 1]
        return Response(200, b"".join(write(said)), "application/json")

    with served(path, answer):
        yield asked


def _await_somebody(path: Path) -> None:
    deadline = time.monotonic() + 10
    while True:
        with socket.socket(socket.AF_UNIX) as visitor:
            try:
                visitor.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError):
                assert time.monotonic() < deadline, f"nobody listens at {path}"
                time.sleep(0.005)
            else:
                return
