"""The I/O of the forwarder: octets between a TUN device and a socket, as the engine says.

Rules of this file
  1. Never wait for one side only, never spin, never grow.  A side that takes nothing more stops the reading of the
     other until it does, and the kernel's queues fill up as they would without us.  What is left over is at most what
     one round of reading has brought; answers of our own are dropped meanwhile, and counted.
  2. A refused packet is counted and forgotten; only a device that is gone is an error.
  3. Where the kernel turns out to lack an offload we go on without it.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from pyflannel.tunnel.device import SOL_UDP, UDP_GRO, UDP_SEGMENT, Tun, can_segment
from pyflannel.tunnel.engine import Engine, Output
from pyflannel.tunnel.loop import Loop
from pyflannel.tunnel.packet import MAX_PACKET, VNET, Buffer, Drop
from pyflannel.tunnel.peers import Peer

logger = logging.getLogger(__name__)

READS: Final = 16
"""From one side before the other has its turn."""
ENOUGH: Final = 1 << 15
"""Octets, after which what was read is sent before more is: by then it would have left the processor's cache."""
ANSWERS_PER_S: Final = 100
"""ICMP messages, after which we fall silent until the second is over."""

_SEGMENT_SIZE: Final = struct.Struct("=H")
_GRO_SIZE: Final = struct.Struct("=i")
_CONTROL_ROOM: Final = socket.CMSG_SPACE(_GRO_SIZE.size)
_IN, _OUT, _ERR = select.EPOLLIN, select.EPOLLOUT, select.EPOLLERR

_LAST_WRITES_S: Final = 1.0

Unsent: TypeAlias = tuple[Buffer, int, Peer]


class DeviceGone(Exception):
    """The TUN device was deleted: nothing can be forwarded any more."""


