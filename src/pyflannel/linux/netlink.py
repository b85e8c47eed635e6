"""Netlink: framing, attributes, and one conversation at a time with the kernel (netlink(7), linux/netlink.h).

Rules of this file
  1. It knows messages, not what they mean: devices and routes are the business of the modules beside it.
  2. A socket that asks questions never listens to events.  Notifications carry the sequence number of whoever caused
     them, so on a shared socket somebody else's event passes for our answer.
  3. An answer that was lost is an error of its own, never taken for success.
  4. errno becomes an exception here, and nowhere else.

Why batches: one system call carries many requests, which the kernel carries out in their order before the call
returns.  It always answers a refusal, and a success only if asked; so we ask with the last request alone, and its
answer says of those before it that whatever was refused has been named.  The answers wait in our receive buffer
meanwhile, which bounds how many requests may be under way.  Should they overrun it, the kernel says so (ENOBUFS), and
no success is concluded.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from pyflannel.linux.errors import AlreadyThere, KernelError, LinkGone, NotPermitted, Unsupported
from pyflannel.linux.netns import Netns, inside

HEADER: Final = struct.Struct("=IHHII")
"""struct nlmsghdr: length with header, type, flags, sequence, port."""
ATTRIBUTE: Final = struct.Struct("=HH")
"""struct nlattr: length with header, type."""
INTEGER: Final = struct.Struct("=i")

NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR = 0x1, 0x4, 0x10
NLM_F_DUMP: Final = 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
NLMSGERR_ATTR_MSG: Final = 1
TYPE_MASK: Final = 0x3FFF
"""Without the bits that mark an attribute as nested or in network byte order."""

NETLINK_ROUTE, NETLINK_GENERIC = 0, 16
SOL_NETLINK: Final = 270
NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 10, 11, 12
SO_RCVBUFFORCE: Final = 33

WINDOW: Final = 200
"""Requests under way at once; about 64 bytes each, so that a window fits any send buffer."""
RECEIVE_BUFFER: Final = 1 << 20
"""Bytes; four times what the answers take if the kernel refuses a whole window, at about 1 KiB each."""
DATAGRAM: Final = 64 << 10
"""Bytes; the kernel fills dumps up to 32 KiB."""
MAX_SEQUENCE: Final = 0x7FFFFFFF
"""Where counting starts again; the field has 32 bits."""
DUMP_ATTEMPTS: Final = 5
"""A dump during which the table changed is done again, this often."""

_KINDS: Final[dict[int, type[KernelError]]] = {
    errno.ENODEV: LinkGone,
    errno.EPERM: NotPermitted,
    errno.EOPNOTSUPP: Unsupported,
    errno.EAFNOSUPPORT: Unsupported,
    errno.EPROTONOSUPPORT: Unsupported,
    errno.EEXIST: AlreadyThere,
}


class Request(NamedTuple):
    """A message to the kernel; the socket adds what a conversation needs."""

    type: int
    body: bytes
    flags: int = 0


class Ack(NamedTuple):
    """The kernel's answer to a request: an errno, 0 for success, and its own words if it gave any."""

    code: int
    text: str = ""


LOST: Final = Ack(errno.ENOBUFS, "the answer was lost, so it may have been done or not")


class Message(NamedTuple):
    """A message from the kernel, without its header."""

    type: int
    flags: int
    sequence: int
    body: bytes


def refusal(what: str, ack: Ack) -> KernelError:
    """The exception for a request that was refused: the class says what the caller can do about it."""
    return _KINDS.get(ack.code, KernelError)(what, ack.code, ack.text)


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to the next multiple of four."""
    return ATTRIBUTE.pack(4 + len(value), kind) + value + b"\0" * (-len(value) & 3)


def attributes(body: bytes, start: int = 0) -> dict[int, bytes]:
    """The attributes that follow ``start``, by type; the last one wins, and a mangled tail is left out."""
    found: dict[int, bytes] = {}
    end = len(body)
    while start + 4 <= end:
        length, kind = ATTRIBUTE.unpack_from(body, start)
        if length < 4:
            break
        found[kind & TYPE_MASK] = body[start + 4 : start + length]
        start += (length + 3) & ~3
    return found


def messages(datagram: bytes) -> Iterator[Message]:
    """The messages of one datagram; what follows a mangled one is left out."""
    start, end = 0, len(datagram)
    while start + HEADER.size <= end:
        length, kind, flags, sequence, _ = HEADER.unpack_from(datagram, start)
        if length < HEADER.size or start + length > end:
            return
        yield Message(kind, flags, sequence, datagram[start + HEADER.size : start + length])
        start += (length + 3) & ~3


def acknowledgement(message: Message) -> Ack:
    """What an NLMSG_ERROR or NLMSG_DONE message says."""
    if len(message.body) < INTEGER.size:
        return Ack(0)
    (code,) = INTEGER.unpack_from(message.body)
    if not message.flags & NLM_F_ACK_TLVS:
        return Ack(-code)
    words = INTEGER.size
    if message.type == NLMSG_ERROR:
        # The request is quoted first: its header alone if it was capped, else all of it.
        capped = message.flags & NLM_F_CAPPED
        words += HEADER.size if capped else (HEADER.unpack_from(message.body, words)[0] + 3) & ~3
    text = attributes(message.body, words).get(NLMSGERR_ATTR_MSG, b"")
    return Ack(-code, text.rstrip(b"\0").decode(errors="replace"))


class Channel(Protocol):
    """What of a non-blocking socket a conversation needs."""

    def send(self, data: bytes, /) -> int:
        """Hand over one datagram."""
        ...

    def recvfrom_into(self, buffer: bytearray, nbytes: int, flags: int, /) -> tuple[int, tuple[int, int]]:
        """Take one datagram: its size, and the port and groups it came from; ``BlockingIOError`` if none waits."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


