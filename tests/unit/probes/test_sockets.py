"""On the loopback device, which every machine has."""

from __future__ import annotations

import errno
import select
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from pyflannel.probes import echo
from pyflannel.probes.sockets import Port
from tests.support.udp_ports import free_udp_port, without_ipv6

IPV6 = pytest.mark.skipif(without_ipv6(), reason="no IPv6 on the loopback device")


@pytest.fixture(params=[4, pytest.param(6, marks=IPV6)])
def port(request: pytest.FixtureRequest) -> Iterator[Port]:
    made = Port(request.param, free_udp_port())
    yield made
    made.close()


def own(port: Port) -> IPv4Address | IPv6Address:
    return ip_address("127.0.0.1") if port.version == 4 else ip_address("::1")


def test_a_datagram_arrives_with_the_addresses_of_its_header(port: Port) -> None:
    source = ip_address("127.0.0.3") if port.version == 4 else own(port)
    port.send(b"hello", own(port), source)
    select.select([port], [], [], 10)
    (received,) = port.receive(10)
    assert (received.data, received.source, received.destination) == (b"hello", source, own(port))
    assert port.receive(10) == []


def test_the_kernel_chooses_the_source_if_nobody_else_does(port: Port) -> None:
    port.send(b"hello", own(port), None)
    select.select([port], [], [], 10)
    assert port.receive(10)[0].source == own(port)


def test_no_more_is_read_than_asked_for(port: Port) -> None:
    for _ in range(3):
        port.send(b"hello", own(port), None)
    select.select([port], [], [], 10)
    assert len(port.receive(2)) == 2
    assert len(port.receive(2)) == 1


def test_what_is_too_large_for_the_device_is_refused_and_not_cut(port: Port) -> None:
    with pytest.raises(OSError, match="Message too long") as caught:
        port.send(bytes(65_530), own(port), None)
    assert caught.value.errno == errno.EMSGSIZE


def test_an_address_that_is_not_ours_is_no_source(port: Port) -> None:
    stranger = ip_address("192.0.2.1") if port.version == 4 else ip_address("2001:db8::1")
    with pytest.raises(OSError):  # noqa: PT011 - kernels differ in which
        port.send(b"hello", own(port), stranger)


def test_a_port_is_had_by_one_only(port: Port) -> None:
    with pytest.raises(OSError, match="in use"):
        Port(port.version, port.number)


@pytest.mark.needs("root")
@pytest.mark.parametrize(("version", "address"), [(4, "127.0.0.1"), pytest.param(6, "::1", marks=IPV6)])
def test_echo_is_answered_by_the_kernel_and_nothing_else_is_heard(version: int, address: str) -> None:
    port = Port(version, None)
    try:
        port.send(echo.request(version, 99, 1, 2, 200), ip_address(address), None)
        select.select([port], [], [], 10)
        answers = [received for received in port.receive(10) if echo.reply(version, received.data) == 99]
        assert [received.source for received in answers] == [ip_address(address)]
    finally:
        port.close()
