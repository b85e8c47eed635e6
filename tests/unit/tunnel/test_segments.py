from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

import pytest

from pyflannel.tunnel import batch
from pyflannel.tunnel.packet import Buffer
from pyflannel.tunnel.segments import Run, segment
from tests.support import tunnel_packets as packets
from tests.support.tunnel_packets import ACK, CWR, ECE, FIN, PSH, VNET, Flow, internet_checksum, plain, pseudo_header

V4 = Flow()
V6 = Flow(source="fd00::1:2", destination="fd00::2:3")
FAMILIES = pytest.mark.parametrize("flow", [V4, V6], ids=["ipv4", "ipv6"])
PAYLOAD = bytes(range(256)) * 4


def cut(runs: list[Run]) -> list[bytes]:
    """The single packets."""
    return [payload[at : at + size] for payload, size in runs for at in range(0, len(payload), size)]


@FAMILIES
@pytest.mark.parametrize("size", [100, 101, 512, 1024, 2000])
def test_tcp_is_cut_as_the_senders_kernel_would(flow: Flow, size: int) -> None:
    flow = replace(flow, flags=ACK | PSH | FIN | CWR | ECE)
    assert cut(segment(flow.tcp_super(PAYLOAD, size))) == flow.tcp_segments(PAYLOAD, size)


@FAMILIES
@pytest.mark.parametrize("size", [99, 100, 512, 2000])
def test_udp_is_cut_as_the_senders_kernel_would(flow: Flow, size: int) -> None:
    assert cut(segment(flow.udp_super(PAYLOAD, size))) == flow.udp_segments(PAYLOAD, size)


def test_ip_options_are_in_every_segment() -> None:
    flow = replace(V4, ip_options=b"\1\1\1\0")
    assert cut(segment(flow.tcp_super(PAYLOAD, 300))) == flow.tcp_segments(PAYLOAD, 300)


def test_numbers_wrap_around() -> None:
    flow = replace(V4, identification=0xFFFF, sequence=0xFFFFFF00)
    assert cut(segment(flow.tcp_super(PAYLOAD, 100))) == flow.tcp_segments(PAYLOAD, 100)


def test_a_checksum_that_comes_out_as_zero_is_right_too() -> None:
    for tail in range(0, 0x10000, 2):
        packet = V4.tcp(struct.pack("!H", tail))
        if packet[36:38] == b"\0\0":
            break
    assert cut(segment(V4.tcp_super(packet[52:], 2))) == [packet]


def test_a_udp_checksum_of_zero_is_written_as_all_ones() -> None:
    for tail in range(0x10000):
        packet = V4.udp(struct.pack("!H", tail))
        if packet[26:28] == b"\xff\xff":
            break
    assert cut(segment(V4.udp_super(packet[28:], 2))) == [packet]
    assert cut(segment(V4.partial(packet, packets.UDP))) == [packet]


