"""A gRPC server on loopback that answers as a test tells it: for what a real etcd cannot be made to do.

async def no_leader(stream): raise GRPCError(Status.UNAVAILABLE, "etcdserver: no leader")

async with FakeMember({RANGE: no_leader}) as member:
    ...  # connect to member.url
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

from grpclib.config import Configuration
from grpclib.const import Cardinality, Handler
from grpclib.encoding.base import CodecBase
from grpclib.server import Server, Stream

from pyflannel.store.etcd3_wire import Method
from pyflannel.store.protobuf import Message, decode, encode

T = TypeVar("T")

Talk: TypeAlias = Stream[Any, Any]
AnyMethod: TypeAlias = Method[Any, Any]
Answering: TypeAlias = Callable[[Talk], Awaitable[None]]


def answers(*messages: Message) -> Answering:
    """For a call: the first time the first message, and so on; the last one for ever."""
    left = list(messages)

    async def answering(stream: Talk) -> None:
        await stream.recv_message()
        await stream.send_message(left.pop(0) if len(left) > 1 else left[0])

    return answering


class FakeMember:
    """Lives as long as the ``async with`` block."""

    def __init__(
        self,
        answering: Mapping[AnyMethod, Answering],
        *,
        tls: ssl.SSLContext | None = None,
        pings_every_s: float | None = None,
    ) -> None:
        """A method that is not in ``answering`` is not offered.  ``tls``: who does not speak it is not heard."""
        config = (
            Configuration()
            if pings_every_s is None
            else Configuration(
                _keepalive_time=pings_every_s,
                _keepalive_permit_without_calls=True,
                _http2_max_pings_without_data=0,
                _http2_min_sent_ping_interval_without_data=pings_every_s,
            )
        )
        self._server = Server([_Service(answering)], codec=_Codec(), config=config)
        self._tls = tls
        self.url = ""

    async def __aenter__(self) -> FakeMember:
        await self._server.start("127.0.0.1", 0, ssl=self._tls)
        listening = self._server._server
        assert isinstance(listening, asyncio.Server)
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        await self._server.wait_closed()


class _Service:
    def __init__(self, answering: Mapping[AnyMethod, Answering]) -> None:
        self._answering = answering

    def __mapping__(self) -> Mapping[str, Handler]:
        return {
            method.path: Handler(
                answering,
                Cardinality.STREAM_STREAM if method.streaming else Cardinality.UNARY_UNARY,
                method.request,
                method.answer,
            )
            for method, answering in self._answering.items()
        }


class _Codec(CodecBase):
    __content_subtype__ = "proto"

    def encode(self, message: Message | bytes, message_type: type[Message]) -> bytes:
        return message if isinstance(message, bytes) else encode(message)

    def decode(self, data: bytes, message_type: type[T]) -> T:
        assert issubclass(message_type, Message)
        return decode(message_type, data)
