from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from h2.connection import H2Connection

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
from pyflannel.store.grpc import Link, Refused, Timing
from tests.support.fake_http import FakeHttp, ok
from tests.support.fake_member import FakeMember, Talk, answers
from tests.support.loops import run
from tests.support.pki import CLIENT, EXPIRED, issue, make_pki
from tests.support.relay import Relay


@asynccontextmanager
async def linked(url: str, tls: Tls = NO_TLS, timing: Timing | None = None) -> AsyncIterator[Link]:
    link = Link(parse_endpoint(url), tls, timing or Timing())
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


@pytest.mark.parametrize(
    "status", [Status.UNAVAILABLE, Status.UNKNOWN, Status.INTERNAL, Status.DEADLINE_EXCEEDED, Status.CANCELLED]
)
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


# A server that hangs, a line that is cut


async def hang(stream: Talk) -> None:
    await stream.recv_message()
    await asyncio.Event().wait()


def test_call_to_a_server_that_hangs_is_given_up() -> None:
    async def story() -> None:
        async with FakeMember({RANGE: hang}) as member, linked(member.url, timing=Timing(call_s=0.05)) as link:
            with pytest.raises(Unavailable, match="no answer within"):
                await link.call(RANGE, RangeRequest(), {})

    run(story())


def test_server_that_hangs_before_tls_is_given_up(tmp_path: Path) -> None:
    async def story() -> None:
        async with FakeMember({}) as member, Relay(member.url) as relay:
            relay.hold()
            url = relay.url.replace("http", "https")
            async with linked(url, timing=Timing(connect_s=0.05)) as link:
                with pytest.raises(Unavailable, match="no answer within"):
                    await link.call(RANGE, RangeRequest(), {})

    run(story())


def test_answer_that_comes_in_slowly_is_waited_for() -> None:
    async def in_pieces(stream: Talk) -> None:
        await stream.recv_message()
        await asyncio.sleep(0.6)
        await stream.send_initial_metadata()
        await asyncio.sleep(0.6)
        await stream.send_message(RangeResponse())

    async def story() -> None:
        async with FakeMember({RANGE: in_pieces}) as member, linked(member.url, timing=Timing(call_s=1.0)) as link:
            assert await link.call(RANGE, RangeRequest(), {}) == RangeResponse()

    run(story())


def test_server_that_pings_but_never_answers_is_given_up_in_the_end() -> None:
    async def story() -> None:
        timing = Timing(call_s=5, longest_call_s=0.1)
        async with FakeMember({RANGE: hang}, pings_every_s=0.01) as member, linked(member.url, timing=timing) as link:
            with pytest.raises(Unavailable, match="no answer within"):
                await link.call(RANGE, RangeRequest(), {})

    run(story())


_PING_BYTES = 17


async def greet(stream: Talk) -> None:
    await stream.recv_message()
    await stream.send_message(WatchResponse(created=True))
    await asyncio.Event().wait()


def test_cut_line_is_noticed_by_a_conversation_that_has_long_been_silent() -> None:
    async def story() -> None:
        timing = Timing(ping_every_s=0.05, ping_answer_s=0.2)
        member = FakeMember({WATCH: greet})
        async with member, Relay(member.url) as relay, linked(relay.url, timing=timing) as link:
            with pytest.raises(Unavailable, match="no answer to a ping"):
                await listen(link, relay)

    async def listen(link: Link, relay: Relay) -> None:
        async with link.converse(WATCH, {}) as talk:
            await talk.send(WatchRequest())
            assert await talk.receive(5) == WatchResponse(created=True)
            for _ in range(4):  # more pings in a row than grpclib sends by default
                await relay.heard_more(_PING_BYTES)
            relay.hold()
            assert await talk.receive(20) is None

    run(story())


def test_pings_are_no_more_frequent_than_etcd_puts_up_with() -> None:
    # --grpc-keepalive-min-time; who pings more often is hung up on.
    assert Timing().ping_every_s > 5


