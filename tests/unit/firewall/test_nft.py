"""The walk through tables of nftables' own; tests/netns/test_verdict.py holds it to the kernel."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address

import pytest

from pyflannel.firewall.matches import Packet
from pyflannel.firewall.nft import NftTable, destinations, read, walk
from pyflannel.firewall.verdict import Outcome, Verdict
from tests.support.nft_tables import ACCEPT, DROP, HIDE, Statement, base, docker, firewalld, meta, payload, table

PING = Packet(ip_address("10.2.9.2"), ip_address("10.2.7.2"), "flannel.1", "docker0", destination_type="UNICAST")
SHUT = 'ip docker-bridges filter-forward-in__docker0 drop comment "UNPUBLISHED PORT DROP"'
DIRECT = 'ip docker-bridges raw-PREROUTING ip daddr 10.2.7.2 iifname != docker0 drop comment "DROP DIRECT ACCESS"'
MARK = meta("mark", 1)


def theirs(*rules: list[Statement], policy: str = "accept", **chains: list[list[Statement]]) -> NftTable:
    """A base chain at forward, and others that it may lead to."""
    others: dict[str, tuple[dict[str, object], Sequence[list[Statement]]]] = {
        name: ({}, held) for name, held in chains.items()
    }
    return table("inet theirs", {"f": (base("forward", policy), rules), **others})


def test_docker_drops_what_comes_to_its_containers_from_elsewhere() -> None:
    assert walk([docker()], "prerouting", replace(PING, out_device=None)) == Verdict(Outcome.DROP, DIRECT)
    assert walk([docker()], "forward", PING) == Verdict(Outcome.DROP, SHUT)


def test_what_leaves_or_answers_or_stays_on_the_bridge_docker_lets_pass() -> None:
    away = replace(PING, in_device="docker0", out_device="flannel.1")
    for packet in (away, replace(PING, state="ESTABLISHED"), replace(PING, in_device="docker0")):
        assert walk([docker()], "forward", packet).outcome is Outcome.ACCEPT
    assert walk([docker()], "prerouting", replace(away, out_device=None)).outcome is Outcome.ACCEPT


def test_an_accept_in_one_table_undoes_no_drop_in_another() -> None:
    first = table("inet first", {"f": (base("forward", priority=-10), [[ACCEPT]])})
    assert walk([first, docker()], "forward", PING) == Verdict(Outcome.DROP, SHUT)


def test_a_mark_may_open_what_is_shut() -> None:
    found = walk([docker(marked=[[MARK, ACCEPT]])], "forward", PING)
    assert (found.outcome, found.rule) == (Outcome.UNCERTAIN, SHUT)
    assert found.uncertain == ("ip docker-bridges filter-forward-in__docker0 meta mark 1 accept",)


def test_a_table_of_the_other_family_is_not_met() -> None:
    packet = Packet(ip_address("fd00::1"), ip_address("fd00::2"), "flannel-v6.1", "docker0")
    assert walk([docker()], "forward", packet) == Verdict(Outcome.ACCEPT, "")
    assert walk([firewalld()], "forward", packet).outcome is Outcome.REJECT


def test_a_policy_ends_what_no_rule_does() -> None:
    found = walk([theirs([payload("tcp", "dport", 25), ACCEPT], policy="drop")], "forward", PING)
    assert found == Verdict(Outcome.DROP, "inet theirs f policy drop")


@pytest.mark.parametrize(
    ("rules", "chain", "outcome"),
    [
        ([[{"jump": {"target": "c"}}], [DROP]], [[{"return": None}], [ACCEPT]], Outcome.DROP),
        ([[{"goto": {"target": "c"}}], [DROP]], [[{"return": None}], [ACCEPT]], Outcome.ACCEPT),
        ([[{"jump": {"target": "c"}}], [DROP]], [[ACCEPT]], Outcome.ACCEPT),
        ([[MARK, {"goto": {"target": "c"}}], [DROP]], [], Outcome.UNCERTAIN),
        ([[MARK, {"return": None}], [DROP]], [], Outcome.UNCERTAIN),
        ([[MARK, {"jump": {"target": "c"}}], [DROP]], [], Outcome.DROP),
        ([[MARK, DROP], [DROP]], [], Outcome.DROP),
        ([[{"limit": {"rate": 5, "per": "second"}}, ACCEPT], [DROP]], [], Outcome.UNCERTAIN),
        ([[{"log": {"prefix": "x"}}, {"counter": None}, ACCEPT], [DROP]], [], Outcome.ACCEPT),
        ([[{"queue": {"num": 1}}]], [], Outcome.UNCERTAIN),
        ([[{"continue": None}], [DROP]], [], Outcome.DROP),
    ],
)
def test_the_walk_is_the_kernels(rules: list[list[Statement]], chain: list[list[Statement]], outcome: Outcome) -> None:
    assert walk([theirs(*rules, c=chain)], "forward", PING).outcome is outcome


def test_chains_that_lead_to_one_another_end() -> None:
    round_about: list[list[Statement]] = [[{"jump": {"target": "c"}}]]
    assert walk([theirs(*round_about, c=round_about)], "forward", PING).outcome is Outcome.ACCEPT


def test_before_connections_are_tracked_no_packet_has_a_state() -> None:
    fresh: list[Statement] = [{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "new"}}, DROP]
    for priority, outcome in ((-300, Outcome.UNCERTAIN), (-150, Outcome.DROP)):
        early = table("ip early", {"p": (base("prerouting", priority=priority), [fresh])})
        assert walk([early], "prerouting", PING).outcome is outcome


def test_a_masquerade_is_found_among_the_chains_that_translate() -> None:
    leaving = replace(PING, source=PING.destination, destination=PING.source, in_device="docker0", out_device="tun9")
    tables = [docker(hidden=[HIDE])]
    rule = "ip docker-bridges nat-POSTROUTING oifname != docker0 ip saddr 10.2.7.0/24 masquerade"
    assert walk(tables, "postrouting", leaving, "nat") == Verdict(Outcome.ACCEPT, rule)
    assert walk(tables, "postrouting", leaving) == Verdict(Outcome.ACCEPT, "")
    assert walk(tables, "postrouting", PING, "nat") == Verdict(Outcome.ACCEPT, "")


def test_the_addresses_that_rules_are_about_are_named() -> None:
    other: list[Statement] = [payload("ether", "daddr", "02:00:00:00:00:01"), DROP]
    named: list[Statement] = [payload("ip", "daddr", "@some"), payload("ip", "daddr", "10.2.7.9"), DROP]
    tables = [docker(), table("inet theirs", {"p": (base("prerouting"), [other, named])})]
    assert list(map(str, destinations(tables, "prerouting"))) == ["10.2.7.2", "10.2.7.9"]
    assert list(destinations(tables, "forward")) == []


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "[]", "null", '{"nftables":7}', '{"nftables":[]}', '{"nftables":[{"table":{"family":"ip"}}]}'),
        json.dumps({"nftables": [{"table": {"family": "ip", "name": "x"}}, {"rule": {"chain": "gone"}}]}),
    ],
)
def test_what_is_no_listing_of_a_table_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a table|Expecting value|unpack"):
        read(text)
