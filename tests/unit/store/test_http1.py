from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pyflannel.store.http1 import BadAnswer, Client, Response, basic_auth, tcp, unix
from tests.support.fake_http import FakeHttp, ok, served
from tests.support.loops import run


@asynccontextmanager
async def client_at(port: int, *, answer_s: float = 5.0, body_limit: int = 1000) -> AsyncIterator[Client]:
    client = Client(tcp("127.0.0.1", port), "example:1", answer_s=answer_s, body_limit=body_limit)
    try:
        yield client
    finally:
        await client.close()


def test_answer_is_read_whole() -> None:
    async def story() -> None:
        async with (
            FakeHttp(ok("hello", "X-Etcd-Index: 7", status="404 Not Found")) as server,
            client_at(server.port) as client,
        ):
            answer = await client.request("GET", "/v2/keys/a?quorum=true")
            assert (answer.status, answer.body, answer.header("x-etcd-index")) == (404, b"hello", "7")
            assert answer.header("absent") is None
            assert server.requests == ["GET /v2/keys/a?quorum=true HTTP/1.1\r\nhost: example:1\r\n\r\n"]

    run(story())


def test_body_is_sent_with_its_length_and_headers() -> None:
    async def story() -> None:
        async with FakeHttp(ok("")) as server, client_at(server.port) as client:
            await client.request("PUT", "/a", headers=[("content-type", "text/plain")], body=b"value=1")
            assert server.requests[0].lower().split("\r\n")[1:] == [
                "host: example:1",
                "content-length: 7",
                "content-type: text/plain",
                "",
                "value=1",
            ]

    run(story())


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + ok("hello"),
    ],
)
def test_every_way_to_send_a_body_is_understood(raw: bytes) -> None:
    async def story() -> Response:
        async with FakeHttp(raw) as server, client_at(server.port) as client:
            return await client.request("GET", "/")

    assert run(story()).body == b"hello"


def test_body_that_ends_with_the_connection_is_understood() -> None:
    async def story() -> Response:
        raw = [b"HTTP/1.0 200 OK\r\n\r\nhello", b""]

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.writelines(raw)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            client = Client(tcp(*server.sockets[0].getsockname()), "x")
            answer = await client.request("GET", "/")
            await client.close()
        return answer

    assert run(story()).body == b"hello"


def test_connection_is_kept_for_the_next_request() -> None:
    async def story() -> None:
        async with FakeHttp(ok("1"), ok("2")) as server, client_at(server.port) as client:
            assert [(await client.request("GET", "/")).body for _ in range(2)] == [b"1", b"2"]
            assert server.connections == 1

    run(story())


def test_connection_that_the_server_closed_is_not_used_again() -> None:
    async def story() -> None:
        async with FakeHttp(ok("1", "Connection: close"), ok("2")) as server, client_at(server.port) as client:
            assert [(await client.request("GET", "/")).body for _ in range(2)] == [b"1", b"2"]
            assert server.connections == 2

    run(story())


def test_requests_at_once_do_not_wait_for_each_other() -> None:
    async def story() -> None:
        async with FakeHttp(ok("1"), ok("2")) as server, client_at(server.port) as client:
            async with client.exchange("GET", "/first") as first:
                assert (await client.request("GET", "/second")).body == b"2"
                assert await first.body(5) == b"1"
            assert server.connections == 2

    run(story())


def test_head_can_be_looked_at_before_the_body_is_there() -> None:
    async def story() -> None:
        head, body = ok("hello", "X-Etcd-Index: 7")[:-5], b"hello"
        server = FakeHttp(head, body)
        async with server, client_at(server.port) as client, client.exchange("GET", "/") as answer:
            assert dict(answer.headers)["x-etcd-index"] == "7"
            with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
                await answer.body(0.01)

    run(story())


def test_answer_left_half_read_costs_the_connection() -> None:
    async def story() -> None:
        async with FakeHttp(ok("1"), ok("2")) as server, client_at(server.port) as client:
            async with client.exchange("GET", "/"):
                pass
            assert (await client.request("GET", "/")).body == b"2"
            assert server.connections == 2

    run(story())


