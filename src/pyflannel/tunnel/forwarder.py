"""The process between TUN device and socket.  It serves one agent after another, and outlives each.

    python -m pyflannel.tunnel.forwarder --control-fd=3

The descriptor is a listening AF_UNIX SOCK_SEQPACKET socket (``control.listen``); ``messages`` says what is spoken
there. Without an agent it goes on forwarding as it was last told.  It ends when it is told so, has handed over, the
device is gone, or there never was one and the agent has left.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from itertools import islice

import pyflannel
from pyflannel.tunnel import batch, messages
from pyflannel.tunnel.batch import Batch
from pyflannel.tunnel.control import DESCRIPTORS, peer_user
from pyflannel.tunnel.device import Tun
from pyflannel.tunnel.engine import Engine
from pyflannel.tunnel.loop import Loop
from pyflannel.tunnel.messages import Answer, Done, Refused, Request, Routes, Statistics, Status
from pyflannel.tunnel.peers import Table
from pyflannel.tunnel.pump import DeviceGone, Pump

logger = logging.getLogger(__name__)


class Forwarder:
    """Answers requests, and forwards in between."""

    def __init__(self, listener: socket.socket, functions: Batch) -> None:
        """``listener`` is ours from now on."""
        self._listener, self._batch = listener, functions
        self._loop = Loop()
        self._engine = Engine(functions)
        self._generation = 0
        self._tun: Tun | None = None
        self._sock: socket.socket | None = None
        self._pump: Pump | None = None
        self._sessions: set[_Session] = set()
        listener.setblocking(False)
        self._loop.watch(listener.fileno(), self._accept)

    def run(self) -> None:
        """Until told to end; ``DeviceGone`` if the device is deleted."""
        self._loop.run()

    def close(self) -> None:
        """Let go of everything; when the agents hear the end of it, the path of the control socket is free again."""
        self._loop.unwatch(self._listener.fileno())
        self._listener.close()
        if self._pump is not None:
            self._pump.detach()
        self._forget_device()
        for session in list(self._sessions):
            self._hang_up(session)
        self._loop.close()

    def _accept(self, _: int) -> None:
        try:
            sock, _address = self._listener.accept()
        except OSError as error:
            logger.debug("accepting at the control socket: %s", error)
            return
        sock.setblocking(False)
        session = _Session(sock)
        if session.is_trusted():
            self._sessions.add(session)
            self._loop.watch(sock.fileno(), lambda _: self._serve(session))
        else:
            sock.close()

    def _serve(self, session: _Session) -> None:
        try:
            raw, fds, flags, _ = socket.recv_fds(session.sock, messages.LIMIT, DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            raw, fds, flags = b"", [], 0
        try:
            if not raw:
                self._hang_up(session)
            elif flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                self._reply(session, Refused(f"more than {messages.LIMIT} octets or {DESCRIPTORS} descriptors"))
            else:
                self._perform(raw, fds, session)
        finally:
            for fd in fds:
                os.close(fd)

    def _perform(self, raw: bytes, fds: list[int], session: _Session) -> None:
        try:
            request = messages.decode_request(raw)
            if isinstance(request, messages.HandOver):
                self._hand_over(session)
                return
            answer = self._answer(request, fds, session)
        except messages.BadMessage as error:
            answer = Refused(str(error))
        except OSError as error:
            answer = Refused(f"{error.strerror}: {error}")
        self._reply(session, answer)

    def _answer(self, request: Request, fds: list[int], session: _Session) -> Answer:
        match request:
            case messages.Hello():
                return self._status()
            case messages.Start():
                return self._start(fds)
            case messages.SetOwn(own):
                self._engine.set_own(own)
            case messages.SetRoutes():
                return self._set_routes(request, session)
            case messages.ChangeRoutes():
                return self._change_routes(request)
            case messages.ListRoutes(first):
                return self._list_routes(first)
            case messages.GetStatistics(first):
                return self._statistics(first)
            case messages.Stop():
                self._loop.stop()
        return Done()

    def _status(self) -> Status:
        host, port = ("", 0) if self._sock is None else self._sock.getsockname()
        return Status(
            version=messages.VERSION,
            pid=os.getpid(),
            language=self._batch.language,
            device=self._device(),
            address=f"{host}:{port}" if host else "",
            generation=self._generation,
            routes=len(self._engine.table),
            own=self._engine.own,
            release=pyflannel.__version__,
        )

    def _device(self) -> str:
        """Its name; empty if there is none, or none any more, though we have not come to notice."""
        try:
            if self._tun is not None:
                self._tun.ask()
                return self._tun.name
        except OSError as error:
            logger.debug("asking for the device: %s", error)
        return ""

    def _start(self, fds: list[int]) -> Answer:
        if self._tun is not None:
            return Refused(f"device {self._tun.name} is served already")
        if len(fds) != DESCRIPTORS:
            return Refused(f"expected {DESCRIPTORS} descriptors, found {len(fds)}")
        tun, sock = Tun.adopt(fds[0]), socket.socket(fileno=os.dup(fds[1]))
        try:
            sock.setblocking(False)
            self._engine.merge = tun.vnet
            self._pump = Pump(self._engine, tun, sock, self._loop)
        except BaseException:
            sock.close()
            raise
        # No longer to be closed by whoever received it.
        del fds[0]
        self._tun, self._sock = tun, sock
        logger.info("forwarding between %s and %s:%d, in %s", tun.name, *sock.getsockname(), self._batch.language)
        return Done()

    def _set_routes(self, request: messages.SetRoutes, session: _Session) -> Answer:
        if request.part == 0:
            session.table, session.generation, session.part = Table(self._engine.table), request.generation, 0
        if session.table is None or (request.generation, request.part) != (session.generation, session.part):
            session.table = None
            return Refused(f"part {request.part} of generation {request.generation}: expected another")
        for network, endpoint in request.routes:
            session.table.add(network, endpoint)
        session.part += 1
        if session.part >= request.parts:
            self._engine.table, self._generation = session.table.sealed(), request.generation
            session.table = None
        return Done()

    def _change_routes(self, request: messages.ChangeRoutes) -> Answer:
        if request.before != self._generation:
            return Refused(f"generation {self._generation} is in use, not {request.before}")
        for network in request.remove:
            self._engine.table.remove(network)
        for network, endpoint in request.add:
            self._engine.table.add(network, endpoint)
        self._generation = request.after
        return Done()

    def _list_routes(self, first: int) -> Routes:
        most = messages.ROUTES_PER_MESSAGE
        routes = tuple(self._engine.table.routes(first, most + 1))
        return Routes(self._generation, routes[:most], len(routes) > most)

    def _statistics(self, first: int) -> Statistics:
        peers = tuple(islice(self._engine.table.peers, first, first + messages.PEERS_PER_ANSWER + 1))
        some = tuple((peer.endpoint, peer.counters) for peer in peers[: messages.PEERS_PER_ANSWER])
        return Statistics(some, len(peers) > len(some), self._engine.counters)

    def _hand_over(self, session: _Session) -> None:
        if self._pump is None or self._tun is None or self._sock is None:
            self._reply(session, Refused("nothing to hand over: not started"))
            return
        self._pump.detach()
        if self._reply(session, self._status(), [self._tun.fd, self._sock.fileno()]):
            self._pump = None
            self._loop.stop()
            logger.info("handed %s over", self._tun.name)
        else:
            self._pump = Pump(self._engine, self._tun, self._sock, self._loop)

    def _reply(self, session: _Session, answer: Answer, fds: Sequence[int] = ()) -> bool:
        """Whether it went out; who does not read its answers is hung up on."""
        try:
            socket.send_fds(session.sock, [messages.encode_answer(answer)], fds)
        except OSError as error:
            logger.debug("answering at the control socket: %s", error)
            self._hang_up(session)
            return False
        return True

    def _hang_up(self, session: _Session) -> None:
        self._sessions.discard(session)
        self._loop.unwatch(session.sock.fileno())
        session.sock.close()
        if self._tun is None and not self._sessions:
            # Whoever started us has gone before there was anything to do, and nobody will look for us.
            self._loop.stop()

    def _forget_device(self) -> None:
        if self._tun is not None:
            os.close(self._tun.fd)
        if self._sock is not None:
            self._sock.close()
        self._tun = self._sock = None


class _Session:
    """One agent, and the table it is sending."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.table: Table | None = None
        self.generation = self.part = 0

    def is_trusted(self) -> bool:
        """Root, or whoever runs us."""
        return peer_user(self.sock) in (0, os.geteuid())


def main(words: Sequence[str] | None = None) -> int:
    """The process: 0 once it was told to end, 1 if the device went away."""
    parser = argparse.ArgumentParser(prog="pyflannel.tunnel.forwarder", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--control-fd", type=int, required=True, help="a listening SOCK_SEQPACKET socket")
    parser.add_argument("--pure", action="store_true", help="do without the C extension")
    options = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s forwarder: %(message)s")
    # Our stderr may have been a pipe to the agent that started us, which is gone.
    logging.raiseExceptions = False
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    functions = None if options.pure else batch.compiled()
    if functions is None:
        logger.info("no C extension: packets are segmented and merged in Python")
    forwarder = Forwarder(socket.socket(fileno=options.control_fd), functions or batch.PYTHON)
    try:
        forwarder.run()
    except DeviceGone as error:
        logger.error("forwarding ends: %s", error)
        return 1
    finally:
        forwarder.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
