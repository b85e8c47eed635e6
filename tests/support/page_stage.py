"""The page as an agent serves it, in a thread of its own, over an agent that says what a test has it say."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address

from pyflannel.health import Health
from pyflannel.settings import Settings
from pyflannel.telemetry.desk import Desk
from pyflannel.telemetry.document import Document
from pyflannel.telemetry.http import Request, Response
from pyflannel.telemetry.page.routes import routes
from pyflannel.telemetry.page.rows import Ask
from pyflannel.telemetry.server import Port, Server


class Stage:
    """What the agent tells, to be replaced at any time, and where it does."""

    def __init__(self, document: Document, port: int) -> None:
        self.document = document
        self.port = port
        self.url = f"http://127.0.0.1:{port}/"

    async def look(self) -> Document:
        """As ``describe`` does."""
        return self.document


@contextmanager
def staged(document: Document, port: int = 0, ask: Ask | None = None) -> Iterator[Stage]:
    """Serve the page of an agent that says this for as long as the block takes, at a port that is free unless told.

    Its peers answer by ``ask``; without it, nobody asks them.
    """
    stage = Stage(document, port or free_port())
    desk, paths = Desk(Settings(), Health()), routes(stage.look, lambda: ask)

    async def answer(request: Request) -> Response:
        route = paths.get(request.path)
        return Response(404) if route is None else await route.view(desk, request)

    loop = asyncio.new_event_loop()
    server = loop.create_task(
        Server([(Port(IPv4Address("127.0.0.1"), stage.port), answer)], desk.health).run(), name="server"
    )

    def run() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(server)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        await_somebody(stage.port)
        yield stage
    finally:
        loop.call_soon_threadsafe(server.cancel)
        thread.join(10)
        loop.close()


def free_port() -> int:
    """One where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def await_somebody(port: int) -> None:
    """Return as soon as somebody listens there."""
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, f"nobody listens at {port}"
            time.sleep(0.005)
        else:
            return
