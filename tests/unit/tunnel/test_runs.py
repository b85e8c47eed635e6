from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from pyflannel.tunnel.runs import coalesce
from pyflannel.tunnel.segments import segment
from tests.support import tunnel_packets as packets
from tests.support.tunnel_packets import ACK, CWR, ECE, FIN, PSH, RST, SYN, URG, VNET, Flow, plain

V4 = Flow()
V6 = Flow(source="fd00::1:2", destination="fd00::2:3")
FAMILIES = pytest.mark.parametrize("flow", [V4, V6], ids=["ipv4", "ipv6"])
SIZE = 100
PAYLOAD = bytes(range(250))


def merged(*segments: bytes) -> list[bytes]:
    """What becomes of these packets, the first of which sets the size."""
    return [bytes(frame) for frame in coalesce(b"".join(segments), len(segments[0]))]


def singly(*segments: bytes) -> list[bytes]:
    return [plain(one) for one in segments]


def three(flow: Flow) -> list[bytes]:
    return flow.tcp_segments(PAYLOAD + bytes(50), SIZE)


@FAMILIES
@pytest.mark.parametrize("length", [101, 200, 250, 299])
def test_segments_of_one_write_become_that_write(flow: Flow, length: int) -> None:
    payload = bytes(range(length % 256)) + bytes(length - length % 256)
    assert merged(*flow.tcp_segments(payload, SIZE)) == [flow.tcp_super(payload, SIZE)]


@FAMILIES
def test_what_was_put_together_comes_apart_the_same(flow: Flow) -> None:
    segments = replace(flow, identification=0xFFFF, sequence=0xFFFFFFF0, flags=ACK | PSH | ECE).tcp_segments(
        PAYLOAD, 101
    )
    (frame,) = coalesce(b"".join(segments), len(segments[0]))
    assert segment(frame) == [(b"".join(segments), len(segments[0]))]


def test_a_single_datagram_is_passed_on() -> None:
    packet = V4.tcp(b"data")
    assert coalesce(packet, 0) == [bytearray(plain(packet))]
    assert coalesce(packet, len(packet)) == [bytearray(plain(packet))]
    assert coalesce(packet, 1000) == [bytearray(plain(packet))]
    assert coalesce(b"", 0) == coalesce(b"", 10) == []


def test_any_buffer_will_do() -> None:
    packet = V4.tcp(b"data")
    assert coalesce(memoryview(bytearray(packet)), 0) == coalesce(packet, 0)


def test_push_ends_a_run() -> None:
    first, second = V4.tcp(PAYLOAD[:SIZE]), replace(V4, sequence=1100, flags=ACK | PSH).tcp(PAYLOAD[100:200], 1)
    third = replace(V4, sequence=1200).tcp(bytes(SIZE), 2)
    assert merged(first, second, third) == [replace(V4, flags=ACK | PSH).tcp_super(PAYLOAD[:200], SIZE), plain(third)]


def test_a_first_segment_with_push_stays_alone() -> None:
    segments = three(V4)
    segments[0] = replace(V4, flags=ACK | PSH).tcp(PAYLOAD[:SIZE])
    rest = replace(V4, sequence=1100, identification=V4.identification + 1).tcp_super((PAYLOAD + bytes(50))[100:], SIZE)
    assert merged(*segments) == [plain(segments[0]), rest]


@pytest.mark.parametrize("flag", [FIN, SYN, RST, URG, CWR])
def test_segments_with_a_special_flag_stay_alone(flag: int) -> None:
    one, two, _ = three(V4)
    special = replace(V4, sequence=1100, flags=ACK | flag).tcp(PAYLOAD[100:200], 1)
    assert merged(one, special) == singly(one, special)
    first = replace(V4, flags=ACK | flag).tcp(PAYLOAD[:SIZE])
    assert merged(first, two) == singly(first, two)


def test_without_ack_there_is_no_run() -> None:
    segments = three(replace(V4, flags=0))
    assert merged(*segments) == singly(*segments)


DIFFERENT = {
    "another sender": replace(V4, source="10.1.1.3"),
    "another receiver": replace(V4, destination="10.1.2.4"),
    "another port": replace(V4, ports=(40001, 5201)),
    "congestion experienced": replace(V4, tos=3),
    "another ttl": replace(V4, ttl=63),
    "may be fragmented": replace(V4, fragment=0),
    "a fragment": replace(V4, fragment=0x2000),
    "another acknowledgement": replace(V4, acknowledgement=78),
    "another window": replace(V4, window=513),
    "another flag": replace(V4, flags=ACK | ECE),
    "another urgent pointer": replace(V4, urgent=1),
    "other options": replace(V4, tcp_options=bytes(12)),
    "a gap": replace(V4, sequence=1001),
    "a repetition": replace(V4, sequence=900),
    "another identification": replace(V4, identification=V4.identification + 1),
}


