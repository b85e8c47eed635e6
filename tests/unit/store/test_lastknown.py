"""The last known state as text: what it looks like, and what is refused."""

from __future__ import annotations

import json
from binascii import crc32
from dataclasses import replace
from io import BytesIO
from ipaddress import IPv4Address, IPv6Address

import pytest

from pyflannel.lease.fields import JSON
from pyflannel.lease.model import Attrs, Lease, Snapshot, Unreadable
from pyflannel.store.lastknown import BadCache, LastKnown, last_line, lines, read
from tests.support.builders import subnet, vxlan_lease

NETWORK = "/coreos.com/network"
CONFIG = '{"Network":"10.2.0.0/16"}'
OWN = vxlan_lease("10.2.71.0/24", "172.16.41.131", created=7)
KNOWN = LastKnown(NETWORK, "etcd v3", OWN, Snapshot(41, (OWN, vxlan_lease()), (), CONFIG), "52:54:00:12:34:56")
HEADER: dict[str, JSON] = {
    "pyflannel": "last known state",
    "version": 1,
    "network": NETWORK,
    "store": "etcd v3",
    "config": CONFIG,
    "host": "",
    "own": None,
}
RECORD: dict[str, JSON] = {"subnet": "10.2.41.0-24", "value": '{"PublicIP":"172.16.41.132"}', "created": 10}


def text_of(known: LastKnown) -> list[bytes]:
    """All lines of the file."""
    body = list(lines(known))
    return [*body, last_line(known.snapshot.revision, len(body), crc32(b"".join(body)))]


def forged(*records: JSON) -> list[bytes]:
    """A file that holds these records, and whose checksum fits."""
    body = [json.dumps(record).encode() + b"\n" for record in records]
    return [*body, last_line(1, len(body), crc32(b"".join(body)))]


def refusal(source: list[bytes]) -> str:
    with pytest.raises(BadCache) as caught:
        read(source, NETWORK)
    return str(caught.value)


def test_the_file_holds_the_records_as_flannel_writes_them() -> None:
    value = r"{\"PublicIP\":\"172.16.41.%d\",\"PublicIPv6\":null,\"BackendType\":\"vxlan\",\"BackendData\":%s}"
    own_value = value % (131, r"{\"VNI\":1,\"VtepMAC\":\"02:00:00:00:00:02\"}")
    peer_value = value % (132, r"{\"VNI\":1,\"VtepMAC\":\"02:00:00:00:00:02\"}")
    own = f'{{"subnet":"10.2.71.0-24","value":"{own_value}","created":7}}'
    body = (
        '{"pyflannel":"last known state","version":1,"network":"/coreos.com/network","store":"etcd v3",'
        rf'"config":"{{\"Network\":\"10.2.0.0/16\"}}","host":"52:54:00:12:34:56","own":{own}}}' + "\n"
        f"{own}\n"
        f'{{"subnet":"10.2.41.0-24","value":"{peer_value}","created":10}}\n'
        '{"unreadable":"10.2.9.0-33","reason":"no subnet"}\n'
        '{"revision":41,"records":3,"crc32":"'
    )
    known = replace(KNOWN, snapshot=replace(KNOWN.snapshot, unreadable=(Unreadable("10.2.9.0-33", "no subnet"),)))
    assert b"".join(text_of(known)).decode() == f'{body}{crc32(body.encode()):08x}"}}\n'


def test_what_was_written_is_read_again() -> None:
    dual = Lease(
        subnet("10.2.5.0/24", "fd00:2:5::/64"),
        Attrs(IPv4Address("172.16.41.140"), IPv6Address("fd00:41::140"), "extension", '{ "a":\n"é" }', '"x"'),
        created=3,
        reservation=True,
    )
    known = replace(KNOWN, own=None, snapshot=Snapshot(9, (dual, OWN), (Unreadable("sub\udc80\n", "why"),), ""))
    again = read(text_of(known), NETWORK)
    assert again == known
    assert [(lease.created, lease.reservation) for lease in again.snapshot.leases] == [(3, True), (7, False)]


def test_what_only_the_store_can_know_is_not_kept() -> None:
    lease = replace(OWN, modified=12, lease_id=77, ttl=3600.0)
    own = read(text_of(replace(KNOWN, own=lease)), NETWORK).own
    assert own is not None
    assert (own.modified, own.lease_id, own.ttl) == (0, 0, None)


