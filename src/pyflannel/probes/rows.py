"""A row of the matrix of all hosts: what a peer sees of others, asked and told in one errand each (``errands``).

A question names hosts by their subnets, and the answer says of each, in the same order, how it is reached:

    0   magic     0xf2; what a trace asks and answers begins with 0x78, as zlib has it
    1   version   1
    2   kind      1 question, 2 answer
    3   count     of what follows, at most 32

    in a question, for each:          in an answer, for each:
    0   families  1 IPv4, 2 IPv6,     0   how     as in ``How``
                  3 both              1   loss    percent; 255: not known
    1   length    of the prefix       2   rtt     microseconds, 4 octets; all ones: not known
    2   address   4 or 16 octets
        and the last two once more for the second family

Rules of this file
  1. Any octets are read, or are a ``BadRow``; what is read is written the same again.
  2. An answer tells of the hosts that were named, and of nothing else.  To give it costs a look at these, some
     microseconds: no question of a trace has to wait for it.
  3. Whoever cannot answer does not tell, and that is no error: an agent without rows takes such a question for one
     about a packet that it does not understand, and says so in words, which are a ``BadRow`` here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from pyflannel.lease.model import Subnet
from pyflannel.probes.allowance import Allowance
from pyflannel.probes.sight import OURS_ARRIVE, Reach, Sight

MAGIC: Final = 0xF2
VERSION: Final = 1
MOST: Final = 32
"""Hosts in a question: with both families of each it has 740 octets, and 1200 may be sent."""
RATE: Final = 20.0
"""Answers a second, in the long run, and as many at once after a quiet time."""

_QUESTION, _ANSWER = 1, 2
_HEADER: Final = struct.Struct("!BBBB")
_CELL: Final = struct.Struct("!BBI")
_UNKNOWN_LOSS: Final = 255
_UNKNOWN_RTT: Final = (1 << 32) - 1


class BadRow(ValueError):
    """Not a question or an answer about a row; the message says what is wrong with it."""


class How(StrEnum):
    """How one host reaches another, as it says itself.  The place of each is its number in an answer."""

    UNKNOWN = "unknown"
    REACHED = "reachable"
    LOSSY = "lossy"
    LOST = "unreachable"
    ARRIVES = "arrives"
    """What it sends arrives there, and no answer comes back."""
    STRANGER = "stranger"
    """It knows no such peer."""
    ITSELF = "itself"


_HOWS: Final = tuple(How)
_OF_REACH: Final = {
    Reach.UNKNOWN: How.UNKNOWN,
    Reach.REACHED: How.REACHED,
    Reach.LOSSY: How.LOSSY,
    Reach.LOST: How.LOST,
}


@dataclass(frozen=True, slots=True)
class Cell:
    """What one host says of another."""

    how: How = How.UNKNOWN
    rtt: float | None = None
    """Seconds."""
    loss: float | None = None
    """0 to 1."""


def seen(how: Reach, reason: str, rtt: float | None, loss: float | None) -> Cell:
    """The cell of a peer of which this is known (``Sight``)."""
    return Cell(How.ARRIVES if how is Reach.LOST and reason == OURS_ARRIVE else _OF_REACH[how], rtt, loss)


def question(subnets: Sequence[Subnet]) -> bytes:
    """What do you see of these hosts?  ``ValueError`` if they are more than ``MOST``."""
    return _header(_QUESTION, len(subnets)) + b"".join(map(_named, subnets))


def is_question(raw: bytes) -> bool:
    """Whether this is meant to be one; if not, it is for a trace."""
    return raw[:1] == bytes((MAGIC,))


def read_question(raw: bytes) -> tuple[Subnet, ...]:
    """Who is asked about, or ``BadRow``."""
    count = _count(raw, _QUESTION)
    rest = raw[_HEADER.size :]
    found = []
    for _ in range(count):
        subnet, rest = _subnet(rest)
        found.append(subnet)
    if rest:
        raise BadRow(f"{len(rest)} octets follow the last subnet")
    return tuple(found)


def answer(cells: Sequence[Cell]) -> bytes:
    """What is seen of those who were named; ``ValueError`` if they are more than ``MOST``."""
    return _header(_ANSWER, len(cells)) + b"".join(map(_told, cells))


def read_answer(raw: bytes) -> tuple[Cell, ...]:
    """What a host says of those who were named, or ``BadRow``."""
    count = _count(raw, _ANSWER)
    if len(raw) != _HEADER.size + count * _CELL.size:
        raise BadRow(f"{count} cells in {len(raw)} octets")
    return tuple(_cell(*fields) for fields in _CELL.iter_unpack(raw[_HEADER.size :]))


class Teller:
    """Answers the questions of peers, at most ``RATE`` a second."""

    def __init__(
        self,
        own: Callable[[], Subnet],
        sights: Callable[[Iterable[Subnet]], Mapping[Subnet, Sight]],
        clock: Callable[[], float],
    ) -> None:
        """``own`` is this host, ``sights`` says what it sees of those named; ``clock`` never steps."""
        self._own, self._sights = own, sights
        self._allowance = Allowance(RATE, RATE, clock)

    def __call__(self, raw: bytes) -> bytes:
        """The answer to a question; ``ValueError`` for one that is none, or comes too early."""
        asked = read_question(raw)
        if not self._allowance.spend():
            raise ValueError(f"more than {RATE:g} questions about rows in a second")
        own, sights = self._own(), self._sights(asked)
        return answer([Cell(How.ITSELF) if each == own else _seen(sights.get(each)) for each in asked])


def _seen(sight: Sight | None) -> Cell:
    return Cell(How.STRANGER) if sight is None else seen(sight.reach, sight.reason, sight.rtt, sight.loss)


def _header(kind: int, count: int) -> bytes:
    if count > MOST:
        raise ValueError(f"a row of {count} hosts: at most {MOST} fit")
    return _HEADER.pack(MAGIC, VERSION, kind, count)


def _count(raw: bytes, wanted: int) -> int:
    if len(raw) < _HEADER.size:
        raise BadRow(f"{len(raw)} octets: expected at least {_HEADER.size}")
    magic, version, kind, count = _HEADER.unpack_from(raw)
    if (magic, version, kind) != (MAGIC, VERSION, wanted):
        raise BadRow(f"begins with {raw[:3].hex()}: expected {MAGIC:02x}{VERSION:02x}{wanted:02x}")
    if count > MOST:
        raise BadRow(f"{count} hosts: expected at most {MOST}")
    return int(count)


def _named(subnet: Subnet) -> bytes:
    networks = [net for net in (subnet.ipv4, subnet.ipv6) if net is not None]
    families = (subnet.ipv4 is not None) | (subnet.ipv6 is not None) << 1
    return bytes((families,)) + b"".join(bytes((net.prefixlen,)) + net.network_address.packed for net in networks)


def _subnet(raw: bytes) -> tuple[Subnet, bytes]:
    """The subnet that ``raw`` begins with, and the rest."""
    families = raw[0] if raw else 0
    if not 1 <= families <= 3:
        raise BadRow(f"address families {families}: expected 1 to 3" if raw else "a subnet is missing")
    fields = _fields(raw[1:], families)
    try:
        ipv4 = IPv4Network(next(fields)) if families & 1 else None
        ipv6 = IPv6Network(next(fields)) if families & 2 else None
    except ValueError as error:
        raise BadRow(f"a subnet is none: {error}") from None
    return Subnet(ipv4, ipv6), raw[1 + 5 * (families & 1) + 17 * (families >> 1) :]


def _fields(raw: bytes, families: int) -> Iterator[tuple[bytes, int]]:
    """Address and length of each prefix."""
    for size in ((4,) if families & 1 else ()) + ((16,) if families & 2 else ()):
        field, raw = raw[: 1 + size], raw[1 + size :]
        if len(field) <= size:
            raise BadRow("a subnet is not whole")
        yield field[1:], field[0]


def _told(cell: Cell) -> bytes:
    # Some loss is never told as none.
    loss = _UNKNOWN_LOSS if cell.loss is None else max(round(cell.loss * 100), int(cell.loss > 0))
    rtt = _UNKNOWN_RTT if cell.rtt is None else min(round(cell.rtt * 1e6), _UNKNOWN_RTT - 1)
    return _CELL.pack(_HOWS.index(cell.how), loss, rtt)


def _cell(how: int, loss: int, rtt: int) -> Cell:
    if how >= len(_HOWS):
        raise BadRow(f"a host is reached in the way {how}: expected at most {len(_HOWS) - 1}")
    if loss > 100 and loss != _UNKNOWN_LOSS:
        raise BadRow(f"{loss} percent are lost")
    return Cell(
        _HOWS[how],
        None if rtt == _UNKNOWN_RTT else rtt / 1e6,
        None if loss == _UNKNOWN_LOSS else loss / 100,
    )
