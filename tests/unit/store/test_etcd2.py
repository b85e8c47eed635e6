"""What a real etcd cannot be made to do; everything else is in tests/contract."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from ipaddress import IPv4Address, IPv4Network

import pytest

from pyflannel.lease.model import Attrs, Changes, Lease, Snapshot, Subnet
from pyflannel.store.api import Conflict, HistoryLost
from pyflannel.store.etcd2 import Etcd2Store
from tests.support.fake_http import FakeHttp, ok
from tests.support.loops import run

DAY = 24 * 60 * 60
SUBNET = Subnet(IPv4Network("10.2.71.0/24"))
ATTRS = Attrs(IPv4Address("172.16.41.131"))
OTHER = Attrs(IPv4Address("172.16.41.132"))
LEASE = Lease(SUBNET, ATTRS, created=5, modified=9, ttl=DAY)
KEY = "/n/subnets/10.2.71.0-24"
CONFIG = ok('{"action":"get","node":{"key":"/n/config","value":"{}"}}', "X-Etcd-Index: 7")
WELL = ok("{}")


def record(attrs: Attrs = ATTRS, *, created: int = 5, modified: int = 9, **more: int | str) -> bytes:
    value = json.dumps({"PublicIP": str(attrs.public_ip)}, separators=(",", ":"))
    node = {"key": KEY, "value": value, "createdIndex": created, "modifiedIndex": modified, **more}
    return ok(json.dumps({"action": "get", "node": node}), "X-Etcd-Index: 20")


def failure(code: int) -> bytes:
    status = {100: "404 Not Found", 101: "412 Precondition Failed", 105: "412 Precondition Failed"}[code]
    return ok(f'{{"errorCode":{code},"message":"no"}}', "X-Etcd-Index: 17", status=status)


@asynccontextmanager
async def opened(*servers: FakeHttp) -> AsyncIterator[Etcd2Store]:
    store = Etcd2Store([server.url for server in servers], "/n", quiet_s=0.01)
    try:
        yield store
    finally:
        await store.close()


async def listed(answer: bytes) -> Snapshot:
    async with FakeHttp(answer) as server, opened(server) as store:
        return await store.leases()


# Lists


def test_missing_directory_is_an_empty_network_at_the_index_of_the_store() -> None:
    assert run(listed(failure(100))) == Snapshot(17)


@pytest.mark.parametrize(
    "node",
    [
        '{"key":"/n","value":"?"}',
        '{"key":"/n","dir":true}',
        '{"key":"/n","dir":true,"nodes":[{"key":"/n/subnets","value":"?"},{"key":"/n/config","dir":true}]}',
    ],
)
def test_plain_key_in_place_of_a_directory_is_an_empty_network(node: str) -> None:
    assert run(listed(ok(f'{{"action":"get","node":{node}}}', "X-Etcd-Index: 17"))) == Snapshot(17)


def test_record_about_to_expire_is_no_reservation() -> None:
    """etcd leaves a ttl of 0 out, and takes the record away up to half a second later."""
    node = f'{{"key":"{KEY}","value":"{{}}","expiration":"2017-02-01T00:00:00Z","modifiedIndex":9,"createdIndex":5}}'
    answer = f'{{"node":{{"key":"/n","dir":true,"nodes":[{{"key":"/n/subnets","dir":true,"nodes":[{node}]}}]}}}}'
    (lease,) = run(listed(ok(answer, "X-Etcd-Index: 17"))).leases
    assert (lease.reservation, lease.ttl) == (False, 0)


# Watches


def wait(index: int, *, event: int | None = None) -> bytes:
    """The answer to a wait that began at ``index``: an event, or the silence before one."""
    node = {"key": "/n/config", "value": "x", "modifiedIndex": event, "createdIndex": 1}
    answer = ok(json.dumps({"action": "set", "node": node}), f"X-Etcd-Index: {index}")
    return answer if event is not None else answer[: answer.index(b"\r\n\r\n") + 4]


async def watched(count: int, *answers: bytes) -> tuple[list[Changes], list[str]]:
    """What a watch from revision 5 says first, and what it asks for."""
    async with FakeHttp(*answers) as server, opened(server) as store:
        watch = store.watch(5)
        assert isinstance(watch, AsyncGenerator)
        async with aclosing(watch):
            told = [await anext(watch) for _ in range(count)]
        return told, [request.split(" ")[1] for request in server.requests]


def asked(since: int) -> str:
    return f"/v2/keys/n/?wait=true&recursive=true&waitIndex={since}"


def test_watch_without_news_says_so_and_now_and_then_begins_anew_at_the_index_of_the_store() -> None:
    told, requests = run(watched(4, CONFIG, wait(40), WELL, WELL, WELL, wait(50), WELL))
    assert told == [Changes(40), Changes(40), Changes(40), Changes(50)]
    assert [request for request in requests if "wait" in request] == [asked(6), asked(41)]


def test_member_that_lags_behind_the_others_is_waited_for() -> None:
    told, requests = run(watched(1, CONFIG, wait(4, event=6), CONFIG))
    assert told == [Changes(6, config="x")]
    assert requests == ["/v2/keys/n/config?quorum=true", asked(6), "/v2/keys/n/config?quorum=true"]


def test_store_that_went_back_has_lost_its_history() -> None:
    young = CONFIG.replace(b"Index: 7", b"Index: 3")
    with pytest.raises(HistoryLost, match="is at index 3, we have seen 5"):
        run(watched(1, CONFIG, wait(3), young))


def test_store_that_goes_back_while_it_is_watched_has_lost_its_history() -> None:
    with pytest.raises(HistoryLost, match="is at index 7, we have seen 40"):
        run(watched(4, CONFIG, wait(40), WELL, WELL, WELL, wait(7), CONFIG))


def test_event_that_is_told_again_is_no_news() -> None:
    """A cache on the way would say the same for ever."""
    with pytest.raises(HistoryLost, match="tells of index 6 after 6"):
        run(watched(2, CONFIG, wait(6, event=6), wait(6, event=6)))


# Writes whose answer gets lost: the first member hangs up, the second one tells what became of it


Deed = Callable[[Etcd2Store], Awaitable[Lease]]


async def done(deed: Deed, first: tuple[bytes, ...], second: tuple[bytes, ...]) -> Lease:
    async with FakeHttp(*first) as one, FakeHttp(*second) as two, opened(one, two) as store:
        return await deed(store)


def create(ttl: int | None) -> Deed:
    return lambda store: store.create(SUBNET, ATTRS, ttl)


def update(store: Etcd2Store) -> Awaitable[Lease]:
    return store.update(LEASE, OTHER, DAY)


def test_created_record_is_ours_if_it_is_what_the_lost_attempt_wrote() -> None:
    made = run(done(create(DAY), (b"",), (failure(105), record(created=9, ttl=DAY - 3))))
    assert (made, made.created, made.modified, made.ttl) == (Lease(SUBNET, ATTRS), 9, 9, DAY - 3)
    assert run(done(create(None), (b"",), (failure(105), record(created=9)))).reservation


@pytest.mark.parametrize(
    "there",
    [
        record(OTHER, created=9, ttl=DAY),
        record(created=8, ttl=DAY),
        record(created=9, ttl=DAY - 100),
        record(created=9),
        failure(100),
    ],
    ids=["says something else", "was there before", "is older", "stays", "is gone"],
)
def test_record_that_the_lost_attempt_cannot_have_written_is_a_conflict(there: bytes) -> None:
    with pytest.raises(Conflict):
        run(done(create(DAY), (b"",), (failure(105), there)))


def test_record_like_ours_is_another_host_s_if_no_answer_was_lost() -> None:
    """Two hosts with one public address say the same; only one of them may have the subnet."""

    async def story() -> None:
        async with FakeHttp(failure(105), record(created=9, ttl=DAY)) as server:
            nobody = FakeHttp()
            nobody.port = 1
            async with opened(nobody, server) as store:
                with pytest.raises(Conflict):
                    await store.create(SUBNET, ATTRS, DAY)
            assert len(server.requests) == 1

    run(story())


def test_updated_record_is_ours_if_it_is_what_the_lost_attempt_wrote() -> None:
    before, after = record(ttl=60), record(OTHER, modified=12, ttl=DAY)
    written = run(done(update, (before, b""), (failure(101), after)))
    assert (written, written.modified) == (Lease(SUBNET, OTHER), 12)
    with pytest.raises(Conflict):
        run(done(update, (before, b""), (failure(101), record(OTHER, created=12, modified=12, ttl=DAY))))


@pytest.mark.parametrize(
    ("there", "same"),
    [
        (record(modified=12, ttl=60), True),
        (record(OTHER, modified=12, ttl=60), True),
        (record(OTHER, ttl=60), True),
        (record(created=12, modified=12, ttl=60), False),
        (record(Attrs(IPv4Address("192.0.2.1")), modified=12, ttl=60), False),
        (record(Attrs(IPv4Address("192.0.2.1")), ttl=60), False),
        (failure(100), False),
    ],
    ids=["renewed", "updated", "repeated", "taken anew", "changed", "restored", "gone"],
)
def test_record_is_written_again_if_it_is_what_we_read_or_once_made_of_that(there: bytes, same: bool) -> None:
    async def story() -> None:
        async with FakeHttp(there, record(OTHER, modified=20, ttl=DAY)) as server, opened(server) as store:
            if not same:
                with pytest.raises(Conflict):
                    await store.update(LEASE, OTHER, DAY)
                return
            assert (await store.update(LEASE, OTHER, DAY)).modified == 20
            modified = json.loads(there.partition(b"\r\n\r\n")[2])["node"]["modifiedIndex"]
            assert server.requests[1].startswith(f"PUT /v2/keys{KEY}?prevIndex={modified} ")

    run(story())


def test_name_holds_every_address_and_no_secret() -> None:
    store = Etcd2Store(["http://user:hidden@a:1", "b:2"], "/n")
    assert store.name == "etcd v2 at http://a:1,http://b:2"
