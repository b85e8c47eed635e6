"""The one status document: what the agent says of itself, to programs and to people.

Rules of this file
  1. Whatever is served or printed about an agent is a view of this document, and nothing else is asked for it.
  2. Times are seconds since 1970, round trips are seconds, losses go from 0 to 1.  None is "not known", in JSON null.
  3. Who reads bears with fields that are missing, and with those of a later version: flannelctl and the agent need not
     be of one release.  ``FORMAT`` grows only if a field changes its meaning.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from enum import StrEnum
from operator import attrgetter
from typing import Final, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

FORMAT: Final = 1
PORTION: Final = 100
"""Peers that are written in one piece: about a millisecond's work."""

T = TypeVar("T")
Counts: TypeAlias = dict[str, int]


class BadDocument(ValueError):
    """A text that is no status document."""


class State(StrEnum):
    """How it stands with a peer."""

    UNKNOWN = "unknown"
    """It is programmed; nobody has tried whether it answers."""
    REACHABLE = "reachable"
    LOSSY = "lossy"
    UNREACHABLE = "unreachable"
    FAILED = "failed"
    """The kernel did not take what it needs."""
    IGNORED = "ignored"
    """Its record is of no use to us."""


@dataclass(frozen=True, slots=True)
class AgentPart:
    """The process."""

    version: str = ""
    pid: int = 0
    started: float | None = None
    phase: str = ""
    """``waiting`` (for a network configuration), ``starting``, ``running`` or ``stopping``."""


@dataclass(frozen=True, slots=True)
class HostPart:
    """This host, as its peers see it."""

    name: str = ""
    interface: str | None = None
    ipv4: str | None = None
    """The address that is published, as ``ipv6`` is."""
    ipv6: str | None = None
    mtu: int | None = None


@dataclass(frozen=True, slots=True)
class NetworkPart:
    """The network, and our end of its tunnels."""

    prefix: str = ""
    """Where the store has it."""
    ipv4: str | None = None
    ipv6: str | None = None
    backend: str | None = None
    device: str | None = None
    mtu: int | None = None
    """What containers may send."""
    port: int | None = None
    vni: int | None = None


@dataclass(frozen=True, slots=True)
class DevicePart:
    """A device of ours, and what has passed through it since it was made."""

    name: str = ""
    tx_bytes: int | None = None
    rx_bytes: int | None = None
    tx_packets: int | None = None
    rx_packets: int | None = None


@dataclass(frozen=True, slots=True)
class LeasePart:
    """Our subnet."""

    subnet: str | None = None
    ipv6_subnet: str | None = None
    expires: float | None = None
    """None for a reservation."""
    reserved: bool = False
    renewed: float | None = None
    """When we last wrote it."""


@dataclass(frozen=True, slots=True)
class StorePart:
    """Where leases are kept."""

    kind: str = ""
    endpoints: tuple[str, ...] = ()
    answers: bool | None = None
    since: float | None = None
    """How long it has been answering, or not."""
    errors: int = 0
    """Requests that came to nothing."""
    heard: float | None = None
    """When the watch last said something."""


@dataclass(frozen=True, slots=True)
class KernelPart:
    """What the kernel should hold for us, and what became of it."""

    wanted: Counts = field(default_factory=dict)
    """Items, by kind."""
    failed: Counts = field(default_factory=dict)
    """Those of them that the kernel did not take."""
    audits: Counts = field(default_factory=dict)
    """By reason."""
    repairs: Counts = field(default_factory=dict)
    """Items put right by audits, by kind."""
    complete: bool = False
    """All peers are known, so that what is not wanted is removed."""


@dataclass(frozen=True, slots=True)
class FirewallPart:
    """The chains of iptables."""

    wanted: bool = False
    ok: bool = False


@dataclass(frozen=True, slots=True)
class OutputsPart:
    """What those who start containers read."""

    subnet_file: str = ""
    written: bool = False


