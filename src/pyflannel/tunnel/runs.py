"""Putting TCP segments that belong together back into one piece, which a TUN device takes at the price of one packet.

Rules of this file
  1. Only what can be taken apart again into the same octets is put together, as in Linux' ``tcp_gro_receive``: one
     flow, consecutive in sequence number and identification, headers and options alike.  All else is passed on as it
     came: fragments, IPv4 options, IPv6 extensions, SYN, FIN, RST, URG, CWR.
  2. The piece leaves its checksum to the receiving kernel, so it is checked here, for the run as a whole: what a
     container far away has sent with a wrong checksum must not arrive with a right one.
  3. ``coalesce`` has a twin in C, ``_fast.c``, which gives the same octets; whoever changes one changes the other.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from pyflannel.tunnel.checksums import halve, steps, total
from pyflannel.tunnel.columns import Column, network_columns, pseudo_sum, sequence_numbers
from pyflannel.tunnel.packet import (
    IPV4_HEADER,
    IPV6_HEADER,
    MAX_PACKET,
    NEEDS_CHECKSUM,
    PLAIN,
    PROTOCOL_TCP,
    TCP_CHECKSUM_AT,
    Buffer,
    GsoType,
    VirtioHeader,
)
from pyflannel.tunnel.segments import ACK, CWR, FIN, PSH, RST, SYN, URG

_ALONE: Final = FIN | SYN | RST | URG | CWR
_FRAGMENT: Final = 0x3FFF
_TRANSPORT: Final = {4: IPV4_HEADER, 6: IPV6_HEADER}
_GSO_TYPE: Final = {IPV4_HEADER: GsoType.TCPV4, IPV6_HEADER: GsoType.TCPV6}
_WORD: Final = struct.Struct("!H")


class _Head(NamedTuple):
    """The first segment of what may become a run."""

    packet: bytes
    transport: int
    header: int
    """Size of all headers."""


def coalesce(datagrams: Buffer, size: int) -> list[bytearray]:
    """Frames for the TUN device, virtio header first, from what one read of a socket with UDP_GRO has brought.

    The packets lie one after another, each ``size`` octets long, the last maybe shorter; a ``size`` of 0 says that
    there is but one.  The order is kept, nothing is dropped, and nothing is taken to be a packet without a look at it.
    """
    data = bytes(datagrams)
    if size <= 0:
        size = len(data) or 1
    frames: list[bytearray] = []
    at = 0
    while at < len(data):
        end = min(at + size, len(data))
        head = _head(data[at:end]) if end < len(data) else None
        if head is not None:
            end = min(at + size * _count(data, at, head), len(data))
        if head is not None and end > at + size and _is_sound(data[at:end], head):
            frames.append(_merge(data[at:end], head))
        else:
            frames += [bytearray(PLAIN + data[one : min(one + size, end)]) for one in range(at, end, size)]
        at = end
    return frames


def _head(packet: bytes) -> _Head | None:
    """None if nothing may be added to this packet."""
    version = packet[0] >> 4
    transport = _TRANSPORT.get(version)
    if transport is None or not transport + 20 <= len(packet) <= MAX_PACKET:
        return None
    if not (_is_plain_ipv4(packet) if version == 4 else _is_plain_ipv6(packet)):
        return None
    flags, header = packet[transport + 13], transport + (packet[transport + 12] >> 4) * 4
    if header < transport + 20 or header >= len(packet) or flags & (_ALONE | ACK) != ACK:
        return None
    return _Head(packet, transport, header)


def _is_plain_ipv4(packet: bytes) -> bool:
    return (
        packet[0] == 0x45
        and _WORD.unpack_from(packet, 2)[0] == len(packet)
        and not _WORD.unpack_from(packet, 6)[0] & _FRAGMENT
        and packet[9] == PROTOCOL_TCP
        and total(packet[:IPV4_HEADER]) % 0xFFFF == 0
        # Minus zero, which is right but which no kernel writes.
        and packet[10:12] != b"\xff\xff"
    )


def _is_plain_ipv6(packet: bytes) -> bool:
    return packet[6] == PROTOCOL_TCP and _WORD.unpack_from(packet, 4)[0] + IPV6_HEADER == len(packet)


def _count(data: bytes, at: int, head: _Head) -> int:
    """How many segments from ``at`` on are a run; only the last one may be shorter."""
    size, payload, transport = len(head.packet), len(head.packet) - head.header, head.transport
    count, last = divmod(len(data) - at, size)
    if head.header < last and head.header + count * payload + last - head.header <= MAX_PACKET:
        count += 1
    else:
        last = size
    if head.header + (count - 1) * payload + last - head.header > MAX_PACKET:
        count, last = (MAX_PACKET - head.header) // payload, size
    numbers = sequence_numbers(int.from_bytes(head.packet[transport + 4 : transport + 8], "big"), payload, count)
    # Where several flows are mixed this is soon over: ports and sequence number of the second one.
    start = at + size + transport
    if count < 2 or data[start : start + 8] != head.packet[transport:][:4] + numbers[1].to_bytes(4, "big"):
        return 1
    columns = network_columns(head.packet[:transport], [*[size - transport] * (count - 1), last - transport])
    columns.append(Column.of_longs(transport + 4, numbers))
    wanted = bytearray(head.packet[: head.header] * count)
    for column in columns:
        column.write(wanted, head.header)
    found = bytearray().join([data[one : one + head.header] for one in range(at, at + count * size, size)])
    return _agreement(found, wanted, head)


def _agreement(found: bytearray, wanted: bytearray, head: _Head) -> int:
    """How many headers are as they should be from the start; the flags may differ as far as a run allows."""
    size, flags_at = head.header, head.transport + 13
    flags = bytes(found[flags_at::size])
    for octet in (flags_at, head.transport + TCP_CHECKSUM_AT, head.transport + TCP_CHECKSUM_AT + 1):
        found[octet::size] = wanted[octet::size] = bytes(len(flags))
    if found != wanted:
        starts = range(0, len(found), size)
        flags = flags[: next(at // size for at in starts if found[at : at + size] != wanted[at : at + size])]
    return _until_push(flags)


def _until_push(flags: bytes) -> int:
    """How many segments with these flags are a run: all alike, but that the last one may have PSH."""
    first = flags[:1]
    alike = len(flags) - len(flags.lstrip(first))
    # A first segment with PSH is alone; one after others ends the run with it.
    if first[0] & PSH:
        return 1
    return alike + 1 if alike < len(flags) and flags[alike] == first[0] | PSH else alike


def _is_sound(segments: bytes, head: _Head) -> bool:
    """Whether the TCP checksums of the whole run, taken together, are right."""
    size, transport = len(head.packet), head.transport
    number = int.from_bytes
    parts = [number(segments[at + transport : at + size], "big") for at in range(0, len(segments), size)]
    # An odd octet at the end is padded; only the last segment may have another size.
    last = (len(segments) - 1) % size + 1
    words = (sum(parts[:-1]) << (size - transport) % 2 * 8) + (parts[-1] << (last - transport) % 2 * 8)
    constant = len(parts) * (pseudo_sum(head.packet) + PROTOCOL_TCP - transport) + len(segments)
    # 8 octets of room: for the padding, and for the carries of adding up.
    return (halve(words, steps(size + 8)) + constant) % 0xFFFF == 0


def _merge(segments: bytes, head: _Head) -> bytearray:
    """One frame of all: the headers of the first with the length of all and the PSH of the last."""
    packet, transport, header = head
    size = len(packet)
    payload = b"".join([segments[at + header : at + size] for at in range(0, len(segments), size)])
    length = header - transport + len(payload)
    virtio = VirtioHeader(NEEDS_CHECKSUM, _GSO_TYPE[transport], header, size - header, transport, TCP_CHECKSUM_AT)
    headers = bytearray(packet[:header])
    for column in network_columns(packet[:transport], [length]):
        column.write(headers, header)
    headers[transport + 13] = segments[(len(segments) - 1) // size * size + transport + 13]
    pseudo = pseudo_sum(packet) + PROTOCOL_TCP + length
    _WORD.pack_into(headers, transport + TCP_CHECKSUM_AT, pseudo % 0xFFFF or 0xFFFF)
    return bytearray().join((virtio.pack(), headers, payload))
