"""Laws of observe, diff and apply: whatever there is and whatever is wanted, a pass brings it about, once."""

from __future__ import annotations

import errno
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from hypothesis import given
from hypothesis import strategies as st

from pyflannel.diff import ON_A_DEVICE, Cut, Op, Put, device, diff, satisfies
from pyflannel.state import (
    ORDER,
    Address,
    FdbEntry,
    Item,
    Key,
    Link,
    Mac,
    Neighbour,
    Route,
    Scope,
    State,
    Sysctl,
    Vxlan,
)
from tests.support.fake_kernel import FakeKernel, Hardware, failing, no_fault

FOREIGN = (
    Address("eth0", IPv4Interface("192.0.2.1/24")),
    Route(IPv4Network("10.2.250.0/24"), "eth0"),
    Route(IPv6Network("fd00:2:250::/64"), "eth0"),
)
DEVICES = ("flannel.1", "flannel-v6.1")
SCOPE = Scope(
    devices=frozenset(DEVICES),
    networks=(IPv4Network("10.2.0.0/16"),),
    sysctls=frozenset((name, "ipv6", "accept_ra") for name in DEVICES),
)

macs = st.integers(1, 4).map(lambda number: Mac(b"\x02" + number.to_bytes(5, "big")))
numbers = st.integers(1, 5)


@st.composite
def devices(draw: st.DrawFn, name: str) -> list[Item]:
    """A device of ours with things on it, such as a plan may contain; or a trace of neither."""
    if draw(st.integers(0, 4)) == 0:
        return []
    six = name == "flannel-v6.1"
    local = (IPv6Address("2001:db8::") if six else IPv4Address("192.0.2.0")) + draw(numbers)
    spec = Vxlan(
        # Mostly the same: a device made anew is a fresh start, and that is the easier case.
        vni=draw(st.sampled_from((1, 1, 1, 2))) + (10 if six else 0),
        underlay=draw(st.sampled_from(("eth0", "eth1"))),
        local=local,
        port=8472,
        learning=draw(st.booleans()),
    )
    link = Link(name, spec, draw(st.sampled_from((1400, 1430))), draw(st.none() | macs))
    # A plan without an IPv4 address would lose its IPv4 routes to the cut of the last one: see ``diff``.
    items: list[Item] = [link, Address(name, IPv4Interface((f"10.2.{draw(numbers)}.0", 32)))]
    items.append(Sysctl(name, "ipv6", "accept_ra", draw(st.sampled_from("012"))))
    for number in draw(st.sets(numbers)):
        gateway = IPv6Address(f"fd00:2:{number}::") if six else IPv4Address(f"10.2.{number}.0")
        dst = IPv6Network((gateway, 64)) if six else IPv4Network((gateway, 24))
        mac = Mac(b"\x02\0\0\0\1" + bytes([number]))
        choices: list[Item] = [
            Neighbour(name, gateway, draw(macs)),
            FdbEntry(name, mac, local + draw(numbers)),
            Route(dst, name, gateway + draw(st.integers(0, 1)), onlink=True, metric=draw(st.sampled_from((0, 7)))),
            Address(name, IPv6Interface((f"fd00:2:{number}::", 128))),
        ]
        items += draw(st.lists(st.sampled_from(choices), unique=True))
    return items


@st.composite
def states(draw: st.DrawFn) -> State:
    """Something a plan may ask for."""
    items = [item for name in DEVICES for item in draw(devices(name))]
    return State(draw(st.permutations(items)))


def kernel_with(have: State) -> FakeKernel:
    """A kernel that holds ``have``, and things of others."""
    kernel = FakeKernel(Hardware("eth0"), Hardware("eth1"))
    kernel.intrude(*FOREIGN)
    assert kernel.apply(diff(have, State())).failed == ()
    kernel.log.clear()
    return kernel


def lacking(kernel: FakeKernel, want: State) -> list[Item]:
    """What ``want`` asks for and the kernel does not hold."""
    have = kernel.observe(SCOPE)
    return [item for key, item in want.items() if key not in have or not satisfies(have[key], item)]