@dataclass(frozen=True, slots=True)
class PeerPart:
    """Another host."""

    subnet: str | None = None
    ipv6_subnet: str | None = None
    public_ip: str | None = None
    public_ipv6: str | None = None
    backend: str = ""
    state: str = State.UNKNOWN
    reason: str = ""
    """Why that is not well; empty where it is."""
    rtt: float | None = None
    loss: float | None = None
    mtu: int | None = None
    """The largest inner packet that was seen to pass."""
    heard: float | None = None
    """When it last answered."""
    changed: float | None = None
    """When its record last changed, or was first seen by this agent."""
    tx_bytes: int | None = None
    """Counted by the kernel (wireguard) or by the forwarder (udp); no other way knows it for each peer."""
    rx_bytes: int | None = None
    tx_packets: int | None = None
    rx_packets: int | None = None
    drops: Counts = field(default_factory=dict)
    """Packets that went no further, by reason (udp)."""


@dataclass(frozen=True, slots=True)
class ConditionPart:
    """A trouble that is there (``health``)."""

    code: str = ""
    severity: str = ""
    """``error``, ``warning`` or ``notice``."""
    subject: str = ""
    text: str = ""
    means: str = ""
    remedy: str = ""
    since: float | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """All of it."""

    format: int = FORMAT
    agent: AgentPart = AgentPart()
    host: HostPart = HostPart()
    network: NetworkPart = NetworkPart()
    devices: tuple[DevicePart, ...] = ()
    lease: LeasePart = LeasePart()
    store: StorePart = StorePart()
    kernel: KernelPart = KernelPart()
    firewall: FirewallPart = FirewallPart()
    outputs: OutputsPart = OutputsPart()
    peers: tuple[PeerPart, ...] = ()
    conditions: tuple[ConditionPart, ...] = ()


def write(document: Document) -> Iterator[bytes]:
    """The JSON text, in pieces of about a millisecond's work each."""
    yield b'{"format":%d' % document.format
    for each in fields(Document):
        if each.name in ("format", "peers"):
            continue
        yield f',"{each.name}":{_text(getattr(document, each.name))}'.encode()
    comma = b',"peers":['
    for start in range(0, len(document.peers), PORTION):
        yield comma + ",".join(map(_text, document.peers[start : start + PORTION])).encode()
        comma = b","
    yield b"]}\n" if document.peers else b',"peers":[]}\n'


def read(text: bytes | str) -> Document:
    """The document that ``text`` is; ``BadDocument`` if it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise BadDocument(f"a status document is JSON, and this is not: {exc}") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        found = value.get("format") if isinstance(value, dict) else f"{value!r:.40}"
        raise BadDocument(f"a status document has the format {FORMAT}, and this has {found}")
    return _filled(Document, value)


def _text(value: object) -> str:
    return json.dumps(value, default=_plain, separators=(",", ":"))


def _plain(value: object) -> object:
    kind = type(value)
    if kind not in _READERS:
        names = tuple(each.name for each in fields(kind))  # type: ignore[arg-type]
        _READERS[kind] = names, attrgetter(*names)
    names, values = _READERS[kind]
    return dict(zip(names, values(value), strict=True))


_READERS: Final[dict[type[object], tuple[tuple[str, ...], attrgetter[tuple[object, ...]]]]] = {}
"""For each part: its fields, and how to have them all at once."""


def _filled(kind: type[T], value: Mapping[str, object]) -> T:
    """A ``kind`` with what ``value`` says that can be understood."""
    known = {name: _fitting(hint, value[name]) for name, hint in _hints(kind).items() if name in value}
    return kind(**{name: found for name, found in known.items() if found is not MISSING})


def _hints(kind: type[object]) -> dict[str, object]:
    if kind not in _HINTS:
        _HINTS[kind] = get_type_hints(kind)
    return _HINTS[kind]


_HINTS: Final[dict[type[object], dict[str, object]]] = {}


def _fitting(hint: object, value: object) -> object:
    """``value`` as a field of type ``hint`` takes it, ``MISSING`` if it does not."""
    if isinstance(hint, type) and is_dataclass(hint):
        return _filled(hint, value) if isinstance(value, dict) else MISSING
    if get_origin(hint) is tuple:
        inner = get_args(hint)[0]
        found = [_fitting(inner, each) for each in value] if isinstance(value, list) else [MISSING]
        return MISSING if MISSING in found else tuple(found)
    if get_origin(hint) is dict:
        return value if isinstance(value, dict) and all(type(each) is int for each in value.values()) else MISSING
    allowed = get_args(hint) or (hint,)
    if float in allowed and type(value) is int:
        return float(value)
    return value if type(value) in allowed else MISSING
