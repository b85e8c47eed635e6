"""Rule texts and payloads, byte for byte (compat §6.1).

``*.rules`` is what ``iptables -S`` prints on a host with flannel; ``*.save`` is what ``iptables-save`` prints in some
situation, and the ``*.restore`` beside it what we then write.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest

from pyflannel.firewall.iptables import parse_save, payload, removal, repair, spell
from pyflannel.firewall.rules import RuleSet, rules

GOLDEN = Path(__file__).parent / "iptables"
V4 = (IPv4Network("10.2.0.0/16"), IPv4Network("10.2.71.0/24"))
V6 = (IPv6Network("fd00:2::/48"), IPv6Network("fd00:2:0:71::/64"))
WANTED = {
    "ipv4": rules(*V4, masquerade=True, forward=True, random_fully=True),
    "ipv4-without-random-fully": rules(*V4, masquerade=True, forward=True, random_fully=False),
    "ipv4-nomasq": rules(*V4, masquerade=False, forward=True, random_fully=True),
    "ipv6": rules(*V6, masquerade=True, forward=True, random_fully=True),
    "ipv6-nomasq": rules(*V6, masquerade=False, forward=True, random_fully=True),
}


def listing(wanted: RuleSet) -> str:
    lines: list[str] = []
    for chain in wanted.chains:
        lines += [f"-N {chain.name}", f"-A {chain.hook} {spell(chain.jump)}"]
        lines += [f"-A {chain.name} {spell(rule)}" for rule in chain.rules]
    return "\n".join([*lines, ""])


@pytest.mark.parametrize("name", WANTED)
def test_rules_read_as_flannels(name: str) -> None:
    assert listing(WANTED[name]) == (GOLDEN / f"{name}.rules").read_text()


@pytest.mark.parametrize("situation", ["empty", "docker", "go-flanneld", "go-flanneld-v0.20"])
def test_payload_for_a_situation(situation: str) -> None:
    saved = (GOLDEN / f"{situation}.save").read_text()
    assert repair(saved, WANTED["ipv4"]) == (GOLDEN / f"{situation}.restore").read_text()


@pytest.mark.parametrize("situation", ["empty", "docker", "docker-restarted", "go-flanneld"])
def test_payload_for_a_situation_where_others_masquerade(situation: str) -> None:
    saved = (GOLDEN / f"{situation}.save").read_text()
    assert repair(saved, WANTED["ipv4-nomasq"]) == (GOLDEN / f"{situation}-nomasq.restore").read_text()


@pytest.mark.parametrize("name", WANTED)
def test_a_host_that_lists_these_rules_needs_no_repair(name: str) -> None:
    nat, mark, forward = (GOLDEN / f"{name}.rules").read_text().partition("-N FLANNEL-FWD")
    assert repair(f"*nat\n{nat}*filter\n{mark}{forward}", WANTED[name]) is None


def test_payload_that_removes_what_go_flanneld_left() -> None:
    assert payload(removal(parse_save((GOLDEN / "go-flanneld.save").read_text()))) == (
        "*nat\n"
        '-D POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG\n'
        "-F FLANNEL-POSTRTG\n"
        "-X FLANNEL-POSTRTG\n"
        "COMMIT\n"
        "*filter\n"
        '-D FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD\n'
        "-F FLANNEL-FWD\n"
        "-X FLANNEL-FWD\n"
        "COMMIT\n"
    )
