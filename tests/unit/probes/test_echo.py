from __future__ import annotations

import pytest

from pyflannel.probes import echo
from tests.support.tunnel_packets import internet_checksum

HEADER = bytes.fromhex("4500003c00004000400100000a0201000a020200")


def test_a_request_is_one_that_every_kernel_answers() -> None:
    message = echo.request(4, 0x1122334455667788, 0x12345, 0x54321, 64)
    assert len(message) == 64
    assert (message[:2], message[4:16]) == (b"\x08\x00", bytes.fromhex("234543211122334455667788"))
    assert internet_checksum(message) == 0


def test_of_ipv6_the_kernel_makes_the_checksum() -> None:
    assert echo.request(6, 1, 2, 3)[:4] == b"\x80\0\0\0"


def test_no_request_is_too_short_for_its_nonce() -> None:
    assert len(echo.request(4, 1, 2, 3, size=-20)) == echo.SHORTEST


@pytest.mark.parametrize(("version", "header", "kind"), [(4, HEADER, 0), (6, b"", 129)])
def test_the_answer_bears_the_nonce(version: int, header: bytes, kind: int) -> None:
    answer = header + bytes([kind]) + echo.request(version, 77, 2, 3)[1:]
    assert echo.reply(version, answer) == 77
    assert echo.reply(version, answer[:-1]) is None


@pytest.mark.parametrize("data", [b"", b"\x45", b"\xff" * 40, HEADER + echo.request(4, 1, 2, 3)])
def test_nothing_else_is_an_answer(data: bytes) -> None:
    assert echo.reply(4, data) is None
    assert echo.reply(6, data) is None
