"""A look at this machine's own network; what is found in it is tried out in tests/netns/test_doctor.py."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv4Network

import pytest

from pyflannel.doctor.kernel import Kernel


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
