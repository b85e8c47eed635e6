"""What agent and forwarder say to each other over the control socket.

Rules of this file
  1. One message is one packet of an AF_UNIX SOCK_SEQPACKET socket: a JSON object of at most ``LIMIT`` octets,
     descriptors beside it.  Every request gets one answer, in order: ``Done``, ``Status``, ``Statistics`` or
     ``Refused``.
  2. Every message carries ``VERSION``.  A forwarder outlives the agent that started it, so the next agent may speak a
     newer one: any version understands the ``hello``, ``list`` and ``hand-over`` of any other, and nothing else.
     That is what it takes to go on with another forwarder as if nothing had happened.
  3. Fields that are not known are ignored, so that some may be added without a new version.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, TypeAlias

from pyflannel.tunnel.counters import Counters
from pyflannel.tunnel.engine import Own
from pyflannel.tunnel.packet import Drop
from pyflannel.tunnel.peers import Endpoint
from pyflannel.tunnel.routes import Network

VERSION: Final = 1
LIMIT: Final = 64 << 10
ROUTES_PER_MESSAGE: Final = 250
"""Reading as many takes 2 ms, during which nothing is forwarded."""
PEERS_PER_ANSWER: Final = 100
NOWHERE: Final = Own()

JSON: TypeAlias = bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"] | None
Object: TypeAlias = Mapping[str, JSON]
Route: TypeAlias = tuple[Network, Endpoint]


class BadMessage(ValueError):
    """It does not say what was expected; the text says what is missing or wrong."""


@dataclass(frozen=True, slots=True)
class Hello:
    """Who are you?  Answered by ``Status``."""


@dataclass(frozen=True, slots=True)
class Start:
    """Forward from now on, between the two descriptors beside the message: TUN device and bound UDP socket."""


@dataclass(frozen=True, slots=True)
class SetOwn:
    """This host's place in the overlay."""

    own: Own


@dataclass(frozen=True, slots=True)
class SetRoutes:
    """A part of the whole table, which takes the place of the old one once its last part is there."""

    generation: int
    """What the agent calls this table; ``Status`` says which one is in use."""
    part: int
    """From 0 on, in order."""
    parts: int
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True)
class ChangeRoutes:
    """What makes generation ``after`` of generation ``before``; refused if another one is in use."""

    before: int
    after: int
    add: tuple[Route, ...] = ()
    remove: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class ListRoutes:
    """``ROUTES_PER_MESSAGE`` of the routes in use, from this one on.  Answered by ``Routes``."""

    first: int = 0


@dataclass(frozen=True, slots=True)
class GetStatistics:
    """The counters of ``PEERS_PER_ANSWER`` peers, from this one on.  Answered by ``Statistics``."""

    first: int = 0


@dataclass(frozen=True, slots=True)
class HandOver:
    """Stop forwarding, give both descriptors away beside a ``Status``, and end.

    Packets wait in the queues of the kernel until somebody else reads from the descriptors.
    """


@dataclass(frozen=True, slots=True)
class Stop:
    """Close both descriptors and end; the device is gone then unless somebody else holds it."""


Request: TypeAlias = Hello | Start | SetOwn | SetRoutes | ChangeRoutes | ListRoutes | GetStatistics | HandOver | Stop


@dataclass(frozen=True, slots=True)
class Done:
    """It was done."""


@dataclass(frozen=True, slots=True)
class Refused:
    """It was not done; everything is as it was."""

    reason: str


@dataclass(frozen=True, slots=True)
class Status:
    """Who forwards, and how far it has come."""

    version: int
    """Of the protocol, spoken by the forwarder."""
    pid: int
    language: str
    """Of the functions that touch every octet: ``C`` or ``Python``."""
    device: str
    """Empty before ``Start``."""
    address: str
    """``host:port`` of the socket, empty before ``Start``."""
    generation: int
    """Of the routes in use, 0 before the first."""
    routes: int
    own: Own = NOWHERE
    release: str = ""
    """Of pyflannel, whose code it runs."""


@dataclass(frozen=True, slots=True)
class Routes:
    """Some of the routes in use."""

    generation: int
    """As in ``Status``: parts of two generations do not belong together."""
    routes: tuple[Route, ...]
    more: bool
    """Whether there are routes behind the last."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counters of some peers, and what cannot be charged to any."""

    peers: tuple[tuple[Endpoint, Counters], ...]
    more: bool
    """Whether there are peers behind the last."""
    rest: Counters


Answer: TypeAlias = Done | Refused | Status | Routes | Statistics