class Pump:
    """Forwards between ``tun`` and ``sock`` whenever ``loop`` turns; both stay the property of the caller."""

    def __init__(
        self, engine: Engine, tun: Tun, sock: socket.socket, loop: Loop, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.segments = can_segment(sock)
        """Whether runs of datagrams go out in one call."""
        self._engine, self._tun, self._sock, self._loop, self._clock = engine, tun, sock, loop, clock
        self._refill_at = 0.0
        self._unsent: deque[Unsent] = deque()
        self._unwritten: deque[Buffer] = deque()
        self._frames = [memoryview(bytearray(VNET + MAX_PACKET + 1)) for _ in range(READS)]
        self._datagrams = memoryview(bytearray(MAX_PACKET + 1))
        self._masks = {tun.fd: _IN, sock.fileno(): _IN}
        loop.watch(tun.fd, self._on_tun)
        loop.watch(sock.fileno(), self._on_socket)

    def detach(self) -> None:
        """Forward no more; what has been read is still written, within a second.

        Nobody else could do that, unlike with what waits in the queues of the kernel.
        """
        for fd in self._masks:
            self._loop.unwatch(fd)
        deadline = self._clock() + _LAST_WRITES_S
        while (self._unsent or self._unwritten) and self._clock() < deadline:
            self._write(())
            self._send(())
            poll = select.poll()
            poll.register(self._sock, select.POLLOUT if self._unsent else 0)
            poll.register(self._tun.fd, select.POLLOUT if self._unwritten else 0)
            poll.poll(100)

    def _set_interest(self) -> None:
        wanted = {
            self._tun.fd: (0 if self._unsent else _IN) | (_OUT if self._unwritten else 0),
            self._sock.fileno(): (0 if self._unwritten else _IN) | (_OUT if self._unsent else 0),
        }
        if wanted != self._masks:
            self._masks = wanted
            for fd, mask in wanted.items():
                self._loop.change(fd, mask)

    def _refill(self) -> None:
        now = self._clock()
        if now >= self._refill_at:
            self._engine.answers, self._refill_at = ANSWERS_PER_S, now + 1.0

    def _on_tun(self, mask: int) -> None:
        self._refill()
        if self._unwritten:
            self._write(())
        if mask & _ERR:
            self._look_for_device()
        if not self._unsent and mask & _IN:
            self._pass_on(self._engine.outbound(self._read_frames()))
        self._set_interest()

    def _on_socket(self, mask: int) -> None:
        self._refill()
        if mask & _ERR:
            # Reading the error takes it away; else epoll would report it for ever.
            self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if self._unsent:
            self._send(())
        if mask & _IN:
            for _ in range(READS):
                if self._unwritten or not self._receive():
                    break
        self._set_interest()

    def _read_frames(self) -> list[memoryview]:
        frames = []
        start, octets = 0 if self._tun.vnet else VNET, 0
        for buffer in self._frames:
            size = self._read_frame(buffer[start:])
            if size is None:
                break
            frames.append(buffer[: start + size])
            octets += size
            if octets >= ENOUGH:
                break
        return frames

    def _read_frame(self, buffer: memoryview) -> int | None:
        """How much was read; None if there is nothing now."""
        try:
            return os.readv(self._tun.fd, [buffer])
        except BlockingIOError:
            return None
        except OSError as error:
            self._check_device(error)
            return None

    def _receive(self) -> bool:
        """Whether there was something."""
        try:
            size, control, _, sender = self._sock.recvmsg_into([self._datagrams], _CONTROL_ROOM)
        except BlockingIOError:
            return False
        except OSError as error:
            logger.debug("reading the tunnel socket: %s", error)
            return True
        segment = 0
        for level, kind, data in control:
            if level == SOL_UDP and kind == UDP_GRO:
                segment = _GRO_SIZE.unpack(data[: _GRO_SIZE.size])[0]
        address = int.from_bytes(socket.inet_aton(sender[0]), "big")
        self._pass_on(self._engine.inbound(self._datagrams[:size], segment, address))
        return True

    def _pass_on(self, output: Output) -> None:
        if output.datagrams:
            self._send(output.datagrams)
        if output.frames:
            self._write(output.frames)

    def _send(self, datagrams: Iterable[Unsent]) -> None:
        """What waits first, then these, until the socket is full; what then remains waits, if nothing did before."""
        while self._unsent:
            rest = self._send_run(*self._unsent[0])
            if rest is not None:
                self._unsent[0] = rest
                break
            self._unsent.popleft()
        stalled = bool(self._unsent)
        for data, size, peer in datagrams:
            if not self._unsent:
                rest = self._send_run(data, size, peer)
                if rest is not None:
                    self._unsent.append(rest)
            elif stalled:
                peer.counters.drop(Drop.STALLED, -(-len(data) // size))
            else:
                self._unsent.append((data, size, peer))

    def _send_run(self, data: Buffer, size: int, peer: Peer) -> Unsent | None:
        """None once all has been sent or refused, else what remains."""
        if len(data) > size and self.segments:
            try:
                self._sock.sendmsg([data], [(SOL_UDP, UDP_SEGMENT, _SEGMENT_SIZE.pack(size))], 0, peer.socket_address)
                return None
            except BlockingIOError:
                return data, size, peer
            except OSError as error:
                if not self._may_go_singly(error):
                    peer.counters.drop(Drop.NOT_SENT, -(-len(data) // size))
                    return None
        return self._send_singly(memoryview(data), size, peer)

    def _may_go_singly(self, error: OSError) -> bool:
        if error.errno == errno.EIO:
            # The device the datagrams leave by cannot compute checksums, and will not learn it.
            self.segments = False
            logger.info("sending datagrams one by one: UDP_SEGMENT: %s", error.strerror)
            return True
        # Larger than the path MTU: sent by itself, each datagram is fragmented, which a segment never is.
        return error.errno in (errno.EMSGSIZE, errno.EINVAL)

    def _send_singly(self, data: memoryview, size: int, peer: Peer) -> Unsent | None:
        for at in range(0, len(data), size):
            try:
                self._sock.sendto(data[at : at + size], peer.socket_address)
            except BlockingIOError:
                return data[at:], size, peer
            except OSError as error:
                peer.counters.drop(Drop.TOO_BIG if error.errno == errno.EMSGSIZE else Drop.NOT_SENT)
        return None

    def _write(self, frames: Iterable[Buffer]) -> None:
        """As ``_send``, for the device."""
        while self._unwritten and self._write_frame(self._unwritten[0]):
            self._unwritten.popleft()
        stalled = bool(self._unwritten)
        for frame in frames:
            if not self._unwritten:
                if not self._write_frame(frame):
                    self._unwritten.append(frame)
            elif stalled:
                self._engine.counters.drop(Drop.STALLED)
            else:
                self._unwritten.append(frame)

    def _write_frame(self, frame: Buffer) -> bool:
        """False if the device is full; a frame it refuses is done with."""
        try:
            os.write(self._tun.fd, frame if self._tun.vnet else memoryview(frame)[VNET:])
        except BlockingIOError:
            return False
        except OSError as error:
            self._check_device(error)
            # EIO: the device is down.
            self._engine.counters.drop(Drop.NOT_DELIVERED)
        return True

    def _look_for_device(self) -> None:
        try:
            self._tun.ask()
        except OSError as error:
            self._check_device(error)

    def _check_device(self, error: OSError) -> None:
        if error.errno == errno.EBADFD:
            raise DeviceGone(f"device {self._tun.name} is gone") from error
        logger.debug("device %s: %s", self._tun.name, error)
