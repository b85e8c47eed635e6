from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from pyflannel.doctor.checks import examine
from pyflannel.doctor.facts import Clock, Count, Lookup, Route
from pyflannel.doctor.findings import Finding
from pyflannel.state import PROTO_FLANNEL
from tests.support.healthy_host import HEALTHY, NOW, codes


def with_sysctls(**values: str) -> Finding:
    settings = {name.replace("__", "/"): value for name, value in values.items()}
    (found,) = examine(replace(HEALTHY, sysctls={**HEALTHY.sysctls, **settings}))
    return found


def test_a_host_that_forwards_nothing_is_found() -> None:
    found = with_sysctls(net__ipv4__ip_forward="0")
    assert (found.code, found.evidence) == ("forwarding-off", "net.ipv4.ip_forward is 0")
    assert found.fix == (("sysctl", "-w", "net.ipv4.ip_forward=1"),)


def test_a_device_from_which_nothing_is_forwarded_is_found() -> None:
    sysctls = {**HEALTHY.sysctls, "net/ipv4/conf/flannel.1/forwarding": "0"}
    (found,) = examine(replace(HEALTHY, sysctls=sysctls))
    assert (found.code, "flannel.1" in found.finding) == ("forwarding-off", True)
    # With slashes, as a dot would be taken for one.
    assert found.fix == (("sysctl", "-w", "net/ipv4/conf/flannel.1/forwarding=1"),)


def test_ipv6_that_is_not_forwarded_is_found_where_the_network_has_it_and_never_just_switched_on() -> None:
    found = with_sysctls(net__ipv6__conf__all__forwarding="0")
    assert (found.code, found.fix) == ("forwarding-off", None)
    assert "accept_ra=2" in found.remedy
    assert HEALTHY.network is not None
    assert HEALTHY.subnet_file is not None
    plain = replace(
        HEALTHY,
        network=replace(HEALTHY.network, ipv6=None),
        subnet_file=replace(HEALTHY.subnet_file, ipv6_network=None),
        sysctls={**HEALTHY.sysctls, "net/ipv6/conf/all/forwarding": "0"},
    )
    assert codes(plain) == []


@pytest.mark.parametrize("backend", ["alloc", "extension"])
def test_a_backend_that_forwards_nothing_itself_needs_no_forwarding(backend: str) -> None:
    assert HEALTHY.network is not None
    facts = replace(HEALTHY, network=replace(HEALTHY.network, backend=backend), sysctls={"net/ipv4/ip_forward": "0"})
    assert codes(facts) == []


ELSEWHERE = (Lookup(IPv4Address("172.16.41.132"), "ens34"),)


def test_strict_filtering_where_answers_leave_by_another_device_is_found() -> None:
    (found,) = examine(replace(HEALTHY, lookups=ELSEWHERE))
    assert found.code == "rp-filter"
    assert "rp_filter of ens33 is strict, and the way to 172.16.41.132 leads out by ens34" in found.evidence
    assert found.fix == (("sysctl", "-w", "net/ipv4/conf/ens33/rp_filter=2"),)


def test_what_the_kernel_takes_in_all_the_same_is_no_trouble() -> None:
    assert codes(replace(HEALTHY, lookups=tuple(replace(each, comes_in=True) for each in ELSEWHERE))) == []


BESIDE = Route(IPv4Network("10.2.9.2/32"), "ens33", IPv4Address("172.16.41.132"))
STRICT = {**HEALTHY.sysctls, "net/ipv4/conf/flannel.1/rp_filter": "1"}


def test_strict_filtering_of_the_tunnel_where_containers_are_reached_beside_it_is_found() -> None:
    assert HEALTHY.routes is not None
    facts = replace(HEALTHY, routes=(*HEALTHY.routes, BESIDE))
    (found,) = examine(replace(facts, sysctls=STRICT))
    assert found.code == "rp-filter"
    assert found.evidence == "rp_filter of flannel.1 is strict, and the way to 10.2.9.2/32 leads out by ens33"
    assert found.fix == (("sysctl", "-w", "net/ipv4/conf/flannel.1/rp_filter=2"),)
    assert codes(replace(facts, sysctls={**STRICT, "net/ipv4/conf/flannel.1/rp_filter": "2"})) == []
    assert codes(replace(HEALTHY, sysctls=STRICT)) == []


