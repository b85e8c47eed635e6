"""IP headers, the Internet checksum, and the header a TUN device puts before each packet.

Rules of this file
  1. Nothing is read before its bounds are checked; what does not add up is ``Malformed``, with the reason it is counted
     under.  Packets come from containers and from other hosts: they may hold anything.
  2. Values are plain integers in host order, as this is read for every packet; ``ipaddress`` begins at the routes.
"""

from __future__ import annotations

import struct
from enum import IntEnum, StrEnum
from typing import Final, NamedTuple, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview

PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOL_ICMPV6 = 1, 6, 17, 58
MAX_PACKET: Final = 65535
MAX_DATAGRAM: Final = 65507
"""What one UDP datagram over IPv4 can carry."""
IPV4_HEADER: Final = 20
IPV6_HEADER: Final = 40

_IPV4: Final = struct.Struct("!BBHHHBBHII")
_IPV6: Final = struct.Struct("!IHBB16s16s")
_WORD: Final = struct.Struct("!H")
_DONT_FRAGMENT, _OFFSET = 0x4000, 0x1FFF


class Drop(StrEnum):
    """Why a packet went no further: the ``reason`` of the metrics."""

    SHORT = "short"
    """Smaller than an IP header."""
    VERSION = "version"
    """Neither IPv4 nor IPv6."""
    LENGTH = "length"
    """The length in its header is not that of the packet."""
    OFFLOAD = "offload"
    """The header of the TUN device asks for what the packet does not allow."""
    NO_ROUTE = "no-route"
    TTL = "ttl"
    UNKNOWN_SENDER = "unknown-sender"
    """The datagram came from a host that is no peer."""
    FOREIGN_SOURCE = "foreign-source"
    """The inner source is outside the subnet of the peer that sent it."""
    FOREIGN_DESTINATION = "foreign-destination"
    """The inner destination is not ours."""
    TOO_BIG = "too-big"
    """More than a datagram holds, or than the path lets through."""
    NOT_SENT = "not-sent"
    """The socket refused it: no memory, no route to the host, a firewall."""
    NOT_DELIVERED = "not-delivered"
    """The TUN device refused it: it is down, for instance."""
    STALLED = "stalled"
    """Nowhere to keep it while the other side takes nothing more."""


class Malformed(ValueError):
    """A packet that cannot be forwarded."""

    def __init__(self, reason: Drop) -> None:
        super().__init__(f"malformed packet: {reason}")
        self.reason = reason


class Header(NamedTuple):
    """What forwarding has to know; a tuple, since a frozen dataclass takes four times as long to make."""

    version: int
    size: int
    """Of the IP header, IPv4 options included, IPv6 extensions not."""
    length: int
    """Of the whole packet as it says; at most what there is of it."""
    ttl: int
    protocol: int
    """Of what follows the first ``size`` octets."""
    source: int
    destination: int


def read_header(packet: Buffer) -> Header:
    """The IP header; ``Malformed`` if the packet is none, or says it is longer than it is."""
    available = len(packet)
    if available < IPV4_HEADER:
        raise Malformed(Drop.SHORT)
    version = packet[0] >> 4
    if version == 4:
        first, _, length, _, _, ttl, protocol, _, source, destination = _IPV4.unpack_from(packet)
        size = (first & 15) * 4
        if not IPV4_HEADER <= size <= length <= available:
            raise Malformed(Drop.LENGTH)
        return Header(4, size, length, ttl, protocol, source, destination)
    if version != 6:
        raise Malformed(Drop.VERSION)
    if available < IPV6_HEADER:
        raise Malformed(Drop.SHORT)
    _, payload, protocol, hops, raw_source, raw_destination = _IPV6.unpack_from(packet)
    if IPV6_HEADER + payload > available:
        raise Malformed(Drop.LENGTH)
    return Header(
        6,
        IPV6_HEADER,
        IPV6_HEADER + payload,
        hops,
        protocol,
        int.from_bytes(raw_source, "big"),
        int.from_bytes(raw_destination, "big"),
    )


def may_fragment(packet: Buffer, header: Header) -> bool:
    """Whether routers may cut it up: IPv4 without DF (RFC 791)."""
    return header.version == 4 and not _WORD.unpack_from(packet, 6)[0] & _DONT_FRAGMENT


def is_later_fragment(packet: Buffer, header: Header) -> bool:
    """Whether it is an IPv4 fragment that is not the first one."""
    return header.version == 4 and bool(_WORD.unpack_from(packet, 6)[0] & _OFFSET)


def decrement_ttl(packet: bytearray | memoryview, header: Header) -> None:
    """Take one from TTL or hop limit, in place; an IPv4 checksum is adjusted, so that a wrong one stays wrong.

    ``header`` is the one read from this packet, with a TTL above zero.
    """
    if header.version == 6:
        packet[7] -= 1
        return
    packet[8] -= 1
    # RFC 1624 eqn. 3 for a word that shrinks by 0x100; never 0xffff, which Linux does not write either.
    checksum = _WORD.unpack_from(packet, 10)[0] + 0x100
    _WORD.pack_into(packet, 10, checksum - 0xFFFF if checksum >= 0xFFFF else checksum)


class GsoType(IntEnum):
    """VIRTIO_NET_HDR_GSO_* (linux/virtio_net.h)."""

    NONE = 0
    TCPV4 = 1
    TCPV6 = 4
    UDP = 5
    """UDP_L4: several datagrams, not one to be fragmented."""


GSO_ECN: Final = 0x80
"""Beside TCPV4 and TCPV6: the segment carries CWR."""
NEEDS_CHECKSUM: Final = 1
"""VIRTIO_NET_HDR_F_NEEDS_CSUM: the checksum field holds the sum of the pseudo header only."""
TCP_CHECKSUM_AT, UDP_CHECKSUM_AT = 16, 6


class VirtioHeader(NamedTuple):
    """struct virtio_net_hdr, what precedes each packet on a TUN device with IFF_VNET_HDR."""

    flags: int = 0
    gso_type: int = GsoType.NONE
    header_size: int = 0
    """Of all headers in a packet to be segmented.  A hint: Linux says it may be too small."""
    gso_size: int = 0
    """Payload of one segment."""
    checksum_start: int = 0
    """From where on the checksum counts, from the start of the packet."""
    checksum_offset: int = 0
    """Of the checksum field, from ``checksum_start``."""

    def pack(self) -> bytes:
        """As the device takes it: in the order of the machine, as long as TUNSETVNETLE and VNETBE are not set."""
        return VIRTIO_NET_HDR.pack(*self)


VIRTIO_NET_HDR: Final = struct.Struct("=BBHHHH")
VNET: Final = VIRTIO_NET_HDR.size
"""Octets before the packet in what is read from and written to the device."""
PLAIN: Final = bytes(VNET)
"""The header of a complete, single packet."""


def read_virtio_header(frame: Buffer) -> VirtioHeader:
    """The first ``VNET`` octets; ``Malformed`` if there are fewer."""
    if len(frame) < VNET:
        raise Malformed(Drop.SHORT)
    return VirtioHeader(*VIRTIO_NET_HDR.unpack_from(frame))
