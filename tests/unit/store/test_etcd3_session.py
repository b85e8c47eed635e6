from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pyflannel.store.api import HistoryLost, Unavailable
from pyflannel.store.endpoints import CALL_S, NO_TLS, Credentials
from pyflannel.store.etcd3_session import LeaseGone, Session
from pyflannel.store.etcd3_wire import (
    AUTHENTICATE,
    LEASE_REVOKE,
    RANGE,
    WATCH,
    AuthenticateResponse,
    Event,
    KeyValue,
    LeaseRevokeRequest,
    RangeRequest,
    RangeResponse,
    ResponseHeader,
    WatchCreateRequest,
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


def shown_token(stream: Talk) -> object:
    return stream.metadata.get("token") if stream.metadata is not None else None


def wants_token(token: str) -> Answering:
    """Answer who shows the token, tell others that theirs is invalid."""

    async def guarded(stream: Talk) -> None:
        await stream.recv_message()
        if shown_token(stream) != token:
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


def test_authentication_switched_on_later_is_noticed() -> None:
    async def story() -> None:
        off = [True]

        async def authenticate(stream: Talk) -> None:
            await stream.recv_message()
            if off:
                raise GRPCError(Status.FAILED_PRECONDITION, "etcdserver: authentication is not enabled")
            await stream.send_message(AuthenticateResponse("fresh"))

        async def guarded(stream: Talk) -> None:
            await stream.recv_message()
            if not off and not shown_token(stream):
                raise GRPCError(Status.INVALID_ARGUMENT, "etcdserver: user name is empty")
            await stream.send_message(RangeResponse(ResponseHeader(9)))

        member = FakeMember({AUTHENTICATE: authenticate, RANGE: guarded})
        async with member, opened(member, credentials=ROOT) as session:
            await session.call(RANGE, PROBE)
            off.clear()
            assert (await session.call(RANGE, PROBE)).header == ResponseHeader(9)

    run(story())


# Watches

REVISION = 9
"""Of the store, in these tests."""
ALL = WatchCreateRequest(b"/config", b"/subnets0", start_revision=6)
PUT_6, PUT_7, PUT_8 = (Event(kv=KeyValue(b"/config", 2, revision)) for revision in (6, 7, 8))


def watch_telling(*told: WatchResponse, progress: bool = True) -> dict[AnyMethod, Answering]:
    """A watch that says ``told`` at once, and then only answers progress requests, if it does."""

    async def telling(stream: Talk) -> None:
        await stream.recv_message()
        for each in told:
            await stream.send_message(each)
        async for _ in stream:
            if progress:
                await stream.send_message(WatchResponse(ResponseHeader(99), watch_id=-1))

    return {WATCH: telling, RANGE: answers(RangeResponse(ResponseHeader(REVISION)))}


async def heard(member: FakeMember, count: int) -> list[tuple[tuple[Event, ...], int]]:
    """What a watch from after revision 5 says, and how far it has come each time."""
    async with opened(member) as session, session.watching(ALL, quiet_s=0.02) as watching:
        assert watching.reached == 5
        return [(await watching.next(), watching.reached) for _ in range(count)]


async def told(*answers: WatchResponse) -> list[tuple[tuple[Event, ...], int]]:
    async with FakeMember(watch_telling(*answers)) as member:
        return await heard(member, len(answers))


def at(revision: int, *events: Event, watch_id: int = 0) -> WatchResponse:
    return WatchResponse(ResponseHeader(revision), events=events, watch_id=watch_id)


def test_creation_does_not_move_the_revision() -> None:
    assert run(told(WatchResponse(ResponseHeader(9), created=True))) == [((), 5)]


def test_events_count_and_not_the_header_above_them() -> None:
    # A watch that catches up gets a part of the events under the newest revision.
    assert run(told(at(5000, PUT_6, PUT_7))) == [((PUT_6, PUT_7), 7)]


def test_progress_of_the_watch_moves_the_revision() -> None:
    assert run(told(at(9))) == [((), 9)]


def test_answer_to_a_progress_request_does_not_move_the_revision() -> None:
    # It may overtake events that were before it (etcd issue 15220).
    assert run(told(at(9, watch_id=-1), at(9, PUT_6))) == [((), 5), ((PUT_6,), 6)]


def test_quiet_watch_is_asked_whether_it_is_alive() -> None:
    async def story() -> None:
        async with FakeMember(watch_telling(WatchResponse(ResponseHeader(9), created=True))) as member:
            assert await heard(member, 3) == [((), 5)] * 3

    run(story())


def test_etcd_that_does_not_know_progress_requests_is_alive_while_it_answers_calls() -> None:
    async def story() -> None:
        async with FakeMember(watch_telling(progress=False)) as member:
            assert await heard(member, 2) == [((), 5)] * 2

    run(story())


def test_compacted_watch_has_lost_its_history() -> None:
    compacted = WatchResponse(ResponseHeader(9), canceled=True, compact_revision=50)
    with pytest.raises(HistoryLost, match="50"):
        run(told(WatchResponse(ResponseHeader(9), created=True), compacted))


def test_watch_of_a_store_that_has_not_come_so_far_has_lost_its_history() -> None:
    async def story() -> None:
        member = FakeMember({RANGE: answers(RangeResponse(ResponseHeader(4)))})
        async with member:
            with pytest.raises(HistoryLost, match="at revision 4, we have seen 5"):
                await heard(member, 1)

    run(story())


@pytest.mark.parametrize("watch_id", [0, -1])
def test_store_that_goes_back_while_it_is_watched_has_lost_its_history(watch_id: int) -> None:
    async def story() -> None:
        begin, back = RangeResponse(ResponseHeader(9)), RangeResponse(ResponseHeader(4))
        watch = watch_telling(at(8, PUT_8), at(4, watch_id=watch_id))[WATCH]
        member = FakeMember({WATCH: watch, RANGE: answers(begin, back)})
        async with member:
            with pytest.raises(HistoryLost, match="at revision 4, we have seen 8"):
                await heard(member, 2)

    run(story())


def test_store_that_went_back_and_is_silent_has_lost_its_history() -> None:
    async def story() -> None:
        begin, back = RangeResponse(ResponseHeader(9)), RangeResponse(ResponseHeader(4))
        watch = watch_telling(at(8, PUT_8), progress=False)[WATCH]
        async with FakeMember({WATCH: watch, RANGE: answers(begin, back)}) as member:
            with pytest.raises(HistoryLost, match="at revision 4, we have seen 8"):
                await heard(member, 2)

    run(story())


def test_answer_that_was_overtaken_by_events_is_no_way_back() -> None:
    assert run(told(at(8, PUT_8), at(7, watch_id=-1))) == [((PUT_8,), 8), ((), 8)]


def test_event_from_before_what_was_told_has_lost_its_history() -> None:
    with pytest.raises(HistoryLost, match="told of revision 7 after 8"):
        run(told(at(8, PUT_8), at(9, PUT_7)))


def test_event_without_a_record_is_handed_on_and_moves_nothing() -> None:
    assert run(told(at(9, Event()))) == [((Event(),), 5)]


def test_canceled_watch_is_unavailable_with_the_reason_of_the_server() -> None:
    async def story() -> None:
        no = WatchResponse(watch_id=-1, canceled=True, cancel_reason="rpc error: code = PermissionDenied")
        async with FakeMember(watch_telling(no)) as member:
            with pytest.raises(Unavailable) as caught:
                await heard(member, 1)
            assert str(caught.value) == f"etcd v3 at {member.url}: watch ended: {no.cancel_reason}"

    run(story())


def test_watch_canceled_for_an_old_token_is_begun_with_a_new_one() -> None:
    async def story() -> None:
        seen: list[object] = []

        async def guarded(stream: Talk) -> None:
            await stream.recv_message()
            seen.append(shown_token(stream))
            no = WatchResponse(watch_id=-1, canceled=True, cancel_reason="etcdserver: invalid auth token")
            await stream.send_message(no if len(seen) == 1 else WatchResponse(ResponseHeader(9), created=True))

        tokens = answers(AuthenticateResponse("stale"), AuthenticateResponse("fresh"))
        member = FakeMember({AUTHENTICATE: tokens, WATCH: guarded, RANGE: answers(RangeResponse(ResponseHeader(9)))})
        async with member, opened(member, credentials=ROOT) as session:
            with pytest.raises(Unavailable, match="invalid auth token"):
                await first(session)
            assert await first(session) == ()
        assert seen == ["stale", "fresh"]

    run(story())


def test_watch_that_ended_is_begun_at_another_member() -> None:
    async def story() -> None:
        bad = FakeMember(watch_telling(WatchResponse(canceled=True)))
        good = FakeMember(watch_telling(WatchResponse(ResponseHeader(9), created=True)))
        async with bad, good, opened(bad, good) as session:
            with pytest.raises(Unavailable):
                await first(session)
            assert await first(session) == ()

    run(story())


def test_member_that_hangs_holds_up_no_watch() -> None:
    async def hang(stream: Talk) -> None:
        await stream.recv_message()
        await asyncio.Event().wait()

    async def story() -> None:
        hung = FakeMember({RANGE: hang})
        good = FakeMember(watch_telling(WatchResponse(ResponseHeader(9), created=True)))
        async with hung, good, opened(hung, good) as session:
            async with asyncio.timeout(CALL_S):
                assert await first(session) == ()

    run(story())


async def first(session: Session) -> tuple[Event, ...]:
    async with session.watching(ALL, quiet_s=5) as watching:
        return await watching.next()
