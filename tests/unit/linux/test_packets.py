"""Watching a device: only the packets asked for, in both directions, and all of them counted."""

from __future__ import annotations

import select
from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from pyflannel.linux.eventfilter import ACCEPT, AND, DROP, JUMP_IF_EQUAL, LOAD_WORD, RETURN, Program
from pyflannel.linux.netns import inside
from pyflannel.linux.packets import LOAD_HALF, LOAD_PROTOCOL, Seen, Watch, program
from pyflannel.state import IPNetwork
from tests.support.namespaces import Namespace, veth

NETS: tuple[IPNetwork, ...] = (ip_network("10.5.9.0/24"), ip_network("fd00:9::/64"))


def judged(steps: Program, protocol: int, packet: bytes) -> bool:
    """Run the program as the kernel does."""
    at, value = 0, 0
    while True:
        code, constant, if_true, if_false = steps[at]
        at += 1
        match code:
            case 0x20:
                assert code == LOAD_WORD
                value = int.from_bytes(packet[constant : constant + 4], "big")
            case 0x28:
                assert (code, constant) == (LOAD_HALF, LOAD_PROTOCOL)
                value = protocol
            case 0x54:
                assert code == AND
                value &= constant
            case 0x15:
                assert code == JUMP_IF_EQUAL
                at += if_true if value == constant else if_false
            case _:
                assert code == RETURN
                return {ACCEPT: True, DROP: False}[constant]


def ipv4(source: str, destination: str) -> bytes:
    return bytes(12) + b"".join(ip_network(end).network_address.packed for end in (source, destination))


def ipv6(source: str, destination: str) -> bytes:
    return bytes(8) + b"".join(ip_network(end).network_address.packed for end in (source, destination))


@pytest.mark.parametrize(
    ("source", "destination", "passes"),
    [
        ("10.5.9.1", "192.0.2.1", True),
        ("192.0.2.1", "10.5.9.255", True),
        ("10.5.8.255", "10.5.10.0", False),
        ("fd00:9::1", "2001:db8::1", True),
        ("2001:db8::1", "fd00:9::ffff:0:1", True),
        ("fd00:9:0:1::1", "2001:db8::1", False),
    ],
)
def test_the_program_passes_what_is_from_or_to_a_network(source: str, destination: str, passes: bool) -> None:
    six = ":" in source
    packet = ipv6(source, destination) if six else ipv4(source, destination)
    assert judged(program(NETS), 0x86DD if six else 0x0800, packet) is passes
    # The same bytes as something else are somebody else's.
    assert not judged(program(NETS), 0x0806, packet)
    assert not judged(program(()), 0x0800, packet)


def test_a_whole_network_passes_whatever_there_is_of_it() -> None:
    everything = program((ip_network("0.0.0.0/0"),))
    assert judged(everything, 0x0800, ipv4("192.0.2.1", "192.0.2.2"))
    assert not judged(everything, 0x86DD, ipv6("fd00::1", "fd00::2"))


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Namespace, Namespace]]:
    with Namespace("here") as here, Namespace("far") as far:
        veth(here, "eth0", far, "eth0")
        here.run("ip address add 10.5.9.1/24 dev eth0")
        far.run("ip address add 10.5.9.2/24 dev eth0")
        far.run("ip address add 10.5.8.2/24 dev eth0")
        here.run("ip route add 10.5.8.0/24 dev eth0")
        yield here, far


def watched(space: Namespace, network: str, deed: str) -> tuple[list[Seen], int]:
    with inside(str(space.path), lambda: Watch("eth0", (ip_network(network),))) as watch:
        space.run(deed)
        found: list[Seen] = []
        while select.select([watch], [], [], 0)[0]:
            seen = watch.take()
            assert seen is not None
            found.append(seen)
        assert watch.take() is None
        return found, watch.dropped()


@pytest.mark.needs("root", "netns", "veth")
def test_packets_are_seen_both_ways_from_their_ip_header_on(pair: tuple[Namespace, Namespace]) -> None:
    found, dropped = watched(pair[0], "10.5.9.2/32", "ping -c 2 -i 0.01 10.5.9.2")
    assert [seen.outgoing for seen in found] == [True, False, True, False]
    assert {seen.data[0] >> 4 for seen in found} == {4}
    assert [len(seen.data) for seen in found] == [84] * 4
    assert sorted(seen.at for seen in found) == [seen.at for seen in found]
    assert found[0].at > 1_700_000_000
    assert dropped == 0


@pytest.mark.needs("root", "netns", "veth")
def test_packets_of_others_are_not_seen(pair: tuple[Namespace, Namespace]) -> None:
    assert watched(pair[0], "10.5.8.0/24", "ping -c 1 10.5.9.2") == ([], 0)


@pytest.mark.needs("root", "netns", "veth")
def test_what_there_was_no_room_for_is_counted(pair: tuple[Namespace, Namespace]) -> None:
    here, _ = pair
    with inside(str(here.path), lambda: Watch("eth0", (ip_network("10.5.9.2/32"),))) as watch:
        here.run("ping -f -c 6000 -s 2000 10.5.9.2")
        dropped = watch.dropped()
        assert dropped > 0
        assert watch.dropped() == dropped


@pytest.mark.needs("root", "netns", "veth")
def test_a_device_that_is_not_there_is_an_error(pair: tuple[Namespace, Namespace]) -> None:
    with pytest.raises(OSError, match="No such device"):
        inside(str(pair[0].path), lambda: Watch("eth9", NETS))
