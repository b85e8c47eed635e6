"""A pump on the bench: a device that is one end of a socket pair, a socket on loopback that can be told to fail.

No privileges are needed: what a TUN device and a full network do, these do too.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from types import TracebackType
from typing import Any, Self

from pyflannel.tunnel import batch
from pyflannel.tunnel.counters import Counters
from pyflannel.tunnel.device import SOL_UDP, UDP_GRO, UDP_SEGMENT, Tun
from pyflannel.tunnel.engine import Engine, Own
from pyflannel.tunnel.loop import Loop
from pyflannel.tunnel.peers import Endpoint
from pyflannel.tunnel.pump import Pump

OWN = Own((IPv4Network("10.1.1.0/24"),), IPv4Address("10.1.1.0"))
PEER_SUBNET = IPv4Network("10.1.2.0/24")


class FrailSocket(socket.socket):
    """A UDP socket that is full, or refuses, when told to."""

    room = 1 << 30
    """Calls that still succeed, before the socket is full."""
    refuse_runs_with = 0
    """The errno that meets UDP_SEGMENT; 0 for none."""
    refuse_all_with = 0
    """The errno that meets every other send."""

    def sendmsg(
        self, buffers: Iterable[Any], ancillary: Iterable[Any] = (), flags: int = 0, address: Any = None
    ) -> int:
        """As ``socket.sendmsg``."""
        self._check(self.refuse_runs_with)
        return super().sendmsg(buffers, ancillary, flags, address)

    def sendto(self, data: Any, address: Any) -> int:  # type: ignore[override]
        """As ``socket.sendto`` without flags."""
        self._check(self.refuse_all_with)
        return super().sendto(data, address)

    def _check(self, code: int) -> None:
        if self.room <= 0:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self.room -= 1
        if code:
            raise OSError(code, os.strerror(code))


class Bench:
    """``device`` is what the kernel holds of the TUN device, ``peer`` a socket of the host at the other end."""

    def __init__(self, *, vnet: bool = True) -> None:
        self.device, self._tun = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket = FrailSocket(socket.AF_INET, socket.SOCK_DGRAM)
        self.peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for sock in (self.device, self._tun, self.socket, self.peer):
            sock.setblocking(False)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setsockopt(SOL_UDP, UDP_GRO, 1)
        self.peer.bind(("127.0.0.1", 0))
        for sock in (self.socket, self.peer):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.address = self.socket.getsockname()
        self.now, self.seconds_per_look = 100.0, 0.0
        self.engine = Engine(batch.PYTHON, merge=vnet)
        self.engine.set_own(OWN)
        self.engine.table.add(PEER_SUBNET, Endpoint(IPv4Address("127.0.0.1"), self.peer.getsockname()[1]))
        self.loop = Loop()
        self.pump = Pump(self.engine, Tun(self._tun.fileno(), "bench0", vnet), self.socket, self.loop, self._clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.loop.close()
        for sock in (self.device, self._tun, self.socket, self.peer):
            sock.close()

    @property
    def counters(self) -> Counters:
        """Of the peer."""
        return next(iter(self.engine.table.peers)).counters

    def turn(self) -> None:
        """Let the pump do what there is to do now."""
        self.loop.turn(0)

    def send_run(self, data: bytes, size: int) -> None:
        """Many datagrams of the peer, at once."""
        self.peer.sendmsg([data], [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", size))], 0, self.address)

    def datagrams(self) -> list[bytes]:
        """What has arrived at the peer since."""
        return _all(self.peer)

    def frames(self, most: int = 1 << 30) -> list[bytes]:
        """What has been written to the device since."""
        return _all(self.device, most)

    def has_unread_frames(self) -> bool:
        """Whether there are some that the pump has not read."""
        return bool(select.select([self._tun], [], [], 0)[0])

    def waiting_datagrams(self) -> bool:
        """Whether there are some that the pump has not read."""
        return bool(select.select([self.socket], [], [], 0)[0])

    def shrink_device(self) -> None:
        """Let it hold a few frames only."""
        self._tun.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)

    def _clock(self) -> float:
        self.now += self.seconds_per_look
        return self.now


def _all(sock: socket.socket, most: int = 1 << 30) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < most:
        try:
            found.append(sock.recv(1 << 17))
        except BlockingIOError:
            break
    return found
