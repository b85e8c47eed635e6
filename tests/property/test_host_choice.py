"""Laws of choosing an interface, for any host and any wish."""

from __future__ import annotations

import string
from ipaddress import ip_interface

from hypothesis import given
from hypothesis import strategies as st

from pyflannel.host import DefaultRoute, Facts, Interface, InterfaceAddress, Lookup, NoInterface, Wish, choose, lines
from pyflannel.state import IPAddress

NAMES = st.sampled_from(["eth0", "eth1", "lo", "wlan0"])
ADDRESSES = st.sampled_from(
    [
        ip_interface(text)
        for text in ["10.0.0.1/24", "10.0.0.2/32", "127.0.0.1/8", "169.254.1.1/16", "fe80::1/64", "fd00::1/64"]
    ]
)
TARGETS = ADDRESSES.map(lambda one: one.ip)
FAMILY_V4 = TARGETS.filter(lambda one: one.version == 4)
FAMILY_V6 = TARGETS.filter(lambda one: one.version == 6)


def interfaces() -> st.SearchStrategy[tuple[Interface, ...]]:
    flags = st.booleans()
    address = st.builds(InterfaceAddress, ADDRESSES, flags, flags, flags)
    one = st.builds(
        Interface, st.integers(1, 9), NAMES, st.sampled_from([0, 1500]), flags, st.lists(address, max_size=4).map(tuple)
    )
    return st.lists(one, max_size=4, unique_by=lambda each: each.name).map(tuple)


def facts() -> st.SearchStrategy[Facts]:
    default = st.builds(DefaultRoute, st.sampled_from([4, 6]), st.none() | NAMES, st.integers(0, 9))
    lookup = st.none() | st.builds(Lookup, NAMES, st.none() | TARGETS)
    return st.builds(
        Facts,
        interfaces(),
        st.lists(default, max_size=3).map(tuple),
        st.lists(st.tuples(TARGETS, lookup), max_size=3).map(tuple),
    )


def wishes() -> st.SearchStrategy[Wish]:
    pattern = st.sampled_from(["eth", r"10\.", "^fd", "[", ""]) | st.text(string.printable, max_size=8)
    return st.builds(
        Wish,
        iface=st.lists(NAMES | TARGETS.map(str) | st.text(max_size=5), max_size=2).map(tuple),
        iface_regex=st.lists(pattern, max_size=2).map(tuple),
        can_reach=st.none() | TARGETS,
        public_ip=st.none() | FAMILY_V4,
        public_ipv6=st.none() | FAMILY_V6,
        ipv4=st.booleans(),
        ipv6=st.booleans(),
    )


def carried(facts: Facts, name: str) -> set[IPAddress]:
    return {one.address.ip for each in facts.interfaces if each.name == name for one in each.addresses}


@given(facts(), wishes())
def test_every_choice_is_sound_or_refused(facts: Facts, wish: Wish) -> None:
    try:
        found = choose(facts, wish)
    except NoInterface:
        return
    (chosen,) = (one for one in facts.interfaces if one.name == found.name)
    assert (chosen.index, chosen.mtu) == (found.index, found.mtu)
    assert found.mtu > 0
    assert (found.ipv4 is not None, found.ipv6 is not None) == (wish.ipv4, wish.ipv6)
    assert (found.public_ip is not None, found.public_ipv6 is not None) == (wish.ipv4, wish.ipv6)
    sources = {lookup.source for _, lookup in facts.lookups if lookup is not None}
    assert {found.ipv4, found.ipv6} - {None} <= carried(facts, found.name) | sources
    assert chosen.up or "warning: it is down" in found.why
    assert lines(found)
