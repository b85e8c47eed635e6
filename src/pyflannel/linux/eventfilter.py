"""Which rtnetlink events reach us at all: a classic BPF program that the kernel runs on each (socket(7), bpf(2)).

On a host with many containers links, addresses, routes and neighbours come and go all day.  Dropped here, they cost
microseconds of the kernel's time and none of ours, and cannot overrun our buffer.

Rules of this file
  1. If in doubt, let it through: the reader looks once more.
  2. The program runs straight down and every path ends in a ``return``.  A jump skips at most one section, so there is
     no arithmetic of offsets beyond the length of what is skipped.

The program sees a message from its netlink header on.  It loads numbers in network order, while netlink has them in the
machine's; so the constants are turned around here, once.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from pyflannel.linux.addresses import RTM_NEWADDR
from pyflannel.linux.links import IFINFOMSG, IFLA_IFNAME, RTM_NEWLINK
from pyflannel.linux.neighbours import RTM_NEWNEIGH
from pyflannel.linux.netlink import ATTRIBUTE, HEADER, NLM_F_REPLACE
from pyflannel.linux.routes import RT_TABLE_MAIN, RTA_OIF, RTM_NEWROUTE, RTMSG
from pyflannel.state import PROTO_FLANNEL

SO_ATTACH_FILTER: Final = 26
ACCEPT, DROP = 0xFFFFFFFF, 0
"""How many bytes of the message to hand over: all, none."""

LOAD, LOAD_X, AND, JUMP, JUMP_IF_EQUAL, JUMP_IF_SET, RETURN, A_TO_X = 0x00, 0x01, 0x54, 0x05, 0x15, 0x45, 0x06, 0x07
LOAD_WORD, LOAD_HALF, LOAD_BYTE = 0x20, 0x28, 0x30
LOAD_WORD_AT_X, LOAD_HALF_AT_X, LOAD_BYTE_AT_X = 0x40, 0x48, 0x50
FIND_ATTRIBUTE: Final = 0xFFFFF000 + 12
"""SKF_AD_OFF + SKF_AD_NLATTR: loading from here looks for attribute X behind A, and A becomes its offset, or 0."""

TYPE: Final = 4 if sys.byteorder == "little" else 5
"""The low byte of the message's type, the only one that is used."""
FLAGS, PORT, FAMILY = 6, 12, HEADER.size
INDEX: Final = HEADER.size + 4
"""In link, address and neighbour messages alike."""
ROUTE_TABLE: Final = HEADER.size + 4
ROUTE_PROTOCOL: Final = HEADER.size + 5
LINK_ATTRIBUTES: Final = HEADER.size + IFINFOMSG.size
ROUTE_ATTRIBUTES: Final = HEADER.size + RTMSG.size


class Instruction(NamedTuple):
    """``struct sock_filter``."""

    code: int
    constant: int = 0
    if_true: int = 0
    """How many instructions to skip."""
    if_false: int = 0


Program = tuple[Instruction, ...]


@dataclass(frozen=True, slots=True)
class Interest:
    """What to let through."""

    ours: frozenset[int] = frozenset()
    """Devices of which everything counts: themselves, addresses, neighbours, forwarding entries, routes."""
    others: frozenset[int] = frozenset()
    """Devices that count themselves, and their addresses."""
    names: frozenset[str] = frozenset()
    """A device that takes one of these names counts, whatever its index."""
    muted: frozenset[int] = frozenset()
    """Netlink ports; what they add or change on devices is passed over.  The kernel names the culprit of most events.

    What they delete is let through: a delete names its victim loosely, and can take another than was meant.
    """
    borrowed: frozenset[int] = frozenset()
    """Devices of which the routes of ``PROTO_FLANNEL`` count."""
    led: frozenset[int] = frozenset()
    """Devices of which all other routes count."""


def program(interest: Interest) -> Program:
    """The program that lets through just what is of interest."""
    return (
        Instruction(LOAD_BYTE, TYPE),
        # RTM_NEW… is even, RTM_DEL… the odd one behind it.
        Instruction(AND, 0xFE),
        *_if(RTM_NEWLINK, _links(interest)),
        *_if(RTM_NEWROUTE, _routes(interest)),
        *_if(RTM_NEWADDR, _on_devices(interest, interest.ours | interest.others)),
        *_if(RTM_NEWNEIGH, _on_devices(interest, interest.ours)),
        Instruction(RETURN, DROP),
    )


def attach(to: socket.socket, what: Sequence[Instruction]) -> None:
    """Have the kernel run this program on whatever arrives at the socket from now on, in place of the one before."""
    code = b"".join(struct.pack("=HBBI", one.code, one.if_true, one.if_false, one.constant) for one in what)
    memory = ctypes.create_string_buffer(code, len(code))
    to.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(what), ctypes.addressof(memory)))


