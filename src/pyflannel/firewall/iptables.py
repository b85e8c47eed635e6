"""The rules as iptables spells them, and what must be written to bring the present state to them.

Rules of this file
  1. Text in, text out: the present state is what ``iptables-save`` prints, the answer is for
     ``iptables-restore --noflush``, which carries out each table whole or not at all.
  2. Only two things are ever written: our own chains, and what leads to them.  All else in a table belongs to others,
     who may be editing it at this moment.
  3. Rules are compared as the text that the tools print.  All versions print ours as compat §6.1 has them: Go
     flanneld's own end-to-end tests compare that text, and so do ours, with both variants of the tools.

Where the jumps stand
  FORWARD: first, as nobody's DROP or REJECT may come before our ACCEPT.  Go flanneld appends (v0.21.3 and later), and
  loses its traffic behind the REJECT that ends firewalld's and CentOS' rules (#1033, #1172) and behind the DROP of
  Docker's chains; a jump it left further down is moved.  Only chains made to hold a person's policy stay before us
  (``MAY_PRECEDE``): whoever writes a DROP there means it, and the programs behind those chains put them back to the
  front again and again, so that insisting on the very first place would be a quarrel without end.

  POSTROUTING, to FLANNEL-NOMASQ: first as well, before Docker's rule that masquerades what leaves its bridge.

  POSTROUTING, to FLANNEL-POSTRTG: anywhere, appended if absent, as Go flanneld does.  What stands before it may be an
  exception that somebody made to masquerading.  First would not help against Docker either: what this chain spares it
  returns to the rules behind it, and so with ``-ip-masq`` Docker has to run with ``--ip-masq=false`` (compat §4.3).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final

from pyflannel.firewall.rules import OWNED, Chain, Hook, Jump, Masquerade, Match, Rule, RuleSet, Table

MAY_PRECEDE: Final[Mapping[Hook, frozenset[str]]] = {
    "FORWARD": frozenset({"DOCKER-USER", "cali-FORWARD", "KUBE-ROUTER-FORWARD"}),
    "POSTROUTING": frozenset({"cali-POSTROUTING"}),
}
"""Chains whose jumps stay before ours, in each of the kernel's chains: Docker's, Calico's (Canal) and kube-router's
(k3s).  People, or the network policies they wrote, forbid forwarding there.  Each of those programs inserts its jumps
first and looks after that place; in POSTROUTING only Calico does."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What ``iptables-save`` printed: the rules of every chain, each without its ``-A CHAIN``."""

    chains: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    """By table and chain.  A table nobody used yet is not there, its built-in chains included."""

    def rules(self, table: str, chain: str) -> tuple[str, ...]:
        """The rules of a chain in their order; none if there is no such chain."""
        return self.chains.get((table, chain), ())


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is not as it should be."""

    table: Table
    text: str
    """What is wrong, for the log."""
    mend: tuple[str, ...]
    """The lines that put it right, if nothing else in the table changes meanwhile; else the tool refuses them all."""


_COUNTERS: Final = re.compile(r"^\[\d+:\d+\] ")


def parse_save(text: str, table: str = "filter") -> Saved:
    """Read ``iptables-save`` (with or without counters), or ``iptables -S`` of ``table``; other lines mean nothing."""
    chains: dict[tuple[str, str], list[str]] = {}
    for line in text.splitlines():
        # No more than this may be split: a comment can hold any number of spaces, and they matter for deleting.
        match _COUNTERS.sub("", line.rstrip()).split(" ", 2):
            case [first, *_] if first.startswith("*"):
                table = first[1:]
            case [first, *_] if first.startswith(":"):
                chains.setdefault((table, first[1:]), [])
            case ["-N" | "-P", chain, *_]:
                chains.setdefault((table, chain), [])
            case ["-A", chain, rule]:
                chains.setdefault((table, chain), []).append(rule)
            case _:
                pass
    return Saved({key: tuple(rules) for key, rules in chains.items()})


def compare(saved: Saved, wanted: RuleSet) -> tuple[Fault, ...]:
    """What is wrong: a chain of ours missing, different or superseded, a jump missing, repeated or out of place."""
    # These go first, and the places of our jumps are counted in what they leave.
    gone = removal(saved, wanted.superseded)
    left = _without(saved, wanted.superseded)
    return (*gone, *(fault for chain in wanted.chains for fault in (*_content(left, chain), *_jump(left, chain))))


def removal(saved: Saved, owned: Iterable[tuple[Table, str]] = OWNED) -> tuple[Fault, ...]:
    """What is still there of the chains ``owned``: they go, and every rule that leads to them."""
    return tuple(
        Fault(table, f"{name} is still there", (*_jumps_to(saved, table, name), f"-F {name}", f"-X {name}"))
        for table, name in owned
        if (table, name) in saved.chains
    )


def payload(faults: Iterable[Fault]) -> str:
    """The input for ``iptables-restore --noflush`` that mends ``faults``."""
    lines: dict[str, list[str]] = {}
    for fault in faults:
        lines.setdefault(fault.table, []).extend(fault.mend)
    return "".join("\n".join((f"*{table}", *body, "COMMIT", "")) for table, body in lines.items())


def render(wanted: RuleSet) -> str:
    """The payload for a host that has none of our rules and no others."""
    return payload(compare(Saved(), wanted))


def repair(saved_text: str, wanted: RuleSet) -> str | None:
    """The payload that leads from what ``iptables-save`` printed to ``wanted``; None if all is right."""
    return payload(compare(parse_save(saved_text), wanted)) or None


def spell(rule: Rule) -> str:
    """``rule`` as ``iptables -S`` prints it, without its ``-A CHAIN`` (compat §6.1)."""
    return " ".join(_words(rule))


def _words(rule: Rule) -> Iterator[str]:
    yield from _address("-s", rule.source)
    yield from _address("-d", rule.destination)
    if rule.mark is not None:
        yield f"-m mark --mark {rule.mark.value:#x}/{rule.mark.mask:#x}"
    yield f'-m comment --comment "{rule.comment}"'
    match rule.target:
        case Jump(chain):
            yield f"-j {chain}"
        case Masquerade(random_fully):
            yield "-j MASQUERADE --random-fully" if random_fully else "-j MASQUERADE"
        case verdict:
            yield f"-j {verdict.value}"


def _address(option: str, match: Match | None) -> Iterator[str]:
    if match is not None:
        yield f"! {option} {match.network}" if match.negated else f"{option} {match.network}"


def _content(saved: Saved, chain: Chain) -> Iterator[Fault]:
    wanted = tuple(map(spell, chain.rules))
    if (present := saved.chains.get((chain.table, chain.name))) == wanted:
        return
    text = "is missing" if present is None else "holds other rules than ours"
    fill = (f"-A {chain.name} {rule}" for rule in wanted)
    yield Fault(chain.table, f"{chain.name} {text}", (f":{chain.name} - [0:0]", f"-F {chain.name}", *fill))


def _jump(saved: Saved, chain: Chain) -> Iterator[Fault]:
    jump = spell(chain.jump)
    present = saved.rules(chain.table, chain.hook)
    at = [index for index, rule in enumerate(present) if rule == jump]
    if chain.first:
        others = (rule for rule in present if rule != jump)
        place = sum(1 for _ in takewhile(lambda rule: _target(rule) in MAY_PRECEDE[chain.hook], others))
        right, add = at == [place], f"-I {chain.hook} {place + 1} {jump}"
    else:
        right, add = len(at) == 1, f"-A {chain.hook} {jump}"
    if right:
        return
    text = ("does not lead", "leads too late or too early", "leads more than once")[min(len(at), 2)]
    drop = (f"-D {chain.hook} {jump}" for _ in at)
    yield Fault(chain.table, f"{chain.hook} {text} to {chain.name}", (*drop, add))


_TARGET: Final = re.compile(r"(?:^| )-[jg] (\S+)")


def _target(rule: str) -> str | None:
    """The chain or target; the last, as a comment before it may hold anything."""
    found = _TARGET.findall(rule)
    return found[-1] if found else None


def _without(saved: Saved, owned: Iterable[tuple[Table, str]]) -> Saved:
    """``saved`` as ``removal`` of ``owned`` leaves it."""
    names = set(owned)
    return Saved(
        {
            (table, chain): tuple(rule for rule in rules if (table, _target(rule)) not in names)
            for (table, chain), rules in saved.chains.items()
            if (table, chain) not in names
        }
    )


def _jumps_to(saved: Saved, table: str, name: str) -> Iterator[str]:
    for (where, chain), rules in saved.chains.items():
        if where == table:
            yield from (f"-D {chain} {rule}" for rule in rules if _target(rule) == name)
