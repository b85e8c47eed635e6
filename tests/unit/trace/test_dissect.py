"""Packets in one line each, and the file other programs read them from."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflannel.trace.dissect import PCAP_HEADER, line, pcap_record

ENDS = "10.5.1.2", "10.5.9.2"
ENDS6 = "fd00::1:2", "fd00::9:2"


def ipv4(protocol: int, payload: bytes, *, fragment: int = 0x4000, total: int | None = None) -> bytes:
    size = 20 + len(payload) if total is None else total
    head = struct.pack("!BBHHHBBH", 0x45, 0, size, 77, fragment, 63, protocol, 0)
    return head + b"".join(ip_address(end).packed for end in ENDS) + payload


def ipv6(protocol: int, payload: bytes) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 62)
    return head + b"".join(ip_address(end).packed for end in ENDS6) + payload


def tcp(flags: int, data: bytes = b"") -> bytes:
    return struct.pack("!HHIIBBHHH", 40000, 80, 1000, 2000, 5 << 4, flags, 64240, 0, 0) + data


def icmp(kind: int, code: int = 0, rest: bytes = struct.pack("!HH", 9, 1)) -> bytes:
    return bytes([kind, code, 0, 0]) + rest + bytes(56)


@pytest.mark.parametrize(
    ("packet", "text"),
    [
        (ipv4(1, icmp(8)), "IP 10.5.1.2 > 10.5.9.2: ICMP echo request, id 9, seq 1, ttl 63, DF, length 84"),
        (ipv4(1, icmp(0), fragment=0), "IP 10.5.1.2 > 10.5.9.2: ICMP echo reply, id 9, seq 1, ttl 63, length 84"),
        (
            ipv4(1, icmp(3, 4, struct.pack("!HH", 0, 1450))),
            "IP 10.5.1.2 > 10.5.9.2: ICMP fragmentation needed, mtu 1450, ttl 63, DF, length 84",
        ),
        (ipv4(1, icmp(3, 3)), "IP 10.5.1.2 > 10.5.9.2: ICMP port unreachable, ttl 63, DF, length 84"),
        (ipv4(1, icmp(3, 9)), "IP 10.5.1.2 > 10.5.9.2: ICMP code 9 unreachable, ttl 63, DF, length 84"),
        (ipv4(1, icmp(11)), "IP 10.5.1.2 > 10.5.9.2: ICMP time exceeded, ttl 63, DF, length 84"),
        (ipv4(1, icmp(42, 1)), "IP 10.5.1.2 > 10.5.9.2: ICMP type 42, code 1, ttl 63, DF, length 84"),
        (
            ipv4(6, tcp(0x02)),
            "IP 10.5.1.2.40000 > 10.5.9.2.80: Flags [S], seq 1000, win 64240, data 0, ttl 63, DF, length 40",
        ),
        (
            ipv4(6, tcp(0x18, b"hello")),
            "IP 10.5.1.2.40000 > 10.5.9.2.80: Flags [P.], seq 1000:1005, ack 2000, win 64240, data 5, "
            "ttl 63, DF, length 45",
        ),
        (
            ipv4(6, tcp(0)),
            "IP 10.5.1.2.40000 > 10.5.9.2.80: Flags [none], seq 1000, win 64240, data 0, ttl 63, DF, length 40",
        ),
        (
            ipv4(17, struct.pack("!HHHH", 5353, 53, 20, 0) + bytes(12)),
            "IP 10.5.1.2.5353 > 10.5.9.2.53: UDP, data 12, ttl 63, DF, length 40",
        ),
        (ipv4(47, bytes(4)), "IP 10.5.1.2 > 10.5.9.2: GRE, ttl 63, DF, length 24"),
        (ipv4(200, bytes(4)), "IP 10.5.1.2 > 10.5.9.2: protocol 200, ttl 63, DF, length 24"),
        (ipv4(17, b"", total=28), "IP 10.5.1.2 > 10.5.9.2: UDP, ttl 63, DF, length 28"),
        (
            ipv4(17, bytes(16), fragment=0x2000 | 3),
            "IP 10.5.1.2 > 10.5.9.2: UDP, ttl 63, length 36, fragment 77 at 24",
        ),
        (
            ipv6(58, icmp(128)),
            "IP6 fd00::1:2 > fd00::9:2: ICMP6 echo request, id 9, seq 1, ttl 62, length 104",
        ),
        (
            ipv6(58, icmp(2, 0, struct.pack("!I", 1280))),
            "IP6 fd00::1:2 > fd00::9:2: ICMP6 packet too big, mtu 1280, ttl 62, length 104",
        ),
        (
            ipv6(0, bytes([17, 0]) + bytes(6) + struct.pack("!HHHH", 1, 2, 8, 0)),
            "IP6 fd00::1:2.1 > fd00::9:2.2: UDP, data 0, ttl 62, length 56",
        ),
        (
            ipv6(44, struct.pack("!BBHI", 17, 0, 8 << 3, 5) + bytes(8)),
            "IP6 fd00::1:2 > fd00::9:2: UDP, ttl 62, length 56, fragment 5 at 64",
        ),
        (b"", "no IP packet, length 0"),
        (b"\x45" + bytes(5), "no IP packet, length 6"),
    ],
)
def test_a_packet_reads_as_people_know_it_from_tcpdump(packet: bytes, text: str) -> None:
    assert line(packet) == text


def test_a_segment_that_the_device_will_cut_may_say_no_length() -> None:
    assert line(ipv4(6, tcp(0x10, bytes(3000)), total=0)).endswith("length 3040")


@given(st.binary(max_size=120))
def test_any_bytes_read_as_one_line(packet: bytes) -> None:
    assert line(packet).isprintable()


@given(st.binary(max_size=80), st.sampled_from([0x45, 0x4F, 0x40, 0x60]))
def test_any_mangled_packet_reads_as_one_line(rest: bytes, first: int) -> None:
    assert line(bytes([first]) + rest).isprintable()


def test_a_file_says_what_is_in_it() -> None:
    magic, major, minor, _, _, longest, kind = struct.unpack("=IHHiIII", PCAP_HEADER)
    assert (magic, major, minor, kind) == (0xA1B2C3D4, 2, 4, 101)
    packet = ipv4(1, icmp(8))
    record = pcap_record(1700000000.9999999, packet)
    assert struct.unpack_from("=IIII", record) == (1700000001, 0, 84, 84)
    assert record[16:] == packet
    assert longest >= 1 << 18
