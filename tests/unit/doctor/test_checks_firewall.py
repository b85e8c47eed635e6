from __future__ import annotations

from dataclasses import replace

import pytest

from pyflannel.doctor.checks import examine
from pyflannel.doctor.facts import Docker, Facts, Tables
from pyflannel.doctor.findings import Finding
from pyflannel.firewall.nft import NftTable
from tests.support.healthy_host import DEVICES, HEALTHY, RULES, RULES6, codes
from tests.support.nft_tables import ACCEPT, DROP, HIDE, docker, firewalld, meta, payload

PLAIN = tuple(each for each in DEVICES if each.kind != "vxlan")
OURS = '-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD\n'


def with_rules(ipv4: str, ipv6: str = RULES6, legacy: str | None = None, nft: tuple[str, ...] = ()) -> Facts:
    tables = [Tables("iptables", 4, ipv4), Tables("ip6tables", 6, ipv6)]
    if legacy is not None:
        tables.append(Tables("iptables-legacy", 4, legacy, usual=False))
    return replace(HEALTHY, tables=tuple(tables), nft_tables=nft)


def only(facts: Facts) -> Finding:
    (found,) = examine(facts)
    return found


def test_a_policy_that_drops_is_found_where_our_rules_are_missing() -> None:
    found = only(with_rules(RULES.replace(OURS, "")))
    assert found.code == "forward-dropped"
    assert found.evidence == ("a packet from 10.2.9.2 (elsewhere) to 10.2.7.2 (here) ends at: -P FORWARD DROP")


def test_a_rule_that_stands_before_ours_is_found() -> None:
    shadow = "-A DOCKER-USER -s 10.2.0.0/16 -j DROP\n"
    found = only(with_rules(RULES.replace("-A DOCKER-USER -j RETURN\n", shadow)))
    assert (found.code, found.evidence.endswith(f"ends at: {shadow.strip()}")) == ("forward-dropped", True)


def test_a_rule_behind_ours_is_no_trouble() -> None:
    assert codes(with_rules(RULES.replace(OURS, f"{OURS}-A FORWARD -j REJECT\n"))) == []


def test_what_cannot_be_told_is_no_trouble() -> None:
    doubtful = "-A DOCKER-USER -m set --match-set banned src -j DROP\n"
    assert codes(with_rules(RULES.replace("-A DOCKER-USER -j RETURN\n", doubtful))) == []


def test_ipv6_is_looked_at_as_well() -> None:
    found = only(with_rules(RULES, RULES6.replace(OURS, "")))
    assert (found.code, "ip6tables drops" in found.finding) == ("forward-dropped", True)


def test_the_other_variant_drops_as_well() -> None:
    legacy = "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n"
    found = only(with_rules(RULES, legacy=legacy))
    assert (found.code, "iptables-legacy drops" in found.finding) == ("forward-dropped", True)


@pytest.mark.parametrize("backend", ["alloc", "extension"])
def test_a_backend_whose_ways_are_not_known_is_not_judged(backend: str) -> None:
    assert HEALTHY.network is not None
    network = replace(HEALTHY.network, backend=backend, devices=(), port=None)
    assert codes(replace(with_rules(RULES.replace(OURS, "")), network=network, routes=(), devices=PLAIN)) == []


def test_hosts_that_are_gateways_are_reached_by_the_interface() -> None:
    assert HEALTHY.network is not None
    network = replace(HEALTHY.network, backend="host-gw", devices=(), port=None)
    rules = RULES.replace(OURS, "-A FORWARD -i ens33 -j REJECT\n" + OURS)
    facts = replace(with_rules(rules), network=network, routes=(), lookups=(), devices=PLAIN)
    assert only(facts).code == "forward-dropped"


RAW = ":PREROUTING ACCEPT [0:0]\nCOMMIT\n*nat"
DIRECT = "-A PREROUTING -d 10.2.7.2/32 ! -i docker0 -j DROP\n"
DROP_PORT = "-A PREROUTING -d 10.2.7.3/32 ! -i docker0 -p tcp -m tcp --dport 80 -j DROP\n"


def raw(*rules: str) -> str:
    return RULES.replace(RAW, f":PREROUTING ACCEPT [0:0]\n{''.join(rules)}COMMIT\n*nat")


@pytest.mark.parametrize("rule", [DIRECT, DROP_PORT])
def test_dockers_filter_of_direct_access_is_found(rule: str) -> None:
    found = only(with_rules(raw(rule)))
    assert found.code == "docker-direct-access"
    assert found.evidence == f"{rule.strip()} (table raw, Docker 28.2.2)"


