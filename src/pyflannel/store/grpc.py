"""One gRPC connection, with grpclib's habits kept inside.

Rules of this file
  1. Whatever goes wrong comes out as one of three: ``Unavailable`` (ask elsewhere, or later), ``NotOffered`` (nobody
     there speaks gRPC), ``Refused`` (the server understood, and said no).  The texts are plain words.
  2. Nothing waits without bound.  A stopped server still accepts connections, so the call has its own deadline.
  3. grpclib wakes a waiting task by cancelling it, which eats a cancellation of ours that comes at the same moment and
     upsets ``asyncio.timeout`` and ``TaskGroup`` around it.  So it never runs in the caller's task.

Keepalive, measured with grpclib 0.4.9: a hung member is noticed only if both limits on pings without data are lifted,
and etcd closes a connection that pings every second; every 10 s is fine.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Final, Generic, TypeVar

from grpclib.client import Channel, Handler, Stream
from grpclib.config import Configuration
from grpclib.const import Cardinality, Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.protocol import H2Protocol
from h2.connection import H2Connection
from h2.exceptions import ProtocolError

from pyflannel.store.api import Unavailable
from pyflannel.store.endpoints import CALL_S, CONNECT_S, Endpoint, NotOffered, Tls, plain_words, tls_context
from pyflannel.store.etcd3_wire import A, Method, Q
from pyflannel.store.protobuf import Message, decode, encode

# h2 remembers 65,536 streams that are long closed: 8 MB after as many calls.  A late frame is late by a few.
H2Connection.MAX_CLOSED_STREAMS = 256

T = TypeVar("T")

_CONFIGURATION: Final = Configuration(
    _keepalive_time=10,
    _keepalive_timeout=3,
    _keepalive_permit_without_calls=True,
    _http2_max_pings_without_data=0,
    _http2_min_sent_ping_interval_without_data=5,
)

_HTTP1: Final = "answered in HTTP/1"

_ELSEWHERE: Final = frozenset({Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.INTERNAL, Status.UNKNOWN})
"""These speak of the member, not of the request: another one may do better."""


class Refused(Exception):
    """The server understood the call and said no; another member would say the same."""

    def __init__(self, status: str, message: str) -> None:
        """``status`` is the name gRPC has for it, ``message`` the server's words."""
        super().__init__(message or status)
        self.status = status


class Link:
    """A connection to one endpoint, opened when first needed and again when it broke."""

    def __init__(self, endpoint: Endpoint, tls: Tls) -> None:
        """Nothing is connected yet."""
        self.endpoint = endpoint
        self._tls = tls
        self._channel: _Channel | None = None

    async def call(self, method: Method[Q, A], request: Q, metadata: Mapping[str, str]) -> A:
        """Send one message, return the one that comes back."""
        try:
            with _plain_errors():
                channel = await self._connected()
                return await _apart(_call(channel, method, request, metadata), CALL_S)
        except Unavailable:
            await self.close()  # what failed once is not used again; a new connection also reads the certificates anew
            raise

    @asynccontextmanager
    async def converse(self, method: Method[Q, A], metadata: Mapping[str, str]) -> AsyncIterator[Conversation[Q, A]]:
        """Open a call in which both sides go on talking; leaving the block hangs up."""
        with _plain_errors():
            channel = await self._connected()
            async with _open(channel, method, metadata) as stream:
                conversation = Conversation(stream)
                try:
                    yield conversation
                    await stream.cancel()
                finally:
                    await conversation.stop_listening()

    async def close(self) -> None:
        """Hang up."""
        if self._channel is not None:
            channel, self._channel = self._channel, None
            channel.hang_up()
            await asyncio.sleep(0)  # the socket is closed in the next turn of the loop

    async def _connected(self) -> Channel:
        if self._channel is None:
            context = None
            if self.endpoint.secure:
                context = tls_context(self._tls)
                context.set_alpn_protocols(["h2"])
            self._channel = _Channel(
                self.endpoint.host, self.endpoint.port, ssl=context, codec=_Codec(), config=_CONFIGURATION
            )
        channel = self._channel
        await _apart(channel.__connect__(), CONNECT_S)
        return channel