def open_socket(
    netns: Netns = None, receive_buffer: int = RECEIVE_BUFFER, protocol: int = NETLINK_ROUTE
) -> socket.socket:
    """A non-blocking netlink socket in ``netns``, where it stays even if the name of that namespace goes away.

    It asks for short and worded answers, and for listings filtered by the kernel.
    """
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    made = inside(netns, lambda: socket.socket(socket.AF_NETLINK, kind, protocol))
    for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
        # Linux 4.3, 4.12 and 4.20: an older kernel says less and lists more, which the readers allow for.
        with contextlib.suppress(OSError):
            made.setsockopt(SOL_NETLINK, option, 1)
    try:
        made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, receive_buffer)
    except PermissionError:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    made.setblocking(False)
    return made


class Conversation:
    """Questions to the kernel and its answers.  Not for use by several threads at once.

    The kernel answers before ``send`` returns, so an answer that is not there yet never comes: nothing ever waits here.
    """

    def __init__(self, channel: Channel) -> None:
        """Talk through ``channel``, which is ours from now on."""
        self._channel = channel
        self._buffer = bytearray(DATAGRAM)
        self._sequence = 0
        self._overrun = False

    def close(self) -> None:
        """Let go of the socket; closing twice is fine."""
        self._channel.close()

    def batch(self, requests: Sequence[Request]) -> list[Ack]:
        """Have ``requests`` carried out in their order, each on its own, and return what became of each."""
        acks: list[Ack] = []
        for start in range(0, len(requests), WINDOW):
            acks += self._exchange(requests[start : start + WINDOW])
        return acks

    def ask(self, what: str, request: Request) -> bytes:
        """The body of the one message that answers; ``KernelError`` about ``what`` was attempted if it is a refusal."""
        sequence = self._send([request], NLM_F_REQUEST)
        for message in self._answers():
            if message.sequence == sequence:
                if message.type == NLMSG_ERROR:
                    raise refusal(what, acknowledgement(message))
                return message.body
        raise refusal(what, LOST)

    def dump(self, what: str, request: Request) -> list[bytes]:
        """The bodies of all messages that answer: one consistent listing, or ``KernelError``."""
        for _ in range(DUMP_ATTEMPTS):
            bodies = self._listing(what, request)
            if bodies is not None:
                return bodies
        raise refusal(what, Ack(errno.EINTR, f"the table changed during each of {DUMP_ATTEMPTS} listings"))

    def _exchange(self, requests: Sequence[Request]) -> list[Ack]:
        try:
            last = self._send(requests, NLM_F_REQUEST, NLM_F_ACK)
        except OSError as error:
            return [Ack(error.errno or errno.EIO, "handing it to the kernel failed")] * len(requests)
        first = last - len(requests) + 1
        answers: dict[int, Ack] = {}
        for message in self._answers():
            if message.type == NLMSG_ERROR:
                answers[message.sequence] = acknowledgement(message)
                if message.sequence == last:
                    break
        silence = Ack(0) if last in answers and not self._overrun else LOST
        return [answers.get(sequence, silence) for sequence in range(first, last + 1)]

    def _listing(self, what: str, request: Request) -> list[bytes] | None:
        """One dump, or None if it is not to be relied on."""
        sequence = self._send([request], NLM_F_REQUEST | NLM_F_DUMP)
        bodies: list[bytes] = []
        torn = 0
        for message in self._answers():
            if message.sequence != sequence:
                continue
            torn |= message.flags & NLM_F_DUMP_INTR
            if message.type == NLMSG_DONE or message.type == NLMSG_ERROR:
                ack = acknowledgement(message)
                if ack.code:
                    raise refusal(what, ack)
                return None if torn or self._overrun else bodies
            bodies.append(message.body)
        return None

    def _send(self, requests: Sequence[Request], flags: int, last_flags: int = 0) -> int:
        """Hand ``requests`` over in one call and return the sequence number of the last."""
        if self._sequence > MAX_SEQUENCE:
            self._sequence = 0
        parts: list[bytes] = []
        final = len(requests) - 1
        for position, (kind, body, own_flags) in enumerate(requests):
            self._sequence += 1
            all_flags = own_flags | flags | (last_flags if position == final else 0)
            parts += (HEADER.pack(HEADER.size + len(body), kind, all_flags, self._sequence, 0), body)
        self._overrun = False
        self._channel.send(b"".join(parts))
        return self._sequence

    def _answers(self) -> Iterator[Message]:
        """What waits for us, until nothing does."""
        while True:
            try:
                size, (sender, _) = self._channel.recvfrom_into(self._buffer, 0, socket.MSG_TRUNC)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._overrun = True
                continue
            self._overrun |= size > DATAGRAM
            # Only the kernel is port 0; another process may write to us, and has no business to.
            if sender == 0:
                yield from messages(bytes(memoryview(self._buffer)[:size]))
