"""Laws of the last known state on disk, whatever it holds and whatever became of the file."""

from __future__ import annotations

import json
from binascii import crc32
from io import BytesIO
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from pyflannel.lease.model import Attrs, Lease, Snapshot, Subnet, Unreadable
from pyflannel.store.cache import load, save
from pyflannel.store.lastknown import BadCache, LastKnown, last_line, lines, read

REVISIONS = st.integers(0, 2**64 - 1)
BACKEND_DATA = st.none() | st.sampled_from(
    ['{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}', '{ "a" :\n[ 1.50, null ] }', '"text \\"}{é"', "0", "{}"]
)
IPV4_NETS = st.builds(
    lambda number, length: IPv4Network((number >> 16 << 16, length)), st.integers(0, 2**32 - 1), st.integers(16, 31)
)
IPV6_NETS = st.builds(lambda number: IPv6Network((0xFD00 << 112 | number << 64, 64)), st.integers(0, 2**48 - 1))
SUBNETS = st.builds(Subnet, IPV4_NETS, st.none() | IPV6_NETS) | st.builds(Subnet, st.none(), IPV6_NETS)
ATTRS = st.builds(
    Attrs,
    st.none() | st.integers(1, 2**32 - 1).map(IPv4Address),
    st.none() | st.integers(1, 2**64).map(lambda number: IPv6Address(0xFD00 << 112 | number)),
    st.sampled_from(["", "vxlan", "host-gw", 'qu"ote', "übergang"]),
    BACKEND_DATA,
    BACKEND_DATA,
)
LEASES = st.builds(Lease, SUBNETS, ATTRS, created=REVISIONS, reservation=st.booleans())
# Any text that Python can hold: prefixes come from the command line, keys and configuration from whoever wrote them.
TEXTS = st.text(st.characters(exclude_categories=()), max_size=20) | st.sampled_from(
    ["/coreos.com/network", "\ud800\n"]
)
STATES = st.builds(
    LastKnown,
    TEXTS,
    TEXTS,
    st.none() | LEASES,
    st.builds(
        Snapshot,
        REVISIONS,
        st.lists(LEASES, max_size=5).map(tuple),
        st.lists(st.builds(Unreadable, TEXTS, TEXTS), max_size=2).map(tuple),
        TEXTS,
    ),
)


def whole(known: LastKnown) -> tuple[object, ...]:
    """Everything that is kept, also what does not count when leases are compared."""
    leases = (*known.snapshot.leases, *([] if known.own is None else [known.own]))
    return (known, [(lease.created, lease.reservation) for lease in leases])


def text_of(known: LastKnown) -> bytes:
    body = list(lines(known))
    return b"".join((*body, last_line(known.snapshot.revision, len(body), crc32(b"".join(body)))))


def outcome(text: bytes, network: str) -> LastKnown | None:
    try:
        return read(BytesIO(text), network)
    except BadCache:
        return None


@given(STATES)
def test_a_state_survives_the_disk(known: LastKnown) -> None:
    with TemporaryDirectory() as directory:
        file = Path(directory) / "state"
        save(file, known)
        again = load(file, known.network)
    assert again is not None
    assert whole(again) == whole(known)


@given(STATES, st.data())
def test_a_damaged_file_is_refused(known: LastKnown, data: st.DataObject) -> None:
    text = text_of(known)
    start = data.draw(st.integers(0, len(text) - 1))
    length = data.draw(st.integers(0, 4))
    # A piece of up to 32 bits is what CRC-32 never misses; for anything larger chance is one in four thousand million.
    damaged = text[:start] + data.draw(st.binary(min_size=length, max_size=length)) + text[start + length :]
    expected = known if damaged == text else None
    assert outcome(damaged, known.network) == expected
    assert outcome(text[:start], known.network) is None


MEMBERS = ["subnet", "value", "created", "reservation", "unreadable", "reason", "revision", "crc32", "own", "host"]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | TEXTS
    | st.sampled_from(["10.1.5.0-24", '{"PublicIP":"1.2.3.4"}']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=settings().max_examples * 3)
@given(st.lists(st.dictionaries(st.sampled_from(MEMBERS), VALUES, max_size=4), max_size=3), st.booleans())
def test_records_nobody_wrote_are_read_or_refused(records: list[dict[str, object]], first_is_sound: bool) -> None:
    header = {"pyflannel": "last known state", "version": 1, "network": "/n", "store": ""}
    header |= {"config": "", "host": "", "own": None}
    body = [json.dumps(record).encode() + b"\n" for record in ([header] if first_is_sound else []) + records]
    outcome(b"".join((*body, last_line(1, len(body), crc32(b"".join(body))))), "/n")


@given(st.binary())
def test_any_bytes_are_refused(text: bytes) -> None:
    assert outcome(text, "/n") is None
