"""What a host's iptables rules do with a packet, worked out from what ``iptables-save`` prints.

Rules of this file
  1. The walk is the kernel's: a chain's rules in their order, jumps and gotos into others, RETURN, and in the end the
     policy.  It says which rule decided, in the words in which ``iptables -S`` shows it.
  2. Where a condition cannot be judged (``matches.py``), both ways are walked.  The verdict is uncertain only if they
     end differently; a rule that merely logs, or accepts what is accepted anyhow, makes nothing uncertain.

It answers for one table and hook: the caller walks those which a packet passes, and knows about other programs' own
nftables tables, which no ``iptables-save`` shows (``nft.py``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from pyflannel.firewall.iptables import Saved, parse_save
from pyflannel.firewall.matches import Packet, meets, words

__all__ = ["Outcome", "Packet", "Ruleset", "Verdict", "parse", "walk"]


class Outcome(Enum):
    """What becomes of a packet."""

    ACCEPT = "accept"
    """It goes on, with other addresses perhaps (MASQUERADE and its like are this outcome, too)."""
    DROP = "drop"
    REJECT = "reject"
    """It is dropped, and its sender is told."""
    UNCERTAIN = "uncertain"
    """One or another of these, depending on what we do not know."""


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The rules of one address family."""

    saved: Saved
    policies: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """What happens at the end of a built-in chain, by table and chain; those not named here accept."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Tables which the tool could not show, and what it said instead."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How it ends."""

    outcome: Outcome
    rule: str
    """The rule or policy that decided, as ``iptables -S`` prints it; where uncertain, the one that decides if none of
    the ``uncertain`` rules matches."""
    uncertain: tuple[str, ...] = ()
    """The rules on which it depends and whose conditions cannot be judged from here."""


_POLICY: Final = re.compile(r"(?::|-P )(\S+) (ACCEPT|DROP)\b")
_UNREADABLE: Final = re.compile(r"# Table `(\S+?)' is incompatible")
_GOES_ON: Final = frozenset(
    (
        *("AUDIT", "CHECKSUM", "CLASSIFY", "CONNMARK", "CONNSECMARK", "CT", "DSCP", "ECN", "HL", "HMARK", "IDLETIMER"),
        *("LED", "LOG", "MARK", "NFLOG", "NOTRACK", "RATEEST", "SECMARK", "SET", "TCPMSS", "TCPOPTSTRIP", "TEE"),
        *("TOS", "TRACE", "TTL", "ULOG"),
    )
)
"""Targets after which the walk goes on with the next rule (iptables-extensions(8))."""
_DECIDES: Final[Mapping[str, Outcome]] = {
    "ACCEPT": Outcome.ACCEPT,
    "DROP": Outcome.DROP,
    "REJECT": Outcome.REJECT,
    **dict.fromkeys(("MASQUERADE", "SNAT", "DNAT", "REDIRECT", "NETMAP", "TPROXY"), Outcome.ACCEPT),
}
BLOCKS: Final = frozenset({Outcome.DROP, Outcome.REJECT})
"""How a packet does not pass."""


def parse(text: str, table: str = "filter") -> Ruleset:
    """Read what ``iptables-save`` or ``ip6tables-save`` printed, or ``iptables -S`` of ``table``."""
    policies: dict[tuple[str, str], str] = {}
    unreadable: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif found := _POLICY.match(line):
            policies[table, found[1]] = found[2]
        elif found := _UNREADABLE.match(line):
            unreadable[found[1]] = line
    return Ruleset(parse_save(text, table), policies, unreadable)


def walk(rules: Ruleset, table: str, chain: str, packet: Packet) -> Verdict:
    """What the ``chain`` of ``table`` does with ``packet``; a built-in chain that is not there accepts."""
    if table in rules.unreadable:
        return Verdict(Outcome.UNCERTAIN, rules.unreadable[table], (rules.unreadable[table],))
    walker = _Walker(rules, table, packet)
    result = walker.through(chain, frozenset({packet.mark}))
    ends = list(result.ends)
    if result.marks:
        policy = rules.policies.get((table, chain), "ACCEPT")
        ends.append((_DECIDES[policy], f"-P {chain} {policy}"))
    return conclude(ends, result.uncertain)


def conclude(ends: Sequence[tuple[Outcome, str]], uncertain: tuple[str, ...]) -> Verdict:
    """What it comes to where a packet may end, in the order of the walk."""
    outcome, rule = ends[-1]
    reached = {end for end, _ in ends}
    # DROP here and REJECT there is no doubt worth mentioning: it does not pass.
    if reached == {outcome} - {Outcome.UNCERTAIN} or reached <= BLOCKS:
        return Verdict(outcome, rule)
    return Verdict(Outcome.UNCERTAIN, rule, uncertain)


