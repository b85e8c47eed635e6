"""ICMP errors about packets that go no further (RFC 792, 1122 §3.2.2, 1812 §4.3; RFC 4443 for IPv6).

Rules of this file
  1. Never an error about an error, a later fragment, a broadcast or multicast, or to an address that is not a single
     host: such a message is not made, and the functions return None.
  2. How many may be sent is the caller's business; here is no clock.
  3. As much of the offending packet is quoted as the RFCs allow: 576 octets in all for IPv4 (RFC 1812 §4.3.2.3), 1280
     for IPv6 (RFC 4443 §2.4c).  flannel's C code quotes 8 octets of payload, from before there was path MTU discovery.
"""

from __future__ import annotations

import struct
from typing import Final

from pyflannel.tunnel.checksums import checksum
from pyflannel.tunnel.packet import (
    IPV6_HEADER,
    PROTOCOL_ICMP,
    PROTOCOL_ICMPV6,
    Buffer,
    Header,
    Malformed,
    is_later_fragment,
    read_header,
)

TTL: Final = 64
IPV4_MOST, IPV6_MOST = 576, 1280
_IPV4: Final = struct.Struct("!BBHHHBBHII")
_IPV6: Final = struct.Struct("!IHBB16s16s")
_ICMP: Final = struct.Struct("!BBHI")
_INTERNETWORK_CONTROL: Final = 0xC0
"""Precedence 6, which RFC 1812 §4.3.2.5 asks for in ICMP errors."""

UNREACHABLE, TIME_EXCEEDED = 3, 11
NETWORK, FRAGMENTATION_NEEDED = 0, 4
_ERRORS: Final = frozenset((3, 4, 5, 11, 12))
"""Unreachable, source quench, redirect, time exceeded, parameter problem."""

UNREACHABLE_V6, TOO_BIG_V6, TIME_EXCEEDED_V6 = 1, 2, 3
NO_ROUTE: Final = 0
_REDIRECT_V6: Final = 137
_OPTION_HEADERS: Final = frozenset((0, 43, 60))
"""Hop-by-hop, routing and destination options: their second octet is their length (RFC 8200 §4)."""
_FRAGMENT_HEADER: Final = 44


def network_unreachable(packet: Buffer, source: int | None) -> bytes | None:
    """No route to the network: the answer to the sender of ``packet``, from address ``source`` of the same family.

    None if there is nothing to be sent; so too for all others here, and if ``source`` is None.
    """
    return _error(packet, source, (UNREACHABLE, NETWORK), (UNREACHABLE_V6, NO_ROUTE))


def time_exceeded(packet: Buffer, source: int | None) -> bytes | None:
    """TTL or hop limit came to its end here."""
    return _error(packet, source, (TIME_EXCEEDED, 0), (TIME_EXCEEDED_V6, 0))


def too_big(packet: Buffer, source: int | None, mtu: int) -> bytes | None:
    """Fragmentation needed (RFC 1191), or packet too big; ``mtu`` is what would pass."""
    return _error(packet, source, (UNREACHABLE, FRAGMENTATION_NEEDED), (TOO_BIG_V6, 0), mtu)


def _error(
    packet: Buffer, source: int | None, ipv4: tuple[int, int], ipv6: tuple[int, int], rest: int = 0
) -> bytes | None:
    try:
        header = read_header(packet)
    except Malformed:
        return None
    if source is None:
        return None
    if header.version == 4:
        return _ipv4_error(packet, header, source, ipv4, rest) if _ipv4_deserves(packet, header) else None
    return _ipv6_error(packet, header, source, ipv6, rest) if _ipv6_deserves(packet, header, ipv6[0]) else None


def _ipv4_deserves(packet: Buffer, header: Header) -> bool:
    if is_later_fragment(packet, header) or not _is_host(header.source) or header.destination >= 0xE0000000:
        return False
    if header.protocol != PROTOCOL_ICMP:
        return True
    return header.length > header.size and packet[header.size] not in _ERRORS


def _is_host(address: int) -> bool:
    """Not this network, loopback, multicast, class E or broadcast (RFC 1122 §3.2.2)."""
    return 0 < address >> 24 < 224 and address >> 24 != 127


def _ipv6_deserves(packet: Buffer, header: Header, kind: int) -> bool:
    if header.source == 0 or header.source >> 120 == 0xFF:
        return False
    # A packet too big may have been multicast: that is how its path MTU is found (RFC 4443 §2.4e).
    if header.destination >> 120 == 0xFF and kind != TOO_BIG_V6:
        return False
    return _ipv6_payload_deserves(packet, header)


def _ipv6_payload_deserves(packet: Buffer, header: Header) -> bool:
    at, protocol = IPV6_HEADER, header.protocol
    while protocol in _OPTION_HEADERS or protocol == _FRAGMENT_HEADER:
        if at + 8 > header.length:
            return False
        if protocol == _FRAGMENT_HEADER:
            if packet[at + 2] or packet[at + 3] & 0xF8:
                return False
            size = 8
        else:
            size = 8 + packet[at + 1] * 8
        protocol, at = packet[at], at + size
    if protocol != PROTOCOL_ICMPV6:
        return True
    return at < header.length and packet[at] >= 128 and packet[at] != _REDIRECT_V6


def _ipv4_error(packet: Buffer, header: Header, source: int, kind: tuple[int, int], rest: int) -> bytes:
    quote = bytes(packet[: min(header.length, IPV4_MOST - _IPV4.size - _ICMP.size)])
    body = _ICMP.pack(*kind, 0, rest) + quote
    body = _ICMP.pack(*kind, checksum(body), rest) + quote
    fields = [0x45, _INTERNETWORK_CONTROL, _IPV4.size + len(body), 0, 0, TTL, PROTOCOL_ICMP, 0, source, header.source]
    fields[7] = checksum(_IPV4.pack(*fields))
    return _IPV4.pack(*fields) + body


def _ipv6_error(packet: Buffer, header: Header, source: int, kind: tuple[int, int], rest: int) -> bytes:
    quote = bytes(packet[: min(header.length, IPV6_MOST - _IPV6.size - _ICMP.size)])
    ends = source.to_bytes(16, "big"), header.source.to_bytes(16, "big")
    body = _ICMP.pack(*kind, 0, rest) + quote
    pseudo = b"".join((*ends, struct.pack("!II", len(body), PROTOCOL_ICMPV6), body))
    body = _ICMP.pack(*kind, checksum(pseudo), rest) + quote
    return _IPV6.pack(6 << 28, len(body), PROTOCOL_ICMPV6, TTL, *ends) + body
