from __future__ import annotations

import errno
import struct
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflannel.linux.errors import AlreadyThere, KernelError, LinkGone, NotPermitted, Unsupported
from pyflannel.linux.netlink import (
    DUMP_ATTEMPTS,
    HEADER,
    LOST,
    MAX_SEQUENCE,
    NLM_F_ACK,
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    NLMSGERR_ATTR_MSG,
    WINDOW,
    Ack,
    Conversation,
    Message,
    Request,
    acknowledgement,
    attribute,
    attributes,
    messages,
    open_socket,
    refusal,
)
from tests.support.namespaces import Namespace

SOME_TYPE = 24

Reply: TypeAlias = Callable[[list[Message]], list[bytes | OSError]]
"""What a kernel makes of the messages of one datagram."""


def packed(kind: int, sequence: int, body: bytes = b"", flags: int = 0) -> bytes:
    """One message on the wire."""
    return HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0) + body


def answer(sequence: int, code: int = 0, kind: int = NLMSG_ERROR, flags: int = 0) -> bytes:
    """The kernel's answer to a request; ``code`` is an errno."""
    return packed(kind, sequence, struct.pack("=i", -code), flags)


class Scripted:
    """A kernel that answers each datagram as the next of ``replies`` says, and all further ones as the last does.

    An exception among the answers is raised when its turn comes.
    """

    def __init__(self, *replies: Reply) -> None:
        self.sent: list[list[Message]] = []
        self.sender = 0
        self._replies = deque(replies)
        self._waiting: deque[bytes | OSError] = deque()

    def send(self, data: bytes, /) -> int:
        self.sent.append(list(messages(data)))
        reply = self._replies.popleft() if len(self._replies) > 1 else self._replies[0]
        self._waiting += reply(self.sent[-1])
        return len(data)

    def recvfrom_into(self, buffer: bytearray, nbytes: int, flags: int, /) -> tuple[int, tuple[int, int]]:
        if not self._waiting:
            raise BlockingIOError
        datagram = self._waiting.popleft()
        if isinstance(datagram, OSError):
            raise datagram
        buffer[: len(datagram)] = datagram[: len(buffer)]
        return len(datagram), (self.sender, 0)

    def close(self) -> None:
        pass


def obliging(refuse: dict[int, int] | None = None) -> Reply:
    """Answers as the kernel does: refusals always, successes only if asked.  ``refuse`` maps a number to an errno."""

    def reply(sent: list[Message]) -> list[bytes | OSError]:
        answers: list[bytes | OSError] = []
        for message in sent:
            code = (refuse or {}).get(int.from_bytes(message.body, "big"), 0)
            if code or message.flags & NLM_F_ACK:
                answers.append(answer(message.sequence, code))
        return answers

    return reply


def numbered(count: int) -> list[Request]:
    """Requests that carry their own number."""
    return [Request(SOME_TYPE, number.to_bytes(4, "big"), NLM_F_CREATE) for number in range(count)]


# Framing


@given(st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=50), max_size=8))
def test_attributes_read_as_they_were_written(values: dict[int, bytes]) -> None:
    raw = b"".join(attribute(kind, value) for kind, value in values.items())
    assert len(raw) % 4 == 0
    assert attributes(raw) == values


def test_the_marks_of_an_attribute_are_no_part_of_its_type() -> None:
    assert attributes(attribute(0x8000 | 18, b"x") + attribute(0x4000 | 15, b"y")) == {18: b"x", 15: b"y"}


@given(st.binary(max_size=100))
def test_no_bytes_upset_the_readers(raw: bytes) -> None:
    attributes(raw)
    for message in messages(raw):
        acknowledgement(message)


def test_a_mangled_tail_is_left_out() -> None:
    good = packed(SOME_TYPE, 1, b"abcd")
    assert [m.body for m in messages(good + good[:-1])] == [b"abcd"]
    assert [m.body for m in messages(good + b"\1\0\0\0" + good)] == [b"abcd"]
    assert attributes(attribute(1, b"abcd") + b"\2\0\1\0") == {1: b"abcd"}


def test_messages_are_found_behind_padding() -> None:
    odd = packed(SOME_TYPE, 1, b"abcde") + b"\0\0\0"
    assert [(m.sequence, m.body) for m in messages(odd + packed(SOME_TYPE, 2))] == [(1, b"abcde"), (2, b"")]


def test_the_kernels_own_words_are_found_behind_a_capped_request() -> None:
    words = attribute(NLMSGERR_ATTR_MSG, b"Cannot change VNI.\0")
    body = struct.pack("=i", -errno.EOPNOTSUPP) + HEADER.pack(16, 16, 0, 1, 0) + words
    message = Message(NLMSG_ERROR, NLM_F_CAPPED | NLM_F_ACK_TLVS, 1, body)
    assert acknowledgement(message) == Ack(errno.EOPNOTSUPP, "Cannot change VNI.")


