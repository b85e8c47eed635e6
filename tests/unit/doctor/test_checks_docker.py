from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network

import pytest

from pyflannel.doctor.checks import examine
from pyflannel.doctor.facts import Device, Docker, Facts
from tests.support.healthy_host import DEVICES, HEALTHY, codes


def with_docker0(*addresses: str, mtu: int = 1430) -> Facts:
    held = tuple(map(IPv4Interface, addresses))
    docker = Device("docker0", "bridge", mtu, True, addresses=held)
    return replace(HEALTHY, docker=None, devices=(*DEVICES[:4], docker, DEVICES[5]))


@pytest.mark.parametrize("address", ["172.17.0.1/16", "10.2.8.1/24"])
def test_a_bridge_in_another_subnet_is_found(address: str) -> None:
    (found,) = examine(with_docker0(address))
    assert found.code == "bridge-elsewhere"
    assert f"docker0 has {address}, and the subnet of this host is 10.2.7.0/24" in found.evidence


def test_a_bridge_that_takes_in_other_hosts_is_found() -> None:
    (found,) = examine(with_docker0("10.2.7.1/16"))
    assert found.code == "bridge-elsewhere"
    assert "docker0 has 10.2.7.1/16" in found.evidence


def test_docker_may_be_elsewhere_where_another_bridge_takes_the_subnet() -> None:
    elsewhere = with_docker0("172.17.0.1/16")
    cni = Device("cni0", "bridge", 1430, True, addresses=(IPv4Interface("10.2.7.1/24"),))
    assert codes(replace(elsewhere, devices=(*(elsewhere.devices or ()), cni))) == []


def test_docker_need_not_know_of_flannel_where_cni_does() -> None:
    assert codes(replace(with_docker0("172.17.0.1/16"), cni=True)) == []
    cni = Device("cni0", "bridge", 1430, True, addresses=(IPv4Interface("10.2.8.1/24"),))
    assert codes(replace(HEALTHY, cni=True, docker=None, devices=(*DEVICES[:4], cni))) == ["bridge-elsewhere"]


def test_a_host_without_any_bridge_yet_is_well() -> None:
    assert codes(replace(HEALTHY, devices=DEVICES[:4], docker=None)) == []


def test_docker_that_hands_out_other_addresses_is_found() -> None:
    docker = Docker("28.2.2", "docker0", IPv4Network("10.2.8.0/24"), 1430)
    (found,) = examine(replace(HEALTHY, docker=docker))
    assert found.code == "docker-subnet"
    assert "Docker's network bridge has 10.2.8.0/24" in found.evidence


def test_docker_with_too_large_an_mtu_is_found_once() -> None:
    assert HEALTHY.docker is not None
    large = (*DEVICES[:5], replace(DEVICES[5], mtu=1500))
    (found,) = examine(replace(HEALTHY, docker=replace(HEALTHY.docker, mtu=1500), devices=large))
    assert found.code == "packets-too-large"
    assert "has the MTU 1500, and subnet.env says FLANNEL_MTU=1430" in found.evidence


def test_a_container_with_too_large_an_mtu_is_found() -> None:
    large = (*DEVICES[:5], replace(DEVICES[5], mtu=1500))
    (found,) = examine(replace(HEALTHY, devices=large))
    assert (found.code, "veth1, a port of docker0, has the MTU 1500" in found.evidence) == ("packets-too-large", True)


def test_smaller_packets_than_need_be_are_no_trouble() -> None:
    assert HEALTHY.docker is not None
    assert codes(replace(HEALTHY, docker=replace(HEALTHY.docker, mtu=1400))) == []
    # Docker leaves the bridge itself at 1500 as long as nothing is plugged in.
    assert codes(with_docker0("10.2.7.1/24", mtu=1500)) == []
