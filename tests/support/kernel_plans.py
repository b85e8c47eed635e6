"""Plans of a small world for hypothesis to combine, and a kernel in memory that holds one.

The world: underlays ``eth0`` and ``eth1``, things of others on the first, and up to two devices of ours with whatever a
plan may put on them.  Few names and numbers, so that what is there and what is wanted get into each other's way.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from hypothesis import strategies as st

from pyflannel.diff import diff, satisfies
from pyflannel.state import (
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
from tests.support.fake_kernel import FakeKernel, Hardware

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
