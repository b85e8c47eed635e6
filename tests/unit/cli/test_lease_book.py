from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from pyflannel.cli.lease_book import Book, objection, open_book, parse_subnet
from pyflannel.lease.model import Attrs, Lease, Snapshot, Subnet, Unreadable
from pyflannel.state import Mac
from tests.support.builders import subnet, vxlan_lease

CONFIG = '{"Network":"10.2.0.0/16","SubnetMin":"10.2.10.0","SubnetMax":"10.2.99.0","Backend":{"Type":"vxlan"}}'
DUAL = '{"Network":"10.2.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:2::/48","Backend":{"Type":"vxlan"}}'
IPV6 = DUAL.replace("{", '{"EnableIPv4":false,', 1)
OURS, THEIRS = vxlan_lease("10.2.71.0/24", "172.16.41.131", Mac.parse("02:00:00:00:00:01")), vxlan_lease()
NEW = Attrs(IPv4Address("172.16.41.140"))
NEW_V6 = Attrs(None, IPv6Address("fd00::140"))


def book(*leases: Lease, config: str = CONFIG, unreadable: tuple[Unreadable, ...] = (), here: str = "::1") -> Book:
    address = IPv6Address(here) if ":" in here else IPv4Address(here)
    return open_book(Snapshot(7, leases, unreadable, config), [address])


def faults(opened: Book) -> dict[str, str]:
    return {str(entry.lease.subnet): entry.fault for entry in opened.entries if entry.fault}


# Reading a subnet


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("10.2.71.0/24", subnet("10.2.71.0/24")),
        ("10.2.71.1/24", subnet("10.2.71.0/24")),
        ("10.2.71.0-24", subnet("10.2.71.0/24")),
        ("/coreos.com/network/subnets/10.2.71.0-24", subnet("10.2.71.0/24")),
        ("fd00:2:0:71::/64", subnet("fd00:2:0:71::/64")),
        ("10.2.71.0/24,fd00:2:0:71::/64", subnet("10.2.71.0/24", "fd00:2:0:71::/64")),
        ("10.2.71.0-24&fd00:2:0:71::-64", subnet("10.2.71.0/24", "fd00:2:0:71::/64")),
    ],
)
def test_subnet_is_read_in_every_spelling_there_is(text: str, meant: Subnet) -> None:
    assert parse_subnet(text) == meant
    assert parse_subnet(str(meant)) == meant


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "10.2.71.0",
        "10.2.71.0/33",
        "host2",
        "10.2.71.0-24-",
        "10.2.71.0/24,10.2.72.0/24",
        "10.2.71.0/x",
        "fd00::%0/64",
    ],
)
def test_what_is_no_subnet_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_subnet(text)


# Judging


def test_leases_are_in_the_order_of_their_addresses() -> None:
    others = [vxlan_lease(net, mac=Mac.parse(f"02:00:00:00:01:{i:02x}")) for i, net in enumerate(["10.2.9.0/24"])]
    six = replace(OURS, subnet=subnet("fd00:2:0:1::/64"))
    entries = book(OURS, six, THEIRS, *others).entries
    assert [str(entry.lease.subnet) for entry in entries] == [
        "10.2.9.0/24",
        "10.2.41.0/24",
        "10.2.71.0/24",
        "fd00:2:0:1::/64",
    ]


def test_lease_of_this_host_is_known_by_its_address() -> None:
    assert [entry.here for entry in book(OURS, THEIRS, here="172.16.41.131").entries] == [False, True]
    assert [entry.here for entry in book(OURS, THEIRS, here="172.16.41.9").entries] == [False, False]


def test_faults_are_those_that_an_agent_finds() -> None:
    outside = vxlan_lease("10.9.1.0/24", mac=Mac.parse("02:00:00:00:00:03"))
    same_mac = vxlan_lease("10.2.42.0/24", "172.16.41.133", created=20)
    reserved = Lease(subnet("10.2.43.0/24"), NEW)
    found = faults(book(OURS, THEIRS, outside, same_mac, reserved))
    assert set(found) == {"10.9.1.0/24", "10.2.42.0/24", "10.2.43.0/24"}
    assert found["10.9.1.0/24"].startswith("lies outside the network 10.2.0.0/16")
    assert "10.2.41.0/24, which came first" in found["10.2.42.0/24"]
    assert found["10.2.43.0/24"] == "publishes backend type 'none', and ours is 'vxlan'"


def test_this_host_s_own_lease_goes_before_an_older_one_as_it_does_for_its_agent() -> None:
    older = vxlan_lease("10.2.71.128/25", created=1)
    assert set(faults(book(OURS, older))) == {"10.2.71.0/24"}
    assert set(faults(book(OURS, older, here="172.16.41.131"))) == {"10.2.71.128/25"}


