"""Cutting what a TUN device hands over in one piece into packets that the wire takes.

Rules of this file
  1. Each segment is what the sender's own kernel would have made of it: length, identification, sequence number, flags
     and checksums complete (Linux ``tcp_gso_segment`` and ``__udp_gso_segment``).  A peer cannot tell the difference.
  2. ``segment`` has a twin in C, ``_fast.c``, which gives the same octets; whoever changes one changes the other.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple, TypeAlias

from pyflannel.tunnel.checksums import checksum, complement, halve, steps, total
from pyflannel.tunnel.columns import Column, network_columns, pseudo_sum, sequence_numbers
from pyflannel.tunnel.packet import (
    GSO_ECN,
    IPV4_HEADER,
    IPV6_HEADER,
    MAX_DATAGRAM,
    NEEDS_CHECKSUM,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    TCP_CHECKSUM_AT,
    UDP_CHECKSUM_AT,
    VIRTIO_NET_HDR,
    VNET,
    Buffer,
    GsoType,
    VirtioHeader,
)

Run: TypeAlias = tuple[bytes, int]
"""Packets one after another, and the size of each but the last, which may be smaller: one send with UDP_SEGMENT."""

MOST_SEGMENTS: Final = 64
"""In one run: UDP_MAX_SEGMENTS of Linux before 6.9."""

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 1, 2, 4, 8, 16, 32, 64, 128
_ONLY_LAST: Final = FIN | PSH
_FRAGMENT: Final = 0x3FFF
_PROTOCOLS: Final = {
    GsoType.TCPV4: (4, PROTOCOL_TCP),
    GsoType.TCPV6: (6, PROTOCOL_TCP),
    GsoType.UDP: (None, PROTOCOL_UDP),
}
_WORD: Final = struct.Struct("!H")
_SEQUENCE: Final = struct.Struct("!I")


class _Super(NamedTuple):
    """A packet to be cut, its headers checked."""

    packet: bytes
    protocol: int
    transport: int
    """Where the TCP or UDP header starts."""
    payload: int
    """Where the payload starts."""
    gso_size: int


def segment(frame: Buffer) -> list[Run]:
    """Packets ready to be sent, from one read of a TUN device: the virtio header and what follows it.

    One packet is a run of one, its checksum completed if that was left to us.  Empty if the virtio header asks for
    something that cannot be done with this packet.
    """
    if len(frame) < VNET + IPV4_HEADER:
        return []
    virtio = VirtioHeader(*VIRTIO_NET_HDR.unpack_from(frame))
    packet = bytes(frame[VNET:])
    if virtio.gso_type == GsoType.NONE:
        return _single(packet, virtio)
    whole = _read(packet, virtio)
    if whole is None:
        return []
    return _runs(_cut(whole), whole.payload + whole.gso_size)


def _single(packet: bytes, virtio: VirtioHeader) -> list[Run]:
    if not virtio.flags & NEEDS_CHECKSUM:
        return [(packet, len(packet))]
    start, at = virtio.checksum_start, virtio.checksum_start + virtio.checksum_offset
    if at + 2 > len(packet):
        return []
    # The field is part of the sum: it holds that of the pseudo header.  Zero is written as 0xffff, as by Linux'
    # skb_checksum_help, because in UDP zero means that there is none.
    value = checksum(packet[start:]) or 0xFFFF
    return [(b"".join((packet[:at], _WORD.pack(value), packet[at + 2 :])), len(packet))]


def _read(packet: bytes, virtio: VirtioHeader) -> _Super | None:
    known = _PROTOCOLS.get(GsoType(kind)) if (kind := virtio.gso_type & ~GSO_ECN) in _PROTOCOLS else None
    version = packet[0] >> 4
    if known is None or known[0] not in (version, None) or not virtio.gso_size:
        return None
    transport = _transport(packet, version, known[1], virtio)
    if transport is None:
        return None
    payload = _payload(packet, transport, known[1])
    if payload is None or payload + virtio.gso_size > MAX_DATAGRAM:
        return None
    return _Super(packet, known[1], transport, payload, virtio.gso_size)


def _transport(packet: bytes, version: int, protocol: int, virtio: VirtioHeader) -> int | None:
    """Where the transport header starts; IPv6 extension headers are skipped on the word of the kernel."""
    partial = bool(virtio.flags & NEEDS_CHECKSUM)
    if version == 4:
        size = (packet[0] & 15) * 4
        length, fragment = _WORD.unpack_from(packet, 2)[0], _WORD.unpack_from(packet, 6)[0]
        if size < IPV4_HEADER or length != len(packet) or fragment & _FRAGMENT or packet[9] != protocol:
            return None
        return size if not partial or virtio.checksum_start == size else None
    if version != 6 or len(packet) < IPV6_HEADER or IPV6_HEADER + _WORD.unpack_from(packet, 4)[0] != len(packet):
        return None
    start = virtio.checksum_start if partial else IPV6_HEADER
    return start if start > IPV6_HEADER or (start == IPV6_HEADER and packet[6] == protocol) else None


def _payload(packet: bytes, transport: int, protocol: int) -> int | None:
    """Where the payload starts; None if there is none."""
    if protocol == PROTOCOL_UDP:
        size = 8
    elif transport + 20 > len(packet):
        return None
    else:
        size = (packet[transport + 12] >> 4) * 4
        if size < 20:
            return None
    return transport + size if transport + size < len(packet) else None


def _cut(whole: _Super) -> bytes:
    """All segments, one after another."""
    packet, protocol, transport, start, gso_size = whole
    pieces = [packet[at : at + gso_size] for at in range(start, len(packet), gso_size)]
    lengths = [start - transport + len(piece) for piece in pieces]
    constant = pseudo_sum(packet) + protocol
    columns = network_columns(packet[:transport], lengths)
    columns += (_tcp_columns if protocol == PROTOCOL_TCP else _udp_columns)(whole, lengths, _sums(pieces), constant)
    header = packet[:start]
    segments = bytearray().join([part for piece in pieces for part in (header, piece)])
    for column in columns:
        column.write(segments, start + gso_size)
    return bytes(segments)


def _sums(pieces: list[bytes]) -> list[int]:
    """Of the words of each; all but the last are of one size."""
    halvings, shift = steps(len(pieces[0]) + 1), len(pieces[0]) % 2 * 8
    number = int.from_bytes
    return [*(halve(number(piece, "big") << shift, halvings) for piece in pieces[:-1]), total(pieces[-1])]


def _tcp_columns(whole: _Super, lengths: list[int], sums: list[int], constant: int) -> list[Column]:
    packet, _, at, start, gso_size = whole
    first, flags = _SEQUENCE.unpack_from(packet, at + 4)[0], packet[at + 13]
    # Everything but sequence number, flags and checksum.
    constant += total(packet[at : at + 4]) + total(packet[at + 8 : at + 13] + b"\0" + packet[at + 14 : at + 16])
    constant += total(packet[at + 18 : start])
    count = len(lengths)
    most = flags & ~(CWR | _ONLY_LAST)
    each = bytearray([most]) * count
    each[0] |= flags & CWR
    each[-1] |= flags & _ONLY_LAST
    sequence = sequence_numbers(first, gso_size, count)
    constant += lengths[0] + most
    checks = [-(constant + words + number) % 0xFFFF for words, number in zip(sums, sequence, strict=True)]
    checks[-1] = complement(constant + sums[-1] + sequence[-1] + lengths[-1] - lengths[0] + each[-1] - most)
    if count > 1:
        checks[0] = complement(constant + sums[0] + sequence[0] + each[0] - most)
    return [
        Column.of_longs(at + 4, sequence),
        Column(at + 13, 1, bytes(each)),
        Column.of_words(at + TCP_CHECKSUM_AT, checks),
    ]


def _udp_columns(whole: _Super, lengths: list[int], sums: list[int], constant: int) -> list[Column]:
    at = whole.transport
    constant += total(whole.packet[at : at + 4])
    # The length is in the header and in the pseudo header.
    fields = zip(sums, lengths, strict=True)
    checks = [complement(constant + words + 2 * length) or 0xFFFF for words, length in fields]
    return [Column.of_words(at + 4, lengths), Column.of_words(at + UDP_CHECKSUM_AT, checks)]


def _runs(segments: bytes, size: int) -> list[Run]:
    """As many segments to a run as may be."""
    most = size * min(MOST_SEGMENTS, MAX_DATAGRAM // size)
    if len(segments) <= most:
        return [(segments, min(size, len(segments)))]
    runs = (segments[at : at + most] for at in range(0, len(segments), most))
    return [(run, min(size, len(run))) for run in runs]
