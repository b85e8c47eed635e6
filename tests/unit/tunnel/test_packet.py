from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from pyflannel.tunnel.packet import (
    PLAIN,
    Drop,
    Malformed,
    VirtioHeader,
    decrement_ttl,
    is_later_fragment,
    may_fragment,
    read_header,
    read_virtio_header,
)
from tests.support.tunnel_packets import Flow, internet_checksum, with_ttl

V4 = Flow()
V6 = Flow(source="fd00::1:2", destination="fd00::2:3")


def reason(packet: bytes) -> Drop:
    with pytest.raises(Malformed) as caught:
        read_header(packet)
    return caught.value.reason


def test_header_of_ipv4() -> None:
    header = read_header(V4.tcp(b"data"))
    assert (header.version, header.size, header.length, header.ttl, header.protocol) == (4, 20, 56, 64, 6)
    assert (IPv4Address(header.source), IPv4Address(header.destination)) == V4.ends


def test_header_of_ipv6() -> None:
    header = read_header(V6.udp(b"data"))
    assert (header.version, header.size, header.length, header.ttl, header.protocol) == (6, 40, 52, 64, 17)
    assert (IPv6Address(header.source), IPv6Address(header.destination)) == V6.ends


def test_options_belong_to_the_header() -> None:
    assert read_header(replace(V4, ip_options=b"\1" * 8).udp(b"")).size == 28


def test_a_header_is_read_from_any_buffer() -> None:
    packet = V4.udp(b"x")
    assert read_header(memoryview(packet)) == read_header(bytearray(packet)) == read_header(packet)


@pytest.mark.parametrize("flow", [V4, V6], ids=["ipv4", "ipv6"])
def test_no_truncation_goes_unnoticed(flow: Flow) -> None:
    packet = flow.tcp(b"payload")
    for size in range(len(packet)):
        assert reason(packet[:size]) in (Drop.SHORT, Drop.LENGTH)


def test_what_is_behind_the_packet_does_not_matter() -> None:
    assert read_header(V4.udp(b"x") + b"padding").length == len(V4.udp(b"x"))


@pytest.mark.parametrize("version", [0, 5, 7, 15])
def test_other_versions_are_none(version: int) -> None:
    assert reason(bytes([version << 4]) + bytes(60)) == Drop.VERSION


@pytest.mark.parametrize("first", [0x40, 0x44])
def test_an_ipv4_header_has_at_least_twenty_octets(first: int) -> None:
    assert reason(bytes([first]) + V4.udp(b"x")[1:]) == Drop.LENGTH


def test_an_ipv4_packet_is_at_least_as_long_as_its_header() -> None:
    packet = bytearray(replace(V4, ip_options=b"\1" * 8).udp(b"x"))
    packet[2:4] = (27).to_bytes(2, "big")
    assert reason(bytes(packet)) == Drop.LENGTH


@pytest.mark.parametrize("ttl", range(1, 256, 51))
@pytest.mark.parametrize("flow", [V4, V6], ids=["ipv4", "ipv6"])
def test_ttl_goes_down_by_one_and_the_checksum_with_it(flow: Flow, ttl: int) -> None:
    packet = bytearray(with_ttl(flow.udp(b"x"), ttl))
    decrement_ttl(packet, read_header(packet))
    assert bytes(packet) == with_ttl(flow.udp(b"x"), ttl - 1)


def test_the_adjusted_checksum_is_right_for_every_identification() -> None:
    for identification in range(0, 0x10000, 7):
        packet = bytearray(replace(V4, identification=identification).ip(17, b""))
        decrement_ttl(packet, read_header(packet))
        assert internet_checksum(bytes(packet[:20])) == 0


def test_a_wrong_checksum_stays_wrong() -> None:
    packet = bytearray(V4.udp(b"x"))
    packet[10] ^= 0x55
    decrement_ttl(packet, read_header(packet))
    assert internet_checksum(bytes(packet[:20])) != 0


def test_fragments() -> None:
    for fragment, cuttable, later in ((0x4000, False, False), (0, True, False), (0x2000, True, False), (5, True, True)):
        packet = replace(V4, fragment=fragment).udp(b"x")
        header = read_header(packet)
        assert (may_fragment(packet, header), is_later_fragment(packet, header)) == (cuttable, later)
    packet = V6.udp(b"x")
    assert not may_fragment(packet, read_header(packet))
    assert not is_later_fragment(packet, read_header(packet))


def test_virtio_header_is_read_as_written() -> None:
    header = VirtioHeader(1, 4, 72, 1400, 40, 16)
    assert read_virtio_header(header.pack() + b"packet") == header
    assert VirtioHeader().pack() == PLAIN


def test_a_frame_without_a_whole_virtio_header_is_malformed() -> None:
    with pytest.raises(Malformed) as caught:
        read_virtio_header(bytes(9))
    assert caught.value.reason == Drop.SHORT
