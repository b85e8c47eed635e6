"""The agent's end of the control socket: find a forwarder, or start one, and tell it what to do.

    forwarder = Remote.connect(path) or launch(path)[0]
    if not forwarder.hello().device:
        forwarder.start(tun.fd, sock.fileno())
    forwarder.set_own(own)
    forwarder.set_routes(generation, routes)

All calls wait for the answer, at most ``PATIENCE_S`` seconds unless told otherwise, and raise ``ControlError`` then.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from pyflannel.tunnel import messages
from pyflannel.tunnel.engine import Own
from pyflannel.tunnel.messages import Answer, Request, Route, Statistics, Status
from pyflannel.tunnel.routes import Network

PATIENCE_S: Final = 5.0
START_PATIENCE_S: Final = 30.0
"""One that was just started has its interpreter to load, and a busy host takes its time over that."""
DESCRIPTORS: Final = 2
"""Beside ``Start`` and ``HandOver``: TUN device, socket."""
_BACKLOG: Final = 8

T = TypeVar("T", bound=Answer)


class ControlError(Exception):
    """The forwarder is gone, does not answer, or refuses; the text says what was asked."""


class Silent(ControlError):
    """It is there and does not answer."""


class Remote:
    """A forwarder in another process."""

    def __init__(self, sock: socket.socket, patience_s: float = PATIENCE_S) -> None:
        """``sock`` is connected to it, and ours from now on."""
        self._sock = sock
        self._sock.settimeout(patience_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @classmethod
    def connect(cls, path: Path, patience_s: float = PATIENCE_S) -> Self | None:
        """The forwarder that listens there; None if none does, ``ControlError`` if it is not to be trusted."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(patience_s)
        try:
            sock.connect(os.fspath(path))
            user = peer_user(sock)
            if user not in (0, os.geteuid()):
                raise ControlError(f"connecting to {path}: a process of user {user} listens there")
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            return None
        except OSError as error:
            sock.close()
            raise ControlError(f"connecting to {path}: {error}") from error
        except BaseException:
            sock.close()
            raise
        return cls(sock, patience_s)

    def be_patient(self, patience_s: float) -> None:
        """Wait so long for an answer from now on."""
        self._sock.settimeout(patience_s)

    def fileno(self) -> int:
        """Readable, while nothing is being asked, once the forwarder has ended."""
        return self._sock.fileno()

    def close(self) -> None:
        """Hang up; the forwarder goes on."""
        self._sock.close()

    def hello(self) -> Status:
        """How far it has come."""
        return self._ask(messages.Hello(), Status)

    def start(self, tun: int, sock: int) -> None:
        """Forward between these; our own descriptors may be closed then."""
        self._ask(messages.Start(), messages.Done, [tun, sock])

    def set_own(self, own: Own) -> None:
        """This is our place in the overlay."""
        self._ask(messages.SetOwn(own), messages.Done)

    def set_routes(self, generation: int, routes: Sequence[Route]) -> None:
        """These and no others; peers that stay keep their counters."""
        for part in messages.parts_of(generation, routes):
            self._ask(part, messages.Done)

    def change_routes(self, before: int, after: int, add: Sequence[Route] = (), remove: Sequence[Network] = ()) -> None:
        """Add and replace some, remove some; at most ``messages.ROUTES_PER_MESSAGE`` in all."""
        self._ask(messages.ChangeRoutes(before, after, tuple(add), tuple(remove)), messages.Done)

    def routes(self) -> tuple[int, list[Route]]:
        """The generation in use and its routes, asked for page by page."""
        page = self._ask(messages.ListRoutes(), messages.Routes)
        routes = list(page.routes)
        while page.more:
            generation, page = page.generation, self._ask(messages.ListRoutes(len(routes)), messages.Routes)
            if page.generation != generation:
                raise ControlError(f"ListRoutes: generation {generation} has become {page.generation} meanwhile")
            routes += page.routes
        return page.generation, routes

    def statistics(self) -> Statistics:
        """The counters of all peers, asked for page by page."""
        page = self._ask(messages.GetStatistics(), Statistics)
        peers = list(page.peers)
        while page.more:
            page = self._ask(messages.GetStatistics(len(peers)), Statistics)
            peers += page.peers
        return Statistics(tuple(peers), False, page.rest)

    def hand_over(self) -> tuple[int, int]:
        """Descriptors of the TUN device and the socket, ours from now on; the forwarder has ended."""
        answer, fds = self._exchange(messages.HandOver(), ())
        if not isinstance(answer, Status) or len(fds) != DESCRIPTORS:
            for fd in fds:
                os.close(fd)
            raise ControlError(f"HandOver: the forwarder answered {answer} with {len(fds)} descriptors")
        self._await_end()
        return fds[0], fds[1]

    def stop(self) -> None:
        """Returns once it has ended; the device goes with it unless somebody else holds it."""
        self._ask(messages.Stop(), messages.Done)
        self._await_end()

    def _await_end(self) -> None:
        try:
            self._sock.recv(1)
        except ConnectionResetError:
            pass
        except OSError as error:
            raise ControlError(f"waiting for the end of the forwarder: {error}") from error

    def _ask(self, request: Request, expected: type[T], fds: Sequence[int] = ()) -> T:
        answer, given = self._exchange(request, fds)
        for fd in given:
            os.close(fd)
        if not isinstance(answer, expected):
            reason = answer.reason if isinstance(answer, messages.Refused) else f"answered {answer}"
            raise ControlError(f"{type(request).__name__}: the forwarder said: {reason}")
        return answer

    def _exchange(self, request: Request, fds: Sequence[int]) -> tuple[Answer, list[int]]:
        what = type(request).__name__
        try:
            socket.send_fds(self._sock, [messages.encode_request(request)], fds)
            raw, given, _, _ = socket.recv_fds(self._sock, messages.LIMIT, DESCRIPTORS)
        except TimeoutError as error:
            raise Silent(f"{what}: the forwarder does not answer") from error
        except OSError as error:
            raise ControlError(f"{what}: asking the forwarder: {error}") from error
        try:
            if not raw:
                raise ControlError(f"{what}: the forwarder has ended")
            return messages.decode_answer(raw), given
        except (messages.BadMessage, ControlError) as error:
            for fd in given:
                os.close(fd)
            raise ControlError(str(error)) from error


