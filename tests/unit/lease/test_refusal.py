from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from pyflannel.lease.model import Attrs, Lease, Subnet
from pyflannel.lease.network import NetworkConfig, parse_network_config
from pyflannel.lease.refusal import refusal, self_reference

HOST, HOST6 = IPv4Address("172.16.41.131"), IPv6Address("fd00:41::131")


def subnet(*nets: str) -> Subnet:
    ipv4 = next((IPv4Network(net) for net in nets if ":" not in net), None)
    ipv6 = next((IPv6Network(net) for net in nets if ":" in net), None)
    return Subnet(ipv4, ipv6)


V4 = parse_network_config('{"Network":"10.2.0.0/16","Backend":{"Type":"vxlan"}}')
DUAL = parse_network_config(
    '{"Network":"10.2.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10::/48","Backend":{"Type":"vxlan"}}'
)


@pytest.mark.parametrize(
    ("config", "nets", "attrs"),
    [
        (V4, ["10.2.1.0/24"], Attrs(HOST)),
        (V4, ["10.2.0.0/17"], Attrs(HOST)),
        (V4, ["10.2.1.0/24"], Attrs(IPv4Address("169.254.3.4"))),
        # Hosts may live in a part of the network that no subnet is taken from.
        (V4, ["10.2.1.0/24"], Attrs(IPv4Address("10.2.250.9"))),
        # While IPv6 is switched on or off, host by host, the IPv4 halves are as good as ever.
        (DUAL, ["10.2.1.0/24"], Attrs(HOST)),
        (V4, ["10.2.1.0/24", "fd00:10::/64"], Attrs(HOST)),
        (DUAL, ["10.2.1.0/24", "fd00:10:0:1::/64"], Attrs(HOST, HOST6)),
        (DUAL, ["fd00:10:0:1::/64"], Attrs(None, HOST6)),
    ],
)
def test_a_sound_record_is_not_refused(config: NetworkConfig, nets: list[str], attrs: Attrs) -> None:
    assert refusal(Lease(subnet(*nets), attrs), config) is None


@pytest.mark.parametrize(
    ("config", "nets", "attrs", "reason"),
    [
        (V4, ["0.0.0.0/1"], Attrs(HOST), "covers the whole network 10.2.0.0/16: expected a subnet of it"),
        (
            V4,
            ["10.2.1.0/24"],
            Attrs(IPv4Address("0.0.0.7")),
            "publishes PublicIP 0.0.0.7, an address of no host: expected the address of a host",
        ),
        (
            V4,
            ["10.2.1.0/24"],
            Attrs(IPv4Address("250.1.2.3")),
            "publishes PublicIP 250.1.2.3, a reserved address: expected the address of a host",
        ),
        (
            DUAL,
            ["fd00:10:0:1::/64"],
            Attrs(None, IPv6Address("64:ff9b::1")),
            "publishes PublicIPv6 64:ff9b::1, a reserved address: expected the address of a host",
        ),
        (
            DUAL,
            ["fd00:10:0:1::/64"],
            Attrs(None, IPv6Address("ff02::1")),
            "publishes PublicIPv6 ff02::1, a multicast address: expected the address of a host",
        ),
        (V4, ["10.3.1.0/24"], Attrs(HOST), "lies outside the network 10.2.0.0/16: expected a subnet of it"),
        (V4, ["10.2.0.0/16"], Attrs(HOST), "covers the whole network 10.2.0.0/16: expected a subnet of it"),
        (V4, ["8.0.0.0/6"], Attrs(HOST), "covers the whole network 10.2.0.0/16: expected a subnet of it"),
        (V4, ["fd00:10::/64"], Attrs(HOST, HOST6), "has no address family in common with the network"),
        (V4, ["10.2.1.0/24"], Attrs(None), "publishes no PublicIP: expected the address of a host"),
        (
            V4,
            ["10.2.1.0/24"],
            Attrs(IPv4Address("127.0.0.1")),
            "publishes PublicIP 127.0.0.1, a loopback address: expected the address of a host",
        ),
        (
            V4,
            ["10.2.1.0/24"],
            Attrs(IPv4Address("224.0.0.1")),
            "publishes PublicIP 224.0.0.1, a multicast address: expected the address of a host",
        ),
        (
            V4,
            ["10.2.1.0/24"],
            Attrs(IPv4Address("255.255.255.255")),
            "publishes PublicIP 255.255.255.255, the broadcast address: expected the address of a host",
        ),
        (
            V4,
            ["10.2.1.0/24"],
            Attrs(IPv4Address("10.2.1.9")),
            "publishes PublicIP 10.2.1.9, which lies in its own subnet: the tunnel would lead into itself",
        ),
        (
            DUAL,
            ["10.2.1.0/24", "fd00:11::/64"],
            Attrs(HOST, HOST6),
            "lies outside the network fd00:10::/48: expected a subnet of it",
        ),
        (
            DUAL,
            ["10.2.1.0/24", "fd00:10:0:1::/64"],
            Attrs(HOST),
            "publishes no PublicIPv6: expected the address of a host",
        ),
        (
            DUAL,
            ["10.2.1.0/24", "fd00:10:0:1::/64"],
            Attrs(HOST, IPv6Address("::1")),
            "publishes PublicIPv6 ::1, a loopback address: expected the address of a host",
        ),
        (
            DUAL,
            ["fd00:10:0:1::/64"],
            Attrs(None, IPv6Address("fe80::1")),
            "publishes PublicIPv6 fe80::1, a link-local address: expected the address of a host",
        ),
    ],
)
def test_a_record_that_can_never_count_is_refused_with_the_reason(
    config: NetworkConfig, nets: list[str], attrs: Attrs, reason: str
) -> None:
    assert refusal(Lease(subnet(*nets), attrs), config) == reason


OURS = (HOST, None, HOST6, HOST6)


@pytest.mark.parametrize(
    ("nets", "attrs", "reason"),
    [
        (
            ["10.2.1.0/24"],
            Attrs(HOST),
            "publishes PublicIP 172.16.41.131, which is our own: expected the address of another host",
        ),
        (
            ["fd00:10:0:1::/64"],
            Attrs(None, HOST6),
            "publishes PublicIPv6 fd00:41::131, which is our own: expected the address of another host",
        ),
        (
            ["172.16.41.128/25"],
            Attrs(IPv4Address("192.0.2.1")),
            "covers 172.16.41.131, the address of this host: the tunnel would lead into itself",
        ),
        (
            ["10.2.1.0/24", "fd00:41::/64"],
            Attrs(IPv4Address("192.0.2.1"), IPv6Address("fd00::9")),
            "covers fd00:41::131, the address of this host: the tunnel would lead into itself",
        ),
    ],
)
def test_a_record_about_our_own_address_is_refused(nets: list[str], attrs: Attrs, reason: str) -> None:
    assert self_reference(Lease(subnet(*nets), attrs), OURS) == reason


@pytest.mark.parametrize(
    ("nets", "attrs"),
    [
        (["10.2.1.0/24"], Attrs(IPv4Address("172.16.41.132"))),
        (["172.16.41.0/25"], Attrs(IPv4Address("172.16.41.132"))),
        # An address of a family in which the record has no subnet leads nowhere.
        (["10.2.1.0/24"], Attrs(IPv4Address("172.16.41.132"), HOST6)),
    ],
)
def test_a_record_of_another_host_does_not_refer_to_us(nets: list[str], attrs: Attrs) -> None:
    assert self_reference(Lease(subnet(*nets), attrs), OURS) is None
