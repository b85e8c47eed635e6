"""The last good state of one network as lines of text, for a start while the store is down.

    {"pyflannel":"last known state","version":1,"network":"/coreos.com/network","store":"etcd v3","config":"{…}",
     "host":"52:54:00:12:34:56","own":{"subnet":"10.1.5.0-24","value":"{…}","created":7}}
    {"subnet":"10.1.5.0-24","value":"{…}","created":7}
    {"subnet":"10.1.9.0-24","value":"{…}","created":2,"reservation":true}
    {"unreadable":"10.1.7.0-33","reason":"…"}
    {"revision":41,"records":3,"crc32":"1d0f3c5a"}

Rules of this file
  1. One record, one line, ASCII alone: ten thousand leases are written and read without ever being one text.
  2. What stands in ``value`` is the record as flannel writes it, and is read as if the store had said it.  A record
     that cannot be used is ``Unreadable`` and harms nobody else.
  3. The last line counts the records and sums up every byte before it, its own included.  A file that was cut short,
     of which a bit flipped, or to which something was added is refused as a whole.
  4. No input raises anything but ``BadCache``.
"""

from __future__ import annotations

import json
from binascii import crc32
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NoReturn

from pyflannel.lease.fields import JSON
from pyflannel.lease.model import Lease, Snapshot, Unreadable
from pyflannel.lease.wire import BadRecord, decode_attrs, encode_attrs, parse_subnet_name, subnet_name
from pyflannel.store.keys import config_key

VERSION: Final = 1
"""Of the format.  A file of any other version is refused: it holds nothing that the store will not tell again."""
_TITLE: Final = "last known state"
_HIGHEST_REVISION: Final = 2**64


class BadCache(ValueError):
    """What is on disk cannot be used; the message says why, and reads on after the name of the file and a colon."""


@dataclass(frozen=True, slots=True)
class LastKnown:
    """What an agent needs to go on without the store."""

    network: str
    """Prefix of the network's keys."""
    store: str
    """The kind of store all this came from, such as ``etcd v3``: it is where to look again."""
    own: Lease | None
    """Our lease as we last wrote it, by which our record is known even after our address has changed."""
    snapshot: Snapshot
    """The leases, and as ``config`` the configuration that was in force.

    Read back, leases say what they said and know when they were created; ``modified``, ``lease_id`` and ``ttl`` are
    gone, for nothing may be written to the store on the word of an old file.
    """
    host: str = ""
    """What tells this machine from a copy of its disk, such as the hardware address of its network card."""


def lines(known: LastKnown) -> Iterator[bytes]:
    """``known`` line by line, all but ``last_line``.  The same state makes the same lines, whatever its revision."""
    header: dict[str, JSON] = {
        "pyflannel": _TITLE,
        "version": VERSION,
        "network": known.network,
        "store": known.store,
        "config": known.snapshot.config,
        "host": known.host,
        "own": None if known.own is None else _record(known.own),
    }
    yield _line(header)
    for lease in known.snapshot.leases:
        yield _line(_record(lease))
    for record in known.snapshot.unreadable:
        yield _line({"unreadable": record.key, "reason": record.reason})


def last_line(revision: int, count: int, checksum: int) -> bytes:
    """What follows ``count`` lines, the first one included, whose CRC-32 is ``checksum``."""
    text = f'{{"revision":{revision},"records":{count - 1},"crc32":"'.encode()
    return b'%b%08x"}\n' % (text, crc32(text, checksum))


def read(source: Iterable[bytes], network: str) -> LastKnown:
    """The state that ``source``, the lines of a file with their ends, holds of ``network``; ``BadCache`` if none."""
    checksum = count = 0
    header: dict[str, JSON] | None = None
    leases: list[Lease] = []
    unreadable: list[Unreadable] = []
    revision: int | None = None
    for line in source:
        if revision is not None:
            raise BadCache("it goes on after its last line")
        fields = _fields(line, count + 1)
        if header is None:
            header = _checked_header(fields, network)
        elif "crc32" in fields:
            revision = _revision(fields, "revision")
            if line != last_line(revision, count, checksum):
                raise BadCache("its checksum does not fit: part of it is damaged or missing")
        else:
            record = _parsed(fields)
            if isinstance(record, Lease):
                leases.append(record)
            else:
                unreadable.append(record)
        checksum, count = crc32(line, checksum), count + 1
    if header is None or revision is None:
        raise BadCache("it is empty" if header is None else "it breaks off before its last line")
    return LastKnown(
        network=_text(header, "network"),
        store=_text(header, "store"),
        own=_own(header.get("own")),
        snapshot=Snapshot(revision, tuple(leases), tuple(unreadable), _text(header, "config")),
        host=_text(header, "host"),
    )


def _line(fields: dict[str, JSON]) -> bytes:
    return _ENCODER.encode(fields).encode() + b"\n"


_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))


def _record(lease: Lease) -> dict[str, JSON]:
    fields: dict[str, JSON] = {
        "subnet": subnet_name(lease.subnet),
        "value": encode_attrs(lease.attrs),
        "created": lease.created,
    }
    return fields | {"reservation": True} if lease.reservation else fields


def _fields(line: bytes, number: int) -> dict[str, JSON]:
    try:
        fields: JSON = json.loads(line.decode("ascii"))
    except (ValueError, RecursionError):
        raise BadCache(f"line {number} is not JSON") from None
    if not isinstance(fields, dict):
        raise BadCache(f"line {number} holds no record")
    return fields


def _checked_header(fields: dict[str, JSON], network: str) -> dict[str, JSON]:
    if fields.get("pyflannel") != _TITLE:
        raise BadCache("it is no file of ours")
    if fields.get("version") != VERSION:
        raise BadCache(f"it is of another version: expected {VERSION}")
    if config_key(_text(fields, "network")) != config_key(network):
        raise BadCache(f"it is about another network: expected {network}")
    return fields


def _parsed(fields: dict[str, JSON]) -> Lease | Unreadable:
    if "unreadable" in fields:
        return Unreadable(_text(fields, "unreadable"), _text(fields, "reason"))
    try:
        return _lease(fields)
    except BadRecord as exc:
        return Unreadable(_text(fields, "subnet"), str(exc))


def _own(fields: JSON) -> Lease | None:
    if fields is None:
        return None
    if not isinstance(fields, dict):
        _refuse("own")
    try:
        return _lease(fields)
    except BadRecord as exc:
        raise BadCache(f"our own lease in it cannot be used: {exc}") from None


def _lease(fields: dict[str, JSON]) -> Lease:
    """``BadRecord`` for what a store might hold as well."""
    created, reservation = _revision(fields, "created"), fields.get("reservation", False)
    if not isinstance(reservation, bool):
        _refuse("reservation")
    subnet = parse_subnet_name(_text(fields, "subnet"))
    return Lease(subnet, decode_attrs(_text(fields, "value")), created=created, reservation=reservation)


def _text(fields: dict[str, JSON], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else _refuse(name)


def _revision(fields: dict[str, JSON], name: str) -> int:
    value = fields.get(name)
    return value if type(value) is int and 0 <= value < _HIGHEST_REVISION else _refuse(name)


def _refuse(name: str) -> NoReturn:
    raise BadCache(f"a record in it has no usable {name!r}")
