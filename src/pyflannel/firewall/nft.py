"""What the tables do with a packet that programs keep with nftables itself, such as Docker's and firewalld's.

iptables shows nothing of them.  They are worked out from what ``nft -j list table`` prints.

Rules of this file
  1. The walk is the kernel's: each base chain of a hook sees the packet, whatever another one has accepted, and only a
     drop is final.  So nothing that flannel accepts undoes what is dropped here.
  2. Where a condition cannot be judged (``nftmatches.py``), both ways are walked, as in ``verdict.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Literal, TypeAlias

from pyflannel.firewall.matches import Packet
from pyflannel.firewall.nftmatches import Rule, Sets, chosen, meets, spelled, statements
from pyflannel.firewall.peers import PREFIX
from pyflannel.firewall.verdict import BLOCKS, Outcome, Verdict, conclude

Kind: TypeAlias = Literal["filter", "nat"]

_IPTABLES: Final = frozenset(
    f"{family} {table}" for family in ("ip", "ip6") for table in ("filter", "nat", "mangle", "raw", "security")
)
"""What its variant nf_tables keeps there, and shows itself."""
_FAMILIES: Final = {4: ("inet", "ip"), 6: ("inet", "ip6")}
_CONNTRACK: Final = -200
"""The priority of connection tracking: before it no packet has a state."""
_DECIDES: Final[Mapping[str, Outcome]] = {
    "accept": Outcome.ACCEPT,
    "drop": Outcome.DROP,
    "reject": Outcome.REJECT,
    **dict.fromkeys(("masquerade", "snat", "dnat", "redirect", "tproxy"), Outcome.ACCEPT),
}
_LEADS: Final = frozenset(("jump", "goto", "return", "continue"))
_GOES_ON: Final = frozenset(
    ("counter", "log", "mangle", "notrack", "flow", "ct helper", "ct timeout", "ct expectation")
)
"""Statements after which the next one has its turn, whatever the packet."""
_MAY_STOP: Final = frozenset(("limit", "quota", "ct count", "set", "meter"))
"""Those after which it may, or may not."""


@dataclass(frozen=True, slots=True)
class Base:
    """A chain that the kernel calls at a hook."""

    chain: str
    hook: str
    is_nat: bool
    priority: int
    policy: Outcome


@dataclass(frozen=True, slots=True)
class NftTable:
    """A table with all that is in it."""

    family: str
    name: str
    bases: tuple[Base, ...]
    chains: Mapping[str, tuple[Rule, ...]]
    sets: Sets

    def __str__(self) -> str:
        """As ``nft list tables`` has it."""
        return f"{self.family} {self.name}"


def foreign(names: Iterable[str]) -> Iterator[str]:
    """Of tables, named as ``nft list tables`` does (``ip filter``), those that are neither ours nor iptables'."""
    return (name for name in names if name not in _IPTABLES and not name.startswith(f"inet {PREFIX}"))


def read(text: str) -> NftTable:
    """What ``nft -j list table`` printed; ``ValueError`` if it is nothing of the kind."""
    try:
        entries = json.loads(text)["nftables"]
        (table,) = [entry["table"] for entry in entries if "table" in entry]
        chains = [entry["chain"] for entry in entries if "chain" in entry]
        rules: dict[str, list[Rule]] = {chain["name"]: [] for chain in chains}
        for rule in [entry["rule"] for entry in entries if "rule" in entry]:
            rules[rule["chain"]].append(rule)
        named = [entry[kind] for entry in entries for kind in ("set", "map") if kind in entry]
        return NftTable(
            str(table["family"]),
            str(table["name"]),
            tuple(_base(chain) for chain in chains if "hook" in chain),
            {name: tuple(held) for name, held in rules.items()},
            {each["name"]: tuple(each.get("elem", ())) for each in named},
        )
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"not a table of nft: {exc!r}") from None


def walk(tables: Iterable[NftTable], hook: str, packet: Packet, kind: Kind = "filter") -> Verdict:
    """What the chains at a hook, such as ``forward``, do with ``packet``, those of all ``tables``.

    The rule that decides is spelled as ``nft add rule`` takes it; empty where none does.
    """
    family, is_nat = _FAMILIES[packet.source.version], kind == "nat"
    met = [
        (base, table)
        for table in tables
        for base in table.bases
        if table.family in family and base.hook == hook and base.is_nat is is_nat
    ]
    met.sort(key=lambda pair: pair[0].priority)
    verdicts = [_Walker(table, base, packet).verdict() for base, table in met]
    for outcomes in (BLOCKS, {Outcome.UNCERTAIN}):
        for verdict in verdicts:
            if verdict.outcome in outcomes:
                return verdict
    ruled = (verdict for verdict in verdicts if not verdict.rule.endswith(" policy accept"))
    return next(ruled, Verdict(Outcome.ACCEPT, ""))


