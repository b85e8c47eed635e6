from __future__ import annotations

import json
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflannel.firewall.peers import Listing, Tunnel, build, change, read, removal
from pyflannel.state import IPAddress

TUNNEL = Tunnel(1, 8472)
ONE, TWO, SIX = ip_address("172.16.41.131"), ip_address("172.16.41.132"), ip_address("2001:db8::1")
HOSTS: st.SearchStrategy[frozenset[IPAddress]] = st.frozensets(st.ip_addresses())


def test_the_table_says_who_may_send_into_the_tunnel_and_nothing_of_anybody_else() -> None:
    assert build(TUNNEL, {TWO, ONE, SIX}) == (
        "add table inet flannel-peers-1\n"
        "delete table inet flannel-peers-1\n"
        "table inet flannel-peers-1 {\n"
        "\tset hosts {\n\t\ttype ipv4_addr\n\t\telements = { 172.16.41.131, 172.16.41.132 }\n\t}\n"
        "\tset hosts6 {\n\t\ttype ipv6_addr\n\t\telements = { 2001:db8::1 }\n\t}\n"
        "\tchain input {\n"
        "\t\ttype filter hook input priority -150; policy accept;\n"
        "\t\tudp dport 8472 @th,96,24 1 ip saddr != @hosts counter drop\n"
        "\t\tudp dport 8472 @th,96,24 1 ip6 saddr != @hosts6 counter drop\n"
        "\t}\n}\n"
    )


def test_a_set_of_nobody_has_no_elements() -> None:
    assert "elements" not in build(TUNNEL, frozenset())


def test_a_change_names_only_who_comes_and_who_goes() -> None:
    assert change(TUNNEL, {ONE}, {TWO, SIX}) == (
        "add element inet flannel-peers-1 hosts { 172.16.41.132 }\n"
        "add element inet flannel-peers-1 hosts6 { 2001:db8::1 }\n"
        "delete element inet flannel-peers-1 hosts { 172.16.41.131 }\n"
    )


@given(HOSTS, HOSTS)
def test_a_change_is_as_long_as_the_difference(old: frozenset[IPAddress], new: frozenset[IPAddress]) -> None:
    words = change(TUNNEL, old, new).replace(",", " ").split()
    assert sorted(word for word in words if word[0].isdigit() or ":" in word) == sorted(map(str, old ^ new))
    assert (change(TUNNEL, old, new) == "") is (old == new)


def test_a_removal_of_what_is_not_there_does_no_harm() -> None:
    assert removal("x") == "add table inet x\ndelete table inet x\n"


def listing(*, handle: int = 1, packets: int = 0, hosts: tuple[str, ...] = (), policy: str = "accept") -> str:
    table = {"table": {"family": "inet", "name": TUNNEL.table, "handle": handle}}
    found = {"set": {"name": "hosts", "handle": handle + 1, "type": "ipv4_addr", "elem": list(hosts)}}
    rule = {"rule": {"handle": handle, "expr": [{"counter": {"packets": packets, "bytes": packets}}, {policy: None}]}}
    return json.dumps({"nftables": [{"metainfo": {"version": "1"}}, table, found, rule]})


def test_what_changes_by_itself_makes_no_other_listing() -> None:
    read_once = read(listing(hosts=(str(ONE),)))
    assert read_once.hosts == {ONE}
    assert read(listing(handle=9, packets=7, hosts=(str(ONE),))) == read_once
    assert read(listing(policy="drop", hosts=(str(ONE),))) != read_once
    assert read(listing(hosts=(str(TWO),))) == Listing(frozenset((TWO,)), read_once.rest)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"nftables":7}', '{"nftables":[{"set":{"elem":["host"]}}]}', "null"])
def test_what_is_no_listing_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read(text)