def surplus(kernel: FakeKernel, want: State) -> set[Key]:
    """What the kernel holds of ours that ``want`` does not ask for; a setting cannot be taken away."""
    return {key for key in kernel.observe(SCOPE).keys() - want.keys() if key[0] is not Sysctl}


@given(states(), states())
def test_one_pass_brings_about_what_is_wanted_and_nothing_else(have: State, want: State) -> None:
    kernel = kernel_with(have)
    assert kernel.apply(diff(want, kernel.observe(SCOPE))).failed == ()
    assert lacking(kernel, want) == []
    assert surplus(kernel, want) == set()
    assert set(FOREIGN) <= set(kernel.items)


@given(states(), states())
def test_a_second_pass_finds_nothing_to_do(have: State, want: State) -> None:
    kernel = kernel_with(have)
    kernel.apply(diff(want, kernel.observe(SCOPE)))
    assert diff(want, kernel.observe(SCOPE)) == ()


@given(states(), states(), st.integers(0, 20))
def test_a_pass_cut_anywhere_is_finished_by_the_next(have: State, want: State, done: int) -> None:
    kernel = kernel_with(have)
    kernel.fault = failing(errno.ENOMEM, after=done)
    kernel.apply(diff(want, kernel.observe(SCOPE)))
    kernel.fault = no_fault
    assert kernel.apply(diff(want, kernel.observe(SCOPE))).failed == ()
    assert lacking(kernel, want) == []
    assert surplus(kernel, want) == set()


@given(states(), states(), st.sets(st.integers(0, 20)))
def test_refused_operations_hold_up_no_others_for_longer_than_a_pass(have: State, want: State, bad: set[int]) -> None:
    kernel = kernel_with(have)
    place = iter(range(1000))
    kernel.fault = lambda op: errno.ENOMEM if next(place) in bad else None
    kernel.apply(diff(want, kernel.observe(SCOPE)))
    kernel.fault = no_fault
    kernel.apply(diff(want, kernel.observe(SCOPE)))
    assert diff(want, kernel.observe(SCOPE)) == ()


@given(states(), states())
def test_a_change_and_its_reversal_end_where_they_began(have: State, want: State) -> None:
    kernel = kernel_with(have)
    for goal in (want, have):
        kernel.apply(diff(goal, kernel.observe(SCOPE)))
    assert lacking(kernel, have) == []
    assert surplus(kernel, have) == set()


@given(states(), states())
def test_order_respects_what_things_rely_on(have: State, want: State) -> None:
    ops = diff(want, have)
    puts = [ORDER.index(type(op.item)) for op in ops if isinstance(op, Put)]
    cuts = [ORDER.index(type(op.item)) for op in ops if isinstance(op, Cut)]
    assert puts == sorted(puts)
    assert cuts == sorted(cuts, reverse=True)
    assert [type(op) for op in ops] == [Put] * len(puts) + [Cut] * len(cuts)


@given(states(), states())
def test_no_slot_is_touched_twice(have: State, want: State) -> None:
    keys = [op.item.key for op in diff(want, have)]
    assert len(keys) == len(set(keys))


@given(states(), states())
def test_a_pass_touches_nothing_that_is_as_wanted_on_a_device_that_stays(have: State, want: State) -> None:
    def unharmed(op: Op) -> bool:
        link = have.get((Link, device(op.item)))
        return isinstance(link, Link) and want.get(link.key) == link

    touched = {op.item.key for op in diff(want, have) if unharmed(op) and type(op.item) in ON_A_DEVICE}
    assert not [key for key in touched if want.get(key) == have.get(key)]


@given(states())
def test_a_stray_beside_any_route_is_all_that_goes(want: State) -> None:
    kernel = kernel_with(want)
    routes = [item for item in kernel.observe(SCOPE).values() if isinstance(item, Route)]
    kernel.intrude(*(replace(route, protocol=99) for route in routes))
    ops = diff(want, kernel.observe(SCOPE))
    assert {op.item for op in ops} == {replace(route, protocol=99, stray=True) for route in routes}
    kernel.apply(ops)
    assert diff(want, kernel.observe(SCOPE)) == ()