def test_all_its_rules_are_one_finding() -> None:
    found = only(with_rules(raw(DIRECT, DROP_PORT)))
    assert "and 1 more" in found.evidence


def test_a_trusted_device_is_no_trouble() -> None:
    trusted = "-A PREROUTING -d 10.2.7.2/32 -i flannel.1 -j ACCEPT\n"
    assert codes(with_rules(raw(trusted, DIRECT))) == []


def test_the_filter_of_networks_that_are_not_ours_is_no_trouble() -> None:
    assert codes(with_rules(raw(DIRECT.replace("10.2.7.2", "172.18.0.2")))) == []


@pytest.mark.parametrize(
    "rules",
    [
        RULES.replace(":INPUT ACCEPT [0:0]\n:FORWARD", ":INPUT DROP [0:0]\n:FORWARD"),
        RULES.replace(
            "-A FORWARD -j DOCKER-USER\n", "-A FORWARD -j DOCKER-USER\n-A INPUT -p udp --dport 8472 -j REJECT\n"
        ),
    ],
    ids=["policy", "rule"],
)
def test_a_port_that_is_shut_is_found(rules: str) -> None:
    found = only(with_rules(rules))
    assert found.code == "port-blocked"
    assert "a packet from 172.16.41.132 on ens33 ends at: -" in found.evidence
    assert found.fix == (("iptables", "-I", "INPUT", "-i", "ens33", "-p", "udp", "--dport", "8472", "-j", "ACCEPT"),)


def test_a_port_that_is_opened_for_the_other_hosts_is_no_trouble() -> None:
    opened = "-A INPUT -s 172.16.41.0/24 -p udp -m udp --dport 8472 -j ACCEPT\n"
    shut = RULES.replace(":INPUT ACCEPT [0:0]\n:FORWARD", ":INPUT DROP [0:0]\n:FORWARD")
    assert codes(with_rules(shut.replace("-A FORWARD -j DOCKER-USER\n", f"{opened}-A FORWARD -j DOCKER-USER\n"))) == []


def test_packets_of_ipip_have_no_port_and_may_be_shut_out_all_the_same() -> None:
    assert HEALTHY.network is not None
    shut = RULES.replace(":INPUT ACCEPT [0:0]\n:FORWARD", ":INPUT DROP [0:0]\n:FORWARD")
    network = replace(HEALTHY.network, backend="ipip", devices=("flannel.ipip",), port=None)
    found = only(replace(with_rules(shut), network=network, devices=PLAIN, routes=(), lookups=()))
    assert found.code == "port-blocked"
    assert found.fix == (("iptables", "-I", "INPUT", "-i", "ens33", "-p", "4", "-j", "ACCEPT"),)


def test_a_masquerade_in_front_of_containers_is_found() -> None:
    jump = '-A POSTROUTING -m comment --comment "flanneld nomasq" -j FLANNEL-NOMASQ\n'
    found = only(with_rules(RULES.replace(jump, "")))
    assert found.code == "containers-masqueraded"
    assert found.evidence.endswith("-A POSTROUTING -s 10.2.7.0/24 ! -o docker0 -j MASQUERADE")


def test_rules_in_both_variants_are_found() -> None:
    legacy = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -j ACCEPT\n-A INPUT -p udp -j ACCEPT\nCOMMIT\n"
    found = only(with_rules(RULES, legacy=legacy))
    assert found.code == "iptables-mixed"
    assert "iptables-legacy holds -A INPUT -p tcp -j ACCEPT and 1 more" in found.evidence


def test_chains_of_ours_in_the_other_variant_are_found() -> None:
    legacy = f"*filter\n:FORWARD ACCEPT [0:0]\n:FLANNEL-FWD - [0:0]\n{OURS}-A FLANNEL-FWD -j ACCEPT\nCOMMIT\n"
    found = only(with_rules(RULES, legacy=legacy))
    assert (found.code, found.evidence) == ("stale-rules", "FLANNEL-FWD is still there (table filter)")
    prefix = ("iptables-legacy", "-t", "filter")
    assert found.fix == (
        (*prefix, "-D", "FORWARD", "-m", "comment", "--comment", "flanneld forward", "-j", "FLANNEL-FWD"),
        (*prefix, "-F", "FLANNEL-FWD"),
        (*prefix, "-X", "FLANNEL-FWD"),
    )


