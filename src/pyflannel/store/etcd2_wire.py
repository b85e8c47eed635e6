"""The JSON of etcd's v2 API, as much of it as we use.

    GET /v2/keys/coreos.com/network/subnets?recursive=true&quorum=true
    X-Etcd-Index: 17
    {"action":"get","node":{"key":"/coreos.com/network/subnets","dir":true,"nodes":[
      {"key":"/coreos.com/network/subnets/10.1.5.0-24","value":"{\\"PublicIP\\":\\"1.2.3.4\\"}",
       "expiration":"2017-02-01T00:00:00Z","ttl":86400,"modifiedIndex":9,"createdIndex":9}]}}

An error is ``{"errorCode":100,"message":"Key not found","cause":"/x","index":17}``.

Rules of this file: no I/O.  A reader takes decoded JSON of any shape and raises ``ValueError`` for what it cannot use.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pyflannel.lease.fields import JSON

KEY_NOT_FOUND = 100
COMPARE_FAILED = 101
NODE_EXISTS = 105
UNAUTHORIZED = 110
INDEX_CLEARED = 401

_REMOVALS = frozenset({"delete", "expire", "compareAndDelete"})


@dataclass(frozen=True, slots=True)
class Node:
    """A key, or a directory of keys."""

    key: str
    value: str = ""
    directory: bool = False
    nodes: tuple[Node, ...] = ()
    """What the directory holds, if it was asked for."""
    created: int = 0
    modified: int = 0
    ttl: int | None = None
    """Seconds left, 0 in the moment before etcd takes it away; None: it stays until somebody deletes it."""


@dataclass(frozen=True, slots=True)
class Action:
    """What was done, and to what."""

    node: Node
    removal: bool
    """The node is gone: deleted, or its time ran out.  Everything else is a node written."""


@dataclass(frozen=True, slots=True)
class Failure:
    """etcd understood and said no."""

    code: int
    """0 where it gave none, as with a wrong password."""
    text: str


def read_answer(body: bytes) -> Action | Failure:
    """The body of an answer."""
    try:
        return _answer(_mapping(json.loads(body)))
    except RecursionError as error:
        raise ValueError("JSON nested deeper than any directory") from error


def _answer(answer: Mapping[str, JSON]) -> Action | Failure:
    if "node" not in answer:
        text = ": ".join(str(answer[name]) for name in ("message", "cause") if answer.get(name))
        return Failure(_number(answer, "errorCode"), text)
    return Action(_node(answer["node"]), str(answer.get("action")) in _REMOVALS)


def _node(value: JSON) -> Node:
    node = _mapping(value)
    nodes = node.get("nodes") or []
    if not isinstance(nodes, list):
        raise ValueError("nodes: expected a list")
    return Node(
        key=_text(node, "key"),
        value=_text(node, "value"),
        directory=node.get("dir") is True,
        nodes=tuple(_node(child) for child in nodes),
        created=_number(node, "createdIndex"),
        modified=_number(node, "modifiedIndex"),
        # etcd leaves a ttl of 0 out: a node that is about to expire must not pass for one that never does.
        ttl=max(0, _number(node, "ttl")) if "ttl" in node or "expiration" in node else None,
    )


def _mapping(value: JSON) -> Mapping[str, JSON]:
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")
    return value


def _text(fields: Mapping[str, JSON], name: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected a text")
    value.encode()  # half a surrogate pair, which JSON can spell, is a ValueError here and not where it is written
    return value


def _number(fields: Mapping[str, JSON], name: str) -> int:
    value = fields.get(name, 0)
    if not isinstance(value, int):
        raise ValueError(f"{name}: expected a whole number")
    return value
