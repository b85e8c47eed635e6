"""Header fields of many segments at once.

Segments of one size lie one after another, so that the same octet of each is a slice with a step, which Python takes
at a nanosecond an octet.  A loop over the segments, with a few operations for each, takes ten times as long.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple, Self

from pyflannel.tunnel.checksums import complement, total
from pyflannel.tunnel.packet import IPV6_HEADER

_WORD: Final = struct.Struct("!H")


class Column(NamedTuple):
    """One field, in each of some segments."""

    at: int
    """From the start of a segment."""
    width: int
    """Octets."""
    values: bytes
    """Of all segments, one after another."""

    @classmethod
    def of_words(cls, at: int, values: Sequence[int]) -> Self:
        """16 bits each."""
        return cls(at, 2, struct.pack(f"!{len(values)}H", *values))

    @classmethod
    def of_longs(cls, at: int, values: Sequence[int]) -> Self:
        """32 bits each."""
        return cls(at, 4, struct.pack(f"!{len(values)}I", *values))

    def write(self, segments: bytearray, size: int) -> None:
        """Into all of them; ``size`` is that of each but the last."""
        for octet in range(self.width):
            segments[self.at + octet :: size] = self.values[octet :: self.width]


def network_columns(header: bytes, lengths: Sequence[int]) -> list[Column]:
    """What differs in the IP headers of segments with ``lengths`` octets behind them, after the model of the first.

    All but the last have the same length.  IPv6 extension headers belong to ``header``.
    """
    if header[0] >> 4 == 6:
        extensions = len(header) - IPV6_HEADER
        return [Column.of_words(4, [extensions + length for length in lengths])]
    first = _WORD.unpack_from(header, 4)[0]
    numbers = [number & 0xFFFF for number in range(first, first + len(lengths))]
    sizes = [len(header) + length for length in lengths]
    constant = total(header[:2]) + total(header[6:10]) + total(header[12:]) + sizes[0]
    sums = [-(constant + number) % 0xFFFF for number in numbers]
    sums[-1] = complement(constant + numbers[-1] + sizes[-1] - sizes[0])
    return [Column.of_words(4, numbers), Column.of_words(2, sizes), Column.of_words(10, sums)]


def sequence_numbers(first: int, step: int, count: int) -> list[int]:
    """Of TCP segments with ``step`` octets each."""
    return [number & 0xFFFFFFFF for number in range(first, first + step * count, step)]


def pseudo_sum(packet: bytes) -> int:
    """The sum of the addresses, of either family: the pseudo header without protocol and length."""
    return total(packet[12:20] if packet[0] >> 4 == 4 else packet[8:40])
