from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from pyflannel.tunnel.counters import Counters
from pyflannel.tunnel.packet import Drop
from pyflannel.tunnel.peers import Endpoint
from tests.support.tunnel_bench import Bench
from tests.support.tunnel_packets import Flow, plain, with_ttl

OUT = Flow(source="10.1.1.2", destination="10.1.2.3")
IN = Flow(source="10.1.2.3", destination="10.1.1.2")


@pytest.fixture
def bench() -> Iterator[Bench]:
    with Bench() as made:
        yield made


def aged(*packets: bytes) -> list[bytes]:
    return [with_ttl(packet, 63) for packet in packets]


def test_a_frame_becomes_a_datagram_and_a_datagram_a_frame(bench: Bench) -> None:
    bench.device.send(plain(OUT.udp(b"out")))
    bench.peer.sendto(IN.udp(b"in"), bench.address)
    bench.turn()
    assert bench.datagrams() == aged(OUT.udp(b"out"))
    assert bench.frames() == [plain(one) for one in aged(IN.udp(b"in"))]


def test_a_super_packet_arrives_as_single_datagrams(bench: Bench) -> None:
    bench.device.send(OUT.tcp_super(bytes(50000), 1000))
    bench.turn()
    assert bench.datagrams() == replace(OUT, ttl=63).tcp_segments(bytes(50000), 1000)


def test_large_frames_are_sent_before_more_are_read(bench: Bench) -> None:
    for _ in range(3):
        bench.device.send(OUT.tcp_super(bytes(40000), 1000))
    for left in (True, True, False):
        bench.turn()
        assert len(bench.datagrams()) == 40
        assert bench.has_unread_frames() == left


def test_a_run_that_arrives_is_one_frame(bench: Bench) -> None:
    segments = IN.tcp_segments(bytes(5000), 1000)
    bench.send_run(b"".join(segments), len(segments[0]))
    bench.turn()
    assert bench.frames() == [replace(IN, ttl=63).tcp_super(bytes(5000), 1000)]


def test_many_small_packets_keep_their_order(bench: Bench) -> None:
    packets = [OUT.udp(f"{number:03}".encode(), number) for number in range(200)]
    for packet in packets:
        bench.device.send(plain(packet))
        bench.turn()
    assert bench.datagrams() == aged(*packets)


def test_a_device_without_virtio_headers_takes_packets_as_they_are() -> None:
    with Bench(vnet=False) as bench:
        bench.device.send(OUT.udp(b"out"))
        segments = IN.tcp_segments(bytes(3000), 1000)
        bench.send_run(b"".join(segments), len(segments[0]))
        bench.turn()
        assert bench.datagrams() == aged(OUT.udp(b"out"))
        assert bench.frames() == aged(*segments)


def test_a_kernel_without_udp_segment_gets_single_datagrams_for_good(bench: Bench) -> None:
    bench.socket.refuse_runs_with = errno.EIO
    bench.device.send(OUT.tcp_super(bytes(5000), 1000))
    bench.turn()
    assert not bench.pump.segments
    bench.socket.refuse_runs_with = errno.EBADF
    bench.device.send(OUT.tcp_super(bytes(5000), 1000))
    bench.turn()
    assert bench.datagrams() == replace(OUT, ttl=63).tcp_segments(bytes(5000), 1000) * 2
    assert bench.counters.drops == {}


@pytest.mark.parametrize("code", [errno.EMSGSIZE, errno.EINVAL])
def test_a_run_too_large_for_the_path_goes_out_singly_this_time(bench: Bench, code: int) -> None:
    bench.socket.refuse_runs_with = code
    bench.device.send(OUT.tcp_super(bytes(5000), 1000))
    bench.turn()
    assert bench.pump.segments
    assert bench.datagrams() == replace(OUT, ttl=63).tcp_segments(bytes(5000), 1000)


@pytest.mark.parametrize(
    ("code", "reason"),
    [(errno.ENOBUFS, Drop.NOT_SENT), (errno.EPERM, Drop.NOT_SENT), (errno.EMSGSIZE, Drop.TOO_BIG)],
)
def test_a_refused_datagram_is_counted_and_the_next_one_goes(bench: Bench, code: int, reason: Drop) -> None:
    bench.socket.refuse_all_with = code
    bench.device.send(plain(OUT.udp(b"lost")))
    bench.turn()
    bench.socket.refuse_all_with = 0
    bench.device.send(plain(OUT.udp(b"kept")))
    bench.turn()
    assert bench.datagrams() == aged(OUT.udp(b"kept"))
    assert bench.counters.drops == {reason: 1}


