"""How leases are shown: to people as a table or line by line, to programs as JSON documents.

Records of other hosts are quoted here, so no control character gets through to a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pyflannel.cli.lease_book import Book, Entry
from pyflannel.cli.terminal import echo_table
from pyflannel.cli.words import plain, span
from pyflannel.lease.fields import Fields, read_object
from pyflannel.lease.model import Attrs
from pyflannel.store.api import Record

HEADER: Final = ("SUBNET", "HOST", "BACKEND", "VTEP MAC", "TTL", "CREATED", "")
RESERVED: Final = "reserved"
_WIDEST: Final = 60
"""Characters of what somebody published that a column shows."""


def echo_book(book: Book) -> None:
    """A row for each lease."""
    echo_table(HEADER, [row(entry) for entry in book.entries], {RESERVED: "bold"})


def row(entry: Entry) -> list[str]:
    """One lease in the columns of ``HEADER``."""
    lease = entry.lease
    notes = ["(this host)"] if entry.here else []
    notes += [f"ignored: {plain(entry.fault)}"] if entry.fault else []
    return [
        str(lease.subnet),
        host(lease.attrs),
        plain(lease.attrs.backend_type[:_WIDEST]),
        " ".join(_macs(lease.attrs)),
        RESERVED if lease.reservation else span(lease.ttl),
        str(lease.created),
        " ".join(notes),
    ]


def details(entry: Entry, key: str, record: Record | None) -> Iterator[tuple[str, str]]:
    """All there is to say of one lease, in names and values; ``record`` is what stands in the store, if it tells."""
    lease, attrs = entry.lease, entry.lease.attrs
    ttl = record.ttl if record is not None and record.ttl is not None else lease.ttl
    yield "Subnet", str(lease.subnet)
    yield "Key", plain(key)
    yield "PublicIP", str(attrs.public_ip or "none")
    if attrs.public_ipv6 is not None:
        yield "PublicIPv6", str(attrs.public_ipv6)
    yield "BackendType", plain(attrs.backend_type) or "none"
    for name, data in (("BackendData", attrs.backend_data), ("BackendV6Data", attrs.backend_v6_data)):
        if data is not None:
            yield name, plain(data)
    yield "TTL", f"{RESERVED}: it does not run out" if lease.reservation else span(ttl)
    yield "Created", f"revision {lease.created}"
    yield "Modified", f"revision {lease.modified}"
    if lease.lease_id:
        yield "EtcdLease", f"{lease.lease_id:x}"
    if entry.here:
        yield "Host", "this one"
    if entry.fault:
        yield "Ignored", plain(entry.fault)
    if record is not None:
        yield "Value", plain(record.value)


def host(attrs: Attrs) -> str:
    """Where a host is reached; both addresses if it has two."""
    return " and ".join(str(each) for each in (attrs.public_ip, attrs.public_ipv6) if each is not None)


def book_document(store: str, book: Book) -> dict[str, object]:
    """A list for programs."""
    return {
        "store": store,
        "leases": [entry_document(entry) for entry in book.entries],
        "unreadable": [{"key": record.key, "reason": record.reason} for record in book.unreadable],
        "warnings": list(book.remarks),
    }


def entry_document(entry: Entry) -> dict[str, object]:
    """One lease for programs; what is unknown is null, and what a backend published is text, as it was spelled."""
    lease, attrs = entry.lease, entry.lease.attrs
    texts = {
        "ipv4": lease.subnet.ipv4,
        "ipv6": lease.subnet.ipv6,
        "public_ip": attrs.public_ip,
        "public_ipv6": attrs.public_ipv6,
    }
    return {
        "subnet": str(lease.subnet),
        **{name: None if value is None else str(value) for name, value in texts.items()},
        "backend_type": attrs.backend_type,
        "backend_data": attrs.backend_data,
        "backend_v6_data": attrs.backend_v6_data,
        "reservation": lease.reservation,
        "ttl": lease.ttl,
        "created": lease.created,
        "modified": lease.modified,
        "this_host": entry.here,
        "ignored": entry.fault or None,
    }


def show_document(entry: Entry, key: str, record: Record | None) -> dict[str, object]:
    """One lease for programs, with what ``details`` has beyond a list."""
    document = entry_document(entry) | {"key": key, "etcd_lease": entry.lease.lease_id or None}
    if record is None:
        return document | {"value": None}
    return document | {"value": record.value, "ttl": entry.lease.ttl if record.ttl is None else record.ttl}


def _macs(attrs: Attrs) -> Iterator[str]:
    """The VTEP MAC of each address family, as it was published, whatever it is."""
    for data in (attrs.backend_data, attrs.backend_v6_data):
        try:
            mac = Fields(read_object(data)).text("VtepMAC", "") if data is not None else ""
        except ValueError:
            continue
        if mac:
            yield plain(mac[:_WIDEST])
