from __future__ import annotations

import pytest

from pyflannel.probes.wire import (
    LARGEST_ERRAND,
    LONGEST_BODY,
    SHORTEST,
    Arrivals,
    BadPacket,
    Kind,
    Packet,
    decode,
    encode,
)

ANSWER = Packet(Kind.ANSWER, 0x0102030405060708, 9, 10, Arrivals(11, 12), Arrivals(13, 14))
BYTES = bytes.fromhex(
    "70666c70 01 02 0000 0102030405060708 00000009 0000000a 0000000b 0000000c 0000000d 0000000e".replace(" ", "")
)


def test_the_format_is_the_one_that_other_versions_know() -> None:
    assert encode(ANSWER) == BYTES
    assert decode(BYTES) == ANSWER


def test_an_answer_is_no_larger_than_any_question() -> None:
    assert len(encode(ANSWER)) == SHORTEST == len(encode(Packet(Kind.QUESTION, 1, 2, 3)))
    assert len(encode(Packet(Kind.RESULT, 1, 2, 3, body=bytes(LONGEST_BODY)))) == LARGEST_ERRAND


def test_a_datagram_is_as_large_as_asked_for_and_reads_the_same() -> None:
    errand = Packet(Kind.ERRAND, 1, 2, 3, body=b"which way?")
    for size in (0, SHORTEST + 10, 1400):
        data = encode(errand, size)
        assert len(data) == max(size, SHORTEST + 10)
        assert decode(data) == errand


def test_a_body_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 1200"):
        encode(Packet(Kind.ERRAND, 1, 2, 3, body=bytes(LONGEST_BODY + 1)))


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "0 octets: expected at least 40"),
        (BYTES[:-1], "39 octets"),
        (b"x" + BYTES[1:], "begins with 78666c7001"),
        (BYTES[:4] + b"\2" + BYTES[5:], "begins with 70666c7002"),
        (BYTES[:5] + b"\0" + BYTES[6:], "kind 0"),
        (BYTES[:5] + b"\5" + BYTES[6:], "kind 5"),
        (BYTES[:6] + b"\0\1" + BYTES[8:], "a body of 1 octets in 40"),
        (BYTES[:6] + b"\4\xb1" + BYTES[8:] + bytes(2000), "a body of 1201 octets"),
    ],
)
def test_what_is_none_of_ours_is_told_by_what_is_wrong(data: bytes, complaint: str) -> None:
    with pytest.raises(BadPacket, match=complaint):
        decode(data)


def test_what_arrived_is_known_as_far_back_as_the_report_goes() -> None:
    arrivals = Arrivals(40, 0b1011)
    assert [number for number in range(60) if arrivals.has(number)] == [37, 39, 40]
    assert not Arrivals().has(1)
