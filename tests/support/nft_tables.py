"""Tables that other programs keep with nftables, as ``nft -j list table`` prints them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from pyflannel.firewall.nft import NftTable, read

Statement = dict[str, object]
ESTABLISHED: Statement = {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}
"""``ct state established,related``"""
COUNTER: Statement = {"counter": {"packets": 7, "bytes": 588}}
ACCEPT: Statement = {"accept": None}
DROP: Statement = {"drop": None}


def meta(key: str, right: object, op: str = "==") -> Statement:
    return {"match": {"op": op, "left": {"meta": {"key": key}}, "right": right}}


def payload(protocol: str, field: str, right: object, op: str = "==") -> Statement:
    return {"match": {"op": op, "left": {"payload": {"protocol": protocol, "field": field}}, "right": right}}


def base(hook: str, policy: str = "accept", kind: str = "filter", priority: int = 0) -> dict[str, object]:
    return {"type": kind, "hook": hook, "prio": priority, "policy": policy}


def table(
    name: str,
    chains: Mapping[str, tuple[Mapping[str, object], Sequence[Sequence[Statement]]]],
    sets: Mapping[str, object] | None = None,
) -> NftTable:
    """``name`` is family and name; a chain has what makes it a base chain, and its rules."""
    family, _, short = name.partition(" ")
    said: list[dict[str, object]] = [{"metainfo": {"version": "1.0.6"}}, {"table": {"family": family, "name": short}}]
    said += ({"map": {"name": each, "elem": held}} for each, held in (sets or {}).items())
    said += ({"chain": {"name": chain, **hooked}} for chain, (hooked, _) in chains.items())
    for chain, (_, rules) in chains.items():
        for statements in rules:
            comments = [str(each["comment"]) for each in statements if "comment" in each]
            commented = {"comment": comments[0]} if comments else {}
            expressions = [each for each in statements if "comment" not in each]
            said.append({"rule": {"chain": chain, "expr": expressions, **commented}})
    return read(json.dumps({"nftables": said}))


def _jump(way: str) -> dict[str, dict[str, str]]:
    return {"jump": {"target": f"filter-forward-{way}__docker0"}}


def _vmap(key: str, data: str) -> list[Statement]:
    return [{"vmap": {"key": {"meta": {"key": key}}, "data": data}}]


DIRECT: list[Statement] = [
    payload("ip", "daddr", "10.2.7.2"),
    meta("iifname", "docker0", "!="),
    COUNTER,
    DROP,
    {"comment": "DROP DIRECT ACCESS"},
]
UNPUBLISHED: list[Statement] = [COUNTER, DROP, {"comment": "UNPUBLISHED PORT DROP"}]
HIDE: list[Statement] = [
    meta("oifname", "docker0", "!="),
    payload("ip", "saddr", {"prefix": {"addr": "10.2.7.0", "len": 24}}),
    COUNTER,
    {"masquerade": None},
]


def docker(
    direct: Sequence[Sequence[Statement]] = (DIRECT,),
    marked: Sequence[Sequence[Statement]] = (),
    hidden: Sequence[Sequence[Statement]] = (),
) -> NftTable:
    """What Docker 29 keeps with ``firewall-backend`` nftables while a container 10.2.7.2 runs (moby, nftablesdoc).

    ``direct`` is there without --allow-direct-routing, ``marked`` with --bridge-accept-fwmark, ``hidden`` with
    --ip-masq.
    """
    inward: list[Sequence[Statement]] = [
        [ESTABLISHED, COUNTER, ACCEPT],
        *marked,
        [meta("iifname", "docker0"), COUNTER, ACCEPT],
        UNPUBLISHED,
    ]
    return table(
        "ip docker-bridges",
        {
            "filter-FORWARD": (
                base("forward"),
                [_vmap("oifname", "@filter-forward-in-jumps"), _vmap("iifname", "@filter-forward-out-jumps")],
            ),
            "nat-POSTROUTING": (base("postrouting", kind="nat", priority=100), hidden),
            "raw-PREROUTING": (base("prerouting", priority=-300), direct),
            "filter-forward-in__docker0": ({}, inward),
            "filter-forward-out__docker0": ({}, [[ESTABLISHED, COUNTER, ACCEPT], [COUNTER, ACCEPT]]),
        },
        {
            "filter-forward-in-jumps": [["docker0", _jump("in")]],
            "filter-forward-out-jumps": [["docker0", _jump("out")]],
        },
    )


def firewalld(*services: Sequence[Statement]) -> NftTable:
    """What firewalld does at INPUT and FORWARD, but for its zones; ``services`` are let in."""
    ends: list[Sequence[Statement]] = [
        [meta("iifname", "lo"), ACCEPT],
        [{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "invalid"}}, DROP],
        [{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}],
    ]
    rules: list[Sequence[Statement]] = [[ESTABLISHED, ACCEPT], [{"jump": {"target": "filter_ZONES"}}], *ends]
    return table(
        "inet firewalld",
        {
            "filter_INPUT": (base("input", priority=10), rules),
            "filter_FORWARD": (base("forward", priority=10), rules),
            "filter_ZONES": ({}, services),
        },
    )