@pytest.mark.parametrize("unasked", [ok("too late", "Connection: close", status="408 Request Timeout"), b"", b"x"])
def test_connection_on_which_something_came_unasked_is_not_used_again(unasked: bytes) -> None:
    async def story() -> None:
        connections: list[int] = []

        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.append(len(connections) + 1)
            writer.write(ok(f"{connections[-1]}"))
            await said.wait()
            writer.write(unasked)
            writer.close()
            await writer.wait_closed()
            gone.set()

        said, gone = asyncio.Event(), asyncio.Event()
        async with served(serve) as port, client_at(port) as client:
            assert (await client.request("GET", "/")).body == b"1"
            said.set()
            await gone.wait()
            assert (await client.request("GET", "/")).body == b"2"

    run(story())


def test_second_answer_in_one_go_with_the_first_is_not_taken_for_the_next() -> None:
    async def story() -> None:
        async with FakeHttp(ok("1") + ok("stray"), ok("2")) as server, client_at(server.port) as client:
            assert [(await client.request("GET", "/")).body for _ in range(2)] == [b"1", b"2"]

    run(story())


def test_reaching_the_server_asks_nothing_and_serves_the_next_request() -> None:
    async def story() -> None:
        async with FakeHttp(ok("1"), ok("2")) as server, client_at(server.port) as client:
            for number in (b"1", b"2"):
                await client.reach()
                assert (await client.request("GET", "/")).body == number
            assert (server.connections, len(server.requests)) == (1, 2)
        with pytest.raises(ConnectionRefusedError):
            await client.reach()

    run(story())


def test_body_that_did_not_come_in_time_may_be_waited_for_again() -> None:
    async def story() -> None:
        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(ok("hello")[:-3])
            await waited.wait()
            writer.write(ok("hello")[-3:])

        waited = asyncio.Event()
        async with served(serve) as port, client_at(port) as client, client.exchange("GET", "/") as answer:
            with pytest.raises(TimeoutError):
                await answer.body(0.01)
            waited.set()
            assert await answer.body(5) == b"hello"

    run(story())


def test_long_body_on_a_thin_line_is_not_given_up_while_it_comes_in() -> None:
    async def story() -> None:
        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for octet in ok("hello, " * 10):
                writer.write(bytes([octet]))
                await asyncio.sleep(0.01)

        async with served(serve) as port, client_at(port) as client, client.exchange("GET", "/") as answer:
            assert await answer.body(0.5) == b"hello, " * 10

    run(story())


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not an HTTP answer"),
        (ok("x" * 2000), "answer of 2000 bytes, more than 1000"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "answer of 99999999999 bytes"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1f4\r\n%s\r\n" % (b"x" * 500) * 3,
            "answer of more than 1000 bytes",
        ),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000, "not an HTTP answer"),
        (b"", "connection closed without an answer"),
        (ok("hello")[:-2], "connection closed in the middle of an answer"),
    ],
)
def test_what_is_no_answer_or_too_much_is_refused(raw: bytes, words: str) -> None:
    async def story() -> None:
        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(raw)

        async with served(serve) as port, client_at(port) as client:
            with pytest.raises(BadAnswer, match=f"^{words}"):
                await client.request("GET", "/")

    run(story())


def test_server_that_never_answers_is_given_up() -> None:
    async def story() -> None:
        async with FakeHttp() as server, client_at(server.port, answer_s=0.01) as client:
            with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
                await client.request("GET", "/")

    run(story())


def test_refused_connection_is_an_os_error() -> None:
    with pytest.raises(ConnectionRefusedError):
        run(Client(tcp("127.0.0.1", 1), "x").request("GET", "/"))


def test_socket_of_this_machine_is_spoken_to_as_well(tmp_path: Path) -> None:
    async def story() -> Response:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(ok("pong"))
            await reader.read()
            writer.close()

        async with await asyncio.start_unix_server(serve, tmp_path / "socket"):
            client = Client(unix(str(tmp_path / "socket")), "docker")
            answer = await client.request("GET", "/_ping")
            await client.close()
        return answer

    assert run(story()).body == b"pong"


def test_user_and_password_become_a_header() -> None:
    assert basic_auth("Aladdin", "open sesame") == ("authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
