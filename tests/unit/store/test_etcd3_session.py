from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyflannel.store.api import HistoryLost, Unavailable
from pyflannel.store.endpoints import NO_TLS, Credentials
from pyflannel.store.etcd3_session import LeaseGone, Session
from pyflannel.store.etcd3_wire import (
    AUTHENTICATE,
    LEASE_REVOKE,
    RANGE,
    WATCH,
    AuthenticateResponse,
    LeaseRevokeRequest,
    RangeRequest,
    RangeResponse,
    ResponseHeader,
    WatchRequest,
    WatchResponse,
)
from tests.support.fake_member import Answering, AnyMethod, FakeMember, Talk, answers
from tests.support.loops import run

PROBE = RangeRequest(b"/config", keys_only=True)
ROOT = Credentials("root", "hidden")


@asynccontextmanager
async def opened(*members: FakeMember, credentials: Credentials | None = None) -> AsyncIterator[Session]:
    session = Session([member.url for member in members], credentials, NO_TLS)
    try:
        yield session
    finally:
        await session.close()


def refuse(status: Status, message: str) -> Answering:
    async def refusing(_: Talk) -> None:
        raise GRPCError(status, message)

    return refusing


def wants_token(token: str) -> Answering:
    """Answer who shows the token, tell others that theirs is invalid."""

    async def guarded(stream: Talk) -> None:
        await stream.recv_message()
        if stream.metadata is None or stream.metadata.get("token") != token:
            raise GRPCError(Status.UNAUTHENTICATED, "etcdserver: invalid auth token")
        await stream.send_message(RangeResponse(ResponseHeader(9)))

    return guarded


def test_every_call_demands_a_leader() -> None:
    seen: list[object] = []

    async def look(stream: Talk) -> None:
        await stream.recv_message()
        seen.append(dict(stream.metadata or {}))
        await stream.send_message(RangeResponse())

    async def story() -> None:
        async with FakeMember({RANGE: look}) as member, opened(member) as session:
            await session.call(RANGE, PROBE)
        assert seen == [{"hasleader": "true"}]

    run(story())


def test_member_without_leader_is_passed_over() -> None:
    async def story() -> None:
        lost = FakeMember({RANGE: refuse(Status.UNAVAILABLE, "etcdserver: no leader")})
        good = FakeMember({RANGE: answers(RangeResponse(ResponseHeader(5)))})
        async with lost, good, opened(lost, good) as session:
            endpoint, answer = await session.call_at(RANGE, PROBE)
            assert (str(endpoint), answer) == (good.url, RangeResponse(ResponseHeader(5)))

    run(story())


def test_refusal_names_the_member_and_is_not_carried_to_the_next() -> None:
    async def story() -> None:
        strict = FakeMember({RANGE: refuse(Status.PERMISSION_DENIED, "etcdserver: permission denied")})
        other = FakeMember({RANGE: answers(RangeResponse())})
        async with strict, other, opened(strict, other) as session:
            with pytest.raises(Unavailable) as caught:
                await session.call(RANGE, PROBE)
            assert str(caught.value) == f"etcd v3 at {strict.url}: etcdserver: permission denied"

    run(story())


def test_missing_etcd_lease_is_told_apart() -> None:
    async def story() -> None:
        gone = refuse(Status.NOT_FOUND, "etcdserver: requested lease not found")
        async with FakeMember({LEASE_REVOKE: gone}) as member, opened(member) as session:
            with pytest.raises(LeaseGone):
                await session.call(LEASE_REVOKE, LeaseRevokeRequest(1))

    run(story())


def test_stale_token_is_renewed_once() -> None:
    async def story() -> None:
        tokens = answers(AuthenticateResponse("stale"), AuthenticateResponse("fresh"))
        member = FakeMember({AUTHENTICATE: tokens, RANGE: wants_token("fresh")})
        async with member, opened(member, credentials=ROOT) as session:
            assert (await session.call(RANGE, PROBE)).header == ResponseHeader(9)

    run(story())