@dataclass(frozen=True, slots=True)
class _Passage:
    """What a chain does with a packet that may carry one of several marks."""

    ends: tuple[tuple[Outcome, str], ...]
    """Where it may end, in the order of the walk."""
    marks: frozenset[int | None]
    """The marks with which it may come out again; none if it certainly ends inside."""
    uncertain: tuple[str, ...]


class _Walker:
    """One walk through one table.  What a chain does with a mark is worked out once."""

    def __init__(self, rules: Ruleset, table: str, packet: Packet) -> None:
        self._rules = rules
        self._table = table
        self._packet = packet
        self._known: dict[tuple[str, frozenset[int | None]], _Passage] = {}
        self._inside: set[str] = set()

    def through(self, chain: str, marks: frozenset[int | None]) -> _Passage:
        key = chain, marks
        if key not in self._known:
            self._inside.add(chain)
            self._known[key] = self._walk(chain, marks)
            self._inside.discard(chain)
        return self._known[key]

    def _walk(self, chain: str, marks: frozenset[int | None]) -> _Passage:
        ends: dict[tuple[Outcome, str], None] = {}
        doubts: dict[str, None] = {}
        returned: frozenset[int | None] = frozenset()
        for text in self._rules.saved.rules(self._table, chain):
            if not marks:
                break
            conditions, verb, target, options = _split(text)
            sure, maybe = self._matching(conditions, marks)
            if not sure | maybe:
                continue
            rule = f"-A {chain} {text}"
            step = self._target(rule, verb, target, options, sure | maybe)
            ends.update(dict.fromkeys(step.ends))
            # Who returns, and who comes out of a chain it was sent to for good, is done with this one.
            leaves = target == "RETURN" or verb == "-g"
            if maybe and (leaves or step.ends or step.marks != sure | maybe):
                doubts[rule] = None
            doubts.update(dict.fromkeys(step.uncertain))
            returned |= step.marks if leaves else frozenset()
            marks = (marks - sure) | (frozenset() if leaves else step.marks)
        return _Passage(tuple(ends), marks | returned, tuple(doubts))

    def _matching(
        self, conditions: list[str], marks: frozenset[int | None]
    ) -> tuple[frozenset[int | None], frozenset[int | None]]:
        """With which of ``marks`` the packet meets ``conditions``, and with which it may."""
        answers = {mark: meets(conditions, replace(self._packet, mark=mark)) for mark in marks}
        return (
            frozenset(mark for mark, answer in answers.items() if answer),
            frozenset(mark for mark, answer in answers.items() if answer is None),
        )

    def _target(self, rule: str, verb: str, target: str, options: list[str], marks: frozenset[int | None]) -> _Passage:
        """What the target does with those packets that get to it."""
        if (self._table, target) in self._rules.saved.chains and target not in self._inside:
            return self.through(target, marks)
        if target in _DECIDES:
            return _Passage(((_DECIDES[target], rule),), frozenset(), ())
        if target in ("MARK", "CONNMARK"):
            return _Passage((), frozenset(_marked(mark, target, options) for mark in marks), ())
        if target in _GOES_ON or target in ("", "RETURN"):
            return _Passage((), marks, ())
        # A program decides (NFQUEUE), or it is a target nobody told us about: it may end here or go on.
        return _Passage(((Outcome.UNCERTAIN, rule),), marks, (rule,))


def _split(rule: str) -> tuple[list[str], str, str, list[str]]:
    """The conditions, ``-j`` or ``-g``, the target and its options; the last three are empty if it has none."""
    found = words(rule)
    for at in _verbs(found):
        return found[:at], found[at], found[at + 1], found[at + 2 :]
    return found, "", "", []


def _verbs(found: list[str]) -> Iterator[int]:
    # A comment may say "-j": its words are one word here, so only a comment of nothing else could deceive us.
    return (at for at, word in enumerate(found[:-1]) if word in ("-j", "-g") and found[at - 1] != "--comment")


def _marked(mark: int | None, target: str, options: list[str]) -> int | None:
    """The mark after ``MARK --set-xmark VALUE/MASK``, as the tools print it; else nothing is known of it any more."""
    match target, options:
        case "CONNMARK", [("--set-xmark" | "--set-mark" | "--save-mark"), *_]:
            return mark
        case "MARK", ["--set-xmark", text]:
            value, _, mask = text.partition("/")
            kept = 0xFFFFFFFF ^ int(mask or "0xffffffff", 0)
            if mark is None and kept:
                return None
            return ((mark or 0) & kept) ^ int(value, 0)
        case _:
            return None
