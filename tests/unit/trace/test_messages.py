"""Questions and answers between hosts: what goes in comes out, and whatever else comes harms nobody."""

from __future__ import annotations

import contextlib
import json
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflannel.state import Mac
from pyflannel.trace.facts import Flow, Hop, Mood, Outer, Point
from pyflannel.trace.messages import (
    LONGEST,
    LONGEST_PLAIN,
    LONGEST_TEXT,
    BadMessage,
    Half,
    Question,
    answer,
    question,
    read_answer,
    read_question,
)
from tests.support.crossings import COMING, FLOW

texts = st.text(st.characters(blacklist_categories=("C", "Z")), max_size=60)
hops = st.builds(Hop, st.sampled_from(Point), st.sampled_from(Mood), texts, texts)
macs = st.binary(min_size=6, max_size=6).map(Mac)
numbers = st.none() | st.integers(0, 65535)
addresses = st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)) | st.tuples(
    st.ip_addresses(v=6), st.ip_addresses(v=6)
)
outers = st.builds(
    lambda ends, *rest: Outer(*ends, *rest), addresses, st.booleans(), numbers, numbers, st.none() | macs
)
flows = st.builds(
    lambda ends, *rest: Flow(*ends, *rest), addresses, st.sampled_from(["icmp", "tcp", "udp"]), numbers, numbers
)


@given(flows, outers)
def test_a_question_comes_as_it_was_asked(flow: Flow, outer: Outer) -> None:
    asked = Question(flow, outer)
    raw = question(asked)
    assert len(raw) <= LONGEST
    assert read_question(raw) == asked


def test_padding_behind_a_question_is_passed_over() -> None:
    raw = question(Question(FLOW, COMING))
    assert read_question(raw + bytes(LONGEST - len(raw))) == Question(FLOW, COMING)


@given(st.lists(hops, max_size=6), st.lists(hops, max_size=6), st.none() | outers, texts)
def test_an_answer_comes_as_it_was_given_and_always_fits(
    there: list[Hop], back: list[Hop], outer: Outer | None, trouble: str
) -> None:
    half = Half(tuple(there), tuple(back), outer, trouble)
    raw = answer(half)
    assert len(raw) <= LONGEST
    found = read_answer(raw)
    assert [hop.mood for hop in found.there] == [hop.mood for hop in there]
    if not any(hop.text == "" and hop.mood is Mood.PASS for hop in found.there + found.back):
        assert found == half


def test_an_answer_that_would_be_too_long_keeps_the_end_and_its_words() -> None:
    long = tuple(
        Hop(Point.ROUTE, Mood.PASS, "".join(chr(33 + (7 * n * k) % 90) for n in range(300))) for k in range(20)
    )
    end = Hop(Point.FIREWALL, Mood.END, "FORWARD drops it", "do something")
    raw = answer(Half((*long, end)))
    assert len(raw) <= LONGEST
    found = read_answer(raw)
    assert found.there[-1] == end
    assert len(found.there) == 21


@given(st.binary(max_size=1500))
def test_any_bytes_are_refused_with_words(raw: bytes) -> None:
    for read in (read_question, read_answer):
        with pytest.raises(BadMessage):
            read(raw)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("vsdpontbexim"), inner, max_size=6),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from("sdpontbexim"), values))
def test_any_document_is_read_or_refused_with_words(document: dict[str, object]) -> None:
    raw = zlib.compress(json.dumps({"v": 1, **document}).encode())
    for read in (read_question, read_answer):
        with contextlib.suppress(BadMessage):
            read(raw)


def test_what_unpacks_to_too_much_is_refused_before_it_does() -> None:
    bomb = zlib.compress(b'{"v":1,"x":"' + b"a" * (100 * LONGEST_PLAIN) + b'"}', 9)[:LONGEST]
    with pytest.raises(BadMessage):
        read_answer(bomb)
    fits = zlib.compress(b'{"v":1,"t":[],"b":[],"e":null,"x":"' + b"a" * LONGEST_PLAIN + b'"}', 9)
    assert len(fits) < LONGEST
    with pytest.raises(BadMessage):
        read_answer(fits)


def test_another_version_is_refused_with_words() -> None:
    raw = zlib.compress(b'{"v":2}')
    with pytest.raises(BadMessage, match="another version"):
        read_question(raw)


def test_the_words_of_others_are_bounded_and_hold_no_control_characters() -> None:
    hop = ["route", "ends", "\x1b[2J" * 500, ""]
    raw = zlib.compress(json.dumps({"v": 1, "t": [hop], "b": [], "e": None, "x": "a\nb"}).encode())
    found = read_answer(raw)
    assert found.trouble == r"a\nb"
    assert found.there[0].text.isprintable()
    assert len(found.there[0].text) <= 4 * LONGEST_TEXT


@pytest.mark.parametrize(
    "change",
    [
        {"s": "10.2.71.2%x"},
        {"s": "fd00::1"},
        {"s": 1},
        {"p": "sctp"},
        {"o": 65536},
        {"n": -1},
        {"o": True},
        {"e": None},
        {"e": {"s": "172.16.41.132", "d": "fd00::1", "t": 1}},
    ],
)
def test_a_question_with_a_field_that_is_nothing_is_refused(change: dict[str, object]) -> None:
    document = json.loads(zlib.decompress(question(Question(FLOW, COMING))))
    with pytest.raises(BadMessage):
        read_question(zlib.compress(json.dumps(document | change).encode()))


def test_fields_of_later_versions_are_passed_over() -> None:
    document = json.loads(zlib.decompress(question(Question(FLOW, COMING))))
    raw = zlib.compress(json.dumps(document | {"later": [1]}).encode())
    assert read_question(raw) == Question(FLOW, replace(COMING))