def listen(path: Path) -> socket.socket:
    """A socket for a forwarder to be reached at; what is left there of one that has ended is removed.

    ``ControlError`` if one is alive there, or the path cannot be used.  Only our own user can connect.
    """
    alive = Remote.connect(path)
    if alive is not None:
        alive.close()
        raise ControlError(f"listening at {path}: a forwarder is running there")
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        # Nobody can connect before listen(), so there is no moment with the wrong mode.
        sock.bind(os.fspath(path))
        path.chmod(0o600)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise ControlError(f"listening at {path}: {error}") from error
    except BaseException:
        sock.close()
        raise
    return sock


def launch(path: Path) -> tuple[Remote, int]:
    """Start a forwarder that is reached at ``path``, in a session of its own, so that it outlives us.

    The number is that of a process which is our child, to be waited for when it has ended before us.
    """
    with listen(path) as listener:
        words = [sys.executable, "-m", "pyflannel.tunnel.forwarder", "--control-fd=0"]
        # Not subprocess.Popen, which insists on being waited for.  stdin has no other use.
        actions = [(os.POSIX_SPAWN_DUP2, listener.fileno(), 0)]
        pid = os.posix_spawn(sys.executable, words, _environment(), file_actions=actions, setsid=True)
        remote = Remote.connect(path, START_PATIENCE_S)
    if remote is None:
        raise ControlError(f"connecting to the forwarder just started at {path}: nobody listens")
    return remote, pid


def peer_user(sock: socket.socket) -> int:
    """Who made the other end of a UNIX socket (unix(7), SO_PEERCRED)."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(raw)[1])


_UCRED = struct.Struct("=iII")


def _environment() -> dict[str, str]:
    """Ours, without what is for an agent: its options, among them passwords, and whom it tells that it is ready."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("FLANNELD_") and name not in ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
    }
