"""What a real etcd cannot be made to do; everything else is in tests/contract."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from ipaddress import IPv4Address, IPv4Network

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyflannel.lease.model import Attrs, Changes, Lease, Subnet
from pyflannel.lease.wire import encode_attrs
from pyflannel.store import etcd3_wire as wire
from pyflannel.store.api import Conflict
from pyflannel.store.etcd3 import Etcd3Store
from pyflannel.store.protobuf import Message
from tests.support.fake_member import Answering, AnyMethod, FakeMember, Talk, answers
from tests.support.loops import run

ONE = Subnet(IPv4Network("10.2.71.0/24"))
HOST = Attrs(IPv4Address("172.16.41.131"))
KEY = b"/n/subnets/10.2.71.0-24"
VALUE = encode_attrs(HOST).encode()
AT_9 = wire.ResponseHeader(9)


def failed_condition(found: wire.KeyValue) -> wire.TxnResponse:
    there = wire.RangeResponse(AT_9, (found,))
    return wire.TxnResponse(AT_9, False, (wire.ResponseOp(there),))


async def created_when_found(found: wire.KeyValue) -> Lease:
    """What comes of a ``create`` on etcd lease 5 when its condition fails on this record."""
    revoked = answers(wire.LeaseRevokeResponse())
    member = FakeMember(
        {
            wire.LEASE_GRANT: answers(wire.LeaseGrantResponse(5, 60)),
            wire.TXN: answers(failed_condition(found)),
            wire.LEASE_REVOKE: revoked,
        }
    )
    async with member:
        store = Etcd3Store([member.url], "/n")
        try:
            return await store.create(ONE, HOST, 60)
        finally:
            await store.close()


def test_own_write_whose_answer_got_lost_is_recognised() -> None:
    lease = run(created_when_found(wire.KeyValue(KEY, 7, 7, VALUE, lease=5)))
    assert (lease, lease.created, lease.lease_id) == (Lease(ONE, HOST), 7, 5)


@pytest.mark.parametrize("found", [wire.KeyValue(KEY, 7, 7, VALUE, lease=6), wire.KeyValue(KEY, 7, 7, b"{}", lease=5)])
def test_write_of_another_is_a_conflict(found: wire.KeyValue) -> None:
    with pytest.raises(Conflict):
        run(created_when_found(found))


def test_write_is_made_again_at_the_next_member_when_no_answer_came() -> None:
    async def no_leader(_: Talk) -> None:
        raise GRPCError(Status.UNAVAILABLE, "etcdserver: leader changed")

    async def story() -> None:
        grant = answers(wire.LeaseGrantResponse(5, 60))
        first = FakeMember({wire.LEASE_GRANT: grant, wire.TXN: no_leader})
        second = FakeMember({wire.TXN: answers(wire.TxnResponse(AT_9, True))})
        async with first, second:
            store = Etcd3Store([first.url, second.url], "/n")
            assert (await store.create(ONE, HOST, 60)).modified == 9
            await store.close()

    run(story())


def test_etcd_lease_that_runs_out_in_the_middle_is_a_conflict() -> None:
    async def gone(_: Talk) -> None:
        raise GRPCError(Status.NOT_FOUND, "etcdserver: requested lease not found")

    async def story() -> None:
        async with FakeMember({wire.LEASE_GRANT: answers(wire.LeaseGrantResponse(5, 60)), wire.TXN: gone}) as member:
            store = Etcd3Store([member.url], "/n")
            with pytest.raises(Conflict):
                await store.create(ONE, HOST, 60)
            await store.close()

    run(story())


# How far a watch has come


def watch_telling(*told: Message) -> dict[AnyMethod, Answering]:
    async def telling(stream: Talk) -> None:
        await stream.recv_message()
        for each in told:
            await stream.send_message(each)
        await stream.recv_message()

    return {wire.WATCH: telling, wire.RANGE: answers(wire.RangeResponse(wire.ResponseHeader(100)))}


async def heard(*told: wire.WatchResponse) -> list[Changes]:
    """What the store makes of these answers, watching from revision 10."""
    async with FakeMember(watch_telling(*told)) as member:
        store = Etcd3Store([member.url], "/n")
        watch = store.watch(10)
        assert isinstance(watch, AsyncGenerator)
        async with aclosing(watch):
            changes = [await anext(watch) for _ in told]
        await store.close()
        return changes


def put_at(revision: int) -> wire.Event:
    return wire.Event(kv=wire.KeyValue(KEY, revision, revision, VALUE, lease=5))


def test_events_count_and_not_the_header_above_them() -> None:
    # A watch that catches up gets a part of the events under the newest revision.
    told = wire.WatchResponse(wire.ResponseHeader(5000), events=(put_at(11), put_at(12)))
    (changes,) = run(heard(told))
    assert (changes.revision, len(changes.events)) == (12, 2)


def test_creation_does_not_move_the_revision() -> None:
    assert run(heard(wire.WatchResponse(wire.ResponseHeader(100), created=True))) == [Changes(10)]


def test_progress_of_the_watch_moves_the_revision() -> None:
    assert run(heard(wire.WatchResponse(wire.ResponseHeader(100)))) == [Changes(100)]


def test_answer_to_a_progress_request_does_not_move_the_revision() -> None:
    assert run(heard(wire.WatchResponse(wire.ResponseHeader(100), watch_id=-1))) == [Changes(10)]


def test_revision_never_goes_back_within_a_watch() -> None:
    told = [wire.WatchResponse(wire.ResponseHeader(100)), wire.WatchResponse(wire.ResponseHeader(50))]
    assert [changes.revision for changes in run(heard(*told))] == [100, 100]


def test_event_without_a_record_is_skipped() -> None:
    assert run(heard(wire.WatchResponse(wire.ResponseHeader(11), events=(wire.Event(),)))) == [Changes(10)]


def test_name_holds_every_address_and_no_secret() -> None:
    store = Etcd3Store(["http://user:hidden@a:1", "b:2"], "/n")
    assert store.name == "etcd v3 at http://a:1,http://b:2"
