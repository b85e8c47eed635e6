"""Which interface and addresses are chosen: the rules of compat §7, and the scenario of §10.4."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface

import pytest

from pyflannel.host import (
    DefaultRoute,
    Facts,
    Interface,
    InterfaceAddress,
    Lookup,
    NoInterface,
    Underlay,
    Wish,
    choose,
    lines,
    usable,
)
from pyflannel.reach import NOBODY


def interface(index: int, name: str, *addresses: str, mtu: int = 1500, up: bool = True) -> Interface:
    return Interface(index, name, mtu, up, tuple(InterfaceAddress(ip_interface(text)) for text in addresses))


LO = interface(1, "lo", "127.0.0.1/8", "::1/128", mtu=65536)
ETH0 = interface(2, "eth0", "10.0.0.5/24", "fe80::5/64", "2001:db8::5/64")
ETH1 = interface(3, "eth1", "192.0.2.7/24", "2001:db8:1::7/64", mtu=9000)
V4_DEFAULT = DefaultRoute(4, "eth0", 100)
V6_DEFAULT = DefaultRoute(6, "eth0", 1024)
HOST = Facts((LO, ETH0, ETH1), (V4_DEFAULT, V6_DEFAULT))
DUAL = Wish(ipv6=True)
ONLY_V6 = Wish(ipv4=False, ipv6=True)


def refusal(facts: Facts, wish: Wish) -> str:
    with pytest.raises(NoInterface) as caught:
        choose(facts, wish)
    return str(caught.value)


def with_interfaces(*interfaces: Interface) -> Facts:
    return replace(HOST, interfaces=interfaces)


# The scenario of flannel's own tests (compat §10.4).

DUMMY0 = interface(
    4,
    "dummy0",
    "1.10.100.1/32",
    "192.168.200.128/32",
    "172.16.30.18/32",
    "172.16.31.200/32",
    "172.16.32.100/32",
)
BEYOND = ip_address("172.16.32.254")
SCENARIO = Facts((LO, ETH0, DUMMY0), (V4_DEFAULT,), ((BEYOND, Lookup("dummy0", IPv4Address("172.16.32.100"), None)),))


@pytest.mark.parametrize(
    ("wish", "address"),
    [
        (Wish(iface_regex=(r"192\.168\.200\.\d+",)), "192.168.200.128"),
        (Wish(iface_regex=(r"dummy\d+",)), "1.10.100.1"),
        (Wish(iface=("dummy0",)), "1.10.100.1"),
        (Wish(iface=("172.16.30.18",)), "172.16.30.18"),
        (Wish(iface_regex=(r"172\.16\.30\.\d+",)), "172.16.30.18"),
        (Wish(can_reach=BEYOND), "172.16.32.100"),
    ],
    ids=["regex on address", "regex on name", "name", "address", "regex with public ip", "can reach"],
)
def test_interface_and_address_of_the_reference_scenario(wish: Wish, address: str) -> None:
    found = choose(SCENARIO, wish)
    assert (found.name, found.index, str(found.ipv4), str(found.public_ip)) == ("dummy0", 4, address, address)


def test_public_ip_is_published_while_the_regex_picks_the_interface_address() -> None:
    wish = Wish(iface_regex=(r"172\.16\.30\.\d+",), public_ip=IPv4Address("172.16.31.200"))
    found = choose(SCENARIO, wish)
    assert (found.ipv4, found.public_ip) == (IPv4Address("172.16.30.18"), IPv4Address("172.16.31.200"))


# Without options: the default route.


def test_default_route_picks_the_interface() -> None:
    assert choose(HOST, Wish()) == Underlay(
        "eth0", 2, 1500, IPv4Address("10.0.0.5"), None, IPv4Address("10.0.0.5"), None, "first default route"
    )


def test_first_of_several_default_routes_wins_and_the_others_are_named() -> None:
    facts = replace(HOST, defaults=(DefaultRoute(4, "eth1", 50), V4_DEFAULT, DefaultRoute(4, None, 300)))
    found = choose(facts, Wish())
    assert found.name == "eth1"
    assert found.why == ("first default route (others: IPv4 by eth0 metric 100, IPv4 by no single device metric 300)")


def test_default_route_without_a_single_device_is_refused() -> None:
    facts = replace(HOST, defaults=(DefaultRoute(4, None), V4_DEFAULT))
    assert "default route: the IPv4 default route names no single device" in refusal(facts, Wish())


def test_no_default_route_is_refused_with_the_candidates() -> None:
    assert refusal(replace(HOST, defaults=()), Wish()) == (
        "no interface to use: default route: there is no IPv4 default route. Interfaces here: "
        "eth0 (10.0.0.5, 2001:db8::5, fe80::5, MTU 1500, up); eth1 (192.0.2.7, 2001:db8:1::7, MTU 9000, up)"
    )


def test_refusal_lists_no_interface_without_an_address_of_the_family_needed() -> None:
    veth = interface(9, "veth1234", "fe80::9/64")
    assert "veth1234" not in refusal(Facts((ETH0, veth), ()), Wish())
    assert "veth1234" in refusal(Facts((ETH0, veth), ()), ONLY_V6)


def test_default_route_by_an_unknown_interface_is_refused() -> None:
    assert "there is no interface eth0" in refusal(with_interfaces(LO), Wish())


def test_dual_stack_needs_a_default_route_of_each_family() -> None:
    assert "there is no IPv6 default route" in refusal(replace(HOST, defaults=(V4_DEFAULT,)), DUAL)


def test_dual_stack_needs_both_default_routes_on_one_device() -> None:
    facts = replace(HOST, defaults=(V4_DEFAULT, DefaultRoute(6, "eth1")))
    assert "IPv4 leaves by eth0, IPv6 by eth1" in refusal(facts, DUAL)


def test_dual_stack_takes_an_address_of_each_family() -> None:
    found = choose(HOST, DUAL)
    assert (found.ipv4, found.ipv6) == (IPv4Address("10.0.0.5"), IPv6Address("2001:db8::5"))
    assert (found.public_ip, found.public_ipv6) == (found.ipv4, found.ipv6)


def test_ipv6_only_ignores_ipv4_altogether() -> None:
    facts = replace(HOST, defaults=(DefaultRoute(4, "eth1"), V6_DEFAULT))
    found = choose(facts, replace(ONLY_V6, public_ip=None))
    assert (found.name, found.ipv4, found.public_ip) == ("eth0", None, None)
    assert found.ipv6 == found.public_ipv6 == IPv6Address("2001:db8::5")


def test_a_network_without_any_family_is_refused() -> None:
    assert "neither IPv4 nor IPv6" in refusal(HOST, Wish(ipv4=False))


# -public-ip without an interface option.


def test_public_ip_alone_picks_the_interface_that_carries_it() -> None:
    found = choose(HOST, Wish(public_ip=IPv4Address("192.0.2.7")))
    assert (found.name, str(found.ipv4), found.why) == ("eth1", "192.0.2.7", "it carries 192.0.2.7")


def test_public_ip_that_nobody_carries_is_refused_and_the_default_route_is_no_fallback() -> None:
    text = refusal(HOST, Wish(public_ip=IPv4Address("203.0.113.1")))
    assert "-public-ip=203.0.113.1: no interface carries this address" in text


def test_public_ip_behind_nat_works_together_with_iface() -> None:
    found = choose(HOST, Wish(iface=("eth0",), public_ip=IPv4Address("203.0.113.1")))
    assert (str(found.ipv4), str(found.public_ip)) == ("10.0.0.5", "203.0.113.1")


def test_public_ipv6_alone_picks_the_interface_that_carries_it() -> None:
    found = choose(HOST, replace(DUAL, public_ipv6=IPv6Address("2001:db8:1::7")))
    assert (found.name, str(found.ipv4), str(found.ipv6)) == ("eth1", "192.0.2.7", "2001:db8:1::7")


def test_public_ipv6_alone_is_no_help_to_an_ipv4_network() -> None:
    assert "the network has no IPv6" in refusal(HOST, Wish(public_ipv6=IPv6Address("2001:db8:1::7")))


def test_public_ip_is_no_help_to_an_ipv6_network() -> None:
    assert "the network has no IPv4" in refusal(HOST, replace(ONLY_V6, public_ip=IPv4Address("192.0.2.7")))


@pytest.mark.parametrize("wish", [Wish(iface=("192.0.2.7",)), Wish(public_ip=IPv4Address("192.0.2.7"))])
def test_dual_stack_wants_both_public_addresses_on_one_interface(wish: Wish) -> None:
    together = replace(wish, ipv6=True, public_ipv6=IPv6Address("2001:db8:1::7"))
    assert str(choose(HOST, together).ipv6) == "2001:db8:1::7"
    apart = replace(wish, ipv6=True, public_ipv6=IPv6Address("2001:db8::5"))
    assert "-public-ipv6=2001:db8::5 is not on the same interface" in refusal(HOST, apart)


# -iface, -iface-regex, -iface-can-reach, in this order.


def test_first_iface_that_fits_wins() -> None:
    found = choose(HOST, Wish(iface=("ens33", "eth1", "eth0")))
    assert (found.name, found.why) == ("eth1", "-iface=eth1")


def test_options_are_tried_in_the_order_iface_regex_reach() -> None:
    target = ip_address("198.51.100.1")
    facts = replace(HOST, lookups=((target, Lookup("eth0", ip_address("10.0.0.5"))),))
    assert choose(facts, Wish(iface=("eth1",), iface_regex=("eth0",), can_reach=target)).why == "-iface=eth1"
    assert choose(facts, Wish(iface=("x",), iface_regex=("eth1",), can_reach=target)).name == "eth1"
    assert choose(facts, Wish(iface=("x",), iface_regex=("y",), can_reach=target)).name == "eth0"


def test_default_route_is_no_fallback_for_an_option_that_failed() -> None:
    text = refusal(HOST, Wish(iface=("ens33", "1.2.3.4"), iface_regex=("^wl",), can_reach=ip_address("198.51.100.1")))
    assert text.startswith(
        "no interface to use: -iface=ens33: there is no interface ens33; "
        "-iface=1.2.3.4: no interface carries this address; "
        "-iface-regex=^wl: it matches no address and no name; "
        "-iface-can-reach=198.51.100.1: there is no route to it. "
    )


def test_an_empty_iface_counts_as_not_given() -> None:
    assert choose(HOST, Wish(iface=("",), iface_regex=("",))).why == "first default route"


def test_iface_by_address_fixes_that_address() -> None:
    facts = with_interfaces(interface(2, "eth0", "10.0.0.5/24", "10.0.0.6/24"))
    assert str(choose(facts, Wish(iface=("10.0.0.6",))).ipv4) == "10.0.0.6"


def test_iface_by_address_prefers_an_owner_that_is_up() -> None:
    old, new = interface(2, "eth0", "10.0.0.5/24", up=False), interface(3, "bond0", "10.0.0.5/24")
    assert choose(with_interfaces(old, new), Wish(iface=("10.0.0.5",))).name == "bond0"


def test_iface_by_ipv6_address_leaves_ipv4_to_preference() -> None:
    found = choose(HOST, replace(DUAL, iface=("2001:db8:1::7",)))
    assert (str(found.ipv4), str(found.ipv6)) == ("192.0.2.7", "2001:db8:1::7")


def test_interface_without_an_address_of_a_family_needed_is_refused() -> None:
    bare = interface(5, "eth5", "fe80::1/64")
    assert "-iface=eth5: eth5 has no usable IPv4 address" in refusal(with_interfaces(bare), Wish(iface=("eth5",)))
    bare = interface(5, "eth5", "10.9.9.9/24")
    assert "eth5 has no usable IPv6 address" in refusal(with_interfaces(bare), replace(DUAL, iface=("eth5",)))


def test_interface_with_mtu_zero_is_refused() -> None:
    assert "eth0 has MTU 0" in refusal(with_interfaces(replace(ETH0, mtu=0)), Wish())


def test_regex_is_not_anchored() -> None:
    assert choose(HOST, Wish(iface_regex=("th1",))).why == "-iface-regex=th1 matches its name"


def test_regex_prefers_a_matching_address_over_a_matching_name() -> None:
    named = interface(2, "net10", "192.0.2.1/24")
    addressed = interface(3, "eth0", "10.0.0.5/24")
    found = choose(with_interfaces(named, addressed), Wish(iface_regex=("10",)))
    assert (found.name, found.why) == ("eth0", "-iface-regex=10 matches 10.0.0.5")


def test_regex_goes_through_interfaces_by_index() -> None:
    assert choose(with_interfaces(ETH1, ETH0), Wish(iface_regex=("eth",))).name == "eth0"


def test_regex_looks_at_addresses_in_order_of_preference() -> None:
    lowly = InterfaceAddress(ip_interface("10.0.0.1/24"), permanent=False)
    better = InterfaceAddress(ip_interface("10.0.0.2/24"))
    facts = with_interfaces(Interface(2, "eth0", 1500, True, (lowly, better)))
    assert str(choose(facts, Wish(iface_regex=(r"10\.",))).ipv4) == "10.0.0.2"


def test_regex_of_a_dual_stack_network_must_match_an_address_of_each_family() -> None:
    both = choose(HOST, replace(DUAL, iface_regex=(r"^192\.0|^2001:db8:1:",)))
    assert (both.name, both.why) == (
        "eth1",
        "-iface-regex=^192\\.0|^2001:db8:1: matches 192.0.2.7 and 2001:db8:1::7",
    )
    assert "matches no address and no name" in refusal(HOST, replace(DUAL, iface_regex=(r"^192\.0",)))


def test_regex_passes_over_a_matching_interface_that_cannot_serve() -> None:
    bare = interface(2, "ens1", "fe80::1/64")
    fit = interface(3, "ens2", "10.0.0.2/24")
    assert choose(with_interfaces(bare, fit), Wish(iface_regex=("^ens",))).name == "ens2"


@pytest.mark.parametrize("text", ["eth[", "(", "*", "a{99999999999999999999}", "eth(?=1", "[[:nonsense:]]"])
def test_bad_regex_fails_that_entry_alone(text: str) -> None:
    assert choose(HOST, Wish(iface_regex=(text, "eth1"))).name == "eth1"
    assert f"-iface-regex={text}: bad regular expression: " in refusal(HOST, Wish(iface_regex=(text,)))


@pytest.mark.parametrize("text", ["^eth[[:digit:]]$", "^[[:alpha:]]+1$", "(?i)ETH1", r"^\w+1$", "[[e]th1"])
def test_regex_syntax_of_go_means_the_same_here(text: str) -> None:
    assert choose(with_interfaces(ETH1), Wish(iface_regex=(text,))).name == "eth1"


def test_regex_classes_know_ascii_only_as_in_go() -> None:
    odd = interface(2, "eth\N{ARABIC-INDIC DIGIT ONE}", "10.0.0.5/24")
    assert "matches no address and no name" in refusal(with_interfaces(odd), Wish(iface_regex=(r"^eth\d$",)))


def test_can_reach_takes_the_source_the_kernel_would_use() -> None:
    target = ip_address("198.51.100.1")
    two = interface(2, "eth0", "10.0.0.5/24", "10.0.0.6/24")
    facts = Facts((two,), (), ((target, Lookup("eth0", ip_address("10.0.0.6"), ip_address("10.0.0.1"))),))
    found = choose(facts, Wish(can_reach=target))
    assert (str(found.ipv4), found.why) == ("10.0.0.6", "the route to 198.51.100.1 leaves by it")


def test_can_reach_without_a_preferred_source_falls_back_to_preference() -> None:
    target = ip_address("198.51.100.1")
    assert choose(replace(HOST, lookups=((target, Lookup("eth1", None)),)), Wish(can_reach=target)).name == "eth1"


def test_can_reach_an_address_of_this_host_is_refused() -> None:
    facts = replace(HOST, lookups=((ip_address("10.0.0.5"), Lookup("lo", ip_address("10.0.0.5"))),))
    assert "it is an address of this very host" in refusal(facts, Wish(can_reach=ip_address("10.0.0.5")))


def test_can_reach_without_a_route_is_refused() -> None:
    target = ip_address("198.51.100.1")
    assert "there is no route to it" in refusal(replace(HOST, lookups=((target, None),)), Wish(can_reach=target))


# Interfaces that are down.


def test_interface_that_is_down_is_refused_by_name() -> None:
    down = with_interfaces(replace(ETH0, up=False))
    assert "default route: eth0 is down. Interfaces here: eth0 (10.0.0.5," in refusal(down, Wish())
    assert "-iface-regex=eth: eth0 is down. " in refusal(down, Wish(iface_regex=("eth",)))


def test_interface_that_is_down_is_passed_over() -> None:
    down = with_interfaces(replace(ETH0, up=False), ETH1)
    assert choose(down, Wish(iface=("eth0", "eth1"))).name == "eth1"
    assert choose(down, Wish(iface_regex=("eth",))).name == "eth1"


def test_interface_that_is_down_is_taken_with_a_warning_if_iface_names_it_and_nothing_else_fits() -> None:
    down = with_interfaces(replace(ETH0, up=False))
    found = choose(down, Wish(iface=("eth0",), iface_regex=("^wl",)))
    assert (found.name, found.why) == ("eth0", "-iface=eth0 (warning: it is down, and nothing else fits)")


# Which address.


def test_addresses_are_preferred_global_then_permanent_then_stable_then_as_the_kernel_lists_them() -> None:
    def address(text: str, **flags: bool) -> InterfaceAddress:
        return InterfaceAddress(ip_interface(text), **flags)

    one = Interface(
        2,
        "eth0",
        1500,
        True,
        (
            address("fe80::1/64"),
            address("2001:db8::1/64", deprecated=True),
            address("2001:db8::2/64", permanent=False, temporary=True),
            address("2001:db8::3/64", permanent=False),
            address("2001:db8::4/64", temporary=True),
            address("2001:db8::5/64"),
            address("2001:db8::6/64"),
            address("::1/128"),
            address("ff02::1/128"),
        ),
    )
    assert [str(found) for found in usable(one)] == [f"2001:db8::{n}" for n in (5, 6, 4, 3, 2)] + ["fe80::1"]


def test_link_local_serves_if_there_is_nothing_else() -> None:
    facts = with_interfaces(interface(2, "eth0", "127.0.0.2/8", "169.254.7.7/16", "224.0.0.5/32"))
    assert str(choose(facts, Wish()).ipv4) == "169.254.7.7"


# Log lines.


def test_log_lines_are_flannels() -> None:
    assert lines(choose(HOST, Wish())) == (
        "Using interface with name eth0 and address 10.0.0.5",
        "Defaulting external address to interface address (10.0.0.5)",
    )
    wish = replace(DUAL, iface=("eth0",), public_ip=IPv4Address("203.0.113.1"))
    assert lines(choose(HOST, wish)) == (
        "Using interface with name eth0 and address 10.0.0.5",
        "Using interface with name eth0 and v6 address 2001:db8::5",
        "Using 203.0.113.1 as external address",
        "Defaulting external v6 address to interface address (2001:db8::5)",
    )


def test_a_choice_knows_of_nobody_on_the_link() -> None:
    assert choose(HOST, Wish()).on_link == NOBODY
