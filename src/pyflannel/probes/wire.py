"""What agents say to each other, in UDP datagrams.

    0   magic     "pflp"
    4   version   1
    5   kind      1 question, 2 answer, 3 errand, 4 result
    6   length    of the body, 2 octets
    8   nonce     8 octets, by chance; whoever answers says it again
    16  run       4 octets, by chance, of the run of the agent that asks
    20  number    4 octets: of the question, on its way through the overlay, or beside it; answers say it again
    24  report    4 times 4 octets, in answers: for each of the two ways the highest number that has come in from this
                  run, and which of the 32 up to it have (the lowest bit is the highest number)
    40  body      of an errand or a result; then whatever makes the datagram as large as it is meant to be

Rules of this file
  1. Nothing is amplified: an answer is 40 octets, as is the shortest question, and errands are as large as the
     largest result.
  2. Any octets are read, or are a ``BadPacket``; what follows the body is not looked at.
  3. Which way a datagram has come is not in it: the addresses tell (``prober``).
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

VERSION: Final = 1
LONGEST_BODY: Final = 1200
"""Octets.  With all headers that passes wherever IPv6 does (RFC 8200 §5)."""

_MAGIC: Final = b"pflp"
_HEADER: Final = struct.Struct("!4sBBHQIIIIII")
SHORTEST: Final = _HEADER.size
LARGEST_ERRAND: Final = SHORTEST + LONGEST_BODY


class BadPacket(ValueError):
    """Not a datagram of ours; the message says what is wrong with it."""


class Kind(IntEnum):
    """What a datagram is for."""

    QUESTION = 1
    ANSWER = 2
    ERRAND = 3
    """A question with a body, for ``Prober.ask``."""
    RESULT = 4


class Arrivals(NamedTuple):
    """Which numbers have come in one way."""

    newest: int = 0
    """0: none."""
    seen: int = 0
    """Bit i: whether ``newest - i`` has."""

    def has(self, number: int) -> bool:
        """Whether it has certainly come in."""
        return 0 <= self.newest - number < 32 and bool(self.seen >> (self.newest - number) & 1)


NOTHING: Final = Arrivals()


class Packet(NamedTuple):
    """One datagram, understood."""

    kind: Kind
    nonce: int
    run: int
    number: int
    overlay: Arrivals = NOTHING
    underlay: Arrivals = NOTHING
    body: bytes = b""


def encode(packet: Packet, size: int = SHORTEST) -> bytes:
    """``packet`` in ``size`` octets, or as many as it takes if these are more.

    ``ValueError`` for a body that is too long.
    """
    if len(packet.body) > LONGEST_BODY:
        raise ValueError(f"a body of {len(packet.body)} octets: at most {LONGEST_BODY} fit")
    header = _HEADER.pack(
        *(_MAGIC, VERSION, packet.kind, len(packet.body), packet.nonce, packet.run, packet.number),
        *(packet.overlay.newest, packet.overlay.seen, packet.underlay.newest, packet.underlay.seen),
    )
    return (header + packet.body).ljust(size, b"\0")


def decode(data: bytes) -> Packet:
    """Read a datagram; ``BadPacket`` if it is none of ours."""
    if len(data) < SHORTEST:
        raise BadPacket(f"{len(data)} octets: expected at least {SHORTEST}")
    magic, version, kind, length, nonce, run, number, *report = _HEADER.unpack_from(data)
    if magic != _MAGIC or version != VERSION:
        raise BadPacket(f"begins with {data[:5].hex()}: expected {_MAGIC.hex()}{VERSION:02x}")
    if not Kind.QUESTION <= kind <= Kind.RESULT:
        raise BadPacket(f"kind {kind}: expected 1 to 4")
    if length > min(LONGEST_BODY, len(data) - SHORTEST):
        raise BadPacket(f"a body of {length} octets in {len(data)}")
    return Packet(
        *(Kind(kind), nonce, run, number),
        *(Arrivals(*report[:2]), Arrivals(*report[2:])),
        body=data[SHORTEST : SHORTEST + length],
    )
