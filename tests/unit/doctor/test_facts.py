"""What follows from facts."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network, IPv6Network

import pytest

from pyflannel.doctor.facts import Device, Facts, SubnetFile, member, read_address, read_network
from tests.support.healthy_host import DEVICES, HEALTHY


def test_what_the_agent_says_of_its_subnet_beats_what_a_file_says() -> None:
    assert HEALTHY.subnet_file is not None
    file = replace(HEALTHY.subnet_file, ipv4=IPv4Network("10.2.8.0/24"))
    assert replace(HEALTHY, subnet_file=file).subnets[0] == IPv4Network("10.2.7.0/24")
    assert replace(HEALTHY, subnet_file=file, agent=None).subnets[0] == IPv4Network("10.2.8.0/24")


def test_without_a_configuration_the_range_is_as_the_file_says() -> None:
    assert replace(HEALTHY, network=None).ranges == (IPv4Network("10.2.0.0/16"), IPv6Network("fd00:2::/48"))
    assert Facts(subnet_file=SubnetFile("/subnet.env", there=False)).ranges == ()


def test_the_bridge_is_the_device_with_an_address_in_our_subnet() -> None:
    assert HEALTHY.bridge is not None
    assert HEALTHY.bridge.name == "docker0"
    other = Device("br0", "bridge", 1450, True, addresses=(IPv4Interface("10.2.7.1/24"),))
    bridge = replace(HEALTHY, devices=(*DEVICES[:4], other)).bridge
    assert bridge == other
    assert replace(HEALTHY, devices=DEVICES[:4]).bridge is None


def test_a_small_network_has_a_last_member() -> None:
    assert str(member(IPv4Network("10.2.7.0/24"), 2)) == "10.2.7.2"
    assert str(member(IPv4Network("10.2.7.9/32"), 2)) == "10.2.7.9"


@pytest.mark.parametrize("text", ["", None, "nonsense", "10.2.0.0/99"])
def test_what_is_no_address_is_none(text: str | None) -> None:
    assert read_network(text) is None
    assert read_address(text) is None
