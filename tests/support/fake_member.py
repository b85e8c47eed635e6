"""A gRPC server on loopback that answers as a test tells it: for what a real etcd cannot be made to do.

async def no_leader(stream): raise GRPCError(Status.UNAVAILABLE, "etcdserver: no leader")

async with FakeMember({RANGE: no_leader}) as member:
    ...  # connect to member.url
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

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

    def __init__(self, answering: Mapping[AnyMethod, Answering]) -> None:
        """A method that is not in ``answering`` is not offered."""
        self._server = Server([_Service(answering)], codec=_Codec())
        self.url = ""

    async def __aenter__(self) -> FakeMember:
        await self._server.start("127.0.0.1", 0)
        listening = self._server._server
        assert isinstance(listening, asyncio.Server)
        self.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
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