def test_the_kernels_own_words_are_found_behind_a_quoted_request() -> None:
    words = attribute(NLMSGERR_ATTR_MSG, b"no\0")
    body = struct.pack("=i", -errno.EINVAL) + HEADER.pack(21, 16, 0, 1, 0) + b"quote\0\0\0" + words
    assert acknowledgement(Message(NLMSG_ERROR, NLM_F_ACK_TLVS, 1, body)) == Ack(errno.EINVAL, "no")


def test_the_end_of_a_listing_quotes_no_request() -> None:
    body = struct.pack("=i", -errno.ENODEV) + attribute(NLMSGERR_ATTR_MSG, b"gone\0")
    assert acknowledgement(Message(NLMSG_DONE, NLM_F_ACK_TLVS, 1, body)) == Ack(errno.ENODEV, "gone")


# Errors


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENODEV, LinkGone),
        (errno.EPERM, NotPermitted),
        # Not a matter of rights: IPv6 is switched off on that device.
        (errno.EACCES, KernelError),
        (errno.EOPNOTSUPP, Unsupported),
        (errno.EAFNOSUPPORT, Unsupported),
        (errno.EEXIST, AlreadyThere),
        (errno.EINVAL, KernelError),
    ],
)
def test_an_errno_becomes_what_can_be_done_about_it(code: int, kind: type[KernelError]) -> None:
    error = refusal("ip link del x", Ack(code, "the kernel's words"))
    assert type(error) is kind
    assert (error.what, error.code, error.text) == ("ip link del x", code, "the kernel's words")


# Conversations


def test_each_request_gets_its_own_answer() -> None:
    refuse = {3: errno.EEXIST, WINDOW - 1: errno.EINVAL, WINDOW + 7: errno.ENODEV}
    acks = Conversation(Scripted(obliging(refuse))).batch(numbered(2 * WINDOW + 10))
    assert [ack.code for ack in acks] == [refuse.get(number, 0) for number in range(2 * WINDOW + 10)]


def test_a_window_asks_for_one_answer() -> None:
    channel = Scripted(obliging())
    Conversation(channel).batch(numbered(WINDOW + 1))
    assert [len(sent) for sent in channel.sent] == [WINDOW, 1]
    asking = [message.flags & NLM_F_ACK for message in channel.sent[0]]
    assert asking == [0] * (WINDOW - 1) + [NLM_F_ACK]
    assert channel.sent[0][0].flags == NLM_F_REQUEST | NLM_F_CREATE


def test_nothing_is_sent_for_no_requests() -> None:
    channel = Scripted(obliging())
    assert Conversation(channel).batch([]) == []
    assert channel.sent == []


def test_an_overrun_is_never_taken_for_success() -> None:
    def reply(sent: list[Message]) -> list[bytes | OSError]:
        return [OSError(errno.ENOBUFS, ""), answer(sent[0].sequence, errno.EEXIST), answer(sent[-1].sequence)]

    acks = Conversation(Scripted(reply)).batch(numbered(4))
    assert acks == [Ack(errno.EEXIST), LOST, LOST, Ack(0)]


def test_a_missing_last_answer_leaves_all_in_doubt() -> None:
    acks = Conversation(Scripted(lambda sent: [answer(sent[1].sequence, errno.EEXIST)])).batch(numbered(3))
    assert acks == [LOST, Ack(errno.EEXIST), LOST]


def test_doubt_ends_with_the_window() -> None:
    acks = Conversation(Scripted(lambda sent: [], obliging())).batch(numbered(WINDOW + 2))
    assert acks == [LOST] * WINDOW + [Ack(0)] * 2


def test_a_send_that_fails_fails_its_window() -> None:
    def reply(sent: list[Message]) -> list[bytes | OSError]:
        raise OSError(errno.ENOMEM, "")

    assert {ack.code for ack in Conversation(Scripted(reply)).batch(numbered(3))} == {errno.ENOMEM}


def test_only_the_kernel_is_believed() -> None:
    channel = Scripted(obliging())
    channel.sender = 4711
    assert Conversation(channel).batch(numbered(1)) == [LOST]


def test_answers_to_earlier_questions_are_passed_over() -> None:
    def reply(sent: list[Message]) -> list[bytes | OSError]:
        last = sent[0].sequence
        return [packed(SOME_TYPE, last - 1, b"old!") + packed(SOME_TYPE, last, b"new!") + answer(last, kind=NLMSG_DONE)]

    conversation = Conversation(Scripted(reply))
    assert conversation.ask("asking", Request(SOME_TYPE, b"")) == b"new!"
    assert conversation.dump("listing", Request(SOME_TYPE, b"")) == [b"new!"]


def test_a_question_that_is_refused_says_what_was_asked() -> None:
    conversation = Conversation(Scripted(lambda sent: [answer(sent[0].sequence, errno.ENODEV)]))
    with pytest.raises(LinkGone, match="looking up eth7"):
        conversation.ask("looking up eth7", Request(SOME_TYPE, b""))


