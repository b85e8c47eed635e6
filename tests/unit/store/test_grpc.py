from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyflannel.store.api import Unavailable
from pyflannel.store.endpoints import NO_TLS, NotOffered, Tls, parse_endpoint
from pyflannel.store.etcd3_wire import (
    LEASE_KEEP_ALIVE,
    RANGE,
    WATCH,
    RangeRequest,
    RangeResponse,
    WatchRequest,
    WatchResponse,
)
from pyflannel.store.etcd3_wire import LeaseKeepAliveRequest as Ask
from pyflannel.store.etcd3_wire import LeaseKeepAliveResponse as Told
from pyflannel.store.grpc import Link, Refused
from tests.support.fake_http import FakeHttp, ok
from tests.support.fake_member import FakeMember, Talk, answers
from tests.support.loops import run


@asynccontextmanager
async def linked(url: str, tls: Tls = NO_TLS) -> AsyncIterator[Link]:
    link = Link(parse_endpoint(url), tls)
    try:
        yield link
    finally:
        await link.close()


async def call_at(url: str) -> RangeResponse:
    async with linked(url) as link:
        return await link.call(RANGE, RangeRequest(b"k"), {})


def refusing(status: Status, message: str) -> FakeMember:
    async def refuse(_: Talk) -> None:
        raise GRPCError(status, message)

    return FakeMember({RANGE: refuse})


def test_call_brings_back_the_answer() -> None:
    async def story() -> None:
        async with FakeMember({LEASE_KEEP_ALIVE: answers(Told(60))}) as member, linked(member.url) as link:
            assert await link.call(LEASE_KEEP_ALIVE, Ask(1), {}) == Told(60)

    run(story())


@pytest.mark.parametrize("status", [Status.UNAVAILABLE, Status.UNKNOWN, Status.INTERNAL, Status.DEADLINE_EXCEEDED])
def test_trouble_of_the_member_is_unavailable(status: Status) -> None:
    async def story() -> None:
        async with refusing(status, "etcdserver: no leader") as member:
            with pytest.raises(Unavailable, match="etcdserver: no leader"):
                await call_at(member.url)

    run(story())


def test_what_the_server_will_not_do_is_refused() -> None:
    async def story() -> None:
        async with refusing(Status.PERMISSION_DENIED, "etcdserver: permission denied") as member:
            with pytest.raises(Refused, match="etcdserver: permission denied") as caught:
                await call_at(member.url)
            assert caught.value.status == "PERMISSION_DENIED"

    run(story())


def test_method_the_server_does_not_know_is_not_offered() -> None:
    async def story() -> None:
        async with refusing(Status.UNIMPLEMENTED, "unknown service etcdserverpb.KV") as member:
            with pytest.raises(NotOffered, match="has no etcd v3 API"):
                await call_at(member.url)

    run(story())


def test_server_of_another_protocol_is_not_offered() -> None:
    async def story() -> None:
        async with FakeHttp(*[ok("404 page not found", status="404 Not Found")] * 10) as server:
            with pytest.raises(NotOffered, match="does not speak gRPC"):
                await call_at(server.url)

    run(story())


def test_answer_that_is_no_message_is_unavailable() -> None:
    async def junk(stream: Talk) -> None:
        await stream.recv_message()
        await stream.send_message(b"\xff")

    async def story() -> None:
        async with FakeMember({RANGE: junk}) as member:
            with pytest.raises(Unavailable, match="not a RangeResponse"):
                await call_at(member.url)

    run(story())


def test_refused_connection_is_unavailable_in_plain_words() -> None:
    with pytest.raises(Unavailable, match=r"^connection refused$"):
        run(call_at("http://127.0.0.1:1"))


def test_tls_to_a_plain_port_is_unavailable_in_plain_words() -> None:
    async def story() -> None:
        async with FakeMember({}) as member:
            with pytest.raises(Unavailable, match="TLS failed"):
                await call_at(member.url.replace("http", "https"))

    run(story())


def test_broken_connection_is_made_anew_for_the_next_call() -> None:
    async def story() -> None:
        async with FakeMember({LEASE_KEEP_ALIVE: answers(Told(60))}) as member:
            url = member.url
            async with linked(url) as link:
                await link.call(LEASE_KEEP_ALIVE, Ask(1), {})
                await link.close()
                assert await link.call(LEASE_KEEP_ALIVE, Ask(1), {}) == Told(60)

    run(story())


def test_silence_in_a_conversation_is_no_answer_and_loses_none() -> None:
    speak = asyncio.Event()

    async def late(stream: Talk) -> None:
        await stream.recv_message()
        await speak.wait()
        await stream.send_message(WatchResponse(watch_id=7))

    async def story() -> None:
        member = FakeMember({WATCH: late})
        async with member, linked(member.url) as link, link.converse(WATCH, {}) as talk:
            await talk.send(WatchRequest())
            assert await talk.receive(0.01) is None
            assert await talk.receive(0.01) is None
            speak.set()
            assert await talk.receive(5) == WatchResponse(watch_id=7)

    run(story())


def test_conversation_ended_by_the_server_tells_its_reason() -> None:
    async def end(stream: Talk) -> None:
        await stream.recv_message()
        await stream.send_message(WatchResponse(created=True))
        raise GRPCError(Status.UNAVAILABLE, "etcdserver: server stopped")

    async def story() -> None:
        async with FakeMember({WATCH: end}) as member, linked(member.url) as link:
            with pytest.raises(Unavailable, match="etcdserver: server stopped"):
                await listen(link)

    async def listen(link: Link) -> None:
        async with link.converse(WATCH, {}) as talk:
            await talk.send(WatchRequest())
            while True:
                await talk.receive(5)

    run(story())


def test_cancelled_call_is_cancelled_and_leaves_the_link_usable() -> None:
    asked = asyncio.Event()
    first = [True]

    async def slow_once(stream: Talk) -> None:
        await stream.recv_message()
        if first.pop() if first else False:
            asked.set()
            await asyncio.Event().wait()
        await stream.send_message(RangeResponse())

    async def story() -> None:
        async with FakeMember({RANGE: slow_once}) as member, linked(member.url) as link:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(link.call(RANGE, RangeRequest(), {}))
                await asked.wait()
                task.cancel()
            assert task.cancelled()
            assert await link.call(RANGE, RangeRequest(), {}) == RangeResponse()

    run(story())


def test_failed_call_leaves_no_mark_on_the_calling_task() -> None:
    async def story() -> None:
        async with refusing(Status.UNAVAILABLE, "gone") as member:
            with pytest.raises(Unavailable):
                await call_at(member.url)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    run(story())
