"""One gRPC connection, with grpclib's habits kept inside.

Rules of this file
  1. Whatever goes wrong comes out as one of three: ``Unavailable`` (ask elsewhere, or later), ``NotOffered`` (nobody
     there speaks gRPC), ``Refused`` (the server understood, and said no).  The texts are plain words.
  2. Nothing waits without bound.  A stopped server still accepts connections, so the call has its own deadline; as
     long as an answer is coming in, a long list over a thin line say, that begins anew.
  3. A connection on which something failed is not used again.  Each new one reads the certificates anew.
  4. grpclib wakes a waiting task by cancelling it, which eats a cancellation of ours that comes at the same moment and
     upsets ``asyncio.timeout`` and ``TaskGroup`` around it.  So it never runs in the caller's task.
  5. grpclib knows a connection is lost a turn of the loop late, and never if it is lost while being made; and it
     stumbles (``_STUMBLES``) over answers that are not as gRPC has them.  Neither may end an agent.

Keepalive, measured with grpclib 0.4.9: a hung member is noticed only if both limits on pings without data are lifted,
and etcd closes a connection that pings more often than every 5 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
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
from pyflannel.store.endpoints import (
    CALL_S,
    CONNECT_S,
    SERVER_SAYS,
    Endpoint,
    NotOffered,
    Tls,
    own_fault,
    plain_words,
    tls_context,
)
from pyflannel.store.etcd3_wire import A, Method, Q
from pyflannel.store.protobuf import Message, decode, encode

# h2 remembers 65,536 streams that are long closed: 8 MB after as many calls.  A late frame is late by a few.
H2Connection.MAX_CLOSED_STREAMS = 256

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds to wait for things."""

    connect_s: float = CONNECT_S
    call_s: float = CALL_S
    """Without hearing anything; see rule 2."""
    longest_call_s: float = 60.0
    """However much is heard."""
    ping_every_s: float = 10.0
    """A connection on which nobody says anything is tried so often."""
    ping_answer_s: float = 3.0
    """Then it is closed."""


_TIMING: Final = Timing()

_HTTP1: Final = "answered in HTTP/1"
_BY_THE_OTHER_SIDE: Final = "by the other side"

_STUMBLES: Final = (AssertionError, AttributeError, LookupError, NotImplementedError, ValueError)
"""What comes out of grpclib for a message cut short, compressed, or with headers that are no text."""

_ELSEWHERE: Final = frozenset(
    {Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.INTERNAL, Status.UNKNOWN, Status.CANCELLED}
)
"""These speak of the member, not of the request: another one may do better."""


class Refused(Exception):
    """The server understood the call and said no; another member would say the same."""

    def __init__(self, status: str, message: str) -> None:
        """``status`` is the name gRPC has for it, ``message`` the server's words."""
        super().__init__(message or status)
        self.status = status


class Link:
    """A connection to one endpoint, opened when first needed and again when it broke."""

    def __init__(self, endpoint: Endpoint, tls: Tls, timing: Timing = _TIMING) -> None:
        """Nothing is connected yet."""
        self.endpoint = endpoint
        self._tls = tls
        self._timing = timing
        self._channel: _Channel | None = None

    async def call(self, method: Method[Q, A], request: Q, metadata: Mapping[str, str]) -> A:
        """Send one message, return the one that comes back."""
        try:
            with self._plain_errors():
                channel = await self._connected()
                work = _call(channel, method, request, metadata)
                return await _apart(work, self._timing.call_s, self._timing.longest_call_s, channel.heard_at)
        except Unavailable:
            await self.close()
            raise

    @asynccontextmanager
    async def converse(self, method: Method[Q, A], metadata: Mapping[str, str]) -> AsyncIterator[Conversation[Q, A]]:
        """Open a call in which both sides go on talking; leaving the block hangs up."""
        with self._plain_errors():
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
            channel.close()
            await asyncio.sleep(0)  # the socket is closed in the next turn of the loop

    async def _connected(self) -> _Channel:
        if self._channel is None:
            self._channel = _Channel(self.endpoint, self._tls, self._timing)
        channel = self._channel
        await _apart(channel.__connect__(), self._timing.connect_s)
        return channel

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except GRPCError as error:
            raise _translated(error) from error
        except StreamTerminatedError as error:
            if str(error) == _HTTP1:
                raise NotOffered("what answers there does not speak gRPC, so there is no etcd v3 API") from error
            rejected = self._channel is not None and self._channel.is_rejected
            raise Unavailable(f"connection lost ({error})" + self._suspicion(rejected)) from error
        except ProtocolError as error:
            raise Unavailable(f"connection lost ({error or type(error).__name__})") from error
        except OSError as error:
            words = plain_words(error)
            rejected = isinstance(error, ConnectionResetError) or SERVER_SAYS in words
            raise Unavailable(words + self._suspicion(rejected)) from error

    def _suspicion(self, rejected: bool) -> str:
        """What may be behind it if a server hangs up before it said anything else."""
        if not rejected:
            return ""
        fault = own_fault(self._tls) if self.endpoint.secure else "if it wants TLS, its address begins with https"
        return f"; {fault}" if fault else ""


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
        answer = _outcome(listening)
        if answer is None:
            raise StreamTerminatedError("the server ended the call")
        return answer

    async def stop_listening(self) -> None:
        """Leave no task behind."""
        if self._listening is not None:
            await _stopped(self._listening)


