"""Conditions of nftables' rules: yes, no, or not to be told."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from pyflannel.firewall.matches import Known, Packet
from pyflannel.firewall.nftmatches import chosen, elements, meets, spelled, statements

PACKET = Packet(
    *(ip_address("10.2.9.2"), ip_address("10.2.7.2"), "flannel.1", "docker0", "udp", 40000, 53),
    destination_type="UNICAST",
    reverse_path=True,
)
SIX = Packet(ip_address("fd00:2::9"), ip_address("fd00:2::7"), None, "docker0")
SETS = {"mine": [{"prefix": {"addr": "10.2.7.0", "len": 24}}, {"elem": {"val": "10.9.9.9", "timeout": 60}}]}


def asked(left: str, right: object, op: str = "==") -> object:
    """``ip saddr``, ``meta iifname``, ``ct state``."""
    first, _, second = left.partition(" ")
    kind: object = {first: {"key": second}} if first in ("meta", "ct") else None
    return {"op": op, "left": kind or {"payload": {"protocol": first, "field": second}}, "right": right}


@pytest.mark.parametrize(
    ("left", "right", "known"),
    [
        ("ip saddr", "10.2.9.2", True),
        ("ip saddr", {"prefix": {"addr": "10.2.8.0", "len": 23}}, True),
        ("ip saddr", {"range": ["10.2.9.3", "10.2.9.9"]}, False),
        ("ip saddr", {"range": ["fd00::", "fd00::1"]}, None),
        ("ip daddr", {"set": ["10.1.1.1", {"range": ["10.2.7.0", "10.2.7.9"]}]}, True),
        ("ip daddr", "@mine", True),
        ("ip saddr", "@mine", False),
        ("ip saddr", "@gone", None),
        ("ip saddr", "a-name", None),
        ("ip6 saddr", "fd00:2::9", False),
        ("ip ttl", 1, None),
        ("ip protocol", "udp", True),
        ("ip protocol", {"set": ["icmp", "tcp"]}, False),
        ("ip protocol", "carp", None),
        ("meta l4proto", 17, True),
        ("meta nfproto", "ipv6", False),
        ("meta iifname", "flannel.1", True),
        ("meta iifname", "fl*", True),
        ("meta oifname", {"set": ["lo", "br*"]}, False),
        ("meta mark", 0, None),
        ("udp dport", 53, True),
        ("udp dport", {"set": [{"range": [1, 52]}, 54]}, False),
        ("udp dport", True, None),
        ("tcp dport", 53, False),
        ("th dport", 53, True),
        ("carp dport", 53, None),
        ("icmp type", "echo-request", False),
        ("ct state", ["new", "related"], True),
        ("ct state", "invalid", False),
        ("ct status", "dnat", False),
        ("ct status", "assured", None),
        ("ct mark", 1, None),
    ],
)
def test_what_a_rule_may_ask(left: str, right: object, known: Known) -> None:
    assert meets(asked(left, right), PACKET, SETS) is known


def test_the_opposite_is_true_of_what_is_not_and_unknown_of_what_is_unknown() -> None:
    for left, right, known in (("ip saddr", "10.2.9.2", False), ("udp dport", 54, True), ("meta mark", 1, None)):
        assert meets(asked(left, right, "!="), PACKET, SETS) is known


def test_a_rule_about_another_protocol_is_not_met_whichever_way_it_is_put() -> None:
    for left in ("ip6 saddr", "tcp dport", "icmp type"):
        assert meets(asked(left, "::1", "!="), PACKET, SETS) is False
    assert meets(asked("ip saddr", "10.2.9.2", "!="), SIX, SETS) is False
    assert meets(asked("icmpv6 type", "echo-request"), SIX, SETS) is True


def test_comparisons_that_nobody_taught_us_are_unknown() -> None:
    assert meets(asked("udp dport", 50, ">="), PACKET, SETS) is None
    assert meets({"op": "==", "left": {"&": [{"meta": {"key": "mark"}}, 3]}, "right": 1}, PACKET, SETS) is None
    assert meets("nonsense", PACKET, SETS) is None


@pytest.mark.parametrize(("end", "right", "known"), [("daddr", "unicast", True), ("daddr", "local", False)])
def test_the_routes_may_be_asked_about_an_address(end: str, right: str, known: Known) -> None:
    fib = {"fib": {"result": "type", "flags": [end]}}
    assert meets({"op": "==", "left": fib, "right": right}, PACKET, SETS) is known
    assert meets({"op": "==", "left": fib, "right": right}, replace(PACKET, destination_type=None), SETS) is None


@pytest.mark.parametrize(("there", "missing"), [(True, False), (False, None), (None, None)])
def test_the_way_back_is_missing_only_where_that_is_known(there: bool | None, missing: Known) -> None:
    fib = {"fib": {"result": "oif", "flags": ["saddr", "iif"]}}
    packet = replace(PACKET, reverse_path=there)
    assert meets({"op": "==", "left": fib, "right": False}, packet, SETS) is missing
    if there:
        assert meets({"op": "==", "left": fib, "right": True}, packet, SETS) is True


def test_a_map_of_verdicts_is_picked_from() -> None:
    body = {"key": {"meta": {"key": "oifname"}}, "data": {"set": [["lo", {"drop": None}], ["docker0", {"jump": {}}]]}}
    assert list(chosen(body, PACKET, SETS)) == [(True, "jump", {})]
    marks = {"key": {"meta": {"key": "mark"}}, "data": {"set": [[1, {"drop": None}], [2, {"accept": None}]]}}
    assert list(chosen(marks, PACKET, SETS)) == [(None, "drop", None), (None, "accept", None)]
    assert list(chosen({**marks, "data": "@gone"}, PACKET, SETS)) == [(None, "vmap", None)]
    other = {"key": {"payload": {"protocol": "tcp", "field": "dport"}}, "data": {"set": [[53, {"drop": None}]]}}
    assert list(chosen(other, PACKET, SETS)) == []


def test_members_are_those_of_a_set_or_the_one_thing_itself() -> None:
    assert elements("@mine", SETS) == SETS["mine"]
    assert elements({"set": [1]}, SETS) == elements([1], SETS) == elements(1, SETS) == [1]
    assert elements("@gone", SETS) is None


def test_a_rule_is_spelled_as_people_know_it() -> None:
    rule = {
        "expr": [
            {
                "match": asked(
                    "ip saddr", {"set": [{"range": ["1.1.1.1", "1.1.1.9"]}, {"prefix": {"addr": "::", "len": 8}}]}
                )
            },
            {"match": asked("meta iifname", "docker0", "!=")},
            {"match": asked("ct state", ["new", "related"], "in")},
            {"counter": {"packets": 1, "bytes": 2}},
            {"match": {"op": "==", "left": {"fib": {"result": "type"}}, "right": "local"}},
            {"vmap": {"key": {"meta": {"key": "mark"}}, "data": "@ways"}},
            {"goto": {"target": "there"}},
            {"reject": {"type": "tcp reset"}},
        ],
        "comment": "why",
    }
    assert spelled(rule) == (
        "ip saddr { 1.1.1.1-1.1.1.9, ::/8 } iifname != docker0 ct state new,related "
        '{"fib":{"result":"type"}} local meta mark vmap @ways goto there reject comment "why"'
    )
    assert list(statements({"expr": "nothing"})) == []
