"""What a real etcd cannot be made to do; everything else is in tests/contract."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from ipaddress import IPv4Address, IPv4Network

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyflannel.lease.model import Attrs, Changes, Lease, Snapshot, Subnet
from pyflannel.lease.wire import encode_attrs
from pyflannel.store import etcd3_wire as wire
from pyflannel.store.api import Conflict, Unavailable
from pyflannel.store.etcd3 import RESUME_AFTER_S, Etcd3Store
from tests.support.etcd_stores import exhausted
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


def test_reservation_whose_answer_got_lost_is_recognised() -> None:
    async def lost(_: Talk) -> None:
        raise GRPCError(Status.UNAVAILABLE, "etcdserver: request timed out")

    async def story() -> None:
        none, mine = wire.RangeResponse(AT_9), wire.KeyValue(KEY, 10, 10, VALUE)
        first = FakeMember({wire.RANGE: answers(none), wire.TXN: lost})
        second = FakeMember({wire.TXN: answers(failed_condition(mine))})
        async with first, second:
            store = Etcd3Store([first.url, second.url], "/n")
            lease = await store.create(ONE, HOST, None)
            assert (lease, lease.created, lease.reservation, lease.ttl) == (Lease(ONE, HOST), 10, True, None)
            await store.close()

    run(story())


def test_equal_reservation_of_another_is_a_conflict() -> None:
    async def story() -> None:
        found = wire.RangeResponse(AT_9, (wire.KeyValue(KEY, 7, 7, VALUE),))
        async with FakeMember({wire.RANGE: answers(found)}) as member:
            store = Etcd3Store([member.url], "/n")
            with pytest.raises(Conflict):
                await store.create(ONE, HOST, None)
            await store.close()

    run(story())


# List and watch

CONFIG = b"/n/config"


def test_list_passes_over_keys_that_are_not_ours() -> None:
    async def story() -> None:
        keys = [CONFIG, b"/n/config/10.2.9.0-24", b"/n/foo", b"/n/subnets-old/10.2.8.0-24", b"/n/subnets/a/10.2.7.0-24"]
        others = [wire.KeyValue(key, 3, 3, VALUE) for key in keys]
        answer = wire.RangeResponse(AT_9, (*others, wire.KeyValue(KEY, 7, 7, VALUE, lease=5)))
        async with FakeMember({wire.RANGE: answers(answer)}) as member:
            store = Etcd3Store([member.url], "/n")
            assert await store.leases() == Snapshot(9, (Lease(ONE, HOST),), (), VALUE.decode())
            await store.close()

    run(story())


def watch_telling(*told: wire.WatchResponse) -> dict[AnyMethod, Answering]:
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
        async with aclosing(store.watch(10)) as watch:
            changes = [await anext(watch) for _ in told]
        await store.close()
        return changes


def told_of(*keys: bytes, kind: int = 0) -> wire.WatchResponse:
    """These keys written or deleted, one after the other."""
    kvs = [wire.KeyValue(key, 3, 11 + step, b"%d" % step, lease=5) for step, key in enumerate(keys)]
    return wire.WatchResponse(wire.ResponseHeader(100), events=tuple(wire.Event(kind, kv) for kv in kvs))


def test_watch_begins_with_a_sign_of_life() -> None:
    assert run(heard(wire.WatchResponse(wire.ResponseHeader(100), created=True))) == [Changes(10)]


def test_watch_tells_the_last_of_several_configs() -> None:
    assert run(heard(told_of(CONFIG, CONFIG))) == [Changes(12, config="1")]


def test_watch_tells_that_the_config_is_gone() -> None:
    assert run(heard(told_of(CONFIG, kind=wire.EVENT_DELETE))) == [Changes(11, config="")]


@pytest.mark.parametrize("kind", [0, wire.EVENT_DELETE])
def test_watch_passes_over_keys_that_are_not_ours(kind: int) -> None:
    told = told_of(
        b"/n/config/10.2.9.0-24", b"/n/foo", b"/n/subnets-old/10.2.8.0-24", b"/n/subnets/a/10.2.7.0-24", kind=kind
    )
    assert run(heard(told)) == [Changes(14)]


def test_event_without_a_record_is_skipped() -> None:
    assert run(heard(wire.WatchResponse(wire.ResponseHeader(11), events=(wire.Event(),)))) == [Changes(10)]


def test_watch_that_lost_its_member_goes_on_at_another_from_where_it_was() -> None:
    asked: list[int] = []
    dead = asyncio.Event()

    def watching(told: wire.WatchResponse) -> FakeMember:
        async def telling(stream: Talk) -> None:
            request: wire.WatchRequest | None = await stream.recv_message()
            assert request is not None
            assert request.create_request is not None
            asked.append(request.create_request.start_revision)
            await stream.send_message(told)
            await dead.wait()
            if len(asked) == 1:
                raise GRPCError(Status.UNAVAILABLE, "etcdserver: server stopped")
            await stream.recv_message()

        return FakeMember({wire.WATCH: telling, wire.RANGE: answers(wire.RangeResponse(wire.ResponseHeader(100)))})

    async def story() -> None:
        first, second = watching(told_of(CONFIG)), watching(wire.WatchResponse(wire.ResponseHeader(100), created=True))
        async with first, second:
            store = Etcd3Store([first.url, second.url], "/n")
            async with aclosing(store.watch(10)) as watch:
                assert await anext(watch) == Changes(11, config="0")
                await asyncio.sleep(RESUME_AFTER_S)
                dead.set()
                assert await anext(watch) == Changes(11)
            await store.close()
        assert asked == [11, 12]

    run(story())


def test_members_that_drop_every_watch_are_not_asked_in_a_loop() -> None:
    async def drop(stream: Talk) -> None:
        await stream.recv_message()
        await stream.send_message(wire.WatchResponse(wire.ResponseHeader(100), created=True))
        raise GRPCError(Status.UNAVAILABLE, "etcdserver: server stopped")

    async def story() -> None:
        member = FakeMember({wire.WATCH: drop, wire.RANGE: answers(wire.RangeResponse(wire.ResponseHeader(100)))})
        async with member:
            store = Etcd3Store([member.url], "/n")
            with pytest.raises(Unavailable, match="server stopped"):
                await exhausted(store.watch(10))
            await store.close()

    run(story())


def test_name_holds_every_address_and_no_secret() -> None:
    store = Etcd3Store(["http://user:hidden@a:1", "b:2"], "/n")
    assert store.name == "etcd v3 at http://a:1,http://b:2"
