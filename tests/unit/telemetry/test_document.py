"""The status document: written as JSON, and read by whatever release."""

from __future__ import annotations

import json

import pytest

from pyflannel.telemetry.document import (
    AgentPart,
    BadDocument,
    ConditionPart,
    Document,
    KernelPart,
    LeasePart,
    PeerPart,
    StorePart,
    read,
    write,
)

FULL = Document(
    agent=AgentPart("0.1", 17, 1_700_000_000.5, "running"),
    lease=LeasePart("10.1.5.0/24", None, 1_700_086_400.0),
    store=StorePart("etcd v3", ("http://127.0.0.1:2379",), True, 1_700_000_001.0, 2),
    kernel=KernelPart({"Route": 3}, {"Route": 1}, {"start": 1}, {}, True),
    peers=tuple(PeerPart(f"10.1.{n}.0/24", state="reachable", rtt=0.001) for n in range(250)),
    conditions=(ConditionPart("store-unreachable", "error", "", "no answer", "m", "r", 1.0),),
)


def text_of(document: Document) -> bytes:
    return b"".join(write(document))


@pytest.mark.parametrize("document", [Document(), FULL], ids=["empty", "full"])
def test_what_is_written_is_read_as_it_was(document: Document) -> None:
    assert read(text_of(document)) == document


def test_it_has_the_shape_that_was_agreed_upon() -> None:
    shape = json.loads(text_of(FULL))
    assert list(shape["peers"][0])[:14] == [
        *("subnet", "ipv6_subnet", "public_ip", "public_ipv6", "backend", "state", "reason", "rtt", "loss", "mtu"),
        *("heard", "changed", "tx_bytes", "rx_bytes"),
    ]
    assert shape["format"] == 1
    assert shape["agent"] == {"version": "0.1", "pid": 17, "started": 1_700_000_000.5, "phase": "running"}
    assert shape["lease"]["ipv6_subnet"] is None


def test_a_portion_of_peers_at_a_time_is_written() -> None:
    pieces = list(write(FULL))
    assert max(map(len, pieces)) < len(text_of(FULL)) / 2


def test_fields_of_a_later_release_are_passed_over_and_missing_ones_are_unknown() -> None:
    document = read('{"format":1,"weather":"fair","agent":{"pid":3,"mood":"well"},"peers":[{"subnet":"10.1.2.0/24"}]}')
    assert document == Document(agent=AgentPart(pid=3), peers=(PeerPart("10.1.2.0/24"),))


def test_a_value_of_another_type_is_as_good_as_missing() -> None:
    text = '{"format":1,"agent":"?","host":{"mtu":"many","name":7},"kernel":{"wanted":{"Route":"x"}},"peers":{}}'
    assert read(text) == Document()
    assert read('{"format":1,"store":{"endpoints":["a",1]},"lease":{"reserved":1}}') == Document()


@pytest.mark.parametrize("text", ["", "nothing", "[]", "{}", '{"format":2}', b"\xff", "[" * 100_000])
def test_what_is_no_status_document_is_refused(text: str | bytes) -> None:
    with pytest.raises(BadDocument):
        read(text)


def test_whole_numbers_do_for_seconds() -> None:
    assert read('{"format":1,"agent":{"started":5}}').agent.started == 5.0
