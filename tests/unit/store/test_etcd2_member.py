from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pyflannel.store.api import HistoryLost, Unavailable
from pyflannel.store.endpoints import NO_TLS, Credentials, NotOffered, Tls, parse_endpoint
from pyflannel.store.etcd2_member import QUORUM, Member
from pyflannel.store.etcd2_wire import Action, Failure, Node
from tests.support.fake_http import FakeHttp, ok
from tests.support.loops import run

INDEX = "X-Etcd-Index: 7"
NODE = '{"action":"get","node":{"key":"/a"}}'
EVENT = '{"action":"set","node":{"key":"/a/b","value":"x","modifiedIndex":8,"createdIndex":8}}'
WELL = ok('{"id":"1"}')
NO_LEADER = ok('{"message":"During election"}', status="503 Service Unavailable")


@asynccontextmanager
async def member_at(url: str, credentials: Credentials | None = None, tls: Tls = NO_TLS) -> AsyncIterator[Member]:
    member = Member(parse_endpoint(url), credentials, tls, call_s=0.5)
    try:
        yield member
    finally:
        await member.close()


def failure(code: int) -> str:
    return f'{{"errorCode":{code},"message":"told","cause":"/a","index":3}}'


# Questions


def test_question_and_answer() -> None:
    async def story() -> None:
        key = "/n/10.1.0.0-24&fd00::-64"
        node = f'{{"action":"get","node":{{"key":"{key}"}}}}'
        async with FakeHttp(ok(node, INDEX)) as server, member_at(server.url) as member:
            reply = await member.ask("GET", key, QUORUM)
            assert (str(reply.endpoint), reply.index, reply.content) == (server.url, 7, Action(Node(key), False))
            assert server.requests[0].startswith("GET /v2/keys/n/10.1.0.0-24%26fd00%3A%3A-64?quorum=true HTTP/1.1\r\n")

    run(story())


def test_last_slash_of_a_directory_is_kept_in_the_question() -> None:
    async def story() -> None:
        async with FakeHttp(ok(NODE, INDEX)) as server, member_at(server.url) as member:
            assert (await member.ask("GET", "/a/", QUORUM)).content == Action(Node("/a"), False)
            assert server.requests[0].startswith("GET /v2/keys/a/?quorum=true HTTP/1.1\r\n")

    run(story())


def test_form_is_sent_encoded() -> None:
    async def story() -> None:
        async with FakeHttp(ok(NODE, INDEX)) as server, member_at(server.url) as member:
            await member.ask("PUT", "/a", {"prevIndex": "3"}, {"value": '{"a":"&"}', "ttl": "60"})
            assert "application/x-www-form-urlencoded" in server.requests[0]
            assert server.requests[0].endswith("\r\n\r\nvalue=%7B%22a%22%3A%22%26%22%7D&ttl=60")

    run(story())


@pytest.mark.parametrize(
    ("code", "status"), [(100, "404 Not Found"), (101, "412 Precondition Failed"), (105, "412 Precondition Failed")]
)
def test_failure_that_is_an_answer_is_returned(code: int, status: str) -> None:
    async def story() -> None:
        async with FakeHttp(ok(failure(code), INDEX, status=status)) as server, member_at(server.url) as member:
            assert (await member.ask("GET", "/a", QUORUM)).content == Failure(code, "told: /a")

    run(story())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (ok(failure(300), INDEX, status="500 Internal Server Error"), "told: /a"),
        (ok(failure(100), INDEX), "told: /a"),
        (ok("{}", INDEX, status="418 I'm a teapot"), "HTTP status 418 without a reason"),
        (ok("upstream down\nmore", status="502 Bad Gateway"), "HTTP status 502 .*: upstream down"),
        (ok("\x1b[31mred\x00"), "HTTP status 200 .*: \\[31mred"),
        (ok(""), "HTTP status 200 .*: nothing"),
        (ok(NODE, INDEX, status="500 Internal Server Error"), "HTTP status 500, though with an answer"),
        (ok(NODE), "an answer without the header X-Etcd-Index"),
        (ok(NODE, "X-Etcd-Index: 12345678901234567890"), "an answer without the header X-Etcd-Index"),
        (ok(NODE.replace("/a", "/b"), INDEX), "asked about /a, it answered about /b"),
        (b"SSH-2.0\r\n\r\n", "not an HTTP answer: .*"),
        (b"", "connection closed without an answer"),
        (b"HTTP/1.1 200 OK\r\nConte", "no answer within 0.5 s"),
    ],
)
def test_anything_else_is_unavailable_in_one_line(answer: bytes, words: str) -> None:
    async def story() -> None:
        async with FakeHttp(answer) as server, member_at(server.url) as member:
            with pytest.raises(Unavailable, match=f"^{words}$") as caught:
                await member.ask("GET", "/a", QUORUM)
            assert str(caught.value).isprintable()

    run(story())


