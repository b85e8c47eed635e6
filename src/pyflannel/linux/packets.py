"""Watching the packets of a device (packet(7)): those of some networks, as they go out and come in.

The kernel does the choosing: a small program of classic BPF runs on each packet, so that a device which carries
gigabits costs nothing but the packets asked for.  The socket gives what begins with the IP header, whatever the device
puts before it.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, NamedTuple, Self

from pyflannel.linux.eventfilter import (
    ACCEPT,
    AND,
    DROP,
    JUMP_IF_EQUAL,
    LOAD_WORD,
    RETURN,
    Instruction,
    Program,
    attach,
)
from pyflannel.linux.netlink import SO_RCVBUFFORCE
from pyflannel.state import IPNetwork

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
SOL_PACKET, PACKET_STATISTICS, PACKET_OUTGOING = 263, 6, 4
SO_TIMESTAMPNS: Final = 35
LOAD_PROTOCOL: Final = 0xFFFFF000
"""SKF_AD_OFF + SKF_AD_PROTOCOL: a load from here is the type of the packet (linux/filter.h)."""
LOAD_HALF: Final = 0x28
TIMESPEC: Final = struct.Struct("@ll")
STATISTICS: Final = struct.Struct("=II")
LARGEST: Final = 1 << 18
"""Bytes; segments that the device will cut come whole."""
BUFFER: Final = 8 << 20
"""Bytes of packets that may wait for us."""
_ENDS: Final = {4: (12, 16), 6: (8, 24)}
"""Where source and destination stand in an IP header."""


class Seen(NamedTuple):
    """A packet that went by."""

    at: float
    """Seconds since 1970."""
    outgoing: bool
    data: bytes
    """From its IP header on."""


class Watch:
    """The packets of one device from or to some networks, from now on."""

    def __init__(self, dev: str, networks: Sequence[IPNetwork]) -> None:
        """Begin; ``OSError`` if there is no such device, or we may not (it takes CAP_NET_RAW)."""
        # No protocol yet: nothing comes before the program is in place.
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
        try:
            attach(self._socket, program(networks))
            with suppress(PermissionError):
                self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
            self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            self._socket.setblocking(False)
            self._socket.bind((dev, ETH_P_ALL))
        except BaseException:
            self._socket.close()
            raise
        self._dropped = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """For ``select``: readable when a packet waits."""
        return self._socket.fileno()

    def take(self) -> Seen | None:
        """The next packet; None if none waits.  ``OSError`` once the device is gone."""
        try:
            data, ancillary, _, (_, _, kind, *_) = self._socket.recvmsg(LARGEST, socket.CMSG_SPACE(TIMESPEC.size))
        except BlockingIOError:
            return None
        at = 0.0
        for level, what, value in ancillary:
            if (level, what) == (socket.SOL_SOCKET, SO_TIMESTAMPNS) and len(value) == TIMESPEC.size:
                seconds, nanoseconds = TIMESPEC.unpack(value)
                at = seconds + nanoseconds / 1e9
        return Seen(at, kind == PACKET_OUTGOING, data)

    def dropped(self) -> int:
        """How many packets the kernel had no room for, since the beginning."""
        raw = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, STATISTICS.size)
        # Reading sets it back to zero.
        self._dropped += STATISTICS.unpack(raw)[1]
        return self._dropped


def program(networks: Sequence[IPNetwork]) -> Program:
    """What lets through the packets from or to one of ``networks``, and no others."""
    steps: list[Instruction] = []
    for network in networks:
        kind = ETH_P_IP if network.version == 4 else ETH_P_IPV6
        for offset in _ENDS[network.version]:
            tests = list(_within(network, offset))
            body = [Instruction(LOAD_HALF, LOAD_PROTOCOL), Instruction(JUMP_IF_EQUAL, kind), *tests]
            body.append(Instruction(RETURN, ACCEPT))
            # Whatever differs, on to what is behind the return.
            steps += (
                step._replace(if_false=len(body) - place - 1) if step.code == JUMP_IF_EQUAL else step
                for place, step in enumerate(body)
            )
    return (*steps, Instruction(RETURN, DROP))


def _within(network: IPNetwork, offset: int) -> list[Instruction]:
    """Compare the address at ``offset`` with ``network``, word by word as far as its prefix goes."""
    base, mask = network.network_address.packed, network.netmask.packed
    steps: list[Instruction] = []
    for start in range(0, len(base), 4):
        wanted = int.from_bytes(mask[start : start + 4], "big")
        if wanted:
            steps.append(Instruction(LOAD_WORD, offset + start))
            steps += [Instruction(AND, wanted)] if wanted != 0xFFFFFFFF else []
            steps.append(Instruction(JUMP_IF_EQUAL, int.from_bytes(base[start : start + 4], "big") & wanted))
    return steps
