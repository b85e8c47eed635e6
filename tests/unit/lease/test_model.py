from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network

import pytest

from pyflannel.lease.model import Attrs, Lease, Subnet

V4, V4_OTHER = IPv4Network("10.1.5.0/24"), IPv4Network("10.1.6.0/24")
V6, V6_OTHER = IPv6Network("fd00:12:13::/56"), IPv6Network("fd00:12:14::/56")


def test_a_subnet_has_at_least_one_family() -> None:
    with pytest.raises(ValueError, match="address family"):
        Subnet()


@pytest.mark.parametrize(
    ("subnet", "text"),
    [
        (Subnet(V4), "10.1.5.0/24"),
        (Subnet(ipv6=V6), "fd00:12:13::/56"),
        (Subnet(V4, V6), "10.1.5.0/24 and fd00:12:13::/56"),
    ],
)
def test_a_subnet_reads_as_people_write_it(subnet: Subnet, text: str) -> None:
    assert str(subnet) == text


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        (Subnet(V4), Subnet(V4), True),
        (Subnet(V4), Subnet(V4_OTHER), False),
        (Subnet(V4), Subnet(IPv4Network("10.1.4.0/23")), True),
        (Subnet(V4), Subnet(IPv4Network("10.1.5.128/25")), True),
        (Subnet(V4, V6), Subnet(V4_OTHER, V6), True),
        (Subnet(V4, V6), Subnet(V4_OTHER, V6_OTHER), False),
        # Go crashes on these two (compat §3.5).
        (Subnet(V4, V6), Subnet(V4_OTHER), False),
        (Subnet(V4), Subnet(ipv6=V6), False),
    ],
)
def test_subnets_overlap_if_they_do_in_a_family_both_have(one: Subnet, other: Subnet, overlap: bool) -> None:
    assert one.overlaps(other) is overlap
    assert other.overlaps(one) is overlap


def test_the_bookkeeping_of_the_store_is_no_part_of_what_a_lease_says() -> None:
    lease = Lease(Subnet(V4), Attrs(IPv4Address("172.16.41.131")))
    renewed = Lease(lease.subnet, lease.attrs, created=3, modified=7, lease_id=99, ttl=86400.0, reservation=True)
    assert renewed == lease
    assert hash(renewed) == hash(lease)


def test_another_public_ip_makes_another_lease() -> None:
    lease = Lease(Subnet(V4), Attrs(IPv4Address("172.16.41.131")))
    assert lease != Lease(Subnet(V4), Attrs(IPv4Address("172.16.41.132")))
