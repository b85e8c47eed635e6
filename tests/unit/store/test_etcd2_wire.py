from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflannel.store.etcd2_wire import Action, Failure, Node, read_answer

LISTED = b"""{"action":"get","node":{"key":"/n/subnets","dir":true,"nodes":[
  {"key":"/n/subnets/10.1.5.0-24","value":"{}","expiration":"2017-02-01T00:00:00Z","ttl":86400,
   "modifiedIndex":9,"createdIndex":8}],"modifiedIndex":5,"createdIndex":5}}"""


def test_directory_is_read_with_what_is_in_it() -> None:
    leaf = Node("/n/subnets/10.1.5.0-24", "{}", created=8, modified=9, ttl=86400)
    assert read_answer(LISTED) == Action(
        Node("/n/subnets", directory=True, nodes=(leaf,), created=5, modified=5), removal=False
    )


@pytest.mark.parametrize(
    ("name", "removal"),
    [
        *(("delete", True), ("expire", True), ("compareAndDelete", True)),
        *(("create", False), ("set", False), ("update", False), ("compareAndSwap", False), ("something new", False)),
    ],
)
def test_what_takes_a_node_away_is_told_from_what_writes_one(name: str, removal: bool) -> None:
    answer = read_answer(json.dumps({"action": name, "node": {"key": "/a"}}).encode())
    assert answer == Action(Node("/a"), removal)


def test_failure_keeps_its_code_and_words() -> None:
    body = b'{"errorCode":100,"message":"Key not found","cause":"/n","index":17}'
    assert read_answer(body) == Failure(100, "Key not found: /n")


def test_wrong_password_is_a_failure_without_code() -> None:
    assert read_answer(b'{"message":"Insufficient credentials"}') == Failure(0, "Insufficient credentials")


@pytest.mark.parametrize(
    ("fields", "ttl"),
    [
        ({"ttl": 60, "expiration": "2017-02-01T00:00:00Z"}, 60),
        ({"ttl": -1, "expiration": "2017-02-01T00:00:00Z"}, 0),
        ({"expiration": "2017-02-01T00:00:00Z"}, 0),
        ({}, None),
    ],
)
def test_only_a_node_without_expiration_stays(fields: dict[str, object], ttl: int | None) -> None:
    answer = read_answer(json.dumps({"action": "get", "node": {"key": "/a", **fields}}).encode())
    assert answer == Action(Node("/a", ttl=ttl), removal=False)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"404 page not found\n", b"[]", b"\xff", b'{"node":7}', b'{"node":{"key":7}}', b'{"errorCode":"x"}'),
        *(b'{"node":{"nodes":7}}', b'{"node":{"nodes":[7]}}', b'{"node":{"key":"/a","ttl":"soon"}}'),
        *(b'{"node":{"key":"\\ud800"}}', b'{"node":{"value":"\\udfff"}}'),
        *(b"[" * 100_000, b'{"node":' + b'{"nodes":[' * 500 + b"]}" * 500 + b"}"),
    ],
    ids=lambda body: body[:30].decode(errors="replace"),
)
def test_what_is_no_answer_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_answer(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["node", "nodes", "key", "value", "dir", "ttl", "expiration", "errorCode"]), inner
        )
    ),
)


@given(JSON)
def test_no_json_raises_anything_else(value: object) -> None:
    with contextlib.suppress(ValueError):
        read_answer(json.dumps(value).encode())