def test_a_run_keeps_to_the_limits_of_udp_segment() -> None:
    small = segment(V4.tcp_super(bytes(6500), 50))
    assert [(len(payload) // size, size) for payload, size in small] == [(64, 102), (64, 102), (2, 102)]
    large = segment(V4.tcp_super(bytes(65000), 1420))
    assert [(len(payload), size) for payload, size in large] == [(44 * 1472, 1472), (65000 - 44 * 1420 + 2 * 52, 1472)]


@FAMILIES
def test_a_complete_packet_is_passed_on_untouched(flow: Flow) -> None:
    packet = flow.tcp(b"data")
    assert segment(plain(packet)) == [(packet, len(packet))]
    assert segment(memoryview(bytearray(plain(packet)))) == [(packet, len(packet))]


@FAMILIES
def test_a_partial_checksum_is_completed(flow: Flow) -> None:
    for payload in (b"", b"odd", b"even"):
        assert cut(segment(flow.partial(flow.tcp(payload), packets.TCP))) == [flow.tcp(payload)]
        assert cut(segment(flow.partial(flow.udp(payload), packets.UDP))) == [flow.udp(payload)]


def test_extension_headers_are_skipped_where_the_kernel_says_so() -> None:
    inner = V6.tcp(PAYLOAD)[40:]
    packet = V6.ip(0, struct.pack("!BB6x", packets.TCP, 0) + inner)
    virtio = struct.pack("=BBHHHH", 1, 4, 40 + 8 + 32, 500, 48, 16)
    got = cut(segment(virtio + packet))
    assert [one[48 + 32 :] for one in got] == [PAYLOAD[at : at + 500] for at in range(0, len(PAYLOAD), 500)]
    for one in got:
        assert struct.unpack_from("!H", one, 4)[0] == len(one) - 40
        assert internet_checksum(pseudo_header(*V6.ends, packets.TCP, len(one) - 48) + one[48:]) == 0


def changed(frame: bytes, at: int, value: bytes) -> bytes:
    return frame[:at] + value + frame[at + len(value) :]


SUPER4, SUPER6, SUPER_UDP = V4.tcp_super(PAYLOAD, 100), V6.tcp_super(PAYLOAD, 100), V4.udp_super(PAYLOAD, 100)
SENSELESS = {
    "segment size 0": changed(SUPER4, 4, struct.pack("=H", 0)),
    "unknown kind": changed(SUPER4, 1, b"\2"),
    "ufo": changed(SUPER_UDP, 1, b"\3"),
    "ecn alone": changed(SUPER4, 1, b"\x80"),
    "ipv6 said to be ipv4": changed(SUPER6, 1, b"\1"),
    "ipv4 said to be ipv6": changed(SUPER4, 1, b"\4"),
    "tcp said to be udp": changed(SUPER4, 1, b"\5"),
    "version 5": changed(SUPER_UDP, VNET, b"\x55"),
    "header of 16 octets": changed(SUPER4, VNET, b"\x44"),
    "header past the end": V4.tcp_super(b"", 100)[: VNET + 20][:-20] + changed(V4.ip(6, b""), 0, b"\x4f"),
    "longer than it says": SUPER4 + b"x",
    "shorter than it says": SUPER4[:-1],
    "ipv6 longer than it says": SUPER6 + b"x",
    "a fragment": changed(SUPER4, VNET + 6, b"\x20\x00"),
    "checksum elsewhere": changed(SUPER4, 6, struct.pack("=H", 24)),
    "checksum inside the ipv6 header": changed(SUPER6, 6, struct.pack("=H", 39)),
    "another protocol": changed(SUPER4, VNET + 9, b"\x11"),
    "another ipv6 protocol": changed(SUPER6, VNET + 6, b"\x11"),
    "tcp header of 16 octets": changed(SUPER4, VNET + 20 + 12, b"\x40"),
    "no room for a tcp header": struct.pack("=BBHHHH", 1, 1, 40, 100, 20, 16) + V4.ip(6, b"x" * 19),
    "no payload": V4.tcp_super(b"", 100),
    "no udp payload": V4.udp_super(b"", 100),
    "segments larger than a datagram": changed(SUPER4, 4, struct.pack("=H", 65480)),
    "checksum past the end": struct.pack("=BBHHHH", 1, 0, 0, 0, 30, 40) + V4.udp(b"x"),
    "checksum at the very end": struct.pack("=BBHHHH", 1, 0, 0, 0, 20, 8) + V4.udp(b"x"),
    "a far checksum": struct.pack("=BBHHHH", 1, 0, 0, 0, 65535, 65535) + V4.udp(b"x"),
    "no packet": bytes(VNET),
    "nothing": b"",
}


@pytest.mark.parametrize("frame", SENSELESS.values(), ids=list(SENSELESS))
def test_what_cannot_be_done_is_not_attempted(frame: bytes) -> None:
    assert segment(frame) == []


@pytest.mark.parametrize("frame", [SUPER4, SUPER6, SUPER_UDP], ids=["tcp4", "tcp6", "udp"])
def test_no_truncated_super_packet_is_cut(frame: bytes) -> None:
    for size in range(len(frame)):
        assert segment(frame[:size]) == []


def test_a_super_packet_whose_checksum_is_complete_is_cut_too() -> None:
    frame = changed(SUPER4, 0, b"\0") + b""
    assert cut(segment(changed(frame, 6, bytes(4)))) == V4.tcp_segments(PAYLOAD, 100)
    assert cut(segment(changed(changed(SUPER6, 0, b"\0"), 6, bytes(4)))) == V6.tcp_segments(PAYLOAD, 100)


def test_the_batch_offers_this_function() -> None:
    function: Callable[[Buffer], list[Run]] = batch.PYTHON.segment
    assert function is segment
