"""The places where the agent can be asked: opened, kept open, and shared among visitors.

Rules of this file
  1. A place that cannot be opened is a condition, and is tried again; the agent goes on.
  2. Listening costs next to nothing.  What is needed to answer (``http``) is imported when somebody comes.
  3. No more visitors than ``MOST`` at a time in one place; whoever comes then is let in for the one who has been there
     longest.  So nobody who holds connections open keeps others out, and no place suffers from what goes on in another.
  4. The control socket of a living agent is left alone.  One that is removed under us is made again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias

from pyflannel.conditions import NOT_SERVED
from pyflannel.health import Health
from pyflannel.state import IPAddress

if TYPE_CHECKING:
    from pyflannel.telemetry.http import Answer

log = logging.getLogger(__name__)

MOST: Final = 32
"""Visitors of one place."""
BACKLOG: Final = 64
RETRY: Final = 5.0
"""Seconds between attempts to open a place, and between looks whether it is still there."""
BREATH: Final = 0.5
"""Seconds to wait when a visitor cannot be let in, for want of descriptors or memory."""


class Taken(Exception):
    """Another agent is there."""


@dataclass(frozen=True, slots=True)
class Port:
    """A place for visitors from the network: a TCP port."""

    host: IPAddress
    port: int

    @property
    def name(self) -> str:
        """Address and port."""
        return f"[{self.host}]:{self.port}" if self.host.version == 6 else f"{self.host}:{self.port}"

    def open(self) -> socket.socket:
        """A listening socket that does not block; ``OSError`` if that cannot be.

        0.0.0.0 is every address of both families, as it is to Go.
        """
        host = IPv6Address(0) if self.host.is_unspecified and socket.has_dualstack_ipv6() else self.host
        family = socket.AF_INET6 if host.version == 6 else socket.AF_INET
        made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not host.is_unspecified))
            made.bind((str(host), self.port))
            made.listen(BACKLOG)
        except BaseException:
            made.close()
            raise
        return made

    def stands(self) -> bool:
        """Whether visitors still find it: nobody can take it from us."""
        return True

    def close(self) -> None:
        """Remove what closing the socket leaves behind: nothing."""


class ControlSocket:
    """A place for visitors from this host: a socket in the file system, for our own user alone."""

    def __init__(self, path: Path) -> None:
        """Nothing is there yet."""
        self._path = path
        self._made: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """The path."""
        return str(self._path)

    def open(self) -> socket.socket:
        """A listening socket that does not block; ``OSError`` or ``Taken`` if that cannot be.

        What a dead agent has left there is removed.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._clear()
            # Nobody can connect before listen(), so there is no moment with the wrong mode.
            made.bind(os.fspath(self._path))
            self._path.chmod(0o600)
            made.listen(BACKLOG)
            self._made = self._found()
        except BaseException:
            made.close()
            raise
        return made

    def stands(self) -> bool:
        """Whether the path still leads to what we made."""
        return self._made is not None and self._found() == self._made

    def close(self) -> None:
        """Remove the file, unless it is somebody else's by now."""
        if self.stands():
            with suppress(OSError):
                self._path.unlink()
        self._made = None

    def _clear(self) -> None:
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(self._path.lstat().st_mode):
                raise FileExistsError(f"{self._path} is no socket, and is left as it is")
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as visitor:
                try:
                    visitor.connect(os.fspath(self._path))
                except ConnectionRefusedError:
                    self._path.unlink()
                    return
                except BlockingIOError:
                    pass  # there are many who wait: so there is somebody to wait for
            raise Taken("another agent is asked there; give each a directory of its own with -subnet-file")

    def _found(self) -> tuple[int, int] | None:
        with suppress(OSError):
            found = self._path.lstat()
            return found.st_dev, found.st_ino
        return None


Place: TypeAlias = Port | ControlSocket


class Server:
    """All places of one agent process."""

    def __init__(self, places: Iterable[tuple[Place, Answer]], health: Health) -> None:
        """Each place answers in its own way.  What is wrong with one is told to ``health``."""
        self._places, self._health = tuple(places), health

    @property
    def names(self) -> list[str]:
        """All places, for people."""
        return [place.name for place, _ in self._places]

    async def run(self) -> NoReturn:
        """Serve, for ever; all is closed when this is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for place, answer in self._places:
                tasks.create_task(self._keep(place, answer), name=f"visitors of {place.name}")
        raise AssertionError("serving never ends by itself")

    async def _keep(self, place: Place, answer: Answer) -> NoReturn:
        crowd = _Crowd(answer)
        async with asyncio.TaskGroup() as tasks:
            while True:
                with await self._opened(place) as door:
                    admitting = tasks.create_task(crowd.admit(door, tasks), name=f"admission at {place.name}")
                    try:
                        await self._lost(place)
                        log.warning("%s was removed, and is made again", place.name)
                    finally:
                        admitting.cancel()
                        await asyncio.wait([admitting])
                        place.close()

    async def _lost(self, place: Place) -> None:
        """Wait until nobody finds it any more."""
        while True:
            await asyncio.sleep(RETRY)
            if not place.stands():
                return

    async def _opened(self, place: Place) -> socket.socket:
        while True:
            try:
                door = place.open()
            except (OSError, Taken) as exc:
                reason = exc.strerror or str(exc) if isinstance(exc, OSError) else str(exc)
                self._health.set(NOT_SERVED, f"Cannot listen at {place.name}, and go on trying: {reason}", place.name)
                await asyncio.sleep(RETRY)
            else:
                self._health.clear(NOT_SERVED, place.name, said=f"Listening at {place.name}")
                return door


class _Crowd:
    """The visitors of one place."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._present: dict[asyncio.Task[None], None] = {}
        """In the order of their coming."""

    async def admit(self, door: socket.socket, tasks: asyncio.TaskGroup) -> NoReturn:
        """Let in whoever comes."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                visitor, _ = await loop.sock_accept(door)
            except ConnectionError:
                continue  # it left while it waited
            except OSError as exc:
                log.debug("Letting nobody in for a moment: %s", exc)
                await asyncio.sleep(BREATH)
                continue
            if len(self._present) >= MOST:
                longest = next(iter(self._present))
                self._present.pop(longest)
                longest.cancel()
            attending = tasks.create_task(self._attend(visitor), name="visitor")
            self._present[attending] = None
            attending.add_done_callback(lambda done: self._present.pop(done, None))
            # Where many wait at the door, those inside and the rest of the agent have their turn all the same.
            await asyncio.sleep(0)

    async def _attend(self, visitor: socket.socket) -> None:
        from pyflannel.telemetry.http import converse

        with visitor:
            try:
                reader, writer = await asyncio.open_connection(sock=visitor)
            except OSError:
                return  # it left already
            await converse(reader, writer, self._answer)
