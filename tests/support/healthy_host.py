"""The facts of a host where all is well: a Docker host in a vxlan network of both address families, with one peer."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from pyflannel.doctor.checks import examine
from pyflannel.doctor.facts import (
    Agent,
    Clock,
    Count,
    Device,
    Docker,
    Facts,
    Listener,
    Lookup,
    Network,
    Record,
    Route,
    SubnetFile,
    Tables,
)
from pyflannel.state import PROTO_BOOT, PROTO_KERNEL, Mac
from pyflannel.telemetry.document import (
    AgentPart,
    Document,
    HostPart,
    LeasePart,
    NetworkPart,
    PeerPart,
)
from tests.support.nft_tables import ACCEPT, firewalld

CONFIG = '{"Network":"10.2.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:2::/48","Backend":{"Type":"vxlan"}}'
NOW = 1_800_000_000.0
MAC = Mac.parse("02:00:00:00:00:01")

RULES = """\
*raw
:PREROUTING ACCEPT [0:0]
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
:FLANNEL-NOMASQ - [0:0]
-A POSTROUTING -m comment --comment "flanneld nomasq" -j FLANNEL-NOMASQ
-A POSTROUTING -s 10.2.7.0/24 ! -o docker0 -j MASQUERADE
-A FLANNEL-NOMASQ -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld nomasq" -j RETURN
-A FLANNEL-NOMASQ -s 10.2.7.0/24 -d 10.2.7.0/24 -m comment --comment "flanneld nomasq" -j RETURN
-A FLANNEL-NOMASQ -s 10.2.7.0/24 -d 10.2.0.0/16 -m comment --comment "flanneld nomasq" -j ACCEPT
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER-USER - [0:0]
:FLANNEL-FWD - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER-USER -j RETURN
-A FLANNEL-FWD -s 10.2.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
-A FLANNEL-FWD -d 10.2.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
COMMIT
"""
RULES6 = RULES.replace("10.2.7.0/24", "fd00:2:0:7::/64").replace("10.2.0.0/16", "fd00:2::/48")

STATUS = Document(
    agent=AgentPart("0.1", 42, NOW - 3600, "running"),
    host=HostPart("host2", "ens33", "172.16.41.131", "2001:db8::131", 1500),
    network=NetworkPart("/coreos.com/network", "10.2.0.0/16", "fd00:2::/48", "vxlan", "flannel.1", 1430, 8472, 1),
    lease=LeasePart("10.2.7.0/24", "fd00:2:0:7::/64", NOW + 80_000),
    peers=(
        PeerPart(
            "10.2.9.0/24",
            "fd00:2:0:9::/64",
            "172.16.41.132",
            "2001:db8::132",
            "vxlan",
            "reachable",
            rtt=0.0004,
            loss=0.0,
            mtu=1430,
        ),
    ),
)
DEVICES = (
    Device("lo", "", 65536, True, None, (IPv4Interface("127.0.0.1/8"),)),
    Device(
        "ens33",
        "",
        1500,
        True,
        Mac.parse("52:54:00:00:00:01"),
        (IPv4Interface("172.16.41.131/24"), IPv6Interface("2001:db8::131/64")),
    ),
    Device("flannel.1", "vxlan", 1450, True, MAC, (IPv4Interface("10.2.7.0/32"),), vni=1, port=8472),
    Device("flannel-v6.1", "vxlan", 1430, True, MAC, (IPv6Interface("fd00:2:0:7::/128"),), vni=1, port=8472),
    Device(
        "docker0",
        "bridge",
        1430,
        True,
        Mac.parse("02:42:00:00:00:01"),
        (IPv4Interface("10.2.7.1/24"), IPv6Interface("fd00:2:0:7::1/64")),
    ),
    Device("veth1", "veth", 1430, True, Mac.parse("02:42:00:00:00:02"), master="docker0"),
)
HEALTHY = Facts(
    agent=Agent("/run/flannel/flanneld.sock", STATUS, None, True, ("flanneld (process 42)",), None),
    network=Network(
        IPv4Network("10.2.0.0/16"),
        IPv6Network("fd00:2::/48"),
        "vxlan",
        ("flannel.1", "flannel-v6.1"),
        8472,
        False,
        8472,
    ),
    subnet_file=SubnetFile(
        "/run/flannel/subnet.env",
        True,
        IPv4Network("10.2.0.0/16"),
        IPv4Network("10.2.7.0/24"),
        IPv6Network("fd00:2::/48"),
        IPv6Network("fd00:2:0:7::/64"),
        1430,
        False,
    ),
    underlay="ens33",
    underlay_mtu=1500,
    devices=DEVICES,
    routes=(
        Route(IPv4Network("10.2.7.0/24"), "docker0", None, PROTO_KERNEL),
        Route(IPv6Network("fd00:2:0:7::/64"), "docker0", None, PROTO_KERNEL),
        Route(IPv4Network("10.2.9.0/24"), "flannel.1", IPv4Address("10.2.9.0"), PROTO_BOOT),
        Route(IPv6Network("fd00:2:0:9::/64"), "flannel-v6.1", IPv6Address("fd00:2:0:9::"), PROTO_BOOT),
    ),
    defaults=frozenset({"ens33"}),
    lookups=(
        Lookup(IPv4Address("172.16.41.132"), "ens33"),
        Lookup(IPv4Address("10.2.9.1"), "flannel.1"),
        Lookup(IPv6Address("fd00:2:0:9::1"), "flannel-v6.1"),
    ),
    sysctls={
        "net/ipv4/ip_forward": "1",
        "net/ipv6/conf/all/forwarding": "1",
        "net/bridge/bridge-nf-call-iptables": "1",
        "net/bridge/bridge-nf-call-ip6tables": "1",
        "net/ipv4/conf/flannel.1/forwarding": "1",
        "net/ipv4/conf/docker0/forwarding": "1",
        "net/ipv4/conf/all/rp_filter": "1",
        "net/ipv4/conf/ens33/rp_filter": "1",
    },
    tables=(
        Tables("iptables", 4, RULES),
        Tables("ip6tables", 6, RULES6),
        Tables("iptables-legacy", 4, "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\nCOMMIT\n", usual=False),
    ),
    nft_tables=("ip nat", "ip filter"),
    native=(firewalld([ACCEPT]),),
    listeners=(Listener(8472, ""),),
    docker=Docker("28.2.2", "docker0", IPv4Network("10.2.7.0/24"), 1430),
    release="6.1.0-28-amd64",
    offloads={"flannel.1": True},
    remembered={"flannel.1": MAC, "flannel-v6.1": MAC},
    mac_policy="/usr/lib/systemd/network/99-default.link",
    managers=(),
    claimants=(),
    etcd_api="auto",
    records={"3": Record(CONFIG, "/coreos.com/network/config in etcd v3"), "2": Record(None, "the same in v2")},
    clock=Clock(NOW, NOW + 1, NOW - 60, False),
    neighbours=Count(20, 1024),
    connections=Count(100, 262144),
    files=Count(1000, 100000),
)


def codes(facts: Facts) -> list[str]:
    """The codes of what is found, the worst first."""
    return [each.code for each in examine(facts)]
