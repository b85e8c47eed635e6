from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from pyflannel.cli.lease_book import Book, Entry
from pyflannel.cli.leases_view import HEADER, book_document, details, echo_book, row, show_document
from pyflannel.lease.model import Attrs, Lease, Unreadable
from pyflannel.store.api import Record
from tests.support.builders import subnet, vxlan_lease

LEASE = replace(vxlan_lease(created=12), ttl=3600.5)
DUAL = Lease(
    subnet("10.2.41.0/24", "fd00:2:0:41::/64"),
    Attrs(IPv4Address("172.16.41.132"), IPv6Address("fd00::132"), "vxlan", '{"VtepMAC":"a"}', '{"vtepmac":"b"}'),
    reservation=True,
)
HOSTILE = Lease(
    subnet("10.2.9.0/24"),
    Attrs(None, None, "x" * 5000, '{"VtepMAC":"\\u001b[2J' + "y" * 5000 + '"}', "\x1b[31m"),
)


def test_row_says_who_has_the_subnet_and_for_how_long() -> None:
    assert row(Entry(LEASE)) == [
        "10.2.41.0/24",
        "172.16.41.132",
        "vxlan",
        "02:00:00:00:00:02",
        "1h00m",
        "12",
        "",
    ]
    assert row(Entry(LEASE, here=True, fault="is odd"))[-1] == "(this host) ignored: is odd"
    assert len(row(Entry(LEASE))) == len(HEADER)


def test_row_of_both_families_has_both_addresses_and_macs() -> None:
    assert row(Entry(DUAL))[:5] == [
        "10.2.41.0/24 and fd00:2:0:41::/64",
        "172.16.41.132 and fd00::132",
        "vxlan",
        "a b",
        "reserved",
    ]


@pytest.mark.parametrize("data", [None, "7", "[]", "{}", '{"VtepMAC":7}', '"text"', "[" * 100_000, "9" * 5000])
def test_what_has_no_mac_shows_none(data: str | None) -> None:
    assert row(Entry(replace(LEASE, attrs=replace(LEASE.attrs, backend_data=data))))[3] == ""


def test_nothing_that_somebody_published_gets_to_the_terminal_unprintable_or_endless() -> None:
    cells = row(Entry(HOSTILE, fault="\x1b[31m"))
    assert all(cell.isprintable() for cell in cells)
    assert max(map(len, cells)) < 100
    shown = dict(details(Entry(HOSTILE, fault="\x1b[31m"), "/net/\x07", Record("\x1b\n", None)))
    assert all(value.isprintable() for value in shown.values())
    assert shown["Value"] == r"\x1b\n"


def test_table_is_plain_text_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    echo_book(Book((Entry(LEASE, here=True),)))
    assert capsys.readouterr().out.splitlines() == [
        "SUBNET        HOST           BACKEND  VTEP MAC           TTL    CREATED",
        "10.2.41.0/24  172.16.41.132  vxlan    02:00:00:00:00:02  1h00m  12       (this host)",
    ]


def test_details_leave_out_what_is_not_there() -> None:
    assert [name for name, _ in details(Entry(LEASE), "/net", None)] == [
        "Subnet",
        "Key",
        "PublicIP",
        "BackendType",
        "BackendData",
        "TTL",
        "Created",
        "Modified",
    ]
    full = replace(DUAL, lease_id=0x1F, reservation=False)
    shown = dict(details(Entry(full, here=True, fault="is odd"), "/net", Record("{}", 61.0)))
    assert shown["TTL"] == "1m01s"
    assert (shown["PublicIPv6"], shown["BackendV6Data"], shown["EtcdLease"]) == ("fd00::132", '{"vtepmac":"b"}', "1f")
    assert (shown["Host"], shown["Ignored"], shown["Value"]) == ("this one", "is odd", "{}")


def test_documents_are_json_and_unknown_things_null() -> None:
    unreadable = (Unreadable("/net/subnets/x", "no JSON"),)
    book = Book((Entry(LEASE), Entry(HOSTILE, fault="is odd")), unreadable, remarks=("hm",))
    document = json.loads(json.dumps(book_document("etcd", book)))
    assert [lease["ignored"] for lease in document["leases"]] == [None, "is odd"]
    assert document["leases"][1]["public_ip"] is None
    assert (document["unreadable"], document["warnings"]) == ([{"key": "/net/subnets/x", "reason": "no JSON"}], ["hm"])
    alone = show_document(Entry(LEASE), "/net", None)
    assert (alone["value"], alone["ttl"], alone["etcd_lease"]) == (None, 3600.5, None)
    asked = show_document(Entry(replace(LEASE, lease_id=7)), "/net", Record("{}", 61.0))
    assert (asked["value"], asked["ttl"], asked["etcd_lease"]) == ("{}", 61.0, 7)