def test_second_record_with_this_host_s_address_is_a_fault() -> None:
    copy = replace(THEIRS, attrs=replace(THEIRS.attrs, public_ip=OURS.attrs.public_ip))
    found = faults(book(OURS, copy, here="172.16.41.131"))
    assert set(found) == {"10.2.41.0/24"}
    assert "which is our own" in found["10.2.41.0/24"]
    assert faults(book(OURS, copy)) == {}


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ("", "there is no network configuration"),
        ("{", "the network configuration is not a JSON object"),
        ('{"Network":"10.2.0.0/16","Backend":{"Type":"carrier-pigeon"}}', "carrier-pigeon"),
    ],
)
def test_without_a_configuration_nothing_is_judged_and_it_says_so(config: str, why: str) -> None:
    opened = book(OURS, config=config)
    assert [(entry.lease, entry.fault) for entry in opened.entries] == [(OURS, "")]
    (remark,) = opened.remarks
    assert why in remark


# Finding


def test_lease_is_found_by_its_subnet_or_by_one_half_of_it() -> None:
    dual = replace(THEIRS, subnet=subnet("10.2.41.0/24", "fd00:2:0:41::/64"))
    opened = book(OURS, dual, config=DUAL)
    for nets in (["10.2.41.0/24"], ["fd00:2:0:41::/64"], ["10.2.41.0/24", "fd00:2:0:41::/64"]):
        entry = opened.find(subnet(*nets))
        assert entry is not None
        assert entry.lease is dual
    for nets in (["10.2.42.0/24"], ["10.2.41.0/25"], ["10.2.41.0/24", "fd00:2:0:42::/64"], ["fd00:2:0:71::/64"]):
        assert opened.find(subnet(*nets)) is None


def test_record_that_cannot_be_read_is_found_by_its_key() -> None:
    record = Unreadable("/coreos.com/network/subnets/10.2.9.0-24", "no JSON")
    opened = book(OURS, unreadable=(Unreadable("/coreos.com/network/subnets/junk", "no subnet"), record))
    assert opened.unreadable_at(subnet("10.2.9.0/24")) is record
    assert opened.unreadable_at(subnet("10.2.71.0/24")) is None


def test_host_s_lease_is_found_by_its_address() -> None:
    entry = book(OURS, THEIRS).held_by(IPv4Address("172.16.41.132"))
    assert entry is not None
    assert entry.lease is THEIRS
    assert book(OURS).held_by(IPv4Address("172.16.41.132")) is None


# What can be reserved


@pytest.mark.parametrize(
    ("config", "wanted", "attrs"),
    [
        (CONFIG, "10.2.10.0/24", NEW),
        (CONFIG, "10.2.99.0/24", NEW),
        (DUAL, "10.2.50.0/24,fd00:2:0:50::/64", NEW),
        (IPV6, "fd00:2:0:50::/64", NEW_V6),
    ],
)
def test_free_subnet_of_the_network_can_be_reserved(config: str, wanted: str, attrs: Attrs) -> None:
    assert objection(book(OURS, THEIRS, config=config), parse_subnet(wanted), attrs) is None


@pytest.mark.parametrize(
    ("config", "wanted", "attrs", "why"),
    [
        (CONFIG, "10.3.50.0/24", NEW, "lies outside the network 10.2.0.0/16"),
        (CONFIG, "10.0.0.0/8", NEW, "lies outside the network 10.2.0.0/16"),
        (CONFIG, "10.2.50.0/25", NEW, "IPv4 subnets here have the prefix length 24"),
        (CONFIG, "10.2.9.0/24", NEW, "begin from 10.2.10.0 to 10.2.99.0"),
        (CONFIG, "10.2.100.0/24", NEW, "begin from 10.2.10.0 to 10.2.99.0"),
        (CONFIG, "10.2.50.0/24,fd00:2:0:50::/64", NEW, "the network has no IPv6"),
        (DUAL, "10.2.50.0/24", NEW, "name an IPv6 subnet too"),
        (DUAL, "10.2.50.0/24,fd00:3:0:50::/64", NEW, "lies outside the network fd00:2::/48"),
        (DUAL, "10.2.50.0/24,fd00:2:0:50::/64", NEW_V6, "named by an IPv4 address"),
        (IPV6, "fd00:2:0:50::/64", NEW, "named by an IPv6 address"),
        (CONFIG, "10.2.50.0/24", Attrs(IPv4Address("127.0.0.1")), "127.0.0.1"),
        (CONFIG, "10.2.50.0/24", Attrs(IPv4Address("10.2.50.1")), "lies in its own subnet"),
    ],
)
def test_subnet_that_its_host_could_not_use_cannot_be_reserved(
    config: str, wanted: str, attrs: Attrs, why: str
) -> None:
    said = objection(book(OURS, THEIRS, config=config), parse_subnet(wanted), attrs)
    assert said is not None
    assert why in said


def test_without_a_configuration_nothing_can_be_reserved() -> None:
    opened = book(OURS, config="")
    assert objection(opened, subnet("10.2.50.0/24"), NEW) == opened.remarks[0]


def test_subnet_that_overlaps_a_record_readable_or_not_cannot_be_reserved() -> None:
    record = Unreadable("/coreos.com/network/subnets/10.2.60.0-23", "no JSON")
    opened = book(vxlan_lease("10.2.50.128/25"), unreadable=(record,))
    assert objection(opened, subnet("10.2.50.0/24"), NEW) == "it overlaps 10.2.50.128/25, which is taken"
    assert objection(opened, subnet("10.2.61.0/24"), NEW) == "it overlaps 10.2.60.0/23, which is taken"
    assert objection(opened, subnet("10.2.51.0/24"), NEW) is None
