"""Server-sent events, read as a browser does (WHATWG HTML, 9.2.6), as far as ours need it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any


def events(stream: bytes) -> Iterator[tuple[str, Any]]:
    """The name and the value of each event that ends within ``stream``."""
    for block in stream.decode().split("\n\n")[:-1]:
        found = dict(line.split(": ", 1) for line in block.split("\n"))
        yield found["event"], json.loads(found["data"])


def follow(told: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """What a page knows that was told these: a status document, its peers by their subnets, and rows of the matrix."""
    known: dict[str, Any] = {}
    for name, value in told:
        match name:
            case "all":
                known = value | {"peers": _by_name(value["peers"])}
            case "some":
                known |= value | {"peers": known["peers"] | _by_name(value.get("peers", []))}
            case "gone":
                known["peers"] = {key: peer for key, peer in known["peers"].items() if list(key) not in value}
            case "time":
                assert isinstance(value, float)
            case "hosts":
                known["hosts"], known["of"], known["rows"] = value["hosts"], value["of"], {}
            case "row":
                assert value["from"] in known["hosts"]
                known["rows"][tuple(value["from"])] = value
            case _:
                raise AssertionError(f"no such event: {name}")
    return known


def _by_name(peers: list[dict[str, Any]]) -> dict[tuple[str | None, str | None], dict[str, Any]]:
    return {(peer["subnet"], peer["ipv6_subnet"]): peer for peer in peers}
