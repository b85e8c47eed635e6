from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pyflannel.store.api import Unavailable
from pyflannel.store.endpoints import NO_TLS
from pyflannel.store.etcd2_member import QUORUM
from pyflannel.store.etcd2_session import Session
from tests.support.fake_http import FakeHttp, ok
from tests.support.loops import run

NODE = ok('{"action":"get","node":{"key":"/a"}}', "X-Etcd-Index: 7")
TROUBLE = ok("upstream down", status="502 Bad Gateway")
NOBODY = "http://127.0.0.1:1"


@asynccontextmanager
async def opened(*urls: str) -> AsyncIterator[Session]:
    session = Session(urls, None, NO_TLS, call_s=0.2)
    try:
        yield session
    finally:
        await session.close()


@pytest.mark.parametrize("answers", [(TROUBLE,), (b"",), ()])
def test_member_in_trouble_is_passed_over(answers: tuple[bytes, ...]) -> None:
    async def story() -> None:
        async with FakeHttp(*answers) as bad, FakeHttp(NODE, NODE) as good, opened(bad.url, good.url) as session:
            for _ in range(2):
                assert str((await session.ask("GET", "/a", QUORUM)).endpoint) == good.url
            assert len(bad.requests) == 1

    run(story())


def test_read_that_a_member_forgets_is_made_at_the_next_one_long_before_it_is_given_up() -> None:
    async def story() -> None:
        async with FakeHttp() as forgetful, FakeHttp(NODE) as good:
            session = Session([forgetful.url, good.url], None, NO_TLS, call_s=3600)
            assert str((await session.ask("GET", "/a", QUORUM)).endpoint) == good.url
            assert len(forgetful.requests) == 1
            await session.close()

    run(story())


def test_reply_tells_whether_an_earlier_attempt_may_have_had_its_effect() -> None:
    async def story() -> None:
        async with FakeHttp(b"", NODE) as bad, FakeHttp(NODE) as good:
            async with opened(NOBODY, good.url) as session:
                assert not (await session.ask("GET", "/a", QUORUM)).repeated
            async with opened(bad.url, NOBODY, bad.url) as session:
                with pytest.raises(Unavailable, match=r"closed without an answer; at .*: connection refused$"):
                    await session.ask("GET", "/a", QUORUM)
        async with FakeHttp(b"") as bad, FakeHttp(NODE) as good, opened(bad.url, good.url) as session:
            assert (await session.ask("GET", "/a", QUORUM)).repeated

    run(story())


def test_connection_on_which_something_went_wrong_is_not_used_again() -> None:
    async def story() -> None:
        async with FakeHttp(NODE, TROUBLE, NODE) as server, opened(server.url) as session:
            await session.ask("GET", "/a", QUORUM)
            with pytest.raises(Unavailable, match="upstream down"):
                await session.ask("GET", "/a", QUORUM)
            assert server.connections == 1
            await session.ask("GET", "/a", QUORUM)
            assert server.connections == 2

    run(story())


def test_watch_is_held_at_a_member_that_can_read_and_the_next_one_elsewhere_if_it_fails() -> None:
    async def story() -> None:
        silence = NODE[: NODE.index(b"\r\n\r\n") + 4]
        no_leader = ok("{}", status="503 Service Unavailable")
        async with (
            FakeHttp(NODE, silence, no_leader) as first,
            FakeHttp(NODE) as second,
            opened(first.url, second.url) as session,
        ):
            expected = rf"^etcd v2 at {first.url}: watch ended: it has no leader$"
            with pytest.raises(Unavailable, match=expected):
                await listen(session)
            assert str((await session.ask("GET", "/a", QUORUM)).endpoint) == second.url
            assert len(first.requests) == 3

    async def listen(session: Session) -> None:
        async with session.watching("/a") as member, member.wait("/a", 8) as waiting:
            await waiting.news(0.01)

    run(story())


def test_name_holds_every_address() -> None:
    assert str(Session(["http://a:1", "b:2"], None, NO_TLS)) == "etcd v2 at http://a:1,http://b:2"
