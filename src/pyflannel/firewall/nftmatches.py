"""Whether a packet meets the conditions of a rule of nftables, and how the rule is spelled, from nft's JSON.

What is not understood is unknown, never guessed, as in ``matches.py``; so are marks.  Any rule on the way may have set
one, and a mark is how a person has Docker let a packet pass (``--bridge-accept-fwmark``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, TypeAlias

from pyflannel.firewall.matches import Known, Packet, protocol

Rule: TypeAlias = Mapping[str, object]
"""As ``nft -j`` prints it."""
Sets: TypeAlias = Mapping[str, Sequence[object]]
"""The elements of a table's sets and maps, by name."""
Value: TypeAlias = IPv4Address | IPv6Address | int | str
_LONGEST: Final = 80
"""Characters that are shown of what has no spelling here."""


@dataclass(frozen=True, slots=True)
class _Way:
    """Whether the way back to the source leads out where the packet came in: ``fib saddr . iif oif``."""

    there: bool | None


def statements(rule: Rule) -> Iterator[tuple[str, object]]:
    """What a rule consists of, in its order: each statement's name, and what there is to it."""
    found = rule.get("expr")
    for each in found if isinstance(found, list) else ():
        if isinstance(each, dict):
            yield from each.items()


def meets(condition: object, packet: Packet, sets: Sets) -> Known:
    """Whether ``packet`` meets a ``match``."""
    match condition:
        case {"left": {"ct": {"key": "status"}}, "right": "dnat" | "snat", "op": "==" | "in"}:
            # Nobody has translated its addresses.
            return False
        case {"left": left, "right": right, "op": "==" | "!=" | "in" as op}:
            pass
        case _:
            return None
    about, value = _value(left, packet)
    if about is False:
        # Of another protocol: the rule is not about such packets, whichever way it is put.
        return False
    known = _among(value, elements(right, sets))
    return None if known is None or about is None else known is not (op == "!=")


def chosen(body: object, packet: Packet, sets: Sets) -> Iterator[tuple[Known, str, object]]:
    """The verdicts of a ``vmap`` that ``packet`` picks, or may pick: their names, and what there is to them."""
    match body:
        case {"key": key, "data": data} if (found := elements(data, sets)) is not None:
            pass
        case _:
            yield None, "vmap", None
            return
    about, value = _value(key, packet)
    for element in found if about is not False else ():
        match element:
            case [wanted, {**verdict}]:
                known = _among(value, [wanted])
                for word, target in verdict.items() if known is not False else ():
                    yield known if about else None, str(word), target


def elements(right: object, sets: Sets) -> Sequence[object] | None:
    """The members of what stands behind a comparison; None of a set that is not there."""
    match right:
        case str(name) if name.startswith("@"):
            return sets.get(name[1:])
        case {"set": [*found]} | [*found]:
            return found
        case _:
            return [right]


def spelled(rule: Rule) -> str:
    """A rule as ``nft`` lists it, without what it has counted."""
    words = [_statement(word, body) for word, body in statements(rule) if word != "counter"]
    comment = rule.get("comment")
    return " ".join([*words, *([f'comment "{comment}"'] if comment else [])])


def _value(left: object, packet: Packet) -> tuple[Known, Value | _Way | None]:
    """Whether the packet is of the protocol that is asked about, and what it has there; None: not known."""
    version = packet.source.version
    match left:
        case {"meta": {"key": "iifname" | "iif"}}:
            return True, packet.in_device or ""
        case {"meta": {"key": "oifname" | "oif"}}:
            return True, packet.out_device or ""
        case {"meta": {"key": "nfproto"}}:
            return True, f"ipv{version}"
        case {"meta": {"key": "l4proto"}}:
            return True, protocol(packet.protocol, version)
        case {"payload": {"protocol": "ip" | "ip6" as family, "field": str(field)}}:
            return family == ("ip" if version == 4 else "ip6"), _in_header(field, packet)
        case {"payload": {"protocol": str(name), "field": str(field)}}:
            return _carried(name, field, packet)
        case {"ct": {"key": "state"}}:
            return True, packet.state.lower() or None
        case {"fib": {"result": "type", "flags": ["saddr" | "daddr" as end]}}:
            kind = packet.source_type if end == "saddr" else packet.destination_type
            return True, None if kind is None else kind.lower()
        case {"fib": {"result": "oif", "flags": [*flags]}} if {"saddr", "iif"} <= set(map(str, flags)):
            return True, _Way(packet.reverse_path)
        case _:
            return None, None


