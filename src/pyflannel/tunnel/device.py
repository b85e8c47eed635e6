"""Opening the TUN device and the socket, with as much offload as this kernel has.

    tun = Tun.open("flannel%d")          # needs CAP_NET_ADMIN, /dev/net/tun
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
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_IFREQ: Final = struct.Struct("=16sH22x")
_CSUM, _TSO4, _TSO6, _ECN, _USO4, _USO6 = 1, 2, 4, 8, 32, 64
_OFFLOADS: Final = (_CSUM | _TSO4 | _TSO6 | _ECN | _USO4 | _USO6, _CSUM | _TSO4 | _TSO6 | _ECN, _CSUM | _TSO4)
"""The first that the kernel accepts: USO came with Linux 6.2."""

SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104
"""linux/udp.h; Linux 4.18 and 5.0."""
RECEIVE_BUFFER: Final = 8 << 20
"""Octets; holds what arrives in 10 ms at 6 Gb/s, while we are not running."""


@dataclass(frozen=True, slots=True)
class Tun:
    """An open TUN device; it exists as long as its descriptor is open somewhere."""

    fd: int
    name: str
    vnet: bool
    """Whether a virtio header precedes each packet."""

    @classmethod
    def open(cls, name: str, *, vnet: bool = True) -> Self:
        """Make the device, or open a persistent one; ``%d`` in the name is replaced by the first free number.

        ``vnet`` is a wish.  ``OSError`` if there can be no device.
        """
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
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
