"""What the page is told: the whole status document first, and from then on what is no longer as it was.

As server-sent events (WHATWG HTML, 9.2), each with one line of JSON:

    all    a status document: forget what was there before
    some   the parts of it that are different now, each of them whole; of ``peers`` only those that are different
    gone   [[subnet, ipv6_subnet], …]: peers that are no more
    time   what the time is here, in seconds since 1970
    hosts  {"of": how many hosts there are, "hosts": [[subnet, ipv6_subnet], …]}: those of the matrix, in the order of
           its rows and columns; forget the rows that were there before
    row    {"from": [subnet, ipv6_subnet], "at": …, "why": …, "to": [[state, rtt, loss] or null, …]}: what one of them
           says of all of them, in that order, and when it said so (null: as of now); if it does not tell, why not

A browser that loses us comes back after ``RETRY`` seconds, and is told everything again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Final

from pyflannel.telemetry.document import PORTION, Document, PeerPart, write
from pyflannel.telemetry.matrix import Matrix, Name, Row

RETRY: Final = 2
JITTER: Final = 2.0
"""Seconds by which the dates of a lease may differ and be the same: they are worked out from its age every time."""

_PARTS: Final = tuple(each.name for each in fields(Document) if each.name not in ("format", "peers"))


def settled(before: Document, after: Document) -> Document:
    """``after``, with the dates of ``before`` where they are the same but for reckoning."""
    old, new = before.lease, after.lease
    dates = replace(new, expires=_steady(old.expires, new.expires), renewed=_steady(old.renewed, new.renewed))
    return replace(after, lease=dates) if dates == old else after


def all_of(document: Document) -> Iterator[bytes]:
    """The event that tells everything, in pieces of about a millisecond's work each."""
    yield b"retry: %d\nevent: all\ndata: " % (RETRY * 1000)
    yield from write(document)  # which is one line
    yield b"\n"


def changed(before: Document, after: Document) -> Iterator[bytes]:
    """The events that make ``after`` of ``before``, in such pieces; none if nothing is different."""
    if before is after:
        return
    old, new = _by_name(before), _by_name(after)
    if gone := [name for name in old if name not in new]:
        yield b"event: gone\ndata: " + _text(gone) + b"\n\n"
    parts = [name for name in _PARTS if getattr(before, name) != getattr(after, name)]
    peers = [peer for name, peer in new.items() if old.get(name) != peer]
    if parts or peers:
        yield b'event: some\ndata: {"format":%d' % after.format
        for name in parts:
            yield b',"%s":' % name.encode() + _text(getattr(after, name))
        for start in range(0, len(peers), PORTION):
            portion = b",".join(map(_text, peers[start : start + PORTION]))
            yield (b"," if start else b',"peers":[') + portion
        yield (b"]" if peers else b"") + b"}\n\n"


def redrawn(before: Matrix, after: Matrix) -> Iterator[bytes]:
    """The events that make ``after`` of ``before``, in such pieces; a host that was not asked yet has none."""
    known = before.rows
    forgotten = any(host in known and host not in after.rows for host in after.hosts)
    if forgotten or (before.hosts, before.of) != (after.hosts, after.of):
        known = {}
        yield b"event: hosts\ndata: " + _text({"of": after.of, "hosts": after.hosts}) + b"\n\n"
    for host in after.hosts:
        row = after.rows.get(host)
        if row is not None and row != known.get(host):
            yield b"event: row\ndata: " + _text(_row(host, row, after.hosts)) + b"\n\n"


def time_is(now: float) -> bytes:
    """The event that tells the time."""
    return b"event: time\ndata: %.3f\n\n" % now


def _steady(before: float | None, after: float | None) -> float | None:
    return before if before is not None and after is not None and abs(after - before) < JITTER else after


def _row(host: Name, row: Row, hosts: tuple[Name, ...]) -> dict[str, object]:
    found = [row.cells.get(each) for each in hosts]
    cells = [cell and (cell.how, cell.rtt, cell.loss) for cell in found]
    return {"from": host, "at": row.at, "why": row.why, "to": [] if row.why else cells}


def _by_name(document: Document) -> dict[Name, PeerPart]:
    return {(peer.subnet, peer.ipv6_subnet): peer for peer in document.peers}


def _text(value: object) -> bytes:
    return json.dumps(value, default=_plain, separators=(",", ":")).encode()


def _plain(part: object) -> dict[str, object]:
    return {each.name: getattr(part, each.name) for each in fields(part)}  # type: ignore[arg-type]