def destinations(tables: Iterable[NftTable], hook: str) -> Iterator[IPv4Address | IPv6Address]:
    """The single addresses that rules at a hook name as where packets go."""
    for table in tables:
        for base in table.bases:
            for rule in table.chains[base.chain] if base.hook == hook else ():
                for statement in statements(rule):
                    match statement:
                        case "match", {
                            "left": {"payload": {"protocol": "ip" | "ip6", "field": "daddr"}},
                            "right": text,
                        }:
                            with suppress(ValueError):
                                yield ip_address(str(text))


def _base(chain: Mapping[str, object]) -> Base:
    priority = chain.get("prio")
    return Base(
        str(chain["name"]),
        str(chain["hook"]),
        chain.get("type") == "nat",
        priority if isinstance(priority, int) else 0,
        Outcome.DROP if chain.get("policy") == "drop" else Outcome.ACCEPT,
    )


@dataclass(frozen=True, slots=True)
class _Passage:
    """What a chain, or a verdict, does with a packet."""

    ends: tuple[tuple[Outcome, str], ...] = ()
    goes_on: bool = True
    """Whether it may come out again."""
    doubts: tuple[str, ...] = ()


class _Walker:
    """One packet at one base chain."""

    def __init__(self, table: NftTable, base: Base, packet: Packet) -> None:
        early = base.priority <= _CONNTRACK and base.hook in ("prerouting", "output")
        self._packet = replace(packet, state="") if early else packet
        self._table, self._base = table, base
        self._known: dict[str, _Passage] = {}

    def verdict(self) -> Verdict:
        base, found = self._base, self._through(self._base.chain)
        policy = (base.policy, f"{self._table} {base.chain} policy {base.policy.value}")
        return conclude([*found.ends, *([policy] if found.goes_on else [])], found.doubts)

    def _through(self, chain: str) -> _Passage:
        if chain not in self._known:
            # Until it is known: chains that lead to one another the kernel does not take, but a text may have them.
            self._known[chain] = _Passage()
            self._known[chain] = self._walk(chain)
        return self._known[chain]

    def _walk(self, chain: str) -> _Passage:
        ends: dict[tuple[Outcome, str], None] = {}
        doubts: dict[str, None] = {}
        returned = False
        for rule in self._table.chains.get(chain, ()):
            text = f"{self._table} {chain} {spelled(rule)}"
            for sure, verb, target in self._verdicts(rule):
                step = self._step(verb, target, text)
                leaves = verb in ("goto", "return")
                ends.update(dict.fromkeys(step.ends))
                doubts.update(dict.fromkeys(step.doubts))
                if not sure and (leaves or step.ends):
                    doubts[text] = None
                returned |= leaves and step.goes_on
                if sure and (leaves or not step.goes_on):
                    return _Passage(tuple(ends), returned, tuple(doubts))
        return _Passage(tuple(ends), True, tuple(doubts))

    def _step(self, verb: str, target: str, text: str) -> _Passage:
        if verb in _DECIDES:
            return _Passage(((_DECIDES[verb], text),), goes_on=False)
        if verb in ("jump", "goto"):
            return self._through(target)
        # A program decides (queue), or it is a statement nobody told us about: it may end here or go on.
        return _Passage() if verb in _LEADS else _Passage(((Outcome.UNCERTAIN, text),), doubts=(text,))

    def _verdicts(self, rule: Rule) -> Iterator[tuple[bool, str, str]]:
        """How the rule may end for the packet: whether that is sure, the verdict, and the chain it names."""
        sure = True
        for word, body in statements(rule):
            if word == "match":
                known = meets(body, self._packet, self._table.sets)
                if known is False:
                    return
                sure = sure and known is not None
            elif word == "vmap":
                for picked, verb, target in chosen(body, self._packet, self._table.sets):
                    yield sure and bool(picked), verb, _name(target)
            elif word in _DECIDES or word in _LEADS:
                yield sure, word, _name(body)
            elif word in _MAY_STOP:
                sure = False
            elif word not in _GOES_ON:
                sure = False
                yield sure, word, ""


def _name(body: object) -> str:
    match body:
        case {"target": str(name)}:
            return name
        case _:
            return ""
