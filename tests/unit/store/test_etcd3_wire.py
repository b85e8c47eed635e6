from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflannel.store import etcd3_wire as wire
from pyflannel.store.protobuf import decode, encode


def test_condition_that_a_key_is_absent_says_its_zero_aloud() -> None:
    condition = wire.Compare(wire.TARGET_CREATE, b"k", create_revision=0)
    assert encode(condition).hex(" ") == "10 01 1a 01 6b 28 00"


def test_answer_of_a_real_etcd_is_understood() -> None:
    # etcd 3.4.23, asked for a key that was the first one written to it.
    answer = bytes.fromhex(
        "0a 19 08 e7 fc e1 ca 8b f6 bb ea e0 01 10 8b ab d1 eb 9e a6 ec be 38 18 02 20 02"
        "12 16 0a 09 2f 6e 2f 63 6f 6e 66 69 67 10 02 18 02 20 01 2a 03 7b 7d 0a 20 01"
    )
    assert decode(wire.RangeResponse, answer) == wire.RangeResponse(
        wire.ResponseHeader(2), (wire.KeyValue(b"/n/config", 2, 2, b"{}\n"),)
    )


def test_password_and_token_do_not_show() -> None:
    shown = repr(wire.AuthenticateRequest("root", "hidden")) + repr(wire.AuthenticateResponse("hidden"))
    assert "root" in shown
    assert "hidden" not in shown


@pytest.mark.parametrize(("prefix", "end"), [(b"/a/", b"/a0"), (b"a\xff", b"b"), (b"", b"\0"), (b"\xff\xff", b"\0")])
def test_range_of_a_prefix_ends_before_the_next_one(prefix: bytes, end: bytes) -> None:
    assert wire.after_prefix(prefix) == end


@given(st.binary(max_size=8), st.binary(max_size=8))
def test_range_of_a_prefix_holds_the_keys_that_begin_with_it(prefix: bytes, key: bytes) -> None:
    end = wire.after_prefix(prefix)
    inside = prefix <= key and (end == b"\0" or key < end)  # to etcd an end of one zero byte means: no end
    assert inside == key.startswith(prefix) or end == b"\0"
