"""What the program lets through, run by a small machine of our own.  For the kernel see tests/netns/test_events."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflannel.linux import eventfilter as ef
from pyflannel.linux.addresses import IFADDRMSG, RTM_DELADDR, RTM_NEWADDR
from pyflannel.linux.eventfilter import Instruction, Interest, program
from pyflannel.linux.links import IFINFOMSG, IFLA_IFNAME, RTM_DELLINK, RTM_NEWLINK
from pyflannel.linux.neighbours import AF_BRIDGE, NDMSG, RTM_DELNEIGH, RTM_NEWNEIGH
from pyflannel.linux.netlink import ATTRIBUTE, HEADER, INTEGER, NLM_F_APPEND, NLM_F_REPLACE, attribute
from pyflannel.linux.routes import RTA_DST, RTA_OIF, RTM_DELROUTE, RTM_NEWROUTE, RTMSG
from pyflannel.state import PROTO_BOOT, PROTO_FLANNEL, PROTO_KERNEL

OURS, BELOW, ELSE = 7, 300, 70000
INTEREST = Interest(
    frozenset((OURS, 8)), frozenset((BELOW,)), frozenset(("flannel.1", "eth0")), frozenset((4074914328,))
)


def passes(steps: Iterable[Instruction], data: bytes) -> bool:
    """Run a classic BPF program, as Documentation/networking/filter.rst in the kernel's source has it."""
    code, a, x, at = tuple(steps), 0, 0, 0
    sizes = {0x20: 4, 0x28: 2, 0x30: 1, 0x40: 4, 0x48: 2, 0x50: 1}
    while True:
        opcode, constant, if_true, if_false = code[at]
        at += 1
        if opcode == ef.LOAD_WORD and constant == ef.FIND_ATTRIBUTE:
            a = find(data, a, x)
        elif opcode in sizes:
            start = constant + (x if opcode >= 0x40 else 0)
            if start + sizes[opcode] > len(data):
                return False
            a = int.from_bytes(data[start : start + sizes[opcode]], "big")
        elif opcode == ef.LOAD:
            a = constant
        elif opcode == ef.LOAD_X:
            x = constant
        elif opcode == ef.A_TO_X:
            x = a
        elif opcode == ef.AND:
            a &= constant
        elif opcode == ef.JUMP:
            at += constant
        elif opcode == ef.JUMP_IF_EQUAL:
            at += if_true if a == constant else if_false
        elif opcode == ef.JUMP_IF_SET:
            at += if_true if a & constant else if_false
        else:
            assert opcode == ef.RETURN
            return constant != 0


def find(data: bytes, start: int, kind: int) -> int:
    while start + 4 <= len(data):
        length, found = ATTRIBUTE.unpack_from(data, start)
        if length < 4 or start + length > len(data):
            return 0
        if found == kind:
            return start
        start += (length + 3) & ~3
    return 0


def message(kind: int, body: bytes, flags: int = 0, port: int = 0) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, flags, 0, port) + body


def link(kind: int, index: int, name: str | None = "veth1", family: int = 0, port: int = 0) -> bytes:
    attributes = b"" if name is None else attribute(IFLA_IFNAME, name.encode() + b"\0")
    return message(kind, IFINFOMSG.pack(family, 1, index, 0, 0) + attributes + attribute(4, bytes(20)), port=port)


def address(kind: int, index: int, port: int = 0) -> bytes:
    return message(kind, IFADDRMSG.pack(2, 24, 0, 0, index) + attribute(1, bytes(4)), port=port)


def neighbour(kind: int, index: int, family: int = 2, port: int = 0) -> bytes:
    return message(kind, NDMSG.pack(family, index, 0x80, 0, 0) + attribute(1, bytes(4)), port=port)


def route(
    kind: int, index: int | None, flags: int = 0, table: int = 254, port: int = 0, protocol: int = PROTO_BOOT
) -> bytes:
    out = b"" if index is None else attribute(RTA_OIF, INTEGER.pack(index))
    body = RTMSG.pack(2, 24, 0, 0, table, protocol, 0, 1, 0) + attribute(RTA_DST, bytes(4)) + out
    return message(kind, body, flags, port)


def heard(data: bytes) -> bool:
    return passes(program(INTEREST), data)


@pytest.mark.parametrize("kind", [RTM_NEWLINK, RTM_DELLINK])
def test_links_count_by_index_and_by_name(kind: int) -> None:
    assert heard(link(kind, OURS))
    assert heard(link(kind, BELOW))
    assert heard(link(kind, ELSE, "flannel.1"))
    assert heard(link(kind, ELSE, "eth0"))
    assert heard(link(kind, ELSE, name=None))
    assert not heard(link(kind, ELSE))
    assert not heard(link(kind, OURS, family=AF_BRIDGE))


@pytest.mark.parametrize("kind", [RTM_NEWADDR, RTM_DELADDR])
def test_addresses_count_on_our_devices_and_below(kind: int) -> None:
    assert heard(address(kind, OURS))
    assert heard(address(kind, BELOW))
    assert not heard(address(kind, ELSE))