def test_a_question_without_an_answer_is_an_error() -> None:
    with pytest.raises(KernelError, match="lost"):
        Conversation(Scripted(lambda sent: [])).ask("asking", Request(SOME_TYPE, b""))


def listing(*parts: list[bytes], torn: int = 0) -> Reply:
    """A dump in several datagrams, interrupted by a change the first ``torn`` times."""
    left = iter(range(torn))

    def reply(sent: list[Message]) -> list[bytes | OSError]:
        sequence = sent[0].sequence
        flags = NLM_F_DUMP_INTR if next(left, None) is not None else 0
        datagrams = [b"".join(packed(SOME_TYPE, sequence, body, flags) for body in part) for part in parts]
        return [*datagrams, answer(sequence, kind=NLMSG_DONE)]

    return reply


def test_a_listing_spans_datagrams() -> None:
    channel = Scripted(listing([b"1111", b"2222"], [b"3333"]))
    assert Conversation(channel).dump("listing", Request(SOME_TYPE, b"")) == [b"1111", b"2222", b"3333"]
    assert channel.sent[0][0].flags == NLM_F_REQUEST | NLM_F_DUMP


@pytest.mark.parametrize("torn", [1, DUMP_ATTEMPTS - 1])
def test_a_listing_of_a_changing_table_is_done_again(torn: int) -> None:
    channel = Scripted(listing([b"1111"], torn=torn))
    assert Conversation(channel).dump("listing", Request(SOME_TYPE, b"")) == [b"1111"]
    assert len(channel.sent) == torn + 1


def test_a_table_that_never_rests_is_an_error() -> None:
    channel = Scripted(listing([b"1111"], torn=DUMP_ATTEMPTS))
    with pytest.raises(KernelError, match="listing routes: the table changed"):
        Conversation(channel).dump("listing routes", Request(SOME_TYPE, b""))


def test_a_listing_without_an_end_is_done_again() -> None:
    channel = Scripted(lambda sent: [packed(SOME_TYPE, sent[0].sequence, b"1111")], listing([b"2222"]))
    assert Conversation(channel).dump("listing", Request(SOME_TYPE, b"")) == [b"2222"]


def test_a_listing_that_overran_is_done_again() -> None:
    def overrun(sent: list[Message]) -> list[bytes | OSError]:
        return [OSError(errno.ENOBUFS, ""), *listing([b"1111"])(sent)]

    channel = Scripted(overrun, listing([b"1111"], [b"2222"]))
    assert Conversation(channel).dump("listing", Request(SOME_TYPE, b"")) == [b"1111", b"2222"]


@pytest.mark.parametrize("kind", [NLMSG_DONE, NLMSG_ERROR])
def test_a_listing_can_be_refused_at_its_start_and_at_its_end(kind: int) -> None:
    channel = Scripted(lambda sent: [answer(sent[0].sequence, errno.ENODEV, kind)])
    with pytest.raises(LinkGone):
        Conversation(channel).dump("listing", Request(SOME_TYPE, b""))


def test_another_trouble_of_the_socket_is_not_hidden() -> None:
    with pytest.raises(ConnectionRefusedError):
        Conversation(Scripted(lambda sent: [ConnectionRefusedError()])).dump("listing", Request(SOME_TYPE, b""))


def test_sequence_numbers_start_again_before_the_field_is_full() -> None:
    conversation = Conversation(channel := Scripted(obliging()))
    conversation._sequence = MAX_SEQUENCE + 1
    assert conversation.batch(numbered(2)) == [Ack(0)] * 2
    assert [message.sequence for message in channel.sent[0]] == [1, 2]


# The kernel of this machine

BAD = Request(25, struct.pack("=BBBBBBBBI", 2, 24, 0, 0, 254, 3, 255, 1, 0) + attribute(1, bytes((10, 9, 9, 0))))
"""Deletes a route that is not there."""
LO = Request(18, struct.pack("=BxHiII", 0, 0, 1, 0, 0))


@pytest.mark.needs("root", "netns")
def test_a_real_overrun_is_never_taken_for_success() -> None:
    with Namespace("netlink") as space:
        conversation = Conversation(open_socket(space.name, receive_buffer=1))
        try:
            acks = conversation.batch([BAD] * WINDOW)
            assert {ack.code for ack in acks} == {errno.ESRCH, errno.ENOBUFS}
            assert acks[-1] == LOST
            assert conversation.ask("looking up lo", LO)
        finally:
            conversation.close()


@pytest.mark.needs("root", "netns")
def test_a_whole_window_of_refusals_fits_the_receive_buffer() -> None:
    with Namespace("netlink") as space:
        conversation = Conversation(open_socket(space.name))
        try:
            assert {ack.code for ack in conversation.batch([BAD] * (3 * WINDOW))} == {errno.ESRCH}
        finally:
            conversation.close()
