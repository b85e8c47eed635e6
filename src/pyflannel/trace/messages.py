"""The other half of a way, asked from the agent there: a question and its answer, each in one small datagram.

Rules of this file
  1. Whatever comes from another host may be anything.  It is bounded before it is unpacked, checked field by field, and
     what is shown of it is text of bounded length without control characters.
  2. A question tells nothing that the packet it is about would not, and an answer nothing but hops: no addresses, rules
     or devices beyond those the packet meets.

The form is JSON, compressed with zlib: ``{"v": 1, …}``.  Another version is refused with words; unknown fields are
passed over, so that later versions may add some.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from pyflannel.state import IPAddress, Mac
from pyflannel.trace.facts import Flow, Hop, Mood, Outer, Point

VERSION: Final = 1
LONGEST: Final = 1200
"""Bytes of a question or an answer."""
LONGEST_PLAIN: Final = 16 * 1024
"""Bytes that one may unpack to."""
MOST_HOPS: Final = 40
LONGEST_TEXT: Final = 400
"""Characters of a text of another host's."""
_PORTS: Final = 65536
_SIZES: Final = 65536


class BadMessage(ValueError):
    """A question or answer that cannot be understood."""


@dataclass(frozen=True, slots=True)
class Question:
    """What becomes of this packet, which comes to you like that?"""

    flow: Flow
    outer: Outer


@dataclass(frozen=True, slots=True)
class Half:
    """What another host says."""

    there: tuple[Hop, ...]
    back: tuple[Hop, ...] = ()
    """Of the packet that answers."""
    outer: Outer | None = None
    """How that one comes back to us; None if it does not leave."""
    trouble: str = ""
    """Why it cannot say."""


def question(asked: Question) -> bytes:
    """The datagram for ``asked``; never longer than ``LONGEST``."""
    flow = asked.flow
    document: dict[str, object] = {
        "v": VERSION,
        "s": str(flow.source),
        "d": str(flow.destination),
        "p": flow.protocol,
        "o": flow.port,
        "n": flow.size,
        "e": _outer(asked.outer),
    }
    return _pack(document)


def read_question(raw: bytes) -> Question:
    """What a datagram asks, or ``BadMessage``."""
    document = _unpack(raw)
    source, destination = _ends(document)
    protocol = document.get("p")
    if protocol not in ("icmp", "tcp", "udp"):
        raise BadMessage("no protocol we know")
    flow = Flow(source, destination, protocol, _number(document, "o", _PORTS), _number(document, "n", _SIZES))
    outer = _read_outer(document.get("e"))
    if outer is None:
        raise BadMessage("it does not say how the packet comes")
    return Question(flow, outer)


def answer(half: Half) -> bytes:
    """The datagram for ``half``: where it would be too long, what passes is told without words."""
    brief = False
    limit = LONGEST_TEXT
    while True:
        document: dict[str, object] = {
            "v": VERSION,
            "t": [_hop(hop, brief, limit) for hop in half.there],
            "b": [_hop(hop, brief, limit) for hop in half.back],
            "e": None if half.outer is None else _outer(half.outer),
            "x": half.trouble[:limit],
        }
        packed = _pack(document)
        if len(packed) <= LONGEST:
            return packed
        brief, limit = True, limit // 2


def read_answer(raw: bytes) -> Half:
    """What another host says, or ``BadMessage``."""
    document = _unpack(raw)
    trouble = document.get("x")
    return Half(
        _hops(document.get("t")),
        _hops(document.get("b")),
        _read_outer(document.get("e")),
        _text(trouble) if isinstance(trouble, str) else "",
    )


def plain(text: str) -> str:
    """``text`` in one line, with what is no printable character escaped."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def _pack(document: Mapping[str, object]) -> bytes:
    return zlib.compress(json.dumps(document, separators=(",", ":")).encode(), 9)


def _unpack(raw: bytes) -> Mapping[str, object]:
    if len(raw) > LONGEST:
        raise BadMessage(f"it has {len(raw)} bytes, and {LONGEST} are allowed")
    engine = zlib.decompressobj()
    try:
        # What is padded to its size ends with other bytes, which the engine leaves alone.
        text = engine.decompress(raw, LONGEST_PLAIN)
        document = json.loads(text) if engine.eof else None
    except (zlib.error, ValueError, RecursionError) as error:
        raise BadMessage("it is no compressed JSON") from error
    if not isinstance(document, dict):
        raise BadMessage("it is no JSON object, or too long")
    if document.get("v") != VERSION:
        raise BadMessage(f"it is of another version than {VERSION}")
    return document


def _hop(hop: Hop, brief: bool, limit: int) -> list[object]:
    silent = brief and hop.mood is Mood.PASS
    return [hop.point.value, hop.mood.value, *([] if silent else [hop.text[:limit], hop.remedy[:limit]])]


def _hops(raw: object) -> tuple[Hop, ...]:
    if not isinstance(raw, list) or len(raw) > MOST_HOPS:
        raise BadMessage("its hops are no list, or too many")
    return tuple(_read_hop(entry) for entry in raw)


def _read_hop(raw: object) -> Hop:
    match raw:
        case [str(point), str(mood)]:
            text = remedy = ""
        case [str(point), str(mood), str(text), str(remedy)]:
            pass
        case _:
            raise BadMessage("one of its hops is not understood")
    try:
        return Hop(Point(point), Mood(mood), _text(text), _text(remedy))
    except ValueError as error:
        raise BadMessage("one of its hops is of no kind we know") from error


def _outer(outer: Outer) -> dict[str, object]:
    return {
        "s": str(outer.source),
        "d": str(outer.destination),
        "t": int(outer.tunnel),
        "i": outer.vni,
        "o": outer.port,
        "m": None if outer.mac is None else str(outer.mac),
    }


def _read_outer(raw: object) -> Outer | None:
    if raw is None:
        return None
    if not isinstance(raw, dict):
        raise BadMessage("how the packet comes is no JSON object")
    mac = raw.get("m")
    try:
        parsed = Mac.parse(mac) if isinstance(mac, str) else None
    except ValueError as error:
        raise BadMessage("a MAC address is none") from error
    source, destination = _ends(raw)
    return Outer(source, destination, raw.get("t") == 1, _number(raw, "i", 1 << 24), _number(raw, "o", _PORTS), parsed)


def _ends(document: Mapping[str, object]) -> tuple[IPAddress, IPAddress]:
    source, destination = _address(document.get("s")), _address(document.get("d"))
    if source.version != destination.version:
        raise BadMessage("the two addresses are of different families")
    return source, destination


def _address(raw: object) -> IPAddress:
    try:
        # Numbers would be addresses, too.
        found = ip_address(raw) if isinstance(raw, str) and len(raw) <= 45 and "%" not in raw else None
    except ValueError:
        found = None
    if found is None:
        raise BadMessage("an address is none")
    return found


def _number(document: Mapping[str, object], key: str, end: int) -> int | None:
    value = document.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < end:
        raise BadMessage(f"{key!r} is no number below {end}")
    return value


def _text(raw: str) -> str:
    return plain(raw[:LONGEST_TEXT])
