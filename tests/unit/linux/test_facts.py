from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_interface

import pytest

from pyflannel.host import DefaultRoute, Facts, Interface, InterfaceAddress, Lookup
from pyflannel.linux.facts import gather, on_link
from tests.support.namespaces import Namespace, veth

pytestmark = pytest.mark.needs("root", "netns", "veth")


@pytest.fixture
def space() -> Iterator[Namespace]:
    with Namespace("facts") as here, Namespace("far") as far:
        veth(here, "ens33", far, "ens33")
        veth(here, "ens34", far, "ens34")
        here.run("ip address add 192.0.2.1/24 dev ens33")
        yield here


def interface(facts: Facts, name: str) -> Interface:
    """The one of that name."""
    (found,) = (item for item in facts.interfaces if item.name == name)
    return found


def test_interfaces_come_with_index_mtu_and_being_up(space: Namespace) -> None:
    space.run("ip link set ens34 mtu 9000 down")
    facts = gather(netns=space.name)
    assert {item.name for item in facts.interfaces} == {"lo", "ens33", "ens34"}
    first, second = interface(facts, "ens33"), interface(facts, "ens34")
    assert (first.mtu, first.up, second.mtu, second.up) == (1500, True, 9000, False)
    assert first.index == space.objects("ip -j link show ens33")[0]["ifindex"]


def test_addresses_come_in_kernel_order_with_their_flags(space: Namespace) -> None:
    space.run("ip address add 192.0.2.2/24 dev ens33")
    space.run("ip address add 198.51.100.1/24 dev ens33 valid_lft 600 preferred_lft 0")
    space.run("ip address add 2001:db8::1/64 dev ens33 nodad")
    space.run("ip address add 2001:db8::2/64 dev ens33 nodad valid_lft 600 preferred_lft 300")
    found = interface(gather(netns=space.name), "ens33").addresses
    four = [item for item in found if item.address.version == 4]
    assert four == [
        InterfaceAddress(ip_interface("192.0.2.1/24")),
        InterfaceAddress(ip_interface("198.51.100.1/24"), deprecated=True, permanent=False),
        InterfaceAddress(ip_interface("192.0.2.2/24")),
    ] or four == [
        InterfaceAddress(ip_interface("192.0.2.1/24")),
        InterfaceAddress(ip_interface("192.0.2.2/24")),
        InterfaceAddress(ip_interface("198.51.100.1/24"), deprecated=True, permanent=False),
    ]
    assert InterfaceAddress(ip_interface("2001:db8::1/64")) in found
    assert InterfaceAddress(ip_interface("2001:db8::2/64"), permanent=False) in found


def test_default_routes_come_in_kernel_order(space: Namespace) -> None:
    space.run("ip address add 198.51.100.1/24 dev ens34")
    space.run("ip route add default via 198.51.100.9 dev ens34 metric 200")
    space.run("ip route add default via 192.0.2.9 dev ens33 metric 100")
    space.run("ip route add default via 192.0.2.8 dev ens33 metric 50 table 100")
    space.run("ip -6 address add 2001:db8::1/64 dev ens33 nodad")
    space.run("ip -6 route add default via 2001:db8::9 dev ens33")
    assert gather(netns=space.name).defaults == (
        DefaultRoute(4, "ens33", 100),
        DefaultRoute(4, "ens34", 200),
        DefaultRoute(6, "ens33", 1024),
    )


def test_a_default_route_over_several_devices_or_none_names_none(space: Namespace) -> None:
    space.run("ip route add default nexthop via 192.0.2.8 dev ens33 nexthop via 192.0.2.9 dev ens33")
    space.run("ip route add unreachable default metric 9")
    assert gather(netns=space.name).defaults == (DefaultRoute(4, None, 0), DefaultRoute(4, None, 9))


def test_a_lookup_says_device_source_and_gateway(space: Namespace) -> None:
    space.run("ip route add default via 192.0.2.9 dev ens33")
    space.run("ip address add 2001:db8::1/64 dev ens33 nodad")
    asked = [ip_address(text) for text in ("192.0.2.7", "203.0.113.1", "192.0.2.1", "2001:db8::7")]
    source, source6 = ip_address("192.0.2.1"), ip_address("2001:db8::1")
    assert gather(asked, space.name).lookups == (
        (asked[0], Lookup("ens33", source)),
        (asked[1], Lookup("ens33", source, ip_address("192.0.2.9"))),
        (asked[2], Lookup("lo", source)),
        (asked[3], Lookup("ens33", source6)),
    )


def test_an_address_without_a_route_has_no_answer(space: Namespace) -> None:
    space.run("ip route add unreachable 203.0.113.0/26")
    space.run("ip route add prohibit 203.0.113.64/26")
    space.run("ip route add blackhole 203.0.113.128/26")
    asked = [ip_address(text) for text in ("203.0.113.1", "203.0.113.65", "203.0.113.129", "8.8.8.8", "2001:db8::7")]
    assert gather(asked, space.name).lookups == tuple((address, None) for address in asked)


def test_a_namespace_with_nothing_in_it_has_only_loopback() -> None:
    with Namespace("facts") as bare:
        facts = gather(netns=bare.name)
    assert [item.name for item in facts.interfaces] == ["lo"]
    assert facts.defaults == ()


def near(space: Namespace, *hosts: str) -> set[str]:
    """Which of the hosts are on the link of ens33."""
    found = on_link(interface(gather(netns=space.name), "ens33").index, space.name)
    return {host for host in hosts if ip_address(host) in found}


def test_on_the_link_are_those_whom_the_kernel_reaches_without_a_gateway(space: Namespace) -> None:
    space.run("ip address add 198.51.100.1/24 dev ens34")
    space.run("ip -6 address add 2001:db8::1/64 dev ens33 nodad")
    for route in (
        "default via 192.0.2.9",
        "10.0.0.0/8 via 192.0.2.9",
        "203.0.113.0/24 dev ens33",
        "203.0.113.64/26 dev ens34",
        "203.0.113.128/26 via 192.0.2.9",
        "blackhole 203.0.113.192/27",
        "2001:db8::7 via 2001:db8::9",
    ):
        space.run(f"ip route add {route}")
    hosts = (
        *("192.0.2.7", "10.1.1.1", "198.51.100.7", "8.8.8.8"),
        *("203.0.113.1", "203.0.113.65", "203.0.113.129", "203.0.113.193", "203.0.113.250"),
        *("2001:db8::2", "2001:db8::7", "2001:db8:1::1"),
    )
    wanted = {"192.0.2.7", "203.0.113.1", "203.0.113.250", "2001:db8::2"}
    assert near(space, *hosts) == wanted
    lookups = gather([ip_address(host) for host in hosts], space.name).lookups
    asked = {str(host) for host, found in lookups if found and found.gateway is None and found.dev == "ens33"}
    assert asked == wanted, "the kernel says the same"


def test_routes_of_ours_lead_nobody_off_the_link(space: Namespace) -> None:
    space.run("ip route add 192.0.2.128/25 via 192.0.2.9 proto 70")
    assert near(space, "192.0.2.200") == {"192.0.2.200"}


def test_nobody_is_on_the_link_of_an_interface_that_is_down_or_leads_everywhere(space: Namespace) -> None:
    space.run("ip link set ens33 down")
    assert near(space, "192.0.2.7") == set()
    space.run("ip link set ens33 up")
    space.run("ip address flush dev ens33")
    space.run("ip route add default dev ens33")
    assert near(space, "192.0.2.7", "8.8.8.8") == set()


def test_our_own_namespace_is_read_without_rights() -> None:
    assert any(item.name == "lo" for item in gather().interfaces)