def test_long_use_does_not_pile_up_closed_streams() -> None:
    async def story() -> None:
        async with FakeMember({RANGE: answers(RangeResponse())}) as member, linked(member.url) as link:
            connections: set[H2Connection] = set()
            for _ in range(300):
                await link.call(RANGE, RangeRequest(), {})
                assert link._channel is not None
                assert link._channel._protocol is not None
                connections.add(link._channel._protocol.connection._connection)
            (connection,) = connections
            assert len(connection._closed_streams) <= 256

    run(story())


# TLS


def server_context(pki: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=pki / "ca.pem")
    context.load_cert_chain(pki / "server.pem", pki / "server.key")
    context.set_alpn_protocols(["h2"])
    return context


def files(pki: Path) -> Tls:
    return Tls(str(pki / "ca.pem"), str(pki / "client.pem"), str(pki / "client.key"))


@pytest.mark.needs("openssl")
def test_grpc_is_agreed_upon_within_tls(tmp_path: Path) -> None:
    pki = make_pki(tmp_path)

    async def story() -> None:
        member = FakeMember({RANGE: answers(RangeResponse())}, tls=server_context(pki))
        async with member, linked(member.url, files(pki)) as link:
            assert await link.call(RANGE, RangeRequest(), {}) == RangeResponse()
            assert link._channel is not None
            assert link._channel._protocol is not None
            tunnel = link._channel._protocol.connection._transport.get_extra_info("ssl_object")
            assert tunnel.selected_alpn_protocol() == "h2"

    run(story())


@pytest.mark.needs("openssl")
def test_cut_line_is_noticed_without_waiting_for_a_polite_end_of_tls(tmp_path: Path) -> None:
    pki = make_pki(tmp_path)
    asked = asyncio.Event()

    async def say_so_and_hang(stream: Talk) -> None:
        asked.set()
        await hang(stream)

    async def story() -> None:
        timing = Timing(call_s=30, ping_every_s=0.05, ping_answer_s=0.2)
        member = FakeMember({RANGE: say_so_and_hang}, tls=server_context(pki))
        async with member, Relay(member.url) as relay, linked(relay.url, files(pki), timing) as link:
            async with asyncio.TaskGroup() as group:
                calling = group.create_task(failure(link))
                await asked.wait()
                relay.hold()
            assert calling.result() == "connection lost (no answer to a ping)"

    async def failure(link: Link) -> str:
        with pytest.raises(Unavailable) as caught:
            await link.call(RANGE, RangeRequest(), {})
        return str(caught.value)

    run(story(), limit=20)


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_expired_certificate_of_ours_is_named(tmp_path: Path, version: ssl.TLSVersion) -> None:
    pki = make_pki(tmp_path)
    issue(pki, "client", CLIENT, EXPIRED)
    context = server_context(pki)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = version

    async def story() -> None:
        member = FakeMember({RANGE: answers(RangeResponse())}, tls=context)
        async with member, linked(member.url, files(pki)) as link:
            with pytest.raises(Unavailable, match=f"our own certificate {pki / 'client.pem'} is no good: .* expired"):
                await link.call(RANGE, RangeRequest(), {})
            issue(pki, "client", CLIENT)
            assert await link.call(RANGE, RangeRequest(), {}) == RangeResponse()

    run(story())


@pytest.mark.needs("openssl")
def test_connection_lost_while_idle_is_made_anew_with_the_certificates_of_today(tmp_path: Path) -> None:
    pki = make_pki(tmp_path)

    async def story() -> None:
        member = FakeMember({RANGE: answers(RangeResponse()), WATCH: greet}, tls=server_context(pki))
        async with member, Relay(member.url) as relay, linked(relay.url, files(pki)) as link:
            await link.call(RANGE, RangeRequest(), {})
            (pki / "client.pem").unlink()
            assert await link.call(RANGE, RangeRequest(), {}) == RangeResponse()
            with pytest.raises(Unavailable, match="connection lost"):
                await listen_until_cut(link, relay)
            with pytest.raises(Unavailable, match=f"cannot read {pki / 'client.pem'}: no such file"):
                await link.call(RANGE, RangeRequest(), {})

    async def listen_until_cut(link: Link, relay: Relay) -> None:
        async with link.converse(WATCH, {}) as talk:
            await talk.send(WatchRequest())
            assert await talk.receive(5) == WatchResponse(created=True)
            await relay.cut()
            await talk.receive(5)

    run(story())