class _Wire(asyncio.Transport):
    """A connection that is closed at once: a polite end of TLS would wait for the other side, which may hang."""

    def __init__(self, inner: asyncio.Transport) -> None:
        super().__init__()
        self._inner = inner
        self.closed_here = False

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._inner.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return self._inner.is_closing()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._inner.write(data)

    def close(self) -> None:
        self.closed_here = True
        self._inner.abort()


class _Protocol(H2Protocol):
    """Knows what is happening on the wire, where h2 and grpclib only know that something is wrong.

    etcd 2 answers in HTTP/1: h2 takes that for the head of a frame of 4 MB, and waits for the rest of it.
    """

    heard_at = 0.0
    """When something last came in, in the time of the loop; 0: nothing ever did."""
    is_rejected = False
    """Whether the other side ended the connection before it had said anything."""
    ended = _BY_THE_OTHER_SIDE
    """How it was lost, once it is."""
    _wire: _Wire

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._wire = _Wire(transport)
        super().connection_made(self._wire)

    def data_received(self, data: bytes) -> None:
        if not self.heard_at and data.startswith(b"HTTP/1."):
            self._end(_HTTP1)
        elif not self._is_over:
            self.heard_at = asyncio.get_running_loop().time()
            try:
                super().data_received(data)
            except _STUMBLES as error:
                self._end(str(_stumbled(error)))

    def connection_lost(self, exc: BaseException | None) -> None:
        self.is_rejected = not self.heard_at and not self._wire.closed_here
        if self._wire.closed_here:
            self._end("no answer to a ping")
        elif isinstance(exc, OSError) and not isinstance(exc, ConnectionError):
            self._end(plain_words(exc))
        else:
            self._end(_BY_THE_OTHER_SIDE)

    def _end(self, reason: str) -> None:
        """Tell those who wait, unless they were told already."""
        if not self._is_over:
            self.ended = reason
            self.processor.close(reason)

    @property
    def _is_over(self) -> bool:
        return isinstance(self.handler, Handler) and self.handler.connection_lost


class _Channel(Channel):
    """Connects again when it has to, each time with the certificates as they are by then."""

    def __init__(self, endpoint: Endpoint, tls: Tls, timing: Timing) -> None:
        configuration = Configuration(
            _keepalive_time=timing.ping_every_s,
            _keepalive_timeout=timing.ping_answer_s,
            _keepalive_permit_without_calls=True,
            _http2_max_pings_without_data=0,
            _http2_min_sent_ping_interval_without_data=timing.ping_every_s / 2,
        )
        super().__init__(endpoint.host, endpoint.port, codec=_Codec(), config=configuration)
        self._scheme = "https" if endpoint.secure else "http"
        self._tls = tls if endpoint.secure else None

    async def __connect__(self) -> H2Protocol:
        protocol = await super().__connect__()
        if not self._connected:
            raise StreamTerminatedError(protocol.ended if isinstance(protocol, _Protocol) else _BY_THE_OTHER_SIDE)
        return protocol

    @property
    def _connected(self) -> bool:
        # grpclib forgets the wire as soon as a ping goes unanswered, and tells those who wait a turn later.
        return super()._connected and self._protocol is not None and not self._protocol.connection.is_closing()

    async def _create_connection(self) -> H2Protocol:
        if self._tls is not None:
            self._ssl = tls_context(self._tls)
            self._ssl.set_alpn_protocols(["h2"])
        return await super()._create_connection()

    def _protocol_factory(self) -> H2Protocol:
        return _Protocol(Handler(), self._config, self._h2_config)

    @property
    def is_rejected(self) -> bool:
        """Whether the other side ended the connection before it had said anything."""
        return isinstance(self._protocol, _Protocol) and self._protocol.is_rejected

    def heard_at(self) -> float:
        """When something last came in, in the time of the loop."""
        return self._protocol.heard_at if isinstance(self._protocol, _Protocol) else 0.0


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


async def _apart(
    work: Coroutine[object, object, T],
    within_s: float,
    at_most_s: float = float("inf"),
    heard_at: Callable[[], float] = lambda: 0.0,
) -> T:
    """Do ``work`` in a task of its own (rule 4).

    ``TimeoutError`` when nothing was heard for ``within_s`` seconds, or it takes longer than ``at_most_s``.
    """
    loop = asyncio.get_running_loop()
    begun = loop.time()
    task = loop.create_task(work, name="grpc call")
    try:
        while not task.done():
            left = min(max(begun, heard_at()) + within_s, begun + at_most_s) - loop.time()
            if left <= 0:
                raise TimeoutError(f"no answer within {loop.time() - begun:.0f} s")
            await asyncio.wait({task}, timeout=left)
        return _outcome(task)
    finally:
        await _stopped(task)


def _outcome(task: asyncio.Task[T]) -> T:
    """What a task that is done has brought (rule 5)."""
    try:
        return task.result()
    except OSError:  # a certificate that does not fit is a ValueError too
        raise
    except _STUMBLES as error:
        raise _stumbled(error) from error


def _stumbled(error: Exception) -> StreamTerminatedError:
    return StreamTerminatedError(f"what it sent is not as gRPC has it: {error or type(error).__name__}")


async def _stopped(task: asyncio.Task[T]) -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # looked at, so that asyncio does not complain that nobody did


def _translated(error: GRPCError) -> Exception:
    message = error.message or error.status.name
    if error.status is Status.UNIMPLEMENTED:
        return NotOffered(f"what answers there has no etcd v3 API ({message})")
    if error.status in _ELSEWHERE:
        return Unavailable(message)
    return Refused(error.status.name, message)
