from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from pyflannel.tunnel import messages
from pyflannel.tunnel.counters import Counters
from pyflannel.tunnel.engine import Own
from pyflannel.tunnel.messages import Answer, BadMessage, Request, Route
from pyflannel.tunnel.packet import Drop
from pyflannel.tunnel.peers import Endpoint

PEER = Endpoint(IPv4Address("192.0.2.2"), 8285)
ROUTE: Route = (IPv4Network("10.1.2.0/24"), PEER)
SUBNETS = (IPv4Network("10.1.1.0/24"), IPv6Network("fd00::/64"))

REQUESTS: list[Request] = [
    messages.Hello(),
    messages.Start(),
    messages.SetOwn(Own(SUBNETS, IPv4Address("10.1.1.0"), IPv6Address("fd00::1"))),
    messages.SetOwn(Own()),
    messages.SetRoutes(7, 0, 2, (ROUTE,)),
    messages.ChangeRoutes(7, 8, (ROUTE,), (IPv4Network("10.1.3.0/24"), IPv6Network("fd00::/64"))),
    messages.ListRoutes(250),
    messages.GetStatistics(100),
    messages.HandOver(),
    messages.Stop(),
]
COUNTERS = Counters(1, 2, 3, 4, {Drop.TTL: 5})
ANSWERS: list[Answer] = [
    messages.Done(),
    messages.Refused("no"),
    messages.Status(1, 42, "C", "flannel0", "192.0.2.1:8285", 7, 10),
    messages.Status(1, 42, "C", "", "", 0, 0, Own(SUBNETS, IPv4Address("10.1.1.0")), "1.2.3"),
    messages.Routes(7, (ROUTE,), True),
    messages.Statistics(((PEER, COUNTERS),), True, Counters()),
]


def name(message: object) -> str:
    return type(message).__name__


@pytest.mark.parametrize("request_", REQUESTS, ids=name)
def test_a_request_is_read_as_written(request_: Request) -> None:
    assert messages.decode_request(messages.encode_request(request_)) == request_


@pytest.mark.parametrize("answer", ANSWERS, ids=name)
def test_an_answer_is_read_as_written(answer: Answer) -> None:
    assert messages.decode_answer(messages.encode_answer(answer)) == answer


def test_a_whole_table_fits_into_messages() -> None:
    routes: list[Route] = [(IPv4Network((0x0A000000 + (number << 8), 24)), PEER) for number in range(1001)]
    parts = messages.parts_of(3, routes)
    assert [part.part for part in parts] == list(range(len(parts)))
    assert {(part.generation, part.parts) for part in parts} == {(3, len(parts))}
    assert [route for part in parts for route in part.routes] == routes
    assert all(len(messages.encode_request(part)) < messages.LIMIT for part in parts)


def test_an_empty_table_is_a_message_too() -> None:
    assert messages.parts_of(3, []) == [messages.SetRoutes(3, 0, 1, ())]


def test_a_page_of_statistics_fits_into_a_message() -> None:
    most = 2**64
    counters = Counters(most, most, most, most, dict.fromkeys(Drop, most))
    page = messages.Statistics(((PEER, counters),) * messages.PEERS_PER_ANSWER, True, counters)
    assert len(messages.encode_answer(page)) < messages.LIMIT


def written(**fields: object) -> bytes:
    return json.dumps({"version": messages.VERSION, **fields}).encode()


BAD = [
    b"",
    b"\xff",
    b"[]",
    b"[" * 60000,
    written(),
    written(do=7),
    written(do="nonsense"),
    written(do="own", subnets="10.1.1.0/24"),
    written(do="own", subnets=["10.1.1.1/24"]),
    written(do="own", subnets=[7]),
    written(do="own", subnets=[], ipv4="fd00::1"),
    written(do="own", subnets=[], ipv6="10.1.1.1"),
    written(do="own", subnets=[], ipv4="nonsense"),
    written(do="routes", generation=1, part=0, parts=1, routes=[["10.1.1.0/24", "192.0.2.1"]]),
    written(do="routes", generation=1, part=0, parts=1, routes=[["10.1.1.0/24", "192.0.2.1", 0]]),
    written(do="routes", generation=1, part=0, parts=1, routes=[["10.1.1.0/24", "192.0.2.1", 65536]]),
    written(do="routes", generation=1, part=0, parts=1, routes=[["10.1.1.0/24", "fd00::1", 1]]),
    written(do="routes", generation=1, part=0, parts=1, routes=[["10.1.1.0/24", 7, 1]]),
    written(do="routes", generation=-1, part=0, parts=1, routes=[]),
    written(do="change", before="1", after=2, add=[], remove=[]),
    written(do="statistics"),
]


@pytest.mark.parametrize("raw", BAD, ids=lambda raw: raw[:60].decode(errors="replace"))
def test_a_bad_request_is_told_from_a_good_one(raw: bytes) -> None:
    with pytest.raises(BadMessage):
        messages.decode_request(raw)


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"status":7}', b'{"statistics":{"peers":[[1]]}}', b'{"refused":1}'])
def test_a_bad_answer_is_told_from_a_good_one(raw: bytes) -> None:
    with pytest.raises(BadMessage):
        messages.decode_answer(raw)


def test_another_version_is_understood_where_nothing_can_be_misunderstood() -> None:
    requests = (("hello", messages.Hello()), ("list", messages.ListRoutes(7)), ("hand-over", messages.HandOver()))
    for word, expected in requests:
        assert messages.decode_request(json.dumps({"version": 99, "do": word, "first": 7}).encode()) == expected
    status = {"version": 99, "pid": 7, "language": "C", "device": "", "address": "", "generation": 1, "routes": 2}
    raw = json.dumps({"version": 99, "status": status}).encode()
    assert messages.decode_answer(raw) == messages.Status(99, 7, "C", "", "", 1, 2)
    with pytest.raises(BadMessage, match="version 99"):
        messages.decode_request(json.dumps({"version": 99, "do": "stop"}).encode())


def test_an_unknown_reason_of_a_newer_forwarder_is_passed_over() -> None:
    raw = messages.encode_answer(messages.Statistics((), False, COUNTERS)).replace(b'"ttl"', b'"new"')
    assert messages.decode_answer(raw) == messages.Statistics((), False, Counters(1, 2, 3, 4))