class Conversation(Generic[Q, A]):
    """Both sides of a running call."""

    def __init__(self, stream: Stream[Q, A]) -> None:
        """``stream`` is open."""
        self._stream = stream
        self._listening: asyncio.Task[A | None] | None = None

    async def send(self, message: Q) -> None:
        """Say something."""
        await _apart(self._stream.send_message(message), CALL_S)

    async def receive(self, within_s: float) -> A | None:
        """What the server says next; None if it says nothing for so long."""
        if self._listening is None:
            self._listening = asyncio.get_running_loop().create_task(self._stream.recv_message(), name="grpc listen")
        await asyncio.wait({self._listening}, timeout=within_s)
        if not self._listening.done():
            return None
        listening, self._listening = self._listening, None
        answer = listening.result()
        if answer is None:
            raise StreamTerminatedError("the server ended the call")
        return answer

    async def stop_listening(self) -> None:
        """Leave no task behind."""
        if self._listening is not None:
            await _stopped(self._listening)


class _Protocol(H2Protocol):
    """Notices a server that answers in HTTP/1, as etcd 2 does.

    h2 takes such an answer for the head of a frame of 4 MB, and waits for the rest of it.
    """

    _begun = False
    _end = "by the other side"
    _wire: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._wire = transport
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not self._begun and data.startswith(b"HTTP/1."):
            self._end = _HTTP1
            self.hang_up()
        elif self._end != _HTTP1:
            self._begun = True
            super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.processor.close(reason=self._end)

    def hang_up(self) -> None:
        """Close at once: a polite end of TLS would wait for the other side, which may hang."""
        if self._wire is not None:
            self._wire.abort()


class _Channel(Channel):
    def _protocol_factory(self) -> H2Protocol:
        return _Protocol(Handler(), self._config, self._h2_config)

    def hang_up(self) -> None:
        protocol = self._protocol
        self.close()
        if isinstance(protocol, _Protocol):
            protocol.hang_up()


class _Codec(CodecBase):
    """Lets grpclib speak our messages."""

    __content_subtype__ = "proto"

    def encode(self, message: Message, message_type: type[Message]) -> bytes:
        return encode(message)

    def decode(self, data: bytes, message_type: type[T]) -> T:
        assert issubclass(message_type, Message)
        try:
            return decode(message_type, data)
        except ValueError as error:
            raise Unavailable(f"its answer is not a {message_type.__name__}: {error}") from error


def _open(channel: Channel, method: Method[Q, A], metadata: Mapping[str, str]) -> Stream[Q, A]:
    cardinality = Cardinality.STREAM_STREAM if method.streaming else Cardinality.UNARY_UNARY
    return channel.request(method.path, cardinality, method.request, method.answer, metadata=metadata)


async def _call(channel: Channel, method: Method[Q, A], request: Q, metadata: Mapping[str, str]) -> A:
    async with _open(channel, method, metadata) as stream:
        await stream.send_message(request, end=True)
        answer = await stream.recv_message()
        if answer is None:
            raise StreamTerminatedError("the server ended the call without an answer")
        return answer


async def _apart(work: Coroutine[object, object, T], within_s: float) -> T:
    """Do ``work`` in a task of its own (rule 3), ``TimeoutError`` if it takes longer than that."""
    task = asyncio.get_running_loop().create_task(work, name="grpc call")
    try:
        await asyncio.wait({task}, timeout=within_s)
        if not task.done():
            raise TimeoutError(f"no answer within {within_s:g} s")
        return task.result()
    finally:
        await _stopped(task)


async def _stopped(task: asyncio.Task[T]) -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # looked at, so that asyncio does not complain that nobody did


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except GRPCError as error:
        raise _translated(error) from error
    except StreamTerminatedError as error:
        if str(error) == _HTTP1:
            raise NotOffered("what answers there does not speak gRPC, so there is no etcd v3 API") from error
        raise Unavailable(f"connection lost ({error})") from error
    except ProtocolError as error:
        raise Unavailable(f"connection lost ({error or type(error).__name__})") from error
    except OSError as error:
        raise Unavailable(plain_words(error)) from error


def _translated(error: GRPCError) -> Exception:
    message = error.message or error.status.name
    if error.status is Status.UNIMPLEMENTED:
        return NotOffered(f"what answers there has no etcd v3 API ({message})")
    if error.status in _ELSEWHERE:
        return Unavailable(message)
    return Refused(error.status.name, message)
