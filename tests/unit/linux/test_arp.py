"""The question, and what counts as an answer; the link itself is asked in tests/netns/test_doctor.py."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from pyflannel.linux.arp import PACKET, claimant, claimants, question
from pyflannel.state import Mac

ADDRESS = IPv4Address("192.0.2.1")
US, OTHER = Mac.parse("02:00:00:00:00:01"), Mac.parse("02:00:00:00:00:02")
REPLY = 2


def test_the_question_puts_nothing_into_anybodys_table() -> None:
    hardware, protocol, *_, operation, sender, claimed, _, target = PACKET.unpack(question(US, ADDRESS))
    assert (hardware, protocol, operation) == (1, 0x0800, 1)
    assert (sender, claimed, target) == (US, bytes(4), ADDRESS.packed)


def test_who_says_the_address_is_theirs_is_heard() -> None:
    answer = PACKET.pack(1, 0x0800, 6, 4, REPLY, OTHER, ADDRESS.packed, US, bytes(4))
    assert claimant(answer + bytes(18), ADDRESS) == OTHER
    assert claimant(answer, IPv4Address("192.0.2.2")) is None


def test_our_own_question_is_no_answer() -> None:
    assert claimant(question(US, ADDRESS), ADDRESS) is None


@given(st.binary(max_size=64))
def test_whatever_else_comes_is_passed_over(packet: bytes) -> None:
    found = claimant(packet, ADDRESS)
    assert found is None or packet[14:18] == ADDRESS.packed


def test_a_link_that_is_not_there_cannot_be_asked() -> None:
    assert claimants("no-such-dev", US, ADDRESS) is None
