from __future__ import annotations

import struct
from ipaddress import ip_interface
from socket import AF_INET, AF_INET6, AF_UNSPEC

import pytest

from pyflannel.linux import addresses
from pyflannel.linux.addresses import IFA_ADDRESS, IFA_FLAGS, IFA_LOCAL, IFADDRMSG, Assigned
from pyflannel.linux.netlink import attribute
from pyflannel.state import Address
from tests.support.netlink_oracle import understood

FOUR = Address("flannel.1", ip_interface("10.2.1.0/32"))
SIX = Address("flannel-v6.1", ip_interface("fd00:2:1::/128"))


@pytest.mark.parametrize("item", [FOUR, Address("flannel.1", ip_interface("10.2.1.0/16"))])
def test_an_ipv4_address_is_put_with_its_prefix_length(item: Address) -> None:
    said = understood(addresses.put(item, 7))
    assert (said["family"], said["index"], said["scope"]) == (AF_INET, 7, 0)
    assert said["prefixlen"] == item.address.network.prefixlen
    assert said["IFA_LOCAL"] == said["IFA_ADDRESS"] == "10.2.1.0"
    assert "IFA_FLAGS" not in said


def test_an_ipv6_address_is_put_without_duplicate_detection() -> None:
    said = understood(addresses.put(SIX, 7))
    assert (said["family"], said["prefixlen"], said["IFA_LOCAL"]) == (AF_INET6, 128, "fd00:2:1::")
    assert said["IFA_FLAGS"] == addresses.IFA_F_NODAD


@pytest.mark.parametrize("item", [FOUR, SIX])
def test_what_is_written_reads_the_same(item: Address) -> None:
    for request in (addresses.put(item, 7), addresses.cut(item, 7)):
        found = addresses.read(request.body)
        assert found is not None
        assert (found.index, found.address) == (7, item.address)


def test_on_a_point_to_point_device_ours_is_the_local_address() -> None:
    body = (
        IFADDRMSG.pack(AF_INET, 32, 0, 0, 7)
        + attribute(IFA_ADDRESS, bytes((10, 0, 0, 2)))
        + attribute(IFA_LOCAL, bytes((10, 0, 0, 1)))
    )
    assert addresses.read(body) == Assigned(7, ip_interface("10.0.0.1/32"), 0)


def test_the_long_flags_win_over_the_short_ones() -> None:
    body = (
        IFADDRMSG.pack(AF_INET, 32, 0x80, 0, 7)
        + attribute(IFA_LOCAL, bytes(4))
        + attribute(IFA_FLAGS, struct.pack("=I", 0x220))
    )
    found = addresses.read(body)
    assert found is not None
    assert found.flags == 0x220


def test_other_families_and_entries_without_an_address_are_passed_over() -> None:
    assert addresses.read(IFADDRMSG.pack(AF_UNSPEC, 0, 0, 0, 7) + attribute(IFA_LOCAL, bytes(4))) is None
    assert addresses.read(IFADDRMSG.pack(AF_INET, 32, 0, 0, 7)) is None


def test_a_listing_is_for_one_device_or_for_all() -> None:
    assert understood(addresses.query(7))["index"] == 7
    assert understood(addresses.query())["index"] == 0
