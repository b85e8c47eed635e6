from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from pyflannel.backends import from_config
from pyflannel.backends.api import Refused
from pyflannel.lease.model import Attrs, Lease, Subnet
from pyflannel.lease.network import ConfigError, parse_network_config
from pyflannel.state import PROTO_FLANNEL, Route, Scope
from tests.support.builders import view

V4 = parse_network_config('{"Network":"10.2.0.0/16","Backend":{"Type":"host-gw"}}')
DUAL = parse_network_config(
    '{"Network":"10.2.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:2::/48","Backend":{"Type":"host-gw"}}'
)
VIEW = view()
PEER = Lease(Subnet(IPv4Network("10.2.41.0/24")), Attrs(IPv4Address("172.16.41.132"), None, "host-gw"))


def test_a_peer_is_a_route_through_its_host_that_carries_our_protocol() -> None:
    (route,) = from_config(V4).peer_items(VIEW, PEER)
    assert route == Route(
        IPv4Network("10.2.41.0/24"), "ens33", IPv4Address("172.16.41.132"), False, 0, protocol=PROTO_FLANNEL
    )


def test_a_dual_stack_peer_is_a_route_in_each_family() -> None:
    peer = Lease(
        Subnet(IPv4Network("10.2.41.0/24"), IPv6Network("fd00:2:0:41::/64")),
        Attrs(IPv4Address("172.16.41.132"), IPv6Address("2001:db8::132"), "host-gw"),
    )
    routes = from_config(DUAL).peer_items(VIEW, peer)
    assert [(str(item.dst), str(item.via)) for item in routes if isinstance(item, Route)] == [
        ("10.2.41.0/24", "172.16.41.132"),
        ("fd00:2:0:41::/64", "2001:db8::132"),
    ]
    assert len(from_config(V4).peer_items(VIEW, peer)) == 1


@pytest.mark.parametrize(
    ("attrs", "said"),
    [
        (Attrs(IPv4Address("172.16.41.132"), None, "vxlan"), "publishes backend type 'vxlan', and ours is 'host-gw'"),
        (Attrs(VIEW.underlay.ipv4, None, "host-gw"), "which is our own"),
        (Attrs(None, IPv6Address("2001:db8::132"), "host-gw"), "no address family in common"),
    ],
)
def test_a_record_that_is_no_use_is_refused(attrs: Attrs, said: str) -> None:
    with pytest.raises(Refused, match=said):
        from_config(V4).peer_items(VIEW, replace(PEER, attrs=attrs))


def test_a_host_publishes_its_address_and_type_alone() -> None:
    made = from_config(V4)
    assert made.attrs(VIEW.underlay, {}) == Attrs(VIEW.underlay.public_ip, None, "host-gw")
    assert (made.devices, made.self_items(VIEW), made.claims(PEER), made.published(PEER)) == ((), (), frozenset(), {})


def test_containers_may_send_what_the_interface_may() -> None:
    assert from_config(V4).mtu(VIEW.underlay) == VIEW.underlay.mtu


def test_an_address_that_is_not_on_the_interface_is_no_gateway() -> None:
    behind = replace(VIEW.underlay, public_ip=IPv4Address("203.0.113.9"))
    with pytest.raises(ConfigError, match=r"203\.0\.113\.9 is not the address of ens33, which is 172"):
        from_config(V4).mtu(behind)


def test_only_routes_on_the_external_interface_are_ours() -> None:
    assert from_config(V4).scope(VIEW) == Scope(borrowed=frozenset(("ens33",)))


def test_an_option_nobody_knows_is_mentioned() -> None:
    odd = parse_network_config('{"Network":"10.2.0.0/16","Backend":{"Type":"host-gw","MTU":1400}}')
    assert any("MTU" in warning for warning in from_config(odd).warnings)
    assert from_config(V4).warnings == ()
