"""What a host says of a packet: of one that begins there, and of one that comes in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest

from pyflannel.linux.lookup import Kind
from pyflannel.trace.gather import arrive, depart, tables
from tests.support.builders import OTHER_MAC
from tests.support.crossings import ARRIVED, COMING, FLOW, HERE, HOST, PEER, known
from tests.support.one_host import OneHost, one_host

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge", "iptables")


@pytest.fixture(scope="module")
def host() -> Iterator[OneHost]:
    with one_host() as made:
        yield made


def test_a_containers_packet_is_followed_to_the_other_host(host: OneHost) -> None:
    found = host.see(lambda: depart(known(), FLOW))
    assert found.entry is not None
    assert found.leaves is not None
    assert (found.entry.name, found.leaves.name) == ("docker0", "flannel.1")
    assert found.origin.known
    assert (found.hop.mac, found.hop.permanent, found.behind) == (OTHER_MAC, True, PEER)
    assert found.underway is not None
    assert (found.underway.target, found.underway.decision.kind) == (PEER, Kind.UNICAST)
    assert found.underway.hop.known
    assert found.barrier == ""


def test_the_hosts_own_packet_comes_in_by_nothing(host: OneHost) -> None:
    found = host.see(lambda: depart(known(), replace(FLOW, source=HOST)))
    assert found.entry is None
    assert found.back is not None
    assert found.back.kind is Kind.LOCAL


def test_a_source_that_is_elsewhere_comes_in_by_nothing_either(host: OneHost) -> None:
    found = host.see(lambda: depart(known(), replace(FLOW, source=ip_address("10.2.41.9"))))
    assert found.entry is None
    assert found.back is not None
    assert found.back.kind is Kind.UNICAST


def test_what_comes_through_the_tunnel_is_followed_to_the_container(host: OneHost) -> None:
    found = host.see(lambda: arrive(known(ARRIVED), ARRIVED, COMING))
    assert found.entry is not None
    assert found.leaves is not None
    assert found.outer_in is not None
    assert found.outer_entry is not None
    assert (found.entry.name, found.leaves.name, found.outer_entry.name) == ("flannel.1", "docker0", "ens33")
    assert found.outer_in.kind is Kind.LOCAL
    assert found.hop.known


def test_what_comes_without_a_tunnel_comes_by_the_external_interface(host: OneHost) -> None:
    found = host.see(lambda: arrive(known(ARRIVED), ARRIVED, replace(COMING, tunnel=False)))
    assert found.entry is not None
    assert (found.entry.name, found.outer_in) == ("ens33", None)


def test_forwarding_that_is_off_is_seen_for_the_host_and_for_a_device(host: OneHost) -> None:
    host.space.shell("echo 0 >/proc/sys/net/ipv4/ip_forward")
    off = host.see(lambda: depart(known(), FLOW)).barrier
    host.space.shell("echo 1 >/proc/sys/net/ipv4/ip_forward; echo 0 >/proc/sys/net/ipv4/conf/flannel.1/forwarding")
    here = host.see(lambda: depart(known(), FLOW)).barrier
    coming = host.see(lambda: arrive(known(ARRIVED), ARRIVED, COMING)).barrier
    host.space.shell("echo 1 >/proc/sys/net/ipv4/conf/flannel.1/forwarding")
    assert (off, here, coming) == ("net.ipv4.ip_forward", "", "net.ipv4.conf.flannel/1.forwarding")


def test_rules_of_both_variants_are_read(host: OneHost) -> None:
    host.space.run("iptables-nft -A FORWARD -s 192.0.2.1 -j DROP")
    host.space.run("iptables-legacy -A FORWARD -s 192.0.2.2 -j DROP")
    found = host.see(lambda: tables(4))
    host.space.run("iptables-nft -F FORWARD")
    host.space.run("iptables-legacy -F FORWARD")
    rules = {rule for ruleset in found.rulesets for rule in ruleset.saved.rules("filter", "FORWARD")}
    assert {"-s 192.0.2.1/32 -j DROP", "-s 192.0.2.2/32 -j DROP"} <= rules
    assert found.trouble == ""


def test_the_packet_around_may_be_of_the_other_family_and_meets_that_ones_rules(host: OneHost) -> None:
    host.space.run("ip6tables -A INPUT -p tcp -j DROP")
    around = replace(COMING, source=ip_address("fd99::2"), destination=ip_address("fd99::1"))
    found = host.see(lambda: arrive(known(ARRIVED), ARRIVED, around))
    host.space.run("ip6tables -F INPUT")
    assert found.outer_tables is not None
    assert any(each.saved.rules("filter", "INPUT") for each in found.outer_tables.rulesets)
    assert not any(each.saved.rules("filter", "INPUT") for each in found.tables.rulesets)
    assert found.outside.tables == found.outer_tables
    assert host.see(lambda: arrive(known(ARRIVED), ARRIVED, COMING)).outer_tables is None


def test_tables_that_others_keep_with_nftables_are_read(host: OneHost) -> None:
    for name in ("inet strict", "inet flannel-peers-1", "ip6 other"):
        host.space.run(f"nft add table {name}")
        host.space.run(f"nft add chain {name} f {{ type filter hook forward priority 0 ; }}")
    host.space.run("nft add rule inet strict f tcp dport 25 reject")
    found = host.see(lambda: tables(4)).native
    for name in ("inet strict", "inet flannel-peers-1", "ip6 other"):
        host.space.run(f"nft delete table {name}")
    assert [str(table) for table in found] == ["inet strict", "ip6 other"]
    assert [len(rules) for table in found for rules in table.chains.values()] == [1, 0]


def test_the_address_of_the_container_is_asked_for_each_time(host: OneHost) -> None:
    assert host.see(lambda: depart(known(), FLOW)).origin.known
    host.container.run(f"ip address del {HERE}/24 dev eth0")
    gone = host.see(lambda: depart(known(), FLOW)).origin
    host.container.run(f"ip address add {HERE}/24 dev eth0")
    host.container.run("ip route replace default via 10.2.71.1")
    assert not gone.known
