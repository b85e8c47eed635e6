"""Conditions of a rule: what each option says of a packet, and that what is not understood stays unknown."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflannel.firewall.matches import Packet, meets, protocol, words

PING = Packet(ip_address("10.5.1.2"), ip_address("10.5.9.2"), "docker0", "flannel.1")
HTTP = replace(PING, protocol="tcp", source_port=40000, destination_port=80)
PING6 = Packet(ip_address("fd00::1:2"), ip_address("fd00::9:2"), "docker0", "flannel-v6.1")


def says(rule: str, packet: Packet = PING) -> bool | None:
    return meets(words(rule), packet)


@pytest.mark.parametrize(
    ("rule", "answer"),
    [
        ("", True),
        ("-s 10.5.1.0/24", True),
        ("-s 10.5.2.0/24", False),
        ("! -s 10.5.2.0/24 -d 10.5.9.2", True),
        ("-d 10.5.9.2/32", True),
        ("-d 10.0.9.0/255.0.255.0", True),
        ("-d 10.0.8.0/255.0.255.0", False),
        ("-s 0.0.0.0/0", True),
        ("-i docker0 -o flannel.1", True),
        ("-i docker+", True),
        ("-i +", True),
        ("! -i docker+", False),
        ("! -o docker0", True),
        ("-o flannel", False),
        ("-p icmp -m icmp --icmp-type 8", True),
        ("-p icmp -m icmp --icmp-type 8/0", True),
        ("-p icmp -m icmp --icmp-type 0", False),
        ("-p icmp -m icmp --icmp-type any", True),
        ("-p 1", True),
        ("-p tcp", False),
        ("! -p tcp", True),
        ("-p all", True),
        ("-f", False),
        ("! -f", True),
        ("-m conntrack --ctstate NEW,RELATED", True),
        ("-m conntrack ! --ctstate RELATED,ESTABLISHED", True),
        ("-m state --state INVALID", False),
        ("-m mark --mark 0x4000/0x4000", False),
        ("-m mark ! --mark 0x4000/0x4000", True),
        ('-m comment --comment "a -j DROP of \\"ours\\"" -s 10.5.1.2', True),
        ("-m iprange --dst-range 10.5.9.1-10.5.9.9", True),
        ("-m physdev --physdev-is-bridged", False),
        ("-c 12 1008 -i docker0", True),
    ],
)
def test_a_condition_that_is_understood_is_judged(rule: str, answer: bool) -> None:
    assert says(rule) is answer


@pytest.mark.parametrize(
    ("rule", "answer"),
    [
        ("-p tcp -m tcp --dport 80", True),
        ("-p tcp -m tcp --dport 81", False),
        ("-p tcp -m tcp ! --dport 81", True),
        ("-p tcp -m tcp --sport 1024:65535", True),
        ("-p tcp -m tcp --dport :79", False),
        ("-p tcp -m tcp --sport 40000:", True),
        ("-p tcp -m multiport --dports 22,80:90", True),
        ("-p tcp -m multiport --dports 22,443", False),
        ("-p tcp -m multiport ! --ports 22,40000", False),
        ("-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", True),
        ("-p tcp -m tcp --tcp-flags FIN,SYN NONE", False),
        ("-p udp -m udp --dport 80", False),
    ],
)
def test_ports_are_those_of_the_protocol(rule: str, answer: bool) -> None:
    assert says(rule, HTTP) is answer


@pytest.mark.parametrize(
    "rule",
    [
        "-m set --match-set blocked src",
        "-m limit --limit 3/min",
        "-m socket",
        "-p icmp -m icmp --icmp-type timestamp-request",
        "-m addrtype --dst-type LOCAL",
        "-m addrtype --dst-type LOCAL --limit-iface-in",
        "-m rpfilter --validmark --invert",
        "-p frobnicate",
        "-m mark --mark what",
        "[unsupported revision]",
        "-m physdev --physdev-in veth0",
        "!",
    ],
)
def test_what_is_not_understood_is_unknown(rule: str) -> None:
    assert says(rule) is None


def test_a_port_that_is_not_known_is_unknown_unless_one_that_is_decides() -> None:
    assert says("-p tcp -m tcp --dport 80", replace(HTTP, destination_port=None)) is None
    assert says("-p tcp -m multiport --ports 80", replace(HTTP, source_port=None)) is True
    assert says("-p tcp -m multiport --ports 81", replace(HTTP, source_port=None)) is None


def test_one_condition_that_fails_settles_it_whatever_the_unknown_ones_say() -> None:
    assert says("-m set --match-set blocked src -o docker0") is False
    assert says("-o docker0 -m set --match-set blocked src") is False
    assert says("-m set ! --match-set blocked src -o flannel.1") is None


def test_kinds_of_addresses_are_known_when_the_caller_says_them() -> None:
    local = replace(PING, destination_type="LOCAL", source_type="UNICAST")
    assert says("-m addrtype --dst-type LOCAL", local) is True
    assert says("-m addrtype ! --src-type LOCAL,BROADCAST", local) is True
    assert says("-m addrtype --dst-type MULTICAST", replace(PING, destination=ip_address("224.0.0.1"))) is True


def test_the_way_back_is_judged_when_the_caller_knows_it() -> None:
    assert says("-m rpfilter --validmark --invert", replace(PING, reverse_path=False)) is True
    assert says("-m rpfilter --validmark --invert", replace(PING, reverse_path=True)) is False
    assert says("-m rpfilter", replace(PING, reverse_path=True)) is True


def test_a_packet_of_this_host_has_no_device_it_came_in_by() -> None:
    made_here = replace(PING, in_device=None)
    assert says("-i docker0", made_here) is False
    assert says("! -i docker0", made_here) is True


def test_ipv6_is_judged_in_its_own_terms() -> None:
    assert says("-s fd00::/64 -d fd00::9:0/112 -p ipv6-icmp -m icmp6 --icmpv6-type 128", PING6) is True
    assert says("-s fd00::1:0/ffff::ffff:0", PING6) is True
    assert says("-s 10.5.1.0/24", PING6) is False


def test_a_mark_that_is_not_known_leaves_the_condition_unknown() -> None:
    assert says("-m mark --mark 0x1", replace(PING, mark=None)) is None


def test_protocols_have_names_and_numbers() -> None:
    assert (protocol("icmp", 4), protocol("icmp", 6), protocol("47", 4), protocol("GRE", 4)) == (1, 58, 47, 47)
    assert protocol("frobnicate", 4) is None


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_a_prefix_means_what_the_library_says(address: int, base: int, length: int) -> None:
    network = ip_network((base, length), strict=False)
    packet = replace(PING, source=ip_address(address))
    assert says(f"-s {network}", packet) is (packet.source in network)
    assert says(f"-s {network.network_address}/{network.netmask}", packet) is (packet.source in network)


@given(st.text(max_size=60))
def test_no_text_breaks_the_judge(rule: str) -> None:
    assert says(rule) in (True, False, None)
