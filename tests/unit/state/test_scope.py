from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface, ip_network

import pytest

from pyflannel.state import (
    Identity,
    Mac,
    Scope,
    Spec,
    Tun,
    Vxlan,
    Wireguard,
)

VXLAN = Vxlan(1, "eth0", None, 8472)
OURS_MAC, OTHER_MAC = Mac.parse("02:00:00:00:00:01"), Mac.parse("02:00:00:00:00:02")


def test_an_address_is_ours_by_network_for_ipv4_and_unless_link_local_for_ipv6() -> None:
    scope = Scope(networks=(ip_network("10.2.0.0/16"),))
    ours = [
        text for text in ("10.2.1.0/32", "10.3.1.0/32", "fd00::1/64", "fe80::1/64") if scope.owns(ip_interface(text))
    ]
    assert ours == ["10.2.1.0/32", "fd00::1/64"]


def test_a_union_owns_what_either_owns() -> None:
    one = Scope(frozenset(("flannel.1",)), (ip_network("10.2.0.0/16"),), borrowed=frozenset(("eth0",)))
    other = Scope(frozenset(("flannel-wg",)), (ip_network("10.2.0.0/16"), ip_network("fd00::/64")), hooks=True)
    assert one.union(other) == Scope(
        frozenset(("flannel.1", "flannel-wg")),
        (ip_network("10.2.0.0/16"), ip_network("fd00::/64")),
        borrowed=frozenset(("eth0",)),
        hooks=True,
    )


@pytest.mark.parametrize(
    ("spec", "mac", "address", "known"),
    [
        (VXLAN, OURS_MAC, False, True),
        (replace(VXLAN, port=4789), OURS_MAC, False, True),
        (VXLAN, OTHER_MAC, True, True),
        (VXLAN, OTHER_MAC, False, False),
        (replace(VXLAN, port=4789), OTHER_MAC, True, False),
        (replace(VXLAN, vni=2), OURS_MAC, True, False),
        (Wireguard(), OURS_MAC, True, False),
    ],
)
def test_a_vxlan_device_is_known_by_vni_and_mac_or_by_vni_port_and_address(
    spec: Spec, mac: Mac, address: bool, known: bool
) -> None:
    identity = Identity("flannel.1", VXLAN, OURS_MAC, ip_interface("10.2.1.0/32"))
    assert identity.fits(spec, mac, lambda _: address) is known


@pytest.mark.parametrize(
    ("spec", "address", "known"), [(Wireguard(), True, True), (Wireguard(), False, False), (Tun(), True, False)]
)
def test_a_device_without_a_mac_is_known_by_type_and_address(spec: Spec, address: bool, known: bool) -> None:
    identity = Identity("flannel-wg", Wireguard(), address=ip_interface("10.2.1.0/32"))
    assert identity.fits(spec, None, lambda _: address) is known
