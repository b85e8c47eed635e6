"""A packet in one line, as tcpdump has it, and the file format that tcpdump and Wireshark read.

Rules of this file
  1. Bytes in, text out.  What is cut short or mangled is shown as far as it goes, and never an error: it came from
     somewhere else.
  2. A line is what people know from tcpdump; what it leaves out (TTL, length) they need here, where a tunnel is.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final

PCAP_HEADER: Final = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 101)
"""Of a file of packets that begin with the IP header (LINKTYPE_RAW, pcap-savefile(5)), times in microseconds."""
_RECORD: Final = struct.Struct("=IIII")
_IPV4: Final = struct.Struct("!BBHHHBBH4s4s")
_IPV6: Final = struct.Struct("!IHBB16s16s")
_TCP: Final = struct.Struct("!HHIIBBH")
_UDP: Final = struct.Struct("!HHH")
_FLAGS: Final = ((0x02, "S"), (0x01, "F"), (0x04, "R"), (0x08, "P"), (0x20, "U"), (0x40, "E"), (0x80, "W"), (0x10, "."))
ICMP, TCP, UDP, ICMP6 = 1, 6, 17, 58
_EXTENSIONS: Final = frozenset((0, 43, 60))
"""Headers of IPv6 that stand before what is carried: hop-by-hop, routing, destination options."""
_FRAGMENT: Final = 44
_NAMES: Final = {2: "IGMP", 4: "IPIP", 41: "IPv6", 47: "GRE", 50: "ESP", 51: "AH", 89: "OSPF", 132: "SCTP"}
_ICMP_WORDS: Final = {
    (ICMP, 0): "echo reply",
    (ICMP, 3): "unreachable",
    (ICMP, 5): "redirect",
    (ICMP, 8): "echo request",
    (ICMP, 11): "time exceeded",
    (ICMP6, 1): "unreachable",
    (ICMP6, 2): "packet too big",
    (ICMP6, 3): "time exceeded",
    (ICMP6, 128): "echo request",
    (ICMP6, 129): "echo reply",
    (ICMP6, 135): "neighbor solicitation",
    (ICMP6, 136): "neighbor advertisement",
}
_ECHOES: Final = frozenset(((ICMP, 0), (ICMP, 8), (ICMP6, 128), (ICMP6, 129)))
_UNREACHABLE: Final = {0: "net", 1: "host", 2: "protocol", 3: "port", 13: "admin prohibited"}


def pcap_record(at: float, packet: bytes) -> bytes:
    """A packet for such a file, seen ``at`` seconds since 1970."""
    microseconds = round(at * 1e6)
    return _RECORD.pack(microseconds // 10**6, microseconds % 10**6, len(packet), len(packet)) + packet


def line(packet: bytes) -> str:
    """What a packet says, from its IP header on."""
    match packet[0] >> 4 if packet else 0:
        case 4 if len(packet) >= _IPV4.size:
            return _ipv4(packet)
        case 6 if len(packet) >= _IPV6.size:
            return _ipv6(packet)
    return f"no IP packet, length {len(packet)}"


def _ipv4(packet: bytes) -> str:
    first, _, total, number, fragment, ttl, protocol, _, source, destination = _IPV4.unpack_from(packet)
    start = (first & 15) * 4
    ends = str(IPv4Address(source)), str(IPv4Address(destination))
    # A large segment on its way to the device may say 0.
    length = total or len(packet)
    offset = (fragment & 0x1FFF) * 8
    tail = f"ttl {ttl}{', DF' if fragment & 0x4000 else ''}, length {length}"
    if fragment & 0x3FFF:
        tail += f", fragment {number} at {offset}"
    payload = packet[start:length]
    return f"IP {_said(protocol, ends, payload if not offset else b'')}, {tail}"


def _ipv6(packet: bytes) -> str:
    _, size, protocol, hops, source, destination = _IPV6.unpack_from(packet)
    ends = str(IPv6Address(source)), str(IPv6Address(destination))
    length = _IPV6.size + size if size else len(packet)
    tail = f"ttl {hops}, length {length}"
    start, end, offset = _IPV6.size, min(length, len(packet)), 0
    while (protocol in _EXTENSIONS or protocol == _FRAGMENT) and start + 8 <= end:
        if protocol == _FRAGMENT:
            offset = int.from_bytes(packet[start + 2 : start + 4], "big") & 0xFFF8
            tail += f", fragment {int.from_bytes(packet[start + 4 : start + 8], 'big')} at {offset}"
        following, longer = packet[start], 0 if protocol == _FRAGMENT else packet[start + 1]
        protocol, start = following, start + 8 + longer * 8
    return f"IP6 {_said(protocol, ends, packet[start:end] if not offset else b'')}, {tail}"


def _said(protocol: int, ends: tuple[str, str], payload: bytes) -> str:
    if protocol == TCP and len(payload) >= _TCP.size:
        return _tcp(ends, payload)
    if protocol == UDP and len(payload) >= _UDP.size:
        source, destination, length = _UDP.unpack_from(payload)
        return f"{ends[0]}.{source} > {ends[1]}.{destination}: UDP, data {max(0, length - 8)}"
    both = " > ".join(ends)
    if protocol in (ICMP, ICMP6) and len(payload) >= 8:
        return f"{both}: {_icmp(protocol, payload)}"
    return f"{both}: {_NAMES.get(protocol, _KNOWN.get(protocol, f'protocol {protocol}'))}"


_KNOWN: Final = {TCP: "TCP", UDP: "UDP", ICMP: "ICMP", ICMP6: "ICMP6"}


def _tcp(ends: tuple[str, str], payload: bytes) -> str:
    source, destination, sequence, acknowledged, offset, flags, window = _TCP.unpack_from(payload)
    data = max(0, len(payload) - (offset >> 4) * 4)
    letters = "".join(letter for bit, letter in _FLAGS if flags & bit) or "none"
    numbers = f"seq {sequence}:{(sequence + data) % 2**32}" if data else f"seq {sequence}"
    if flags & 0x10:
        numbers += f", ack {acknowledged}"
    return f"{ends[0]}.{source} > {ends[1]}.{destination}: Flags [{letters}], {numbers}, win {window}, data {data}"


def _icmp(protocol: int, payload: bytes) -> str:
    kind, code = payload[0], payload[1]
    name = "ICMP" if protocol == ICMP else "ICMP6"
    words = _ICMP_WORDS.get((protocol, kind), f"type {kind}")
    if (protocol, kind) in _ECHOES:
        number, sequence = struct.unpack_from("!HH", payload, 4)
        return f"{name} {words}, id {number}, seq {sequence}"
    if (protocol, kind, code) == (ICMP, 3, 4):
        return f"{name} fragmentation needed, mtu {int.from_bytes(payload[6:8], 'big')}"
    if (protocol, kind) == (ICMP6, 2):
        return f"{name} {words}, mtu {int.from_bytes(payload[4:8], 'big')}"
    if (protocol, kind) == (ICMP, 3):
        return f"{name} {_UNREACHABLE.get(code, f'code {code}')} unreachable"
    return f"{name} {words}{f', code {code}' if code else ''}"