@pytest.mark.parametrize("other", DIFFERENT.values(), ids=list(DIFFERENT))
def test_what_differs_is_not_put_together(other: Flow) -> None:
    one = V4.tcp(PAYLOAD[:SIZE])
    two = replace(other, sequence=other.sequence + SIZE).tcp(PAYLOAD[100:200], 1)
    assert merged(one, two) == singly(one, two)


@pytest.mark.parametrize(
    "other",
    [replace(V6, tos=3), replace(V6, ttl=63), replace(V6, source="fd00::1:3"), replace(V6, destination="fd00::2:4")],
)
def test_what_differs_in_ipv6_is_not_put_together(other: Flow) -> None:
    one, two = V6.tcp(PAYLOAD[:SIZE]), replace(other, sequence=1100).tcp(PAYLOAD[100:200])
    assert merged(one, two) == singly(one, two)


LONERS = {
    "udp": V4.udp_segments(PAYLOAD, SIZE),
    "ip options": three(replace(V4, ip_options=b"\1" * 4)),
    "fragments": three(replace(V4, fragment=0x2000)),
    "ipv6 extension headers": [V6.ip(0, struct.pack("!BB6x", 6, 0) + one[40:]) for one in three(V6)],
    "no payload": [V4.tcp(b""), V4.tcp(b"", 1)],
    "garbage": [b"\xff" * 80, b"\x45" * 80],
    "ipv6 garbage": [b"\x60" * 80, b"\x60" * 80],
    "too short for tcp": [V4.ip(6, b"x" * 19), V4.ip(6, b"x" * 19, 1)],
}


@pytest.mark.parametrize("segments", LONERS.values(), ids=list(LONERS))
def test_some_packets_are_never_put_together(segments: list[bytes]) -> None:
    assert merged(*segments) == singly(*segments)


def test_a_packet_shorter_than_its_datagram_stays_alone() -> None:
    segments = [one + b"padding" for one in three(V4)]
    assert merged(*segments) == singly(*segments)


def test_a_tcp_header_of_impossible_size_is_no_head() -> None:
    for size in (0x40, 0xF0):
        segments = [bytearray(one) for one in three(replace(V4, tcp_options=b""))]
        segments[0][32] = size
        short = [bytes(segments[0][:70]), bytes(segments[1][:70])]
        assert merged(*short) == singly(*short)


def test_a_wrong_ip_checksum_is_not_made_right() -> None:
    for broken in (0, 1):
        segments = [bytearray(one) for one in three(V4)[:2]]
        segments[broken][10] ^= 1
        assert merged(*map(bytes, segments)) == singly(*map(bytes, segments))


@FAMILIES
@pytest.mark.parametrize("broken", [0, 1, 2])
def test_a_wrong_tcp_checksum_is_not_made_right(flow: Flow, broken: int) -> None:
    segments = [bytearray(one) for one in three(flow)]
    segments[broken][-1] ^= 1
    assert merged(*map(bytes, segments)) == singly(*map(bytes, segments))


def test_a_run_fits_into_one_ip_packet() -> None:
    segments = V4.tcp_segments(bytes(70000), 1000)
    frames = merged(*segments)
    assert [len(frame) - VNET for frame in frames] == [52 + 65000, 52 + 5000]
    close = V4.tcp_segments(bytes(65535 - 52), 1000)
    assert [len(frame) - VNET for frame in merged(*close)] == [65535]
    over = V4.tcp_segments(bytes(65535 - 51), 1000)
    assert [len(frame) - VNET for frame in merged(*over)] == [52 + 65000, 52 + 484]


def test_datagrams_larger_than_any_packet_do_no_harm() -> None:
    data = V4.tcp(bytes(65000)) + bytes(140000)
    assert [len(frame) for frame in coalesce(data, 70000)] == [VNET + 70000, VNET + 70000, VNET + len(data) - 140000]


def test_runs_of_several_flows_are_found_in_order() -> None:
    other = replace(V4, ports=(1, 2))
    frames = merged(*three(V4), *three(other))
    assert frames == [V4.tcp_super(PAYLOAD + bytes(50), SIZE), other.tcp_super(PAYLOAD + bytes(50), SIZE)]


def test_a_last_datagram_without_payload_stays_alone() -> None:
    segments = three(V4)
    acknowledgement = replace(V4, sequence=1300).tcp(b"", 3)
    assert merged(*segments, acknowledgement) == [V4.tcp_super(PAYLOAD + bytes(50), SIZE), plain(acknowledgement)]
    assert packets.ACK == ACK
