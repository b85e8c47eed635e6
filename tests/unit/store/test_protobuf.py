from __future__ import annotations

import contextlib
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflannel.store.protobuf import (
    Message,
    boolean,
    chosen_integer,
    decode,
    encode,
    integer,
    many,
    octets,
    one,
    text,
)

# ruff: noqa: RUF009 - the calls in the class bodies make dataclass fields


@dataclass(frozen=True, slots=True)
class Leaf(Message):
    number: int = integer(1)
    name: str = text(2)
    token: str = text(3, secret=True)


@dataclass(frozen=True, slots=True)
class Tree(Message):
    whole: int = integer(1)
    truth: bool = boolean(2)
    raw: bytes = octets(3)
    words: str = text(4)
    leaf: Leaf | None = one(5, Leaf)
    leaves: tuple[Leaf, ...] = many(16, Leaf)
    chosen: int | None = chosen_integer(200)


INT64 = st.integers(-(2**63), 2**63 - 1)
LEAVES = st.builds(Leaf, number=INT64, name=st.text(), token=st.text())
TREES = st.builds(
    Tree,
    whole=INT64,
    truth=st.booleans(),
    raw=st.binary(),
    words=st.text(),
    leaf=st.none() | LEAVES,
    leaves=st.lists(LEAVES, max_size=4).map(tuple),
    chosen=st.none() | INT64,
)


@given(TREES)
def test_message_makes_the_round_trip(tree: Tree) -> None:
    assert decode(Tree, encode(tree)) == tree


@pytest.mark.parametrize(
    ("tree", "hexadecimal"),
    [
        (Tree(), ""),
        (Tree(whole=1), "08 01"),
        (Tree(whole=300), "08 ac 02"),
        (Tree(whole=-1), "08 ff ff ff ff ff ff ff ff ff 01"),
        (Tree(truth=True), "10 01"),
        (Tree(raw=b"ab"), "1a 02 61 62"),
        (Tree(words="é"), "22 02 c3 a9"),
        (Tree(leaf=Leaf()), "2a 00"),
        (Tree(leaf=Leaf(number=7)), "2a 02 08 07"),
        (Tree(leaves=(Leaf(), Leaf(name="x"))), "82 01 00 82 01 03 12 01 78"),
        (Tree(chosen=0), "c0 0c 00"),
    ],
)
def test_bytes_are_those_of_the_specification(tree: Tree, hexadecimal: str) -> None:
    assert encode(tree).hex(" ") == hexadecimal
    assert decode(Tree, bytes.fromhex(hexadecimal)) == tree


@pytest.mark.parametrize(
    "unknown",
    [
        "30 96 01",  # field 6: varint
        "31 01 02 03 04 05 06 07 08",  # 8 bytes
        "32 03 61 62 63",  # 3 bytes
        "35 01 02 03 04",  # 4 bytes
        "33 08 01 1b 0a 00 1c 34",  # a group that holds a number and another group
        "0a 01 61",  # field 1, but as bytes
        "98 f8 ff ff 0f 01",  # a field number of 29 bits
    ],
)
def test_unknown_field_is_skipped(unknown: str) -> None:
    around = bytes.fromhex(f"10 01 {unknown} 1a 01 7a")
    assert decode(Tree, around) == Tree(truth=True, raw=b"z")


@pytest.mark.parametrize(
    "malformed",
    [
        "08",  # no value
        "08 ff ff ff ff ff ff ff ff ff ff 01",  # eleven bytes of number
        "80",  # no tag
        "1a 05 61 62",  # bytes cut off
        "22 02 ff fe",  # not UTF-8
        "2a 01 08 01",  # the inner message ends inside its field, the outer does not
        "2a 02 1a 05 61 62 63 64 65",  # an inner length that reaches into the outer message
        "31 01",  # 8 bytes cut off
        "35 01",  # 4 bytes cut off
        "32 7f 00",  # unknown bytes cut off
        "33 08 01",  # a group without end
        "34",  # an end without group
        "33 3c",  # the end of another group
        "36 00",  # wire type 6
        "00 00",  # field number 0
    ],
)
def test_malformed_bytes_are_a_value_error(malformed: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        decode(Tree, bytes.fromhex(malformed))


@given(st.binary(max_size=64))
def test_no_bytes_raise_anything_else(junk: bytes) -> None:
    with contextlib.suppress(ValueError):
        decode(Tree, junk)


@given(TREES, st.data())
def test_message_cut_off_anywhere_is_refused_or_a_shorter_message(tree: Tree, data: st.DataObject) -> None:
    whole = encode(tree)
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    with contextlib.suppress(ValueError):
        assert len(encode(decode(Tree, cut))) <= len(cut)


def test_last_of_several_values_counts_as_the_specification_wants() -> None:
    assert decode(Tree, bytes.fromhex("08 01 08 02")).whole == 2


def test_secret_does_not_show() -> None:
    assert "hidden" not in repr(Tree(leaf=Leaf(name="shown", token="hidden")))