def test_a_refused_run_is_counted_packet_by_packet(bench: Bench) -> None:
    bench.socket.refuse_all_with = bench.socket.refuse_runs_with = errno.ENOBUFS
    bench.device.send(OUT.tcp_super(bytes(5000), 1000))
    bench.turn()
    assert bench.counters.drops == {Drop.NOT_SENT: 5}


def test_a_full_socket_stops_the_reading_of_the_device_and_loses_nothing(bench: Bench) -> None:
    bench.socket.room = 3
    packets = [OUT.udp(bytes([number]) * (number + 1), number) for number in range(40)]
    for packet in packets:
        bench.device.send(plain(packet))
    for _ in range(5):
        bench.turn()
    assert bench.has_unread_frames()
    assert bench.datagrams() == aged(*packets[:3])
    bench.socket.room = 1000
    for _ in range(5):
        bench.turn()
    assert bench.datagrams() == aged(*packets[3:])
    assert bench.counters.drops == {}


def test_a_run_goes_on_where_the_socket_was_full(bench: Bench) -> None:
    bench.pump.segments = False
    bench.socket.room = 2
    bench.device.send(OUT.tcp_super(bytes(5000), 1000))
    bench.turn()
    assert len(bench.datagrams()) == 2
    bench.socket.room = 1000
    bench.turn()
    assert bench.datagrams() == replace(OUT, ttl=63).tcp_segments(bytes(5000), 1000)[2:]


def test_a_full_device_stops_the_reading_of_the_socket_and_loses_nothing(bench: Bench) -> None:
    packets = [IN.udp(bytes(1000), number) for number in range(30)]
    bench.shrink_device()
    for packet in packets:
        bench.peer.sendto(packet, bench.address)
        bench.turn()
    waiting = bench.waiting_datagrams()
    got: list[bytes] = []
    for _ in packets:
        got += bench.frames(most=1)
        bench.turn()
    got += bench.frames()
    assert waiting
    assert got == [plain(one) for one in aged(*packets)]
    assert bench.engine.counters.drops == {}


def test_answers_are_not_kept_while_the_socket_is_full(bench: Bench) -> None:
    bench.socket.room = 0
    bench.device.send(plain(OUT.udp(b"waits")))
    bench.turn()
    bench.peer.sendto(replace(IN, ttl=1).udp(b"x"), bench.address)
    bench.turn()
    assert bench.counters.drops == {Drop.TTL: 1, Drop.STALLED: 1}
    bench.socket.room = 1000
    bench.turn()
    assert bench.datagrams() == aged(OUT.udp(b"waits"))


def test_only_so_many_answers_a_second(bench: Bench) -> None:
    def ask() -> int:
        for _ in range(150):
            bench.device.send(plain(replace(OUT, destination="10.1.9.9").udp(b"x")))
            bench.turn()
        return len(bench.frames())

    assert ask() == 100
    assert ask() == 0
    bench.now += 1.0
    assert ask() == 100


def test_after_detaching_nothing_is_read(bench: Bench) -> None:
    bench.pump.detach()
    bench.device.send(plain(OUT.udp(b"out")))
    bench.peer.sendto(IN.udp(b"in"), bench.address)
    bench.loop.turn(0)
    assert bench.has_unread_frames()
    assert bench.waiting_datagrams()


def test_detaching_writes_what_was_read(bench: Bench) -> None:
    bench.socket.room = 0
    bench.device.send(plain(OUT.udp(b"waits")))
    bench.turn()
    bench.socket.room = 1000
    bench.pump.detach()
    assert bench.datagrams() == aged(OUT.udp(b"waits"))


def test_detaching_does_not_wait_for_ever(bench: Bench) -> None:
    bench.socket.room = 0
    bench.device.send(plain(OUT.udp(b"waits")))
    bench.turn()
    bench.seconds_per_look = 0.5
    bench.pump.detach()
    assert bench.datagrams() == []


def test_a_device_that_refuses_a_frame_does_not_stop_the_next(bench: Bench) -> None:
    bench.device.shutdown(socket.SHUT_RD)
    bench.peer.sendto(IN.udp(b"x"), bench.address)
    bench.peer.sendto(IN.udp(b"x"), bench.address)
    bench.turn()
    assert bench.engine.counters.drops == {Drop.NOT_DELIVERED: 2}


def test_the_counters_are_those_of_the_peer(bench: Bench) -> None:
    bench.engine.table.add(IPv4Network("10.1.9.0/24"), Endpoint(IPv4Address("127.0.0.9"), 9))
    bench.device.send(plain(OUT.udp(b"x")))
    bench.turn()
    assert bench.counters == Counters(packets_out=1, bytes_out=29)
