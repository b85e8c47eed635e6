from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Network

import pytest

from pyflannel.backends.api import Refused
from pyflannel.backends.udp import Udp, from_config
from pyflannel.lease.model import Attrs, Lease, Subnet
from pyflannel.lease.network import ConfigError, parse_network_config
from pyflannel.lease.wire import encode_attrs
from pyflannel.state import Address, Forwarder, Forwarding, Link, Route, Sysctl, Tun
from tests.support.builders import config, underlay, view

UDP = '{"Type":"udp"}'
VIEW = view(config(UDP))
PEER = Lease(Subnet(IPv4Network("10.2.41.0/24")), Attrs(IPv4Address("172.16.41.132")))
OWN_SUBNET = IPv4Network("10.2.71.0/24")


def udp(backend: str = UDP) -> Udp:
    return from_config(config(backend))


def test_a_host_has_a_device_for_the_whole_network_and_a_process_behind_it() -> None:
    assert udp().self_items(VIEW) == (
        Link("flannel0", Tun(), 1472),
        Sysctl("flannel0", "ipv4", "accept_local", "1"),
        Sysctl("flannel0", "ipv6", "disable_ipv6", "1"),
        Address("flannel0", IPv4Interface("10.2.71.0/32")),
        Forwarder("flannel0", IPv4Address("172.16.41.131"), 8285, OWN_SUBNET),
        Route(IPv4Network("10.2.0.0/16"), "flannel0", universe=True),
    )


def test_a_peer_is_an_entry_of_the_forwarder() -> None:
    (item,) = udp().peer_items(VIEW, PEER)
    assert item == Forwarding("flannel0", IPv4Network("10.2.41.0/24"), IPv4Address("172.16.41.132"), 8285)


def test_all_hosts_have_the_port_of_the_network() -> None:
    made = udp('{"Type":"udp","Port":7000}')
    (item,) = made.peer_items(VIEW, PEER)
    assert isinstance(item, Forwarding)
    assert item.port == made.port == 7000
    assert udp('{"Type":"udp","Port":0}').port == 8285


@pytest.mark.parametrize("port", ["-1", "65536", '"8285"'])
def test_a_port_that_is_none_stops_the_start(port: str) -> None:
    with pytest.raises(ConfigError, match=r"Backend\.Port"):
        udp(f'{{"Type":"udp","Port":{port}}}')


def test_what_is_published_is_the_address_alone() -> None:
    attrs = udp().attrs(VIEW.underlay, {})
    assert attrs == Attrs(VIEW.underlay.public_ip)
    assert encode_attrs(attrs) == '{"PublicIP":"172.16.41.131","PublicIPv6":null}'
    assert (udp().type, udp().published(PEER), udp().claims(PEER)) == ("", {}, frozenset())


@pytest.mark.parametrize(
    ("attrs", "said"),
    [
        (Attrs(IPv4Address("172.16.41.132"), None, "vxlan"), "publishes backend type 'vxlan'"),
        (Attrs(VIEW.underlay.ipv4), "which is our own"),
        (Attrs(None), "no IPv4 subnet and PublicIP"),
    ],
)
def test_a_record_that_is_no_use_is_refused(attrs: Attrs, said: str) -> None:
    with pytest.raises(Refused, match=said):
        udp().peer_items(VIEW, replace(PEER, attrs=attrs))


def test_a_peer_without_ipv4_is_refused() -> None:
    with pytest.raises(Refused, match="no IPv4 subnet"):
        udp().peer_items(VIEW, replace(PEER, subnet=Subnet(None, IPv6Network("fd00:2:0:41::/64"))))


def test_containers_may_send_what_a_datagram_holds() -> None:
    assert udp().mtu(underlay(1500)) == 1472
    assert udp().mtu(underlay(96)) == 68
    with pytest.raises(ConfigError, match="leaves 67 bytes for flannel0: it must be at least 96"):
        udp().mtu(underlay(95))


def test_a_network_without_ipv4_has_no_use_for_it() -> None:
    alone = parse_network_config(
        '{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:2::/48","Backend":{"Type":"udp"}}'
    )
    with pytest.raises(ConfigError, match="IPv4 alone"):
        from_config(alone)


def test_a_dual_stack_network_is_told_what_it_does_not_get() -> None:
    dual = from_config(config(UDP, ipv6_network="fd00:2::/48"))
    assert any("IPv6" in warning for warning in dual.warnings)
    assert udp().warnings == ()


def test_an_option_nobody_knows_is_mentioned() -> None:
    assert any("MTU" in warning for warning in udp('{"Type":"udp","MTU":1400}').warnings)


def test_the_device_and_what_is_on_it_are_ours() -> None:
    scope = udp().scope(VIEW)
    assert scope.devices == frozenset(udp().devices) == {"flannel0"}
    assert scope.owns(IPv4Interface("10.2.71.0/16"))
    assert not scope.owns(IPv4Interface("192.0.2.1/32"))
    (identity,) = scope.identities
    assert identity.fits(Tun(), None, lambda address: address == IPv4Interface("10.2.71.0/32"))