def test_server_without_the_api_is_not_offered() -> None:
    async def story() -> None:
        async with (
            FakeHttp(ok("404 page not found\n", status="404 Not Found")) as server,
            member_at(server.url) as member,
        ):
            with pytest.raises(NotOffered, match=r"has no etcd v2 API \(404 page not found\)"):
                await member.ask("GET", "/a", QUORUM)

    run(story())


def test_only_reaching_nobody_proves_that_nothing_was_asked() -> None:
    async def story() -> None:
        async with FakeHttp(b"") as server, member_at(server.url) as member:
            await member.reach()
            assert server.requests == []
            with pytest.raises(Unavailable):
                await member.ask("GET", "/a", QUORUM)
        with pytest.raises(Unavailable, match="connection refused"):
            await member.reach()

    run(story())


def test_missing_file_of_a_certificate_is_named() -> None:
    async def story() -> None:
        async with member_at("https://127.0.0.1:1", tls=Tls("/nowhere/ca.pem")) as member:
            with pytest.raises(Unavailable, match=r"cannot read /nowhere/ca\.pem: no such file"):
                await member.reach()

    run(story())


# Who we are


@pytest.mark.parametrize(
    ("credentials", "why"),
    [
        (Credentials("root", "hidden"), "user root: wrong password or no permission"),
        (Credentials("root", ""), "user root: wrong password or no permission"),
        (None, "no user name is set"),
    ],
)
@pytest.mark.parametrize("code", ["", '"errorCode":110,'])
def test_who_may_not_is_told_what_and_as_whom(credentials: Credentials | None, why: str, code: str) -> None:
    answer = ok(f'{{{code}"message":"Insufficient credentials"}}', "X-Etcd-Index: 0", status="401 Unauthorized")

    async def story() -> None:
        async with FakeHttp(answer, answer) as server, member_at(server.url, credentials) as member:
            expected = rf"^Insufficient credentials \(to GET /a; {why}\)$"
            with pytest.raises(Unavailable, match=expected):
                await member.ask("GET", "/a", QUORUM)
            with pytest.raises(Unavailable, match=expected):
                async with member.wait("/a", 3):
                    pass

    run(story())


def test_password_is_sent_to_etcd_but_never_repeated() -> None:
    async def story() -> None:
        answer = ok("root:hidden is cm9vdDpoaWRkZW4=")
        async with FakeHttp(answer) as server, member_at(server.url, Credentials("root", "hidden")) as member:
            with pytest.raises(Unavailable, match=r": root:… is …$"):
                await member.ask("GET", "/a", QUORUM)
            assert "authorization: Basic cm9vdDpoaWRkZW4=" in server.requests[0]

    run(story())


# Waiting


def test_wait_is_told_what_happens() -> None:
    async def story() -> None:
        async with (
            FakeHttp(ok(EVENT, INDEX)) as server,
            member_at(server.url) as member,
            member.wait("/a/", 8) as waiting,
        ):
            assert waiting.index == 7
            assert await waiting.news(5) == Action(Node("/a/b", "x", created=8, modified=8), False)
            assert server.requests[0].startswith("GET /v2/keys/a/?wait=true&recursive=true&waitIndex=8 HTTP/1.1\r\n")

    run(story())


def test_quiet_wait_asks_whether_the_member_is_well_without_showing_a_password() -> None:
    async def story() -> None:
        silence = ok(EVENT, INDEX)[: -len(EVENT)]
        async with (
            FakeHttp(silence, WELL, WELL, NO_LEADER) as server,
            member_at(server.url, Credentials("root", "hidden")) as member,
            member.wait("/a", 8) as waiting,
        ):
            assert [await waiting.news(0.01) for _ in range(2)] == [None, None]
            assert server.requests[1] == f"GET /v2/members/leader HTTP/1.1\r\nhost: {server.url[7:]}\r\n\r\n"
            with pytest.raises(Unavailable, match=r"^it has no leader$"):
                await waiting.news(0.01)

    run(story())


def test_quiet_wait_at_a_member_that_hangs_is_unavailable() -> None:
    async def story() -> None:
        silence = ok(EVENT, INDEX)[: -len(EVENT)]
        async with (
            FakeHttp(silence) as server,
            member_at(server.url) as member,
            member.wait("/a", 8) as waiting,
        ):
            with pytest.raises(Unavailable, match=r"^no answer within 0\.5 s$"):
                await waiting.news(0.01)

    run(story())


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (ok(failure(401), INDEX, status="400 Bad Request"), HistoryLost),
        (ok(failure(300), INDEX, status="500 Internal Server Error"), Unavailable),
        (ok(EVENT), Unavailable),
        (ok(failure(100), INDEX), Unavailable),
        (ok("", INDEX), Unavailable),
        (ok(EVENT[:-3], INDEX), Unavailable),
    ],
)
def test_wait_that_cannot_be_served_says_why(answer: bytes, kind: type[Exception]) -> None:
    async def story() -> None:
        async with FakeHttp(answer) as server, member_at(server.url) as member:
            with pytest.raises(kind):
                async with member.wait("/a", 8) as waiting:
                    await waiting.news(5)

    run(story())
