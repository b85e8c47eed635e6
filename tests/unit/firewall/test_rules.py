"""What the rules mean: packets go in, and what becomes of them is compared with what should."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest

from pyflannel.firewall.rules import (
    FORWARD_CHAIN,
    MASQUERADE_CHAIN,
    OWNED,
    PLAIN_CHAIN,
    Chain,
    Masquerade,
    Match,
    Rule,
    RuleSet,
    Verdict,
    rules,
)
from pyflannel.state import IPAddress

NETWORK, SUBNET = IPv4Network("10.2.0.0/16"), IPv4Network("10.2.71.0/24")
NETWORK6, SUBNET6 = IPv6Network("fd00:2::/48"), IPv6Network("fd00:2:0:71::/64")
V4 = {"local": "10.2.71.2", "neighbour": "10.2.71.3", "remote": "10.2.41.2", "world": "192.0.2.1", "multi": "224.0.0.5"}
V6 = {
    "local": "fd00:2:0:71::2",
    "neighbour": "fd00:2:0:71::3",
    "remote": "fd00:2:0:41::2",
    "world": "2001:db8::1",
    "multi": "ff02::5",
}


def both(masquerade: bool = True) -> list[tuple[RuleSet, dict[str, str]]]:
    wanted = {"masquerade": masquerade, "forward": True, "random_fully": True}
    return [(rules(NETWORK, SUBNET, **wanted), V4), (rules(NETWORK6, SUBNET6, **wanted), V6)]


def holds(match: Match | None, address: IPAddress) -> bool:
    return match is None or (address in match.network) != match.negated


def verdict(chain: Chain, source: str, destination: str, mark: int = 0) -> Verdict | str:
    """The first rule whose conditions all hold decides, as in the kernel."""
    for rule in chain.rules:
        marked = rule.mark is None or mark & rule.mark.mask == rule.mark.value
        if marked and holds(rule.source, ip_address(source)) and holds(rule.destination, ip_address(destination)):
            return rule.target if isinstance(rule.target, Verdict) else type(rule.target).__name__
    return "end of chain"


@pytest.mark.parametrize(
    ("source", "destination", "expected"),
    [
        ("local", "remote", Verdict.RETURN),
        ("remote", "local", Verdict.RETURN),
        ("local", "neighbour", Verdict.RETURN),
        ("world", "local", Verdict.RETURN),
        ("local", "world", "Masquerade"),
        ("remote", "world", "Masquerade"),
        ("world", "remote", "Masquerade"),
        ("local", "multi", "end of chain"),
        ("world", "world", "end of chain"),
    ],
)
def test_masquerade_decides_as_documented(source: str, destination: str, expected: Verdict | str) -> None:
    for wanted, addresses in both():
        assert verdict(wanted.chains[0], addresses[source], addresses[destination]) == expected


def test_what_kube_proxy_marked_is_left_alone_whatever_other_bits_the_mark_has() -> None:
    for wanted, addresses in both():
        for mark in (0x4000, 0xC001):
            assert verdict(wanted.chains[0], addresses["local"], addresses["world"], mark) == Verdict.RETURN
        assert verdict(wanted.chains[0], addresses["local"], addresses["world"], 0x8000) == "Masquerade"


@pytest.mark.parametrize(
    ("source", "destination", "expected"),
    [
        ("local", "remote", Verdict.ACCEPT),
        ("local", "neighbour", Verdict.RETURN),
        ("local", "local", Verdict.RETURN),
        ("local", "world", "end of chain"),
        ("local", "multi", "end of chain"),
        ("remote", "local", "end of chain"),
        ("remote", "remote", "end of chain"),
        ("remote", "world", "end of chain"),
        ("world", "local", "end of chain"),
        ("world", "remote", "end of chain"),
    ],
)
def test_where_others_masquerade_only_what_goes_to_remote_containers_is_spared(
    source: str, destination: str, expected: Verdict | str
) -> None:
    for wanted, addresses in both(masquerade=False):
        assert verdict(wanted.chains[0], addresses[source], addresses[destination]) == expected


def test_what_kube_proxy_marked_is_not_spared_either() -> None:
    for wanted, addresses in both(masquerade=False):
        for mark in (0x4000, 0xC001):
            assert verdict(wanted.chains[0], addresses["local"], addresses["remote"], mark) == Verdict.RETURN
        assert verdict(wanted.chains[0], addresses["local"], addresses["remote"], 0x8000) == Verdict.ACCEPT


@pytest.mark.parametrize(("source", "destination"), [("local", "remote"), ("world", "local"), ("local", "world")])
def test_whatever_comes_from_or_goes_to_the_network_is_forwarded(source: str, destination: str) -> None:
    for wanted, addresses in both():
        assert verdict(wanted.chains[1], addresses[source], addresses[destination]) == Verdict.ACCEPT


def test_forwarding_of_strangers_is_left_to_others() -> None:
    for wanted, addresses in both():
        assert verdict(wanted.chains[1], addresses["world"], addresses["multi"]) == "end of chain"


@pytest.mark.parametrize(
    ("masquerade", "forward", "wanted", "superseded"),
    [
        (True, True, [("nat", MASQUERADE_CHAIN), ("filter", FORWARD_CHAIN)], [("nat", PLAIN_CHAIN)]),
        (True, False, [("nat", MASQUERADE_CHAIN)], [("nat", PLAIN_CHAIN)]),
        (False, True, [("nat", PLAIN_CHAIN), ("filter", FORWARD_CHAIN)], [("nat", MASQUERADE_CHAIN)]),
        (False, False, [], []),
    ],
)
def test_only_the_chains_asked_for_are_wanted_and_what_contradicts_them_is_not(
    masquerade: bool, forward: bool, wanted: list[tuple[str, str]], superseded: list[tuple[str, str]]
) -> None:
    found = rules(NETWORK, SUBNET, masquerade=masquerade, forward=forward, random_fully=True)
    assert [(chain.table, chain.name) for chain in found.chains] == wanted
    assert list(found.superseded) == superseded


def test_every_chain_wanted_is_one_that_clean_up_knows() -> None:
    for spared, masqueraded in zip(both(masquerade=False), both(), strict=True):
        chains = (*masqueraded[0].chains, *spared[0].chains)
        assert {(chain.table, chain.name) for chain in chains} == set(OWNED)


def test_a_chain_stands_first_where_others_would_decide_in_another_way() -> None:
    for wanted, _ in (*both(), *both(masquerade=False)):
        firsts = {chain.name: (chain.hook, chain.first) for chain in wanted.chains}
        assert (
            firsts.items()
            <= {
                MASQUERADE_CHAIN: ("POSTROUTING", False),
                PLAIN_CHAIN: ("POSTROUTING", True),
                FORWARD_CHAIN: ("FORWARD", True),
            }.items()
        )


@pytest.mark.parametrize("random_fully", [True, False])
def test_random_ports_are_used_only_where_they_are_to_be_had(random_fully: bool) -> None:
    wanted = rules(NETWORK, SUBNET, masquerade=True, forward=False, random_fully=random_fully)
    found: list[Rule] = [rule for rule in wanted.chains[0].rules if isinstance(rule.target, Masquerade)]
    assert [rule.target for rule in found] == [Masquerade(random_fully)] * 2


def test_family_is_that_of_the_network() -> None:
    assert [wanted.family for wanted, _ in both()] == [4, 6]


def test_subnet_of_another_family_is_refused() -> None:
    with pytest.raises(ValueError, match="different families"):
        rules(NETWORK, ip_network("fd00::/64"), masquerade=True, forward=True, random_fully=True)
