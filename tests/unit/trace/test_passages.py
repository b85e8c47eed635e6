"""The firewall on the way: every table of a hook, every variant of iptables, and other programs' tables."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pyflannel.firewall.nft import NftTable
from pyflannel.firewall.verdict import parse
from pyflannel.trace.facts import Crossing, Hop, Mood, Tables
from pyflannel.trace.passages import around, disguise, inner, passage
from tests.support.crossings import ARRIVED, ARRIVING, COMING, FLOW, FORWARDS, HERE, LEAVING, RULES, THERE
from tests.support.nft_tables import ACCEPT, DROP, Statement, docker, firewalld, meta, payload


def ruled(*texts: str, crossing: Crossing = LEAVING) -> Crossing:
    return replace(crossing, tables=Tables(tuple(map(parse, texts))))


def table(name: str, *rules: str) -> str:
    return "\n".join([f"*{name}", *rules, "COMMIT", ""])


def passed(hook: str, crossing: Crossing) -> list[Hop]:
    return list(passage(hook, crossing, inner(crossing, FLOW)))


def test_what_passes_is_told_with_the_rule_that_let_it() -> None:
    (hop,) = passed("FORWARD", LEAVING)
    assert (hop.mood, hop.text) == (Mood.PASS, f"FORWARD lets it pass: {FORWARDS}")


@pytest.mark.parametrize(("name", "hook"), [("raw", "PREROUTING"), ("mangle", "FORWARD"), ("filter", "FORWARD")])
def test_each_table_of_a_hook_can_end_it(name: str, hook: str) -> None:
    (hop,) = passed(hook, ruled(table(name, f"-A {hook} -d {THERE} -j DROP")))
    assert (hop.mood, hop.text) == (Mood.END, f"{hook} of table {name} drops it: -A {hook} -d {THERE} -j DROP")
    assert hop.remedy


def test_a_packet_has_to_pass_both_variants_of_iptables() -> None:
    other = table("filter", "-A FORWARD -j REJECT")
    assert [hop.mood for hop in passed("FORWARD", ruled(RULES, other))] == [Mood.END]


def test_dockers_direct_access_filter_comes_with_what_to_do() -> None:
    (hop,) = passed("PREROUTING", ruled(table("raw", f"-A PREROUTING -d {THERE} ! -i br0 -j DROP")))
    assert "flannelctl docker configure" in hop.remedy


def test_a_rule_that_cannot_be_judged_is_named() -> None:
    (hop,) = passed("FORWARD", ruled(table("filter", "-A FORWARD -m set --match-set bad src -j DROP")))
    assert (hop.mood, "--match-set bad" in hop.text) == (Mood.UNSURE, True)


def native(*tables: NftTable, crossing: Crossing = ARRIVING) -> Crossing:
    return replace(crossing, tables=replace(crossing.tables, native=tables))


def come(hook: str, crossing: Crossing) -> list[Hop]:
    return list(passage(hook, crossing, inner(crossing, ARRIVED)))


def test_another_programs_table_that_drops_is_where_it_ends() -> None:
    (hop,) = come("FORWARD", native(firewalld()))
    assert (hop.mood, hop.text) == (Mood.END, "nftables rejects it at forward: inet firewalld filter_FORWARD reject")


def test_another_programs_table_that_may_drop_leaves_it_unsure() -> None:
    (hop,) = come("FORWARD", native(docker((), marked=[[meta("mark", 1), ACCEPT]])))
    assert (hop.mood, "meta mark 1 accept" in hop.text) == (Mood.UNSURE, True)
    assert come("INPUT", native(firewalld([ACCEPT])))[0].mood is Mood.PASS


def test_docker_that_keeps_its_rules_with_nftables_comes_with_what_to_do() -> None:
    named = [payload("ip", "daddr", str(HERE)), meta("iifname", "docker0", "!="), DROP]
    (direct,) = come("PREROUTING", native(docker([named])))
    (forward,) = come("FORWARD", native(docker()))
    assert (direct.mood, "flannelctl docker configure" in direct.remedy) == (Mood.END, True)
    assert (forward.mood, "firewall-backend" in forward.remedy) == (Mood.END, True)


def test_another_address_by_nftables_is_worth_a_note_as_well() -> None:
    hide: list[Statement] = [payload("ip", "saddr", str(HERE)), {"masquerade": None}]
    crossing = native(docker(hidden=[hide]), crossing=LEAVING)
    assert [hop.mood for hop in passed("POSTROUTING", crossing)] == [Mood.NOTE]
    assert disguise(crossing, FLOW)
    assert list(passage("POSTROUTING", crossing, inner(crossing, replace(FLOW, reply=True)))) == []


def test_a_firewall_that_cannot_be_read_leaves_it_unsure() -> None:
    (hop,) = passed("FORWARD", replace(LEAVING, tables=Tables(trouble="iptables-save cannot be run")))
    assert hop.mood is Mood.UNSURE


def test_another_address_is_worth_a_note_and_only_for_the_first_packet() -> None:
    crossing = ruled(table("nat", f"-A POSTROUTING -s {HERE} -j MASQUERADE"))
    assert [hop.mood for hop in passed("POSTROUTING", crossing)] == [Mood.NOTE]
    assert disguise(crossing, FLOW)
    answer = replace(FLOW, reply=True)
    assert list(passage("POSTROUTING", crossing, inner(crossing, answer))) == []
    assert not disguise(crossing, answer)


def test_the_packet_around_has_the_tunnels_port() -> None:
    packet = around(COMING, "ens33", None)
    assert (packet.protocol, packet.destination_port, packet.in_device) == ("udp", 8472, "ens33")
    assert around(replace(COMING, port=None), None, "ens33").protocol == "ipip"


def test_an_answer_has_the_ports_the_other_way_round() -> None:
    flow = replace(FLOW, protocol="tcp", port=80)
    asked, answered = inner(LEAVING, flow), inner(ARRIVING, replace(flow, reply=True))
    assert (asked.destination_port, asked.state) == (80, "NEW")
    assert (answered.source_port, answered.state) == (80, "ESTABLISHED")
    assert asked.source_port == answered.destination_port
