from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from pyflannel.tunnel import icmp
from pyflannel.tunnel.packet import read_header
from tests.support import tunnel_packets as packets
from tests.support.tunnel_packets import Flow, echo_request, internet_checksum, pseudo_header

V4 = Flow()
V6 = Flow(source="fd00::1:2", destination="fd00::2:3")
HERE4, HERE6 = int(IPv4Address("10.1.1.0")), int(IPv6Address("fd00::1:0"))


def checked(message: bytes | None, flow: Flow) -> tuple[int, int, int, bytes]:
    """Type, code, second word and quotation of a message to the sender of ``flow``, after a look at all the rest."""
    assert message is not None
    header = read_header(message)
    assert header.length == len(message)
    assert (header.source, header.destination) == (HERE4 if header.version == 4 else HERE6, int(flow.ends[0]))
    body = message[header.size :]
    if header.version == 4:
        assert header.protocol == packets.ICMP
        assert internet_checksum(message[: header.size]) == 0
        assert internet_checksum(body) == 0
    else:
        assert header.protocol == packets.ICMPV6
        pseudo = pseudo_header(IPv6Address(HERE6), flow.ends[0], packets.ICMPV6, len(body))
        assert internet_checksum(pseudo + body) == 0
    kind, code, _, rest = struct.unpack_from("!BBHI", body)
    return kind, code, rest, body[8:]


def test_messages_of_ipv4() -> None:
    packet = V4.udp(b"x" * 30)
    assert checked(icmp.network_unreachable(packet, HERE4), V4) == (3, 0, 0, packet)
    assert checked(icmp.time_exceeded(packet, HERE4), V4) == (11, 0, 0, packet)
    assert checked(icmp.too_big(packet, HERE4, 1400), V4) == (3, 4, 1400, packet)


def test_messages_of_ipv6() -> None:
    packet = V6.udp(b"x" * 30)
    assert checked(icmp.network_unreachable(packet, HERE6), V6) == (1, 0, 0, packet)
    assert checked(icmp.time_exceeded(packet, HERE6), V6) == (3, 0, 0, packet)
    assert checked(icmp.too_big(packet, HERE6, 1400), V6) == (2, 0, 1400, packet)


def test_no_more_is_quoted_than_the_rfcs_allow() -> None:
    for flow, here, most in ((V4, HERE4, 576), (V6, HERE6, 1280)):
        packet = flow.udp(b"x" * 3000)
        message = icmp.time_exceeded(packet, here)
        assert message is not None
        assert len(message) == most
        assert packet.startswith(checked(message, flow)[3])


def test_padding_behind_the_packet_is_not_quoted() -> None:
    packet = V4.udp(b"x")
    assert checked(icmp.time_exceeded(packet + b"padding", HERE4), V4)[3] == packet


def test_an_echo_request_is_answered() -> None:
    checked(icmp.network_unreachable(echo_request(V4), HERE4), V4)
    checked(icmp.network_unreachable(echo_request(V6), HERE6), V6)


@pytest.mark.parametrize("kind", [3, 4, 5, 11, 12])
def test_nothing_is_said_about_an_error_of_ipv4(kind: int) -> None:
    assert icmp.time_exceeded(packets.icmp(V4, kind), HERE4) is None


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 100, 127, 137])
def test_nothing_is_said_about_an_error_or_redirect_of_ipv6(kind: int) -> None:
    assert icmp.time_exceeded(packets.icmp(V6, kind), HERE6) is None


def test_nothing_is_said_about_icmp_of_unknown_type() -> None:
    assert icmp.time_exceeded(V4.ip(packets.ICMP, b""), HERE4) is None
    assert icmp.time_exceeded(V6.ip(packets.ICMPV6, b""), HERE6) is None


def test_nothing_is_said_about_a_later_fragment() -> None:
    assert icmp.time_exceeded(replace(V4, fragment=0x2005).udp(b"x"), HERE4) is None
    later = V6.ip(44, struct.pack("!BBHI", packets.UDP, 0, 8 << 3 | 1, 1) + b"x" * 8)
    assert icmp.time_exceeded(later, HERE6) is None


def test_a_first_fragment_is_answered() -> None:
    checked(icmp.time_exceeded(replace(V4, fragment=0x2000).udp(b"x"), HERE4), V4)
    first = V6.ip(44, struct.pack("!BBHI", packets.UDP, 0, 1, 1) + b"x" * 8)
    checked(icmp.time_exceeded(first, HERE6), V6)


def test_an_error_behind_extension_headers_is_recognised() -> None:
    options = struct.pack("!BB6x", 60, 0) + struct.pack("!BB14x", packets.ICMPV6, 1)
    assert icmp.time_exceeded(V6.ip(0, options + b"\1\0\0\0"), HERE6) is None
    checked(icmp.time_exceeded(V6.ip(0, options + b"\x80\0\0\0"), HERE6), V6)


def test_extension_headers_that_lead_nowhere_are_not_followed() -> None:
    assert icmp.time_exceeded(V6.ip(0, struct.pack("!BB6x", packets.ICMPV6, 255)), HERE6) is None
    assert icmp.time_exceeded(V6.ip(0, b"\0"), HERE6) is None


@pytest.mark.parametrize("destination", ["224.0.0.1", "255.255.255.255", "240.0.0.1"])
def test_nothing_is_said_about_multicast_and_broadcast(destination: str) -> None:
    assert icmp.network_unreachable(replace(V4, destination=destination).udp(b"x"), HERE4) is None


@pytest.mark.parametrize("source", ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1"])
def test_nothing_is_said_to_what_is_no_single_host(source: str) -> None:
    assert icmp.network_unreachable(replace(V4, source=source).udp(b"x"), HERE4) is None


@pytest.mark.parametrize("source", ["::", "ff02::1"])
def test_nothing_is_said_to_what_is_no_single_ipv6_host(source: str) -> None:
    assert icmp.network_unreachable(replace(V6, source=source).udp(b"x"), HERE6) is None


def test_of_ipv6_multicast_only_what_is_too_big_is_answered() -> None:
    packet = replace(V6, destination="ff02::1").udp(b"x")
    assert icmp.network_unreachable(packet, HERE6) is None
    assert icmp.too_big(packet, HERE6, 1280) is not None


def test_nothing_is_said_without_an_address_of_our_own_or_about_what_is_no_packet() -> None:
    assert icmp.time_exceeded(V4.udp(b"x"), None) is None
    assert icmp.time_exceeded(b"\x45", HERE4) is None