def encode_request(request: Request) -> bytes:
    """As it goes over the socket."""
    return _pack({"do": _NAMES[type(request)], **_fields(request)})


def decode_request(raw: bytes) -> Request:
    """``BadMessage`` if it is none, or of a version that we cannot be sure to understand."""
    body = _unpack(raw)
    name = _text(body, "do")
    if name not in _REQUESTS:
        raise BadMessage(f"unknown request {name!r}")
    if body.get("version") != VERSION and name not in _TIMELESS:
        raise BadMessage(f"request {name!r} is of version {body.get('version')!r}, expected {VERSION}")
    return _REQUESTS[name](body)


def encode_answer(answer: Answer) -> bytes:
    """As it goes over the socket."""
    if isinstance(answer, Status):
        fields: dict[str, JSON] = {name: getattr(answer, name) for name in Status.__slots__ if name != "own"}
        return _pack({"status": {**fields, "own": _write_own(answer.own)}})
    if isinstance(answer, Routes):
        listed: Object = {"generation": answer.generation, "routes": _write_routes(answer.routes), "more": answer.more}
        return _pack({"listed": listed})
    if isinstance(answer, Statistics):
        peers: list[JSON] = [[_write_endpoint(endpoint), _write_counters(one)] for endpoint, one in answer.peers]
        return _pack({"statistics": {"peers": peers, "more": answer.more, "rest": _write_counters(answer.rest)}})
    return _pack({"refused": answer.reason} if isinstance(answer, Refused) else {"done": True})


def decode_answer(raw: bytes) -> Answer:
    """``BadMessage`` if it is none."""
    body = _unpack(raw)
    if "refused" in body:
        return Refused(_text(body, "refused"))
    if "status" in body:
        return _read_status(_object(body["status"]))
    if "listed" in body:
        listed = _object(body["listed"])
        return Routes(_number(listed, "generation"), _read_routes(listed, "routes"), listed.get("more") is True)
    if "statistics" in body:
        return _read_statistics(_object(body["statistics"]))
    if "done" in body:
        return Done()
    raise BadMessage(f"neither done nor refused: {sorted(body)}")


def parts_of(generation: int, routes: Sequence[Route]) -> list[SetRoutes]:
    """The messages that set the whole table."""
    starts = range(0, max(1, len(routes)), ROUTES_PER_MESSAGE)
    return [
        SetRoutes(generation, part, len(starts), tuple(routes[at : at + ROUTES_PER_MESSAGE]))
        for part, at in enumerate(starts)
    ]


def _fields(request: Request) -> dict[str, JSON]:
    match request:
        case SetOwn(own):
            return _write_own(own)
        case SetRoutes(generation, part, parts, routes):
            return {"generation": generation, "part": part, "parts": parts, "routes": _write_routes(routes)}
        case ChangeRoutes(before, after, add, remove):
            removed = [str(network) for network in remove]
            return {"before": before, "after": after, "add": _write_routes(add), "remove": removed}
        case ListRoutes(first) | GetStatistics(first):
            return {"first": first}
        case _:
            return {}


def _write_own(own: Own) -> dict[str, JSON]:
    ipv4, ipv6 = (None if address is None else str(address) for address in (own.ipv4, own.ipv6))
    return {"subnets": [str(subnet) for subnet in own.subnets], "ipv4": ipv4, "ipv6": ipv6}


def _read_own(body: Object) -> Own:
    ipv4, ipv6 = _address(body, "ipv4"), _address(body, "ipv6")
    if isinstance(ipv4, IPv6Address) or isinstance(ipv6, IPv4Address):
        raise BadMessage(f"ipv4 {ipv4} and ipv6 {ipv6}: of the other family")
    return Own(tuple(_network(item) for item in _list(body, "subnets")), ipv4, ipv6)


_REQUESTS: Final[Mapping[str, Callable[[Object], Request]]] = {
    "hello": lambda _: Hello(),
    "start": lambda _: Start(),
    "own": lambda body: SetOwn(_read_own(body)),
    "routes": lambda body: SetRoutes(
        _number(body, "generation"), _number(body, "part"), _number(body, "parts"), _read_routes(body, "routes")
    ),
    "change": lambda body: ChangeRoutes(
        _number(body, "before"),
        _number(body, "after"),
        _read_routes(body, "add"),
        tuple(_network(item) for item in _list(body, "remove")),
    ),
    "list": lambda body: ListRoutes(_number(body, "first")),
    "statistics": lambda body: GetStatistics(_number(body, "first")),
    "hand-over": lambda _: HandOver(),
    "stop": lambda _: Stop(),
}
_NAMES: Final[Mapping[type[Request], str]] = {
    Hello: "hello",
    Start: "start",
    SetOwn: "own",
    SetRoutes: "routes",
    ChangeRoutes: "change",
    ListRoutes: "list",
    GetStatistics: "statistics",
    HandOver: "hand-over",
    Stop: "stop",
}
_TIMELESS: Final = frozenset(("hello", "list", "hand-over"))
_COUNTS: Final = ("packets_out", "bytes_out", "packets_in", "bytes_in")