def _links(interest: Interest) -> Program:
    return (
        # AF_BRIDGE says things about ports of bridges, in messages that look just like those about devices.
        Instruction(LOAD_BYTE, FAMILY),
        Instruction(JUMP_IF_EQUAL, socket.AF_UNSPEC, if_true=1),
        Instruction(RETURN, DROP),
        Instruction(LOAD_WORD, INDEX),
        *_accept_any(_turned(index) for index in sorted(interest.ours | interest.others)),
        *_find(LINK_ATTRIBUTES, IFLA_IFNAME),
        *(step for name in sorted(interest.names) for step in _accept_name(name)),
        Instruction(RETURN, DROP),
    )


def _routes(interest: Interest) -> Program:
    return (
        *_mute(interest),
        Instruction(LOAD_BYTE, ROUTE_TABLE),
        Instruction(JUMP_IF_EQUAL, RT_TABLE_MAIN, if_true=1),
        Instruction(RETURN, DROP),
        # One that took the place of another: of ours, maybe, whatever device it goes through itself.
        Instruction(LOAD_HALF, FLAGS),
        Instruction(JUMP_IF_SET, socket.htons(NLM_F_REPLACE), if_false=1),
        Instruction(RETURN, ACCEPT),
        *_find(ROUTE_ATTRIBUTES, RTA_OIF),
        Instruction(LOAD_WORD_AT_X, ATTRIBUTE.size),
        *_accept_any(_turned(index) for index in sorted(interest.ours)),
        # Whoever adds a route of another protocol to a borrowed device does so beside ours, or takes its slot.
        Instruction(LOAD_BYTE, ROUTE_PROTOCOL),
        *_if(PROTO_FLANNEL, _through(interest.borrowed)),
        *_through(interest.led),
    )


def _through(indices: frozenset[int]) -> Program:
    """Accept the routes through one of these devices, if the offset of the attribute that names it is in X."""
    return (
        Instruction(LOAD_WORD_AT_X, ATTRIBUTE.size),
        *_accept_any(_turned(index) for index in sorted(indices)),
        Instruction(RETURN, DROP),
    )


def _on_devices(interest: Interest, indices: frozenset[int]) -> Program:
    return (
        *_mute(interest),
        Instruction(LOAD_WORD, INDEX),
        *_accept_any(_turned(index) for index in sorted(indices)),
        Instruction(RETURN, DROP),
    )


def _if(value: int, section: Program) -> Program:
    """``section``, which returns whatever happens, for this value only."""
    return (Instruction(JUMP_IF_EQUAL, value, if_true=1), Instruction(JUMP, len(section)), *section)


def _mute(interest: Interest) -> Program:
    tests = (_if(_turned(port), (Instruction(RETURN, DROP),)) for port in sorted(interest.muted))
    additions = (Instruction(LOAD_WORD, PORT), *(step for test in tests for step in test))
    return (
        Instruction(LOAD_BYTE, TYPE),
        Instruction(JUMP_IF_SET, 1, if_false=1),
        Instruction(JUMP, len(additions)),
        *additions,
    )


def _accept_any(values: Iterable[int]) -> Program:
    return tuple(step for value in values for step in _if(value, (Instruction(RETURN, ACCEPT),)))


def _find(start: int, attribute: int) -> Program:
    """Leave the offset of an attribute in X; a message without it is let through."""
    return (
        Instruction(LOAD, start),
        Instruction(LOAD_X, attribute),
        Instruction(LOAD_WORD, FIND_ATTRIBUTE),
        Instruction(JUMP_IF_EQUAL, 0, if_false=1),
        Instruction(RETURN, ACCEPT),
        Instruction(A_TO_X),
    )


def _accept_name(name: str) -> Program:
    """Compare the attribute at X with ``name`` and the NUL behind it, in as few pieces as there are."""
    wanted = name.encode(errors="surrogateescape") + b"\0"
    tests: list[tuple[int, int, int]] = []
    start = 0
    for code, size in ((LOAD_WORD_AT_X, 4), (LOAD_HALF_AT_X, 2), (LOAD_BYTE_AT_X, 1)):
        while len(wanted) - start >= size:
            tests.append((code, start, int.from_bytes(wanted[start : start + size], "big")))
            start += size
    steps: list[Instruction] = []
    for place, (code, offset, value) in enumerate(tests):
        to_the_end = 2 * (len(tests) - place - 1) + 1
        steps += (
            Instruction(code, ATTRIBUTE.size + offset),
            Instruction(JUMP_IF_EQUAL, value, if_false=to_the_end),
        )
    return (*steps, Instruction(RETURN, ACCEPT))


def _turned(number: int) -> int:
    return socket.htonl(number)
