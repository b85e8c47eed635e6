from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_interface

import pytest

from pyflannel.backends.api import Refused
from pyflannel.lease.model import Attrs, Lease
from pyflannel.lease.network import ConfigError
from pyflannel.reach import Reach
from pyflannel.state import PROTO_FLANNEL, Address, Identity, Ipip, Link, Route, Scope
from tests.support.builders import backend, config, subnet, underlay, view

V4 = config('{"Type":"ipip"}')
DIRECT = config('{"Type":"ipip","DirectRouting":true}')
VIEW = view(V4)
ON_LINK = Reach.of([(IPv4Network("172.16.41.0/24"), True)])
NEAR = replace(VIEW, underlay=replace(VIEW.underlay, on_link=ON_LINK))
HOST = IPv4Address("172.16.41.132")
PEER = Lease(subnet("10.2.41.0/24"), Attrs(HOST, None, "ipip"))
SPEC = Ipip("", IPv4Address("172.16.41.131"))
SUBNET = IPv4Network("10.2.41.0/24")


def test_a_peer_is_one_route_through_the_device_to_its_host() -> None:
    assert backend(V4).peer_items(NEAR, PEER) == (Route(SUBNET, "flannel.ipip", HOST, onlink=True),)


def test_we_ourselves_are_a_device_with_the_subnets_own_address() -> None:
    assert backend(V4).self_items(VIEW) == (
        Link("flannel.ipip", SPEC, 1480),
        Address("flannel.ipip", ip_interface("10.2.71.0/32")),
    )


def test_a_peer_on_the_link_is_reached_directly_where_that_is_wanted() -> None:
    made = backend(DIRECT)
    assert made.peer_items(NEAR, PEER) == (Route(SUBNET, "ens33", HOST, onlink=True, protocol=PROTO_FLANNEL),)
    assert made.peer_items(VIEW, PEER) == backend(V4).peer_items(VIEW, PEER)
    far = replace(PEER, attrs=replace(PEER.attrs, public_ip=IPv4Address("172.16.42.132")))
    (route,) = made.peer_items(NEAR, far)
    assert isinstance(route, Route)
    assert route.dev == "flannel.ipip"


def test_the_outer_header_takes_twenty_bytes_whether_or_not_peers_are_reached_directly() -> None:
    assert backend(V4).mtu(underlay()) == backend(DIRECT).mtu(underlay()) == 1480
    with pytest.raises(ConfigError, match=r"MTU 87 of ens33 leaves 67 bytes for flannel\.ipip: it must be at least 88"):
        backend(V4).mtu(underlay(mtu=87))


def test_a_host_publishes_its_address_and_type_alone() -> None:
    made = backend(V4)
    assert made.attrs(VIEW.underlay, VIEW.macs) == Attrs(VIEW.underlay.public_ip, None, "ipip")
    assert (made.type, made.devices, made.claims(PEER), made.published(PEER)) == (
        "ipip",
        ("flannel.ipip",),
        frozenset(),
        {},
    )


def test_the_device_is_known_again_by_our_address() -> None:
    assert backend(V4).scope(VIEW) == Scope(
        devices=frozenset(("flannel.ipip",)),
        networks=(IPv4Network("10.2.0.0/16"),),
        identities=(Identity("flannel.ipip", SPEC, None, ip_interface("10.2.71.0/32")),),
        borrowed=frozenset(("ens33",)),
    )


@pytest.mark.parametrize(
    ("peer", "said"),
    [
        (replace(PEER, attrs=replace(PEER.attrs, backend_type="vxlan")), "publishes backend type 'vxlan'"),
        (replace(PEER, attrs=replace(PEER.attrs, public_ip=VIEW.underlay.ipv4)), "which is our own"),
        (replace(PEER, attrs=Attrs(None, IPv6Address("2001:db8::1"), "ipip")), "no PublicIP"),
        (replace(PEER, subnet=subnet("fd00:2:0:41::/64")), "no IPv4 subnet"),
    ],
)
def test_a_record_that_is_no_use_is_refused(peer: Lease, said: str) -> None:
    with pytest.raises(Refused, match=said):
        backend(V4).peer_items(VIEW, peer)


def test_metrics_are_spread_in_the_tunnel_and_nowhere_else() -> None:
    spread = replace(NEAR, spread=True)
    (tunnelled,), (direct,) = (backend(network).peer_items(spread, PEER) for network in (V4, DIRECT))
    assert isinstance(tunnelled, Route)
    assert isinstance(direct, Route)
    assert (tunnelled.metric > 0, direct.metric) == (True, 0)


def test_a_network_with_ipv6_needs_another_backend() -> None:
    with pytest.raises(ConfigError, match=r'Backend\.Type "ipip" carries IPv4 alone'):
        backend(config('{"Type":"ipip"}', ipv6_network="fd00:2::/48"))


def test_a_wrong_option_is_an_error_and_an_unknown_one_is_mentioned() -> None:
    with pytest.raises(ConfigError, match="DirectRouting"):
        backend(config('{"Type":"ipip","DirectRouting":"yes"}'))
    assert any("MTU" in warning for warning in backend(config('{"Type":"ipip","MTU":1400}')).warnings)