def test_strict_filtering_of_the_tunnel_does_no_harm_where_both_hosts_go_beside_it() -> None:
    assert HEALTHY.network is not None
    direct = replace(HEALTHY, network=replace(HEALTHY.network, direct=True), sysctls=STRICT, lookups=())
    ours = Route(IPv4Network("10.2.9.0/24"), "ens33", IPv4Address("172.16.41.132"), PROTO_FLANNEL)
    assert codes(replace(direct, routes=(ours,))) == []
    assert codes(replace(direct, routes=(ours, BESIDE))) == ["rp-filter"]


def test_forwarding_counts_for_the_interface_where_packets_come_by_it() -> None:
    assert HEALTHY.network is not None
    sysctls = {**HEALTHY.sysctls, "net/ipv4/conf/ens33/forwarding": "0"}
    assert codes(replace(HEALTHY, sysctls=sysctls)) == []
    direct = replace(HEALTHY, network=replace(HEALTHY.network, direct=True), sysctls=sysctls)
    assert codes(direct) == ["forwarding-off"]


@pytest.mark.parametrize(("all_", "own"), [("0", "0"), ("2", "1"), ("1", "2"), ("0", "2")])
def test_filtering_that_is_loose_or_off_lets_it_pass(all_: str, own: str) -> None:
    sysctls = {"net/ipv4/conf/all/rp_filter": all_, "net/ipv4/conf/ens33/rp_filter": own}
    assert codes(replace(HEALTHY, lookups=ELSEWHERE, sysctls=sysctls)) == []


def test_a_kernel_without_the_device_is_found() -> None:
    (found,) = examine(replace(HEALTHY, lacks="ip link add probe0 type vxlan: Error: Unknown device type."))
    assert found.code == "kernel-lacks"
    assert "Unknown device type" in found.evidence


@pytest.mark.parametrize(("release", "on", "found"), [("5.4.0-1", True, True), ("5.4.0-1", False, False)])
def test_offloads_of_an_old_kernel_are_found(release: str, on: bool, found: bool) -> None:
    facts = replace(HEALTHY, release=release, offloads={"flannel.1": on, "flannel-v6.1": False})
    assert codes(facts) == ["checksum-offload"] * found
    if found:
        assert examine(facts)[0].fix == (("ethtool", "-K", "flannel.1", "tx-checksum-ip-generic", "off"),)


def test_a_full_table_of_neighbours_is_found() -> None:
    (found,) = examine(replace(HEALTHY, neighbours=Count(1000, 1024)))
    assert found.code == "neighbours-full"
    assert "1000 neighbours, and net.ipv4.neigh.default.gc_thresh3 is 1024" in found.evidence
    assert found.fix == (
        ("sysctl", "-w", "net.ipv4.neigh.default.gc_thresh3=4096"),
        ("sysctl", "-w", "net.ipv4.neigh.default.gc_thresh2=2048"),
    )


def test_a_full_table_of_connections_is_found() -> None:
    (found,) = examine(replace(HEALTHY, connections=Count(65000, 65536)))
    assert (found.code, found.fix) == (
        "connections-full",
        (("sysctl", "-w", "net.netfilter.nf_conntrack_max=262144"),),
    )


def test_too_many_open_files_are_found() -> None:
    (found,) = examine(replace(HEALTHY, files=Count(99_000, 100_000)))
    assert (found.code, "99000 files are open" in found.evidence) == ("files-full", True)


@pytest.mark.parametrize(("store", "words"), [(NOW + 300, "300 s behind"), (NOW - 300, "300 s ahead of")])
def test_a_clock_that_differs_from_the_stores_is_found(store: float, words: str) -> None:
    (found,) = examine(replace(HEALTHY, clock=Clock(NOW, store, NOW - 60, False)))
    assert (found.code, words in found.finding) == ("clock-wrong", True)
    assert "nobody keeps it" in found.evidence


def test_a_file_of_the_future_is_found() -> None:
    (found,) = examine(replace(HEALTHY, clock=Clock(NOW, None, NOW + 86_400, True)))
    assert (found.code, "nobody keeps it" in found.evidence) == ("clock-wrong", False)


def test_a_clock_that_nobody_keeps_is_no_trouble_by_itself() -> None:
    assert codes(replace(HEALTHY, clock=Clock(NOW, None, None, False))) == []
