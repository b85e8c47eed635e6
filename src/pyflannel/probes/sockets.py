"""The sockets that questions leave by and answers come in by: they say which address of ours a datagram was for.

Rules of this file
  1. Nothing is cut into pieces: what is too large for the device is refused, what is too large for the way is lost
     (IP_PMTUDISC_PROBE: ip(7), ipv6(7)).
  2. Sockets are bound to no address, so nothing has to be done when one comes or goes.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from pyflannel.state import IPAddress

_IP_PKTINFO: Final = 8
_IP_MTU_DISCOVER: Final = 10
_IPV6_MTU_DISCOVER: Final = 23
_PMTUDISC_PROBE: Final = 3
_SOL_RAW: Final = 255
_ICMP_FILTER: Final = 1
"""linux/in.h, linux/in6.h, linux/icmp.h: not in the module ``socket`` of Python 3.11."""
_INFO4: Final = struct.Struct("@i4s4s")
"""struct in_pktinfo (ip(7)): interface, source or the address it came to, destination in the header."""
_INFO6: Final = struct.Struct("@16sI")
"""struct in6_pktinfo (ipv6(7)): address, interface."""
_ECHO_REPLY_ONLY: Final = struct.pack("=I", 0xFFFFFFFF ^ 1 << 0)
_ECHO_REPLY_ONLY_6: Final = struct.pack(
    "=8I", *(0xFFFFFFFF ^ (1 << 129 % 32 if word == 129 // 32 else 0) for word in range(8))
)
_ROOM: Final = 2048
"""Octets that are read of a datagram: all that is ever looked at."""
_ANCILLARY: Final = 64


@dataclass(frozen=True, slots=True)
class Received:
    """A datagram, and the addresses in its header."""

    data: bytes
    source: IPAddress
    port: int
    destination: IPAddress | None
    """None if the kernel does not tell."""


class Port:
    """One socket: of UDP, or of ICMP echo replies."""

    def __init__(self, version: int, port: int | None) -> None:
        """Open it for IPv4 or IPv6, on UDP ``port``; None means ICMP.  ``OSError`` if that cannot be had."""
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        if port is None:
            protocol = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
            self._socket = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
        else:
            self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.version, self.number = version, port or 0
        try:
            self._prepare()
            if port is not None:
                self._socket.bind(("", port))
        except OSError:
            self._socket.close()
            raise

    def _prepare(self) -> None:
        made = self._socket
        if self.version == 4:
            made.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            made.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
            if made.type == socket.SOCK_RAW:
                made.setsockopt(_SOL_RAW, _ICMP_FILTER, _ECHO_REPLY_ONLY)
            return
        if made.type == socket.SOCK_RAW:
            made.setsockopt(socket.IPPROTO_ICMPV6, _ICMP_FILTER, _ECHO_REPLY_ONLY_6)
        else:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        made.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DONTFRAG, 1)

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def close(self) -> None:
        """Let go of it."""
        self._socket.close()

    def send(self, data: bytes, target: IPAddress, source: IPAddress | None, port: int | None = None) -> None:
        """Send to ``target``, from ``source`` if that is given; ``OSError`` if the kernel does not want to.

        Without ``port`` it goes to the one we have ourselves.
        """
        ancillary: list[tuple[int, int, bytes]] = []
        if source is not None and self.version == 4:
            ancillary.append((socket.IPPROTO_IP, _IP_PKTINFO, _INFO4.pack(0, source.packed, bytes(4))))
        elif source is not None:
            ancillary.append((socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _INFO6.pack(source.packed, 0)))
        self._socket.sendmsg([data], ancillary, 0, (str(target), self.number if port is None else port))

    def receive(self, most: int) -> list[Received]:
        """What has come in, at most so many datagrams."""
        found: list[Received] = []
        while len(found) < most:
            try:
                data, ancillary, _, sender = self._socket.recvmsg(_ROOM, _ANCILLARY)
            except OSError:
                # Nothing more; or what the kernel has to say of a datagram we sent, which will just have no answer.
                break
            found.append(Received(data, self._address(sender[0]), sender[1], self._destination(ancillary)))
        return found

    def _address(self, text: str) -> IPAddress:
        return IPv4Address(text) if self.version == 4 else IPv6Address(text.partition("%")[0])

    def _destination(self, ancillary: list[tuple[int, int, bytes]]) -> IPAddress | None:
        for level, kind, data in ancillary:
            if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO) and len(data) == _INFO4.size:
                return IPv4Address(_INFO4.unpack(data)[2])
            if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO) and len(data) == _INFO6.size:
                return IPv6Address(_INFO6.unpack(data)[0])
        return None