def _in_header(field: str, packet: Packet) -> Value | None:
    ends = {"saddr": packet.source, "daddr": packet.destination}
    return protocol(packet.protocol, packet.source.version) if field in ("protocol", "nexthdr") else ends.get(field)


def _carried(name: str, field: str, packet: Packet) -> tuple[Known, Value | None]:
    """What the header behind that of IP has; ``th`` stands for any that begins with ports."""
    wanted, there = (protocol(each, packet.source.version) for each in (name, packet.protocol))
    if name != "th" and (wanted is None or there is None):
        return None, None
    if field == "type" and packet.state:
        return wanted == there, "echo-request" if packet.state == "NEW" else "echo-reply"
    return name == "th" or wanted == there, {"sport": packet.source_port, "dport": packet.destination_port}.get(field)


def _among(value: Value | _Way | None, found: Sequence[object] | None) -> Known:
    if value is None or found is None:
        return None
    answers = {_equals(value, each) for each in found}
    return True if True in answers else None if None in answers else False


def _equals(value: Value | _Way, element: object) -> Known:
    if isinstance(value, _Way):
        # Where the best way back is another one, there may still be one by that device.
        return element is not False if value.there else None
    match element:
        case {"elem": {"val": inner}}:
            return _equals(value, inner)
        case {"range": [first, last]}:
            return _between(value, first, last)
        case {"prefix": {"addr": str(address), "len": int(length)}}:
            return (
                value in ip_network(f"{address}/{length}", strict=False) if not isinstance(value, int | str) else None
            )
        case bool():
            return None
        case int():
            return element == value if isinstance(value, int) else None
        case str(text):
            return _is_called(value, text)
        case _:
            return None


def _is_called(value: Value, text: str) -> Known:
    if isinstance(value, str):
        return value.startswith(text[:-1]) if text.endswith("*") else value == text
    if isinstance(value, int):
        number = protocol(text, 4)
        return None if number is None else number == value
    try:
        return ip_address(text) == value
    except ValueError:
        return None


def _between(value: Value, first: object, last: object) -> Known:
    if isinstance(value, int) and isinstance(first, int) and isinstance(last, int):
        return first <= value <= last
    try:
        low, high = ip_address(str(first)), ip_address(str(last))
    except ValueError:
        return None
    if isinstance(value, int | str) or low.version != value.version:
        return None
    return int(low) <= int(value) <= int(high)


def _statement(word: str, body: object) -> str:
    match word, body:
        case "match", {"op": op, "left": left, "right": right}:
            return f"{_expression(left)} {'' if op in ('==', 'in') else f'{op} '}{_expression(right)}"
        case "vmap", {"key": key, "data": data}:
            return f"{_expression(key)} vmap {_expression(data)}"
        case "jump" | "goto", {"target": target}:
            return f"{word} {target}"
        case _:
            return word


def _expression(value: object) -> str:
    match value:
        case {"meta": {"key": "iifname" | "oifname" | "iif" | "oif" as key}}:
            return str(key)
        case {"meta": {"key": key}}:
            return f"meta {key}"
        case {"ct": {"key": key}}:
            return f"ct {key}"
        case {"payload": {"protocol": name, "field": field}}:
            return f"{name} {field}"
        case {"prefix": {"addr": address, "len": length}}:
            return f"{address}/{length}"
        case {"range": [first, last]}:
            return f"{first}-{last}"
        case {"set": [*found]}:
            return f"{{ {', '.join(map(_expression, found))} }}"
        case [*found]:
            return ",".join(map(_expression, found))
        case str() | int():
            return str(value)
        case _:
            return json.dumps(value, separators=(",", ":"))[:_LONGEST]
