"""What a real etcd cannot be made to do; everything else is in tests/contract."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from pyflannel.lease.model import Changes, Snapshot
from pyflannel.store.etcd2 import Etcd2Store
from tests.support.fake_http import FakeHttp, ok
from tests.support.loops import run

CONFIG = '{"action":"get","node":{"key":"/n/config","value":"{}"}}'


async def listed(answer: bytes) -> Snapshot:
    async with FakeHttp(answer) as server:
        store = Etcd2Store([server.url], "/n")
        snapshot = await store.leases()
        await store.close()
        return snapshot


def test_missing_directory_is_an_empty_network_at_the_index_of_the_store() -> None:
    missing = '{"errorCode":100,"message":"Key not found","cause":"/n/subnets","index":17}'
    assert run(listed(ok(missing, "X-Etcd-Index: 17", status="404 Not Found"))) == Snapshot(17)


def test_plain_key_in_place_of_the_directory_is_an_empty_network() -> None:
    plain = '{"action":"get","node":{"key":"/n/subnets","value":"?","modifiedIndex":3,"createdIndex":3}}'
    assert run(listed(ok(plain, "X-Etcd-Index: 17"))) == Snapshot(17)


def test_watch_without_news_goes_on_from_the_index_of_the_store() -> None:
    waiting = ok("hello", "X-Etcd-Index: 40").replace(b"hello", b"")

    async def story() -> None:
        async with FakeHttp(ok(CONFIG, "X-Etcd-Index: 7"), waiting, waiting) as server:
            store = Etcd2Store([server.url], "/n", quiet_s=0.01)
            watch = store.watch(5)
            assert isinstance(watch, AsyncGenerator)
            async with aclosing(watch):
                assert [await anext(watch) for _ in range(2)] == [Changes(40), Changes(40)]
            await store.close()
            asked = [request.split(" ")[1] for request in server.requests]
            assert asked[1:] == [f"/v2/keys/n/subnets?wait=true&recursive=true&waitIndex={index}" for index in (6, 41)]

    run(story())


def test_name_holds_every_address_and_no_secret() -> None:
    store = Etcd2Store(["http://user:hidden@a:1", "b:2"], "/n")
    assert store.name == "etcd v2 at http://a:1,http://b:2"
