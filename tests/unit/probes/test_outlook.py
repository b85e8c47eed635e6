from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address

import pytest

from pyflannel import backends
from pyflannel.lease.model import Attrs, Lease, Subnet
from pyflannel.network import Way
from pyflannel.probes.outlook import Hosts, Line, Outlook, carriers, outlook
from pyflannel.reach import Reach
from pyflannel.state import Forwarder, IPAddress, Ipip, Item, Link
from pyflannel.wireguard import SecretKey, WireguardDevice
from tests.support.builders import config, subnet, underlay, view, vxlan_lease

SECRET = SecretKey(bytes(32))
OWN, PEER = subnet("10.2.71.0/24"), subnet("10.2.41.0/24")
FIRST = IPv4Address("10.2.41.0")
DUAL = subnet("10.2.41.0/24", "fd00:10:2:41::/64")


def way(backend: str = '{"Type":"vxlan"}', *leases: Lease, mtu: int = 1500) -> Way:
    network = config(backend)
    return Way(
        backends.from_config(network),
        view(network, OWN, underlay(mtu)),
        {lease.subnet: lease for lease in leases or (vxlan_lease(),)},
    )


def lines(seen: Outlook, peer: Subnet = PEER) -> list[Line]:
    return [seen.line(key) for key in seen.keys(peer)]


def addresses(*texts: str) -> dict[int, IPAddress]:
    return {ip_address(text).version: ip_address(text) for text in texts}


def test_a_peer_of_a_tunnel_is_asked_at_the_first_address_of_its_subnet() -> None:
    seen = outlook(way())
    assert seen == Outlook(
        own=OWN,
        host=addresses("172.16.41.131"),
        ends=addresses("10.2.71.0"),
        mtu=1450,
        leases={FIRST: vxlan_lease()},
        carrier={4: "UDP port 8472"},
    )
    assert lines(seen) == [Line(PEER, FIRST, IPv4Address("172.16.41.132"), True, "UDP port 8472")]
    assert seen.line(FIRST).key == seen.at(FIRST) == FIRST
    assert seen.networks == (IPv4Network("10.2.71.0/24"),)


def test_without_a_tunnel_the_address_of_dockers_bridge_is_tried() -> None:
    lease = Lease(PEER, Attrs(IPv4Address("172.16.41.132"), None, "host-gw"))
    seen = outlook(way('{"Type":"host-gw"}', lease))
    assert (seen.ends, seen.mtu) == ({}, 1500)
    (line,) = lines(seen)
    assert line == Line(PEER, FIRST + 1, IPv4Address("172.16.41.132"), False, "")
    assert line.key == seen.at(FIRST + 1) == FIRST
    assert seen.at(FIRST) is seen.at(IPv4Address(0)) is None


def test_a_peer_with_two_families_has_two_lines() -> None:
    network = config(ipv6_network="fd00:10:2::/48")
    own = subnet("10.2.71.0/24", "fd00:10:2:71::/64")
    lease = replace(
        vxlan_lease(), subnet=DUAL, attrs=replace(vxlan_lease().attrs, public_ipv6=IPv6Address("2001:db8::2"))
    )
    both = Way(backends.from_config(network), view(network, own, underlay(ipv6="2001:db8::1")), {DUAL: lease})
    seen = outlook(both)
    assert [(str(line.end), str(line.host), line.key.version) for line in lines(seen, DUAL)] == [
        ("10.2.41.0", "172.16.41.132", 4),
        ("fd00:10:2:41::", "2001:db8::2", 6),
    ]
    assert lines(seen, PEER) == []
    assert seen.mtu == 1430
    assert seen.carrier == {4: "UDP port 8472", 6: "UDP port 8472"}


def test_a_family_that_we_do_not_have_is_no_line() -> None:
    seen = outlook(way('{"Type":"vxlan"}', replace(vxlan_lease(), subnet=DUAL)))
    assert [line.key.version for line in lines(seen, DUAL)] == [4]


def test_we_are_no_peer_of_ourselves() -> None:
    assert outlook(way('{"Type":"vxlan"}', vxlan_lease("10.2.71.0/24"))).leases == {}


def test_where_nothing_has_changed_all_is_the_very_same() -> None:
    first, second = vxlan_lease(), vxlan_lease("10.2.42.0/24", "172.16.41.133")
    before = outlook(way('{"Type":"vxlan"}', first, second))
    assert outlook(way('{"Type":"vxlan"}', first, replace(second, modified=7)), before) is before
    moved = vxlan_lease("10.2.42.0/24", "172.16.41.134")
    after = outlook(way('{"Type":"vxlan"}', first, moved), before)
    assert [str(line.host) for line in lines(after, moved.subnet)] == ["172.16.41.134"]


def test_another_port_is_another_line() -> None:
    before = outlook(way())
    after = outlook(way('{"Type":"vxlan","Port":4789}'), before)
    assert lines(after)[0].carrier == "UDP port 4789"


def test_where_packets_travel_beside_the_tunnel_nothing_carries_them() -> None:
    direct = way('{"Type":"vxlan","DirectRouting":true}')
    near = replace(direct.view.underlay, on_link=Reach.of([(IPv4Network("172.16.41.0/24"), True)]))
    near_way = replace(direct, view=replace(direct.view, underlay=near))
    assert lines(outlook(near_way))[0].carrier == ""
    assert lines(outlook(direct, outlook(near_way)))[0].carrier == "UDP port 8472"


@pytest.mark.parametrize(
    ("item", "carrier"),
    [
        (Link("flannel.ipip", Ipip("ens33", None), 1480), {4: "IP protocol 4 (ipip)"}),
        (WireguardDevice("flannel-wg", SECRET, 51820), {4: "UDP port 51820", 6: "UDP port 51820"}),
        (WireguardDevice("flannel-wg-v6", SECRET, 51821), {6: "UDP port 51821"}),
        (Forwarder("flannel0", IPv4Address("172.16.41.131"), 8285, IPv4Network("10.2.71.0/24")), {4: "UDP port 8285"}),
    ],
    ids=["ipip", "wireguard", "wireguard over IPv6", "udp"],
)
def test_every_tunnel_is_named_by_what_a_firewall_knows(item: Item, carrier: dict[int, str]) -> None:
    assert carriers((item,)) == carrier


def test_a_host_is_known_by_its_address_and_may_have_several_subnets() -> None:
    leases = [vxlan_lease(f"10.2.{number}.0/24", f"172.16.41.{number // 2}") for number in range(20, 40)]
    dual = replace(leases[0], subnet=DUAL, attrs=replace(leases[0].attrs, public_ipv6=IPv6Address("2001:db8::2")))
    hosts = Hosts([*leases, dual])
    assert hosts.of(IPv4Address("172.16.41.15")) == leases[10:12]
    assert hosts.of(IPv4Address("172.16.41.10")) == [*leases[:2], dual]
    assert hosts.of(IPv6Address("2001:db8::2")) == [dual]
    assert hosts.of(IPv4Address("172.16.41.99")) == hosts.of(IPv6Address("::1")) == []
