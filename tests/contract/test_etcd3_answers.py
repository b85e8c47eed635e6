"""Servers that are not as gRPC has them, and connections lost where grpclib does not look for it."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence
from contextlib import closing

import pytest
from grpclib.protocol import H2Protocol

from pyflannel.store.api import Unavailable
from pyflannel.store.endpoints import NO_TLS, parse_endpoint
from pyflannel.store.etcd3_wire import RANGE, WATCH, RangeRequest, WatchRequest, WatchResponse
from pyflannel.store.grpc import Link, _Channel
from tests.support.fake_member import Answering, FakeMember, Talk
from tests.support.loops import run

Headers = list[tuple[str, str]]

HEADERS: Headers = [(":status", "200"), ("content-type", "application/grpc")]
OK: Headers = [("grpc-status", "0")]
EMPTY = b"\0" + struct.pack(">I", 0)


def sends(headers: Headers, data: bytes = b"", trailers: Sequence[tuple[str, str]] = ()) -> Answering:
    """Exactly this, whatever gRPC thinks of it."""

    async def answering(stream: Talk) -> None:
        await stream.recv_message()
        wire = stream._stream
        await wire.send_headers(headers)
        if data:
            await wire.send_data(data)
        await wire.send_headers(list(trailers or OK), end_stream=True)
        await stream.cancel()

    return answering


@pytest.mark.parametrize(
    "answering",
    [
        pytest.param(sends(HEADERS, b"\1" + struct.pack(">I", 2) + b"ab"), id="compressed"),
        pytest.param(sends(HEADERS, b"\0" + struct.pack(">I", 200) + b"ab"), id="cut short"),
        pytest.param(sends(HEADERS, b"\0" + struct.pack(">I", 2**32 - 1) + b"ab"), id="said to be huge"),
        pytest.param(sends(HEADERS, b"\0\0"), id="cut short in its length"),
        pytest.param(sends([*HEADERS, ("what-bin", "a")], EMPTY), id="header that is no base64"),
        pytest.param(sends(HEADERS, EMPTY, [*OK, ("what-bin", "\u00e9")]), id="trailer that is no text"),
    ],
)
def test_answer_that_is_not_as_grpc_has_it_is_unavailable(
    answering: Answering, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with FakeMember({RANGE: answering}) as member:
            link = Link(parse_endpoint(member.url), NO_TLS)
            with pytest.raises(Unavailable, match=r"what it sent is not as gRPC has it: \S"):
                await link.call(RANGE, RangeRequest(b"k"), {})
            await link.close()

    run(story())
    assert not [record for record in caplog.records if record.name == "asyncio"]


def test_connection_that_ends_in_the_moment_it_is_used_is_made_anew() -> None:
    async def created(stream: Talk) -> None:
        await stream.recv_message()
        await stream.send_message(WatchResponse(created=True))

    async def story() -> None:
        async with FakeMember({WATCH: created}) as member:
            link = Link(parse_endpoint(member.url), NO_TLS)
            async with link.converse(WATCH, {}) as talk:
                assert link._channel is not None
                assert link._channel._protocol is not None
                # As by the timer that has waited for the answer to a ping, a turn before those who wait are told.
                asyncio.get_running_loop().call_soon(link._channel._protocol.connection.close)
                await talk.send(WatchRequest())
                assert await talk.receive(5) == WatchResponse(created=True)
            await link.close()

    run(story())


def test_server_that_hangs_up_while_the_connection_is_being_made_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = _Channel._protocol_factory

    async def story() -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as server:

            def hang_up_before_a_word(channel: _Channel) -> H2Protocol:
                caller, _ = server.accept()
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                caller.close()
                return made(channel)

            monkeypatch.setattr(_Channel, "_protocol_factory", hang_up_before_a_word)
            link = Link(parse_endpoint(f"http://127.0.0.1:{server.getsockname()[1]}"), NO_TLS)
            with pytest.raises(Unavailable, match="connection lost"):
                await link.call(RANGE, RangeRequest(b"k"), {})
            await link.close()

    run(story())
