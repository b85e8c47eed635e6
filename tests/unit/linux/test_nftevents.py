"""Which bytes are news, and where nobody can listen.  What the kernel tells is in tests/contract and tests/netns."""

from __future__ import annotations

import asyncio
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflannel.linux.nftevents import RuleEvents, ends_transaction


def message(kind: int, body: bytes = b"\2\0\0\1") -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def test_a_new_generation_ends_a_transaction_wherever_it_stands() -> None:
    # As tapped from a kernel while ``iptables-nft -A FORWARD -j X`` ran: chain, rule, generation.
    chain, rule, generation = message(0xA03), message(0xA06), message(0xA0F)
    assert ends_transaction(generation)
    assert ends_transaction(chain + rule + generation)
    assert ends_transaction(generation + chain)


def test_a_part_of_a_transaction_is_no_news_yet() -> None:
    assert not ends_transaction(message(0xA03) + message(0xA06))
    assert not ends_transaction(b"")


def test_messages_of_other_subsystems_are_no_news() -> None:
    # 1 is conntrack, 15 there is nothing of ours.
    assert not ends_transaction(message(0x10F))


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_any_bytes_can_be_read(before: bytes, after: bytes) -> None:
    ends_transaction(before)
    assert ends_transaction(message(0xA0F) + after)


def test_a_namespace_that_is_not_there_is_an_os_error_that_names_it() -> None:
    async def listen() -> None:
        RuleEvents("no-such-namespace")

    with pytest.raises(OSError, match="no-such-namespace"):
        asyncio.run(listen())