def _read_status(body: Object) -> Status:
    return Status(
        version=_number(body, "version"),
        pid=_number(body, "pid"),
        language=_text(body, "language"),
        device=_text(body, "device"),
        address=_text(body, "address"),
        generation=_number(body, "generation"),
        routes=_number(body, "routes"),
        own=_read_own(_object(body["own"])) if "own" in body else NOWHERE,
        release=_text(body, "release") if "release" in body else "",
    )


def _read_statistics(body: Object) -> Statistics:
    peers = []
    for item in _list(body, "peers"):
        endpoint, counters = _items(item, 2)
        peers.append((_endpoint(*_items(endpoint, 2)), _read_counters(_object(counters))))
    return Statistics(tuple(peers), body.get("more") is True, _read_counters(_object(body.get("rest"))))


def _write_counters(counters: Counters) -> dict[str, JSON]:
    numbers: dict[str, JSON] = {name: getattr(counters, name) for name in _COUNTS}
    return numbers | {"drops": {str(reason): count for reason, count in counters.drops.items()}}


def _read_counters(body: Object) -> Counters:
    known = {str(reason): reason for reason in Drop}
    drops = _object(body.get("drops"))
    packets_out, bytes_out, packets_in, bytes_in = (_number(body, name) for name in _COUNTS)
    dropped = {known[name]: _number(drops, name) for name in drops if name in known}
    return Counters(packets_out, bytes_out, packets_in, bytes_in, dropped)


def _write_routes(routes: Sequence[Route]) -> list[JSON]:
    return [[str(network), *_write_endpoint(endpoint)] for network, endpoint in routes]


def _write_endpoint(endpoint: Endpoint) -> list[JSON]:
    return [str(endpoint.address), endpoint.port]


def _read_routes(body: Object, name: str) -> tuple[Route, ...]:
    items = (_items(item, 3) for item in _list(body, name))
    return tuple((_network(network), _endpoint(host, port)) for network, host, port in items)


def _endpoint(host: JSON, port: JSON) -> Endpoint:
    if not isinstance(port, int) or not 0 < port < 65536:
        raise BadMessage(f"expected a port, found {port!r}")
    try:
        return Endpoint(IPv4Address(_string(host)), port)
    except ValueError as error:
        raise BadMessage(str(error)) from error


def _network(item: JSON) -> Network:
    try:
        return ip_network(_string(item))
    except ValueError as error:
        raise BadMessage(str(error)) from error


def _address(body: Object, name: str) -> IPv4Address | IPv6Address | None:
    item = body.get(name)
    try:
        return None if item is None else ip_address(_string(item))
    except ValueError as error:
        raise BadMessage(str(error)) from error


def _number(body: Object, name: str) -> int:
    value = body.get(name)
    if not isinstance(value, int) or value < 0:
        raise BadMessage(f"{name}: expected a number, found {value!r}")
    return value


def _text(body: Object, name: str) -> str:
    return _string(body.get(name), f"{name}: ")


def _string(value: JSON, where: str = "") -> str:
    if not isinstance(value, str):
        raise BadMessage(f"{where}expected a text, found {value!r}")
    return value


def _list(body: Object, name: str) -> Sequence[JSON]:
    return _items(body.get(name))


def _items(value: JSON, count: int | None = None) -> Sequence[JSON]:
    if not isinstance(value, list) or (count is not None and len(value) != count):
        raise BadMessage(f"expected a list{'' if count is None else f' of {count}'}, found {value!r}")
    return value


def _object(value: JSON) -> Object:
    if not isinstance(value, dict):
        raise BadMessage(f"expected an object, found {value!r}")
    return value


def _pack(body: dict[str, JSON]) -> bytes:
    return json.dumps({"version": VERSION, **body}, separators=(",", ":")).encode()


def _unpack(raw: bytes) -> Object:
    try:
        return _object(json.loads(raw))
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"not a JSON object: {error}") from error
