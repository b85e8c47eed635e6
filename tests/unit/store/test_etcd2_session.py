from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pyflannel.store.api import Unavailable
from pyflannel.store.endpoints import NO_TLS, Credentials, NotOffered
from pyflannel.store.etcd2_session import Session
from pyflannel.store.etcd2_wire import Action, Failure, Node
from tests.support.fake_http import FakeHttp, ok
from tests.support.loops import run

NODE = '{"action":"get","node":{"key":"/a"}}'
QUORUM = {"quorum": "true"}


@asynccontextmanager
async def opened(*servers: FakeHttp, credentials: Credentials | None = None) -> AsyncIterator[Session]:
    session = Session([server.url for server in servers], credentials, NO_TLS)
    try:
        yield session
    finally:
        await session.close()


def failure(code: int) -> str:
    return f'{{"errorCode":{code},"message":"told","cause":"/a","index":3}}'


def test_question_and_answer() -> None:
    async def story() -> None:
        async with FakeHttp(ok(NODE, "X-Etcd-Index: 7")) as server, opened(server) as session:
            reply = await session.ask("GET", "/n/10.1.0.0-24&fd00::-64/", QUORUM)
            assert (str(reply.endpoint), reply.index, reply.content) == (server.url, 7, Action(Node("/a"), False))
            assert server.requests[0].startswith("GET /v2/keys/n/10.1.0.0-24%26fd00%3A%3A-64?quorum=true HTTP/1.1\r\n")

    run(story())


def test_form_is_sent_encoded() -> None:
    async def story() -> None:
        async with FakeHttp(ok(NODE)) as server, opened(server) as session:
            await session.ask("PUT", "/a", {"prevIndex": "3"}, {"value": '{"a":"&"}', "ttl": "60"})
            assert "application/x-www-form-urlencoded" in server.requests[0]
            assert server.requests[0].endswith("\r\n\r\nvalue=%7B%22a%22%3A%22%26%22%7D&ttl=60")

    run(story())


def test_password_is_sent_but_never_told() -> None:
    async def story() -> None:
        server = FakeHttp(ok('{"message":"Insufficient credentials"}', status="401 Unauthorized"))
        async with server, opened(server, credentials=Credentials("root", "hidden")) as session:
            with pytest.raises(Unavailable) as caught:
                await session.ask("GET", "/a", QUORUM)
            assert str(caught.value) == f"etcd v2 at {server.url}: Insufficient credentials"
            assert "authorization: Basic cm9vdDpoaWRkZW4=" in server.requests[0]

    run(story())


@pytest.mark.parametrize("code", [100, 101, 105])
def test_failure_that_is_an_answer_is_returned(code: int) -> None:
    async def story() -> None:
        async with FakeHttp(ok(failure(code), status="412 Precondition Failed")) as server, opened(server) as session:
            assert (await session.ask("GET", "/a", QUORUM)).content == Failure(code, "told: /a")

    run(story())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (ok(failure(300), status="500 Internal Server Error"), "told: /a"),
        (ok("upstream down\nmore", status="502 Bad Gateway"), "HTTP status 502 .*: upstream down$"),
        (ok(""), "HTTP status 200 .*: nothing"),
        (b"SSH-2.0\r\n\r\n", "not an HTTP answer"),
    ],
)
def test_member_in_trouble_is_passed_over(answer: bytes, words: str) -> None:
    async def story() -> None:
        async with FakeHttp(answer, answer) as bad, FakeHttp(ok(NODE)) as good:
            async with opened(bad, good) as session:
                assert str((await session.ask("GET", "/a", QUORUM)).endpoint) == good.url
            async with opened(bad) as session:
                with pytest.raises(Unavailable, match=words):
                    await session.ask("GET", "/a", QUORUM)

    run(story())


def test_server_without_the_api_is_not_offered() -> None:
    async def story() -> None:
        async with FakeHttp(ok("404 page not found\n", status="404 Not Found")) as server, opened(server) as session:
            with pytest.raises(NotOffered, match=r"has no etcd v2 API \(404 page not found\)"):
                await session.ask("GET", "/a", QUORUM)

    run(story())


def test_wait_without_news_tells_how_far_nothing_happened() -> None:
    async def story() -> None:
        head = ok("hello", "X-Etcd-Index: 40").replace(b"hello", b"")
        server = FakeHttp(ok(NODE, "X-Etcd-Index: 7"), head)
        async with server, opened(server) as session, session.watching("/config", QUORUM) as watching:
            assert watching.index == 7
            assert await watching.wait("/a", {"wait": "true"}, 0.01) == (40, None)

    run(story())


def test_lost_memory_is_returned_and_any_other_failure_ends_the_watch() -> None:
    async def story() -> None:
        server = FakeHttp(ok(NODE), ok(failure(401), "X-Etcd-Index: 9", status="400 Bad Request"), ok(failure(300)))
        async with server, opened(server) as session:
            with pytest.raises(Unavailable, match="watch ended: told"):
                await listen(session)

    async def listen(session: Session) -> None:
        async with session.watching("/config", QUORUM) as watching:
            assert await watching.wait("/a", {}, 5) == (9, Failure(401, "told: /a"))
            await watching.wait("/a", {}, 5)

    run(story())