def test_token_that_never_pleases_is_unavailable_in_the_end() -> None:
    async def story() -> None:
        member = FakeMember({AUTHENTICATE: answers(AuthenticateResponse("stale")), RANGE: wants_token("fresh")})
        async with member, opened(member, credentials=ROOT) as session:
            with pytest.raises(Unavailable, match="invalid auth token") as caught:
                await session.call(RANGE, PROBE)
            assert "stale" not in str(caught.value)
            assert "hidden" not in str(caught.value)

    run(story())


def test_wrong_password_is_unavailable() -> None:
    async def story() -> None:
        no = refuse(Status.INVALID_ARGUMENT, "etcdserver: authentication failed, invalid user ID or password")
        async with FakeMember({AUTHENTICATE: no}) as member, opened(member, credentials=ROOT) as session:
            with pytest.raises(Unavailable, match="authentication failed"):
                await session.call(RANGE, PROBE)

    run(story())


# Watches


def watch_telling(*told: WatchResponse, progress: bool = True) -> dict[AnyMethod, Answering]:
    """A watch that says ``told`` at once, and then only answers progress requests, if it does."""

    async def telling(stream: Talk) -> None:
        await stream.recv_message()
        for each in told:
            await stream.send_message(each)
        async for _ in stream:
            if progress:
                await stream.send_message(WatchResponse(ResponseHeader(99), watch_id=-1))

    return {WATCH: telling, RANGE: answers(RangeResponse(ResponseHeader(9)))}


async def heard(member: FakeMember, count: int) -> list[WatchResponse | None]:
    async with opened(member) as session, session.watching(PROBE, quiet_s=0.02) as watching:
        assert watching.revision == 9
        await watching.begin(WatchRequest())
        return [await watching.next() for _ in range(count)]


def test_quiet_watch_is_asked_whether_it_is_alive() -> None:
    async def story() -> None:
        async with FakeMember(watch_telling(WatchResponse(created=True))) as member:
            created, alive, again = await heard(member, 3)
            assert created == WatchResponse(created=True)
            assert alive == again == WatchResponse(ResponseHeader(99), watch_id=-1)

    run(story())


def test_etcd_that_does_not_know_progress_requests_is_alive_while_it_answers_calls() -> None:
    async def story() -> None:
        async with FakeMember(watch_telling(progress=False)) as member:
            assert await heard(member, 2) == [None, None]

    run(story())


def test_compacted_watch_has_lost_its_history() -> None:
    async def story() -> None:
        async with FakeMember(watch_telling(WatchResponse(canceled=True, compact_revision=50))) as member:
            with pytest.raises(HistoryLost, match="50"):
                await heard(member, 1)

    run(story())


def test_canceled_watch_is_unavailable_with_the_reason_of_the_server() -> None:
    async def story() -> None:
        no = WatchResponse(watch_id=-1, canceled=True, cancel_reason="rpc error: code = PermissionDenied")
        async with FakeMember(watch_telling(no)) as member:
            with pytest.raises(Unavailable) as caught:
                await heard(member, 1)
            assert str(caught.value) == f"etcd v3 at {member.url}: watch ended: {no.cancel_reason}"

    run(story())


def test_watch_that_ended_is_begun_at_another_member() -> None:
    async def story() -> None:
        bad = FakeMember(watch_telling(WatchResponse(canceled=True)))
        good = FakeMember(watch_telling(WatchResponse(created=True)))
        async with bad, good, opened(bad, good) as session:
            with pytest.raises(Unavailable):
                await first(session)
            assert await first(session) == WatchResponse(created=True)

    async def first(session: Session) -> WatchResponse | None:
        async with session.watching(PROBE, quiet_s=5) as watching:
            await watching.begin(WatchRequest())
            return await watching.next()

    run(story())
