from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_interface, ip_network

import pytest

from pyflannel.diff import Cut, Op, Put
from pyflannel.linux.spelling import spell
from pyflannel.state import Address, ChecksumOffload, Commands, Hook, Ipip, Link, Misfit, Route, Sysctl
from tests.support.kernel_items import DEV, LINK, SPEC, peer, peer6
from tests.support.wireguard_items import DEVICE, PSK, key
from tests.support.wireguard_items import peer as wireguard_peer

NEIGHBOUR, FDB, ROUTE = peer(2)


@pytest.mark.parametrize(
    ("op", "command"),
    [
        (Put(NEIGHBOUR), "ip neigh add 10.2.2.0 lladdr 02:00:00:00:01:02 dev flannel.1 nud permanent"),
        (Put(NEIGHBOUR, NEIGHBOUR), "ip neigh replace 10.2.2.0 lladdr 02:00:00:00:01:02 dev flannel.1 nud permanent"),
        (Cut(NEIGHBOUR), "ip neigh del 10.2.2.0 lladdr 02:00:00:00:01:02 dev flannel.1 nud permanent"),
        (Put(FDB), "bridge fdb add 02:00:00:00:01:02 dev flannel.1 dst 192.0.2.2 self permanent"),
        (Put(ROUTE), "ip route add 10.2.2.0/24 via 10.2.2.0 dev flannel.1 onlink"),
        (Cut(ROUTE), "ip route del 10.2.2.0/24 via 10.2.2.0 dev flannel.1 onlink"),
        (Put(peer6(2)[2]), "ip route add fd00:2:2::/64 via fd00:2:2:: dev flannel-v6.1 metric 1024 onlink"),
        (Put(Route(ip_network("10.2.0.0/16"), DEV, protocol=80)), "ip route add 10.2.0.0/16 dev flannel.1 proto 80"),
        (
            Put(replace(ROUTE, via=ip_address("fe80::1"))),
            "ip route add 10.2.2.0/24 via inet6 fe80::1 dev flannel.1 onlink",
        ),
        (Put(Address(DEV, ip_interface("10.2.1.0/32"))), "ip address add 10.2.1.0/32 dev flannel.1"),
        (Put(ChecksumOffload(DEV, False)), "ethtool -K flannel.1 tx-checksum-ip-generic off"),
        (
            Put(Link("flannel.ipip", Ipip("", IPv4Address("192.0.2.1")), 1480)),
            "ip link add flannel.ipip up mtu 1480 type ipip local 192.0.2.1 nopmtudisc",
        ),
        (Put(Sysctl(DEV, "ipv6", "accept_ra", "0")), "sysctl -w net.ipv6.conf.flannel/1.accept_ra=0"),
        (Cut(LINK), "ip link del flannel.1"),
        (Cut(Misfit(DEV, "a bridge")), "ip link del flannel.1"),
        (
            Put(LINK),
            "ip link add flannel.1 up mtu 1450 address 02:00:00:00:00:01"
            " type vxlan id 1 dstport 8472 dev eth0 local 192.0.2.1 nolearning",
        ),
        (
            Put(replace(LINK, mac=None, up=False, spec=replace(SPEC, local=None, learning=True, gbp=True))),
            "ip link add flannel.1 down mtu 1450 type vxlan id 1 dstport 8472 dev eth0 learning gbp",
        ),
        (
            Put(replace(LINK, mtu=1400), LINK),
            "ip link set flannel.1 up mtu 1400 address 02:00:00:00:00:01"
            " type vxlan dev eth0 local 192.0.2.1 nolearning",
        ),
        (
            Put(LINK, replace(LINK, misnamed="foo")),
            "ip link set foo name flannel.1 up mtu 1450 address 02:00:00:00:00:01"
            " type vxlan dev eth0 local 192.0.2.1 nolearning",
        ),
        (Cut(replace(LINK, misnamed="foo")), "ip link del foo"),
        (
            Put(LINK, replace(LINK, misnamed="foo", spec=replace(SPEC, vni=7))),
            "ip link del foo && ip link add flannel.1 up mtu 1450 address 02:00:00:00:00:01"
            " type vxlan id 1 dstport 8472 dev eth0 local 192.0.2.1 nolearning",
        ),
        (
            Put(LINK, Misfit(DEV, "with l2miss", "vxlan")),
            "ip link del flannel.1 && ip link add flannel.1 up mtu 1450 address 02:00:00:00:00:01"
            " type vxlan id 1 dstport 8472 dev eth0 local 192.0.2.1 nolearning",
        ),
        (
            Put(LINK, Misfit(DEV, "a bridge", "bridge")),
            "ip link add flannel.1 up mtu 1450 address 02:00:00:00:00:01"
            " type vxlan id 1 dstport 8472 dev eth0 local 192.0.2.1 nolearning",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_operation_reads_as_one_would_type_it(op: Op, command: str) -> None:
    assert spell(op) == command


def test_a_hook_is_named_with_whom_it_is_about_and_without_the_command_which_may_have_a_secret() -> None:
    hook = Hook(
        Commands("wg set $SUBNET secret", "forget secret"),
        IPv4Network("10.2.41.0/24"),
        IPv6Network("fd00:2:0:41::/64"),
        IPv4Address("172.16.41.132"),
        IPv6Address("2001:db8::132"),
        "secret",
    )
    about = "10.2.41.0/24 fd00:2:0:41::/64 via 172.16.41.132 2001:db8::132"
    assert spell(Put(hook)) == spell(Put(hook, hook)) == f"SubnetAddCommand {about}"
    assert spell(Cut(hook)) == f"SubnetRemoveCommand {about}"


@pytest.mark.parametrize(
    ("op", "command"),
    [
        (Put(DEVICE), "wg set flannel-wg private-key (hidden) listen-port 51820"),
        (Cut(DEVICE), "wg set flannel-wg private-key /dev/null listen-port 0"),
        (
            Put(wireguard_peer(3, "10.2.3.0/24", "fd00:2:3::/64", host="2001:db8::3", psk=PSK)),
            f"wg set flannel-wg peer {key(3)} endpoint [2001:db8::3]:51820 allowed-ips 10.2.3.0/24,fd00:2:3::/64"
            " persistent-keepalive 25 preshared-key (hidden)",
        ),
        (
            Put(replace(wireguard_peer(3), public_key=key(7)), wireguard_peer(3)),
            f"wg set flannel-wg peer {key(7)} endpoint 192.0.2.3:51820 allowed-ips 10.2.3.0/24"
            f" persistent-keepalive 25 peer {key(3)} remove",
        ),
        (Cut(wireguard_peer(3)), f"wg set flannel-wg peer {key(3)} remove"),
    ],
)
def test_what_concerns_wireguard_is_spelled_for_wg_without_its_secrets(op: Op, command: str) -> None:
    assert spell(op) == command
