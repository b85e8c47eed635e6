from __future__ import annotations

from pyflannel.tunnel.columns import Column, network_columns, sequence_numbers
from tests.support.tunnel_packets import Flow


def test_a_column_is_written_into_every_segment() -> None:
    segments = bytearray(b"a..d" * 2 + b"a..")
    Column.of_words(1, [0x3132, 0x3334, 0x3536]).write(segments, 4)
    assert segments == b"a12da34da56"


def test_sequence_numbers_wrap_around() -> None:
    assert sequence_numbers(0xFFFFFFFE, 3, 2) == [0xFFFFFFFE, 1]


def test_headers_are_those_of_consecutive_packets() -> None:
    for flow in (
        Flow(identification=0xFFFF),
        Flow(ip_options=b"\1" * 4),
        Flow(source="fd00::1", destination="fd00::2"),
    ):
        wanted = [flow.udp(b"x" * 20, 0), flow.udp(b"x" * 20, 1), flow.udp(b"x" * 7, 2)]
        size = len(wanted[0])
        written = bytearray(wanted[0][: flow.ip_size] + bytes(28)) * 2 + wanted[0][: flow.ip_size] + bytes(15)
        for column in network_columns(wanted[0][: flow.ip_size], [28, 28, 15]):
            column.write(written, size)
        for number, packet in enumerate(wanted):
            assert written[number * size :][: flow.ip_size] == packet[: flow.ip_size]
