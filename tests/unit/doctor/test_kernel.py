"""A look at this machine's own network; what is found in it is tried out in tests/netns/test_doctor.py."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address

import pytest

from pyflannel.doctor.kernel import Kernel
from tests.support.namespaces import Namespace


def test_every_machine_has_a_loopback_device_and_no_route_over_nothing() -> None:
    with Kernel() as kernel:
        devices = kernel.devices()
        routes = kernel.routes([IPv4Network("0.0.0.0/0")])
        assert kernel.neighbours() >= 0
    (loopback,) = [each for each in devices if each.name == "lo"]
    assert IPv4Interface("127.0.0.1/8") in loopback.addresses
    assert (loopback.kind, loopback.master, loopback.vni) == ("", "", None)
    assert {route.dev for route in routes} <= {each.name for each in devices}


def test_routes_elsewhere_are_not_listed() -> None:
    with Kernel() as kernel:
        kernel.devices()
        assert kernel.routes([]) == ()


def test_a_namespace_that_is_not_there_is_an_error() -> None:
    with pytest.raises(OSError, match="no-such-namespace"):
        Kernel("no-such-namespace")


@pytest.mark.needs("root", "netns", "bridge")
def test_the_kernel_says_whom_it_lets_in_by_a_device() -> None:
    with Namespace("doctor") as space:
        for number, dev in enumerate(("one", "two"), 1):
            space.run(f"ip link add {dev} up type bridge")
            space.run(f"ip address add 192.0.2.{number}/32 dev {dev}")
            space.shell(f"echo 1 >/proc/sys/net/ipv4/conf/{dev}/rp_filter")
        space.run("ip route add 198.51.100.1 dev one")
        space.run("ip route add 198.51.100.2 nexthop dev one nexthop dev two")
        with Kernel(space.name) as kernel:
            kernel.devices()
            first, both = IPv4Address("198.51.100.1"), IPv4Address("198.51.100.2")
            assert [kernel.takes(first, dev) for dev in ("one", "two", "none")] == [True, False, None]
            # One that has several ways at once may be heard by each of them.
            assert [kernel.takes(both, dev) for dev in ("one", "two")] == [True, True]
            assert kernel.takes(IPv6Address("2001:db8::1"), "one") is None