@pytest.mark.parametrize("kind", [RTM_NEWNEIGH, RTM_DELNEIGH])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, AF_BRIDGE])
def test_neighbours_and_forwarding_entries_count_on_our_devices_alone(kind: int, family: int) -> None:
    assert heard(neighbour(kind, OURS, family))
    assert not heard(neighbour(kind, BELOW, family))
    assert not heard(neighbour(kind, ELSE, family))


@pytest.mark.parametrize("kind", [RTM_NEWROUTE, RTM_DELROUTE])
def test_routes_of_the_main_table_count_on_our_devices_alone(kind: int) -> None:
    assert heard(route(kind, OURS))
    assert not heard(route(kind, BELOW))
    assert not heard(route(kind, ELSE))
    assert not heard(route(kind, OURS, table=255))


def test_a_route_over_several_devices_or_none_is_let_through() -> None:
    assert heard(route(RTM_NEWROUTE, None))


def test_a_route_that_replaced_one_is_let_through_whatever_its_device() -> None:
    assert heard(route(RTM_NEWROUTE, ELSE, flags=NLM_F_REPLACE))
    assert not heard(route(RTM_NEWROUTE, ELSE, flags=NLM_F_APPEND))


def test_what_a_muted_port_adds_counts_only_for_devices() -> None:
    (port,) = INTEREST.muted
    assert heard(link(RTM_NEWLINK, OURS, port=port))
    assert heard(address(RTM_DELADDR, OURS, port))
    assert heard(neighbour(RTM_DELNEIGH, OURS, port=port))
    assert heard(route(RTM_DELROUTE, OURS, port=port))
    for data in (
        address(RTM_NEWADDR, OURS, port),
        neighbour(RTM_NEWNEIGH, OURS, port=port),
        route(RTM_NEWROUTE, OURS, port=port),
        route(RTM_NEWROUTE, OURS, NLM_F_REPLACE, port=port),
    ):
        assert not heard(data)


@pytest.mark.parametrize("kind", [2, 3, 18, 32, 64, 104, 120])
def test_other_messages_do_not_count(kind: int) -> None:
    assert not heard(message(kind, link(RTM_NEWLINK, OURS, "flannel.1")[HEADER.size :]))


def test_without_interest_nothing_is_let_through_but_what_is_in_doubt() -> None:
    for data in (link(16, OURS), address(20, OURS), neighbour(28, OURS), route(24, OURS)):
        assert not passes(program(Interest()), data)


@given(st.integers(1, 2**31 - 1), st.frozensets(st.integers(1, 2**31 - 1), max_size=4))
def test_an_index_counts_if_it_is_one_of_ours(index: int, indices: frozenset[int]) -> None:
    wanted = index in indices
    steps = program(Interest(ours=indices))
    assert passes(steps, link(RTM_NEWLINK, index)) == wanted
    assert passes(steps, neighbour(RTM_DELNEIGH, index)) == wanted
    assert passes(steps, route(RTM_DELROUTE, index)) == wanted
    assert passes(program(Interest(others=indices)), address(RTM_NEWADDR, index)) == wanted


@pytest.mark.parametrize("kind", [RTM_NEWROUTE, RTM_DELROUTE])
@pytest.mark.parametrize(
    ("index", "protocol", "is_heard"),
    [
        (BELOW, PROTO_BOOT, True),
        (BELOW, PROTO_KERNEL, True),
        (BELOW, PROTO_FLANNEL, False),
        (ELSE, PROTO_BOOT, False),
        (OURS, PROTO_BOOT, True),
    ],
)
def test_of_a_device_that_leads_somewhere_all_routes_are_heard_but_ours(
    kind: int, index: int, protocol: int, is_heard: bool
) -> None:
    led = replace(INTEREST, led=frozenset((BELOW,)))
    assert passes(program(led), route(kind, index, protocol=protocol)) is is_heard
    assert not passes(program(led), route(kind, index, table=255, protocol=protocol))
    assert heard(route(kind, index, protocol=protocol)) is (index == OURS)


def test_of_a_borrowed_device_our_routes_are_heard_alone() -> None:
    borrowed = replace(INTEREST, borrowed=frozenset((BELOW,)))
    assert passes(program(borrowed), route(RTM_DELROUTE, BELOW, protocol=PROTO_FLANNEL))
    assert not passes(program(borrowed), route(RTM_DELROUTE, BELOW))


names = st.text("fl.1", min_size=1, max_size=15)


@given(names, st.frozensets(names, max_size=5))
def test_a_name_counts_if_it_is_exactly_one_of_ours(name: str, wanted: frozenset[str]) -> None:
    assert passes(program(Interest(names=wanted)), link(RTM_NEWLINK, ELSE, name)) == (name in wanted)


@given(st.binary(max_size=80))
def test_any_bytes_can_be_judged(data: bytes) -> None:
    heard(data)


def test_the_program_is_short_enough_for_every_kernel() -> None:
    numbers = frozenset(range(1, 21))
    names = frozenset(f"flannel-v6.{number}" for number in numbers)
    many = program(Interest(numbers, numbers, names, numbers, borrowed=numbers, led=numbers))
    assert len(many) < 4096
    assert all(0 <= jump < 256 for step in many for jump in (step.if_true, step.if_false))
