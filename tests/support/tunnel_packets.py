"""Packets for tests of the tunnel, built octet by octet, slowly, sharing no code with what they test."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 1, 2, 4, 8, 16, 32, 64, 128
TIMESTAMPS = b"\1\1\x08\x0a" + bytes(range(8))
VNET = 10

Address = IPv4Address | IPv6Address


def internet_checksum(data: bytes) -> int:
    """RFC 1071, word by word."""
    number = 0
    for at in range(0, len(data), 2):
        number += data[at] << 8 | (data[at + 1] if at + 1 < len(data) else 0)
        number = (number & 0xFFFF) + (number >> 16)
    return number ^ 0xFFFF


def pseudo_header(source: Address, destination: Address, protocol: int, length: int) -> bytes:
    """What TCP and UDP add to their checksum (RFC 9293 §3.1, RFC 8200 §8.1)."""
    layout = "!HH" if source.version == 4 else "!II"
    middle = (protocol, length) if source.version == 4 else (length, protocol)
    return source.packed + destination.packed + struct.pack(layout, *middle)


@dataclass(frozen=True, slots=True)
class Flow:
    """One direction of a conversation, and what its packets look like."""

    source: str = "10.1.1.2"
    destination: str = "10.1.2.3"
    tos: int = 0
    identification: int = 0x1234
    fragment: int = 0x4000
    ttl: int = 64
    ip_options: bytes = b""
    ports: tuple[int, int] = (40000, 5201)
    sequence: int = 1000
    acknowledgement: int = 77
    flags: int = ACK
    window: int = 512
    urgent: int = 0
    tcp_options: bytes = TIMESTAMPS

    @property
    def ends(self) -> tuple[Address, Address]:
        """As addresses."""
        return ip_address(self.source), ip_address(self.destination)

    @property
    def ip_size(self) -> int:
        """Of the IP header."""
        return 20 + len(self.ip_options) if self.ends[0].version == 4 else 40

    @property
    def tcp_headers(self) -> int:
        """Of all headers of a TCP segment."""
        return self.ip_size + 20 + len(self.tcp_options)

    def ip(self, protocol: int, payload: bytes, number: int = 0) -> bytes:
        """An IP packet."""
        source, destination = self.ends
        if source.version == 6:
            head = struct.pack("!IHBB", 6 << 28 | self.tos << 20, len(payload), protocol, self.ttl)
            return head + source.packed + destination.packed + payload
        first = 0x40 | self.ip_size // 4, self.tos, self.ip_size + len(payload)
        second = (self.identification + number) & 0xFFFF, self.fragment, self.ttl, protocol
        ends = source.packed + destination.packed + self.ip_options
        head = struct.pack("!BBHHHBBH", *first, *second, 0) + ends
        return struct.pack("!BBHHHBBH", *first, *second, internet_checksum(head)) + ends + payload

    def tcp(self, payload: bytes, number: int = 0) -> bytes:
        """A TCP segment; ``number`` is added to the identification, nothing to the sequence number."""
        size = 20 + len(self.tcp_options)
        fields = [*self.ports, self.sequence & 0xFFFFFFFF, self.acknowledgement, size // 4 << 4, self.flags]
        fields += [self.window, 0, self.urgent]
        head = struct.pack("!HHIIBBHHH", *fields) + self.tcp_options
        pseudo = pseudo_header(*self.ends, TCP, size + len(payload))
        fields[7] = internet_checksum(pseudo + head + payload)
        return self.ip(TCP, struct.pack("!HHIIBBHHH", *fields) + self.tcp_options + payload, number)

    def udp(self, payload: bytes, number: int = 0) -> bytes:
        """A UDP datagram."""
        length = 8 + len(payload)
        head = struct.pack("!HHHH", *self.ports, length, 0)
        value = internet_checksum(pseudo_header(*self.ends, UDP, length) + head + payload) or 0xFFFF
        return self.ip(UDP, struct.pack("!HHHH", *self.ports, length, value) + payload, number)

    def tcp_segments(self, payload: bytes, size: int) -> list[bytes]:
        """What the sender's kernel makes of one big write with these flags (Linux ``tcp_gso_segment``)."""
        starts = range(0, len(payload), size)
        segments = []
        for number, at in enumerate(starts):
            flags = self.flags & ~(0 if at == starts[-1] else FIN | PSH) & ~(CWR if number else 0)
            one = replace(self, sequence=self.sequence + at, flags=flags)
            segments.append(one.tcp(payload[at : at + size], number))
        return segments

    def udp_segments(self, payload: bytes, size: int) -> list[bytes]:
        """What it makes of one write to a UDP socket with UDP_SEGMENT."""
        return [self.udp(payload[at : at + size], number) for number, at in enumerate(range(0, len(payload), size))]

    def tcp_super(self, payload: bytes, size: int) -> bytes:
        """The same as a TUN device hands it over: with a virtio header, the checksum left partial."""
        kind = 1 if self.ends[0].version == 4 else 4
        ecn = 0x80 if self.flags & CWR else 0
        return self._super(self.tcp(payload), TCP, 16, kind | ecn, size, self.tcp_headers)

    def udp_super(self, payload: bytes, size: int) -> bytes:
        """The same for UDP."""
        return self._super(self.udp(payload), UDP, 6, 5, size, self.ip_size + 8)

    def partial(self, packet: bytes, protocol: int) -> bytes:
        """One whole packet whose checksum is left to us."""
        return self._super(packet, protocol, 16 if protocol == TCP else 6, 0, 0, 0)

    def _super(self, packet: bytes, protocol: int, offset: int, kind: int, size: int, headers: int) -> bytes:
        pseudo = pseudo_header(*self.ends, protocol, len(packet) - self.ip_size)
        at = self.ip_size + offset
        partial = (internet_checksum(pseudo) ^ 0xFFFF).to_bytes(2, "big")
        virtio = struct.pack("=BBHHHH", 1, kind, headers, size, self.ip_size, offset)
        return virtio + packet[:at] + partial + packet[at + 2 :]


def plain(packet: bytes) -> bytes:
    """A frame with nothing left to do."""
    return bytes(VNET) + packet


def echo_request(flow: Flow, payload: bytes = b"ping") -> bytes:
    """ICMP or ICMPv6."""
    return icmp(flow, 8 if flow.ends[0].version == 4 else 128, payload=payload)


def icmp(flow: Flow, kind: int, code: int = 0, payload: bytes = b"") -> bytes:
    """Any message of ICMP or ICMPv6, with a body of zeros and ``payload``."""
    protocol = ICMP if flow.ends[0].version == 4 else ICMPV6
    body = struct.pack("!BBHI", kind, code, 0, 0) + payload
    pseudo = b"" if protocol == ICMP else pseudo_header(*flow.ends, ICMPV6, len(body))
    value = internet_checksum(pseudo + body)
    return flow.ip(protocol, struct.pack("!BBHI", kind, code, value, 0) + payload)


def with_ttl(packet: bytes, ttl: int) -> bytes:
    """The packet with another TTL or hop limit, its header checksum made anew."""
    changed = bytearray(packet)
    if packet[0] >> 4 == 6:
        changed[7] = ttl
        return bytes(changed)
    changed[8] = ttl
    changed[10:12] = bytes(2)
    changed[10:12] = internet_checksum(bytes(changed[: (packet[0] & 15) * 4])).to_bytes(2, "big")
    return bytes(changed)
