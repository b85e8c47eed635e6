from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from pyflannel.reach import Reach


def reach(*routes: tuple[str, bool]) -> Reach:
    return Reach.of((ip_network(network), here) for network, here in routes)


LINK = ("172.16.0.0/16", True)


@pytest.mark.parametrize(
    ("routes", "near", "far"),
    [
        ([], [], ["172.16.1.1", "2001:db8::1"]),
        ([LINK], ["172.16.1.1"], ["172.17.0.1", "2001:db8::1"]),
        ([LINK, ("172.16.5.0/24", False)], ["172.16.1.1"], ["172.16.5.1"]),
        ([LINK, ("172.16.5.0/24", False), ("172.16.5.7/32", True)], ["172.16.5.7"], ["172.16.5.1"]),
        ([LINK, ("172.16.0.0/16", False)], ["172.16.1.1"], []),
        ([("172.16.0.0/16", False), LINK], [], ["172.16.1.1"]),
        ([("10.0.0.0/8", False), LINK], ["172.16.1.1"], ["10.1.1.1"]),
        ([("2001:db8::/64", True), ("2001:db8::7/128", False)], ["2001:db8::1"], ["2001:db8::7", "172.16.1.1"]),
    ],
)
def test_the_longest_prefix_says_whether_a_host_is_on_the_link(
    routes: list[tuple[str, bool]], near: list[str], far: list[str]
) -> None:
    found = reach(*routes)
    assert all(ip_address(host) in found for host in near)
    assert not any(ip_address(host) in found for host in far)


def test_routes_that_make_no_difference_make_no_other_reach() -> None:
    known = reach(LINK, ("172.16.5.0/24", False))
    assert reach(("172.16.5.0/24", False), LINK, ("10.0.0.0/8", False), ("172.0.0.0/8", False)) == known
