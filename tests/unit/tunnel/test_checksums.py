from __future__ import annotations

import pytest

from pyflannel.tunnel.checksums import checksum, complement, total
from tests.support.tunnel_packets import internet_checksum

SAMPLES = [b"", b"\0", b"\0\0", b"\xff", b"\xff\xff", b"\x12\x34\x56", bytes(range(256)) * 6, b"\xff" * 65535]


@pytest.mark.parametrize("data", SAMPLES, ids=len)
def test_checksum_is_that_of_rfc_1071(data: bytes) -> None:
    assert checksum(data) == internet_checksum(data)


def test_example_of_rfc_1071_section_3() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF ^ 0xDDF2


def test_data_with_its_checksum_in_it_has_checksum_zero() -> None:
    data = b"\x45\0\0\x1c"
    assert checksum(data + checksum(data).to_bytes(2, "big")) == 0


def test_start_is_added() -> None:
    assert checksum(b"\x00\x02", 0x10001) == internet_checksum(b"\x00\x02\x00\x01\x00\x01")


def test_only_nothing_but_zeros_sum_up_to_zero() -> None:
    assert checksum(bytes(8)) == 0xFFFF
    assert checksum(b"\xff\xff") == 0


def test_total_pads_an_odd_octet_at_the_end() -> None:
    assert total(b"\x01\x02\x03") % 0xFFFF == total(b"\x01\x02\x03\x00") % 0xFFFF


def test_complement_makes_a_sum_come_out_right_and_is_never_all_ones() -> None:
    for number in (1, 0xFFFE, 0xFFFF, 0x10000, 0x1FFFE, 123456789):
        assert (number + complement(number)) % 0xFFFF == 0
        assert complement(number) < 0xFFFF