def test_tables_of_a_flanneld_that_used_nftables_are_found_where_ours_keeps_others() -> None:
    facts = with_rules(RULES, nft=("ip filter", "ip flannel-ipv4"))
    found = only(facts)
    assert (found.code, found.fix) == ("stale-rules", (("nft", "delete", "table", "ip", "flannel-ipv4"),))
    assert facts.agent is not None
    assert codes(replace(facts, agent=replace(facts.agent, status=None))) == []


@pytest.mark.parametrize(("value", "steps"), [("0", 1), ("", 2)])
def test_bridges_that_pass_by_kube_proxys_rules_are_found(value: str, steps: int) -> None:
    kube = RULES.replace(":DOCKER - [0:0]\n", ":DOCKER - [0:0]\n:KUBE-SERVICES - [0:0]\n").replace(
        "-A FLANNEL-NOMASQ -m mark", "-A KUBE-SERVICES -d 10.96.0.1/32 -j RETURN\n-A FLANNEL-NOMASQ -m mark"
    )
    sysctls = {**HEALTHY.sysctls, "net/bridge/bridge-nf-call-iptables": value}
    found = only(replace(with_rules(kube), sysctls=sysctls))
    assert found.code == "bridge-netfilter-off"
    assert found.fix is not None
    assert len(found.fix) == steps
    assert codes(replace(with_rules(RULES), sysctls=sysctls)) == []


def with_native(*tables: NftTable) -> Facts:
    return replace(HEALTHY, native=tables)


def test_docker_that_keeps_its_rules_with_nftables_is_found_to_keep_other_hosts_away() -> None:
    facts = replace(with_native(docker()), docker=Docker("29.0.1", "docker0"))
    dropped, direct = examine(facts)
    assert (direct.code, dropped.code) == ("docker-direct-access", "forward-dropped")
    rule = 'raw-PREROUTING ip daddr 10.2.7.2 iifname != docker0 drop comment "DROP DIRECT ACCESS"'
    assert direct.evidence == f"ip docker-bridges {rule} (nftables, Docker 29.0.1)"
    assert dropped.evidence == (
        "a packet from 10.2.9.2 (elsewhere) to 10.2.7.2 (here) ends at: "
        'ip docker-bridges filter-forward-in__docker0 drop comment "UNPUBLISHED PORT DROP"'
    )
    assert "firewall-backend" in dropped.remedy


def test_containers_that_docker_names_are_looked_for_in_our_subnet_alone() -> None:
    subnet = payload("ip", "daddr", {"prefix": {"addr": "10.2.7.0", "len": 24}})
    away = meta("iifname", {"set": ["lo", "docker0"]}, "!=")
    third = payload("ip", "daddr", "10.2.7.3")
    for named in ([subnet, away, DROP], [third, away, DROP]):
        assert "docker-direct-access" in codes(with_native(docker([named])))
    assert codes(with_native(docker([[payload("ip", "daddr", "172.18.0.2"), DROP]]))) == ["forward-dropped"]


def test_a_docker_that_masquerades_with_nftables_is_found() -> None:
    facts = with_native(docker((), marked=[[ACCEPT]], hidden=[HIDE]))
    found = only(facts)
    assert (found.code, "meets, in nftables: ip docker-bridges" in found.evidence) == ("containers-masqueraded", True)
    assert "FLANNELD_IP_MASQ=true" in found.remedy


def test_firewalld_that_lets_nothing_through_is_found_in_both_families() -> None:
    opened = firewalld([payload("udp", "dport", 8472), ACCEPT])
    assert codes(with_native(opened)) == ["forward-dropped", "forward-dropped"]
    found = [each for each in examine(with_native(firewalld())) if each.code == "port-blocked"]
    assert len(found) == 2
    assert all(each.fix is None and "nftables lets no UDP port 8472" in each.finding for each in found)
    assert found[0].evidence.endswith("ends at: inet firewalld filter_INPUT reject")


def test_wireguard_has_another_port_over_ipv6() -> None:
    assert HEALTHY.network is not None
    shut = RULES6.replace(":INPUT ACCEPT [0:0]\n:FORWARD", ":INPUT DROP [0:0]\n:FORWARD")
    opened = shut.replace("-A FORWARD -j DOCKER-USER\n", "-A INPUT -p udp -m udp --dport 51821 -j ACCEPT\n")
    for port, found in ((51821, []), (51820, ["port-blocked"]), (None, [])):
        wireguard = replace(HEALTHY.network, backend="wireguard", devices=("flannel-wg", "flannel-wg-v6"), port=51820)
        facts = replace(with_rules(RULES, opened), network=replace(wireguard, port_v6=port), devices=PLAIN)
        assert codes(replace(facts, routes=(), lookups=())) == found, port
