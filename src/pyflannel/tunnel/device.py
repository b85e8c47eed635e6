"""Opening the TUN device and the socket, with as much offload as this kernel has.

    make_persistent("flannel0")          # needs CAP_NET_ADMIN, /dev/net/tun
    tun = Tun.open("flannel0")
    sock = open_socket("192.0.2.1", 8285)

What is missing costs speed, nothing else: without virtio headers each packet is read and written by itself, without
UDP_SEGMENT each datagram is sent by itself.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from dataclasses import dataclass
from typing import Final, Self

from pyflannel.tunnel.packet import VNET

TUNSETIFF, TUNGETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ = 0x400454CA, 0x800454D2, 0x400454D0, 0x400454D8
TUNSETPERSIST: Final = 0x400454CB
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR, IFF_TUN_EXCL = 0x0001, 0x1000, 0x4000, 0x8000
CONTROL: Final = "/dev/net/tun"
_IFREQ: Final = struct.Struct("=16sH22x")
_CSUM, _TSO4, _TSO6, _ECN, _USO4, _USO6 = 1, 2, 4, 8, 32, 64
_OFFLOADS: Final = (_CSUM | _TSO4 | _TSO6 | _ECN | _USO4 | _USO6, _CSUM | _TSO4 | _TSO6 | _ECN, _CSUM | _TSO4)
"""The first that the kernel accepts: USO came with Linux 6.2."""

SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104
"""linux/udp.h; Linux 4.18 and 5.0."""
SIOCSIFTXQLEN: Final = 0x8943
_QUEUE: Final = struct.Struct("=16si20x")
QUEUE_LENGTH: Final = 2000
"""Packets that wait for us; Linux gives a TUN device 500.  At 50,000 packets a second that is 10 ms, and on a busy host
a process has to wait longer than that for a processor."""
RECEIVE_BUFFER: Final = 8 << 20
"""Octets; holds what arrives in 10 ms at 6 Gb/s, while we are not running."""


@dataclass(frozen=True, slots=True)
class Tun:
    """An open TUN device; unless it is persistent it exists as long as its descriptor is open somewhere."""

    fd: int
    name: str
    vnet: bool
    """Whether a virtio header precedes each packet."""

    @classmethod
    def open(cls, name: str, *, vnet: bool = True) -> Self:
        """Make the device, or open a persistent one; ``%d`` in the name is replaced by the first free number.

        ``vnet`` is a wish.  ``OSError`` if there can be no device.
        """
        fd = _control()
        try:
            if vnet:
                try:
                    _set_kind(fd, name, IFF_VNET_HDR)
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
                    vnet = False
            if not vnet:
                _set_kind(fd, name, 0)
            return cls.adopt(fd)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def adopt(cls, fd: int) -> Self:
        """The device behind a descriptor that somebody else has opened; ``OSError`` if it is none."""
        raw, flags = _ask(fd)
        vnet = bool(flags & IFF_VNET_HDR)
        if vnet:
            fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("=i", VNET))
            _enable_offload(fd)
        os.set_blocking(fd, False)
        return cls(fd, raw.rstrip(b"\0").decode(errors="surrogateescape"), vnet)

    def ask(self) -> None:
        """``OSError`` with EBADFD if the device is gone; a read of nothing would not notice."""
        _ask(self.fd)


def make_persistent(name: str) -> None:
    """Make a device that stays without a process to serve it, down; ``OSError`` with EBUSY if there is one already."""
    fd = _control()
    try:
        _set_kind(fd, name, IFF_TUN_EXCL)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            fcntl.ioctl(sock, SIOCSIFTXQLEN, _QUEUE.pack(os.fsencode(name), QUEUE_LENGTH))
        fcntl.ioctl(fd, TUNSETPERSIST, 1)
    finally:
        os.close(fd)


def _control() -> int:
    return os.open(CONTROL, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def _ask(fd: int) -> tuple[bytes, int]:
    """Name and flags."""
    name, flags = _IFREQ.unpack(fcntl.ioctl(fd, TUNGETIFF, bytes(_IFREQ.size)))
    return name, flags


def _set_kind(fd: int, name: str, extra: int) -> None:
    try:
        fcntl.ioctl(fd, TUNSETIFF, _IFREQ.pack(os.fsencode(name), IFF_TUN | IFF_NO_PI | extra))
    except OSError as error:
        raise OSError(error.errno, f"making the TUN device {name}: {error.strerror}") from error


def _enable_offload(fd: int) -> None:
    for offloads in _OFFLOADS:
        with contextlib.suppress(OSError):
            fcntl.ioctl(fd, TUNSETOFFLOAD, offloads)
            return


def open_socket(address: str, port: int) -> socket.socket:
    """A non-blocking UDP socket bound there; ``OSError`` if the address is not ours or the port is taken."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        sock.bind((address, port))
        for forced, plain in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            try:
                sock.setsockopt(socket.SOL_SOCKET, forced, RECEIVE_BUFFER)
            except PermissionError:
                sock.setsockopt(socket.SOL_SOCKET, plain, RECEIVE_BUFFER)
        with contextlib.suppress(OSError):
            sock.setsockopt(SOL_UDP, UDP_GRO, 1)
    except BaseException:
        sock.close()
        raise
    return sock


_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33


def can_segment(sock: socket.socket) -> bool:
    """Whether the kernel knows UDP_SEGMENT.  An older one would not refuse it but send 64 KB in IP fragments."""
    try:
        sock.getsockopt(SOL_UDP, UDP_SEGMENT)
    except OSError:
        return False
    return True