def test_the_revision_shows_in_the_last_line_alone() -> None:
    assert list(lines(KNOWN)) == list(lines(replace(KNOWN, snapshot=replace(KNOWN.snapshot, revision=42))))


def test_a_prefix_in_another_spelling_is_the_same_network() -> None:
    assert read(text_of(KNOWN), "/coreos.com//network/") == KNOWN


def test_a_record_that_cannot_be_used_is_reported_and_harms_nobody() -> None:
    bad_name = RECORD | {"subnet": "10.2.41.0-33"}
    bad_value = RECORD | {"subnet": "10.2.42.0-24", "value": '{"PublicIP":"nowhere"}'}
    snapshot = read(forged(HEADER, bad_name, bad_value, RECORD), NETWORK).snapshot
    assert [str(lease.subnet) for lease in snapshot.leases] == ["10.2.41.0/24"]
    assert [record.key for record in snapshot.unreadable] == ["10.2.41.0-33", "10.2.42.0-24"]
    assert "nowhere" in snapshot.unreadable[1].reason


def test_a_file_cut_short_anywhere_is_refused() -> None:
    whole = b"".join(text_of(KNOWN))
    for length in range(len(whole)):
        refusal([*BytesIO(whole[:length])])


def test_a_file_with_any_bit_flipped_is_refused() -> None:
    whole = b"".join(text_of(KNOWN))
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        refusal([*BytesIO(damaged)])


def test_a_file_that_lacks_a_line_has_one_twice_or_two_in_another_order_is_refused() -> None:
    first, second, third, last = text_of(KNOWN)
    for damaged in ([first, third, last], [first, second, second, third, last], [first, third, second, last]):
        assert refusal(damaged) == "its checksum does not fit: part of it is damaged or missing"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ([], "it is empty"),
        (text_of(KNOWN)[:-1], "it breaks off before its last line"),
        ([*text_of(KNOWN), b"{}\n"], "it goes on after its last line"),
        ([b"FLANNEL_MTU=1450\n"], "line 1 is not JSON"),
        ([b"[" * 100_000], "line 1 is not JSON"),
        ([b"\xff\n"], "line 1 is not JSON"),
        ([b'{"revision":' + b"9" * 5000 + b"}\n"], "line 1 is not JSON"),
        ([b"[]\n"], "line 1 holds no record"),
        (forged({"network": NETWORK}), "it is no file of ours"),
        (forged(HEADER | {"version": 2}), "it is of another version: expected 1"),
        (forged(HEADER | {"network": "/other"}), f"it is about another network: expected {NETWORK}"),
        (forged(HEADER | {"network": None}), "a record in it has no usable 'network'"),
        (forged(HEADER | {"store": 3}), "a record in it has no usable 'store'"),
        (forged(HEADER | {"config": {}}), "a record in it has no usable 'config'"),
        (forged(HEADER | {"own": "me"}), "a record in it has no usable 'own'"),
        (forged(HEADER, RECORD | {"value": {}}), "a record in it has no usable 'value'"),
        (forged(HEADER, RECORD | {"created": -1}), "a record in it has no usable 'created'"),
        (forged(HEADER, RECORD | {"created": True}), "a record in it has no usable 'created'"),
        (forged(HEADER, RECORD | {"created": 2**64}), "a record in it has no usable 'created'"),
        (forged(HEADER, RECORD | {"reservation": 1}), "a record in it has no usable 'reservation'"),
        (forged(HEADER, {"created": 1}), "a record in it has no usable 'subnet'"),
        (forged(HEADER, {"unreadable": "key"}), "a record in it has no usable 'reason'"),
        (forged(HEADER, {"crc32": "00000000"}), "a record in it has no usable 'revision'"),
    ],
)
def test_what_is_no_state_of_this_network_is_refused_with_the_reason(source: list[bytes], reason: str) -> None:
    assert refusal(source) == reason


def test_an_own_lease_that_cannot_be_used_is_named() -> None:
    own = RECORD | {"subnet": "10.2.41.0-33"}
    assert refusal(forged(HEADER | {"own": own})).startswith("our own lease in it cannot be used: ")
