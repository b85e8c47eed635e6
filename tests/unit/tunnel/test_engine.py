from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from pyflannel.tunnel import batch
from pyflannel.tunnel.counters import Counters
from pyflannel.tunnel.engine import Engine, Output, Own
from pyflannel.tunnel.packet import Drop
from pyflannel.tunnel.peers import Endpoint
from tests.support.tunnel_packets import VNET, Flow, echo_request, plain, with_ttl

PEER = Endpoint(IPv4Address("192.0.2.2"), 8285)
SENDER = int(PEER.address)
OUT = Flow(source="10.1.1.2", destination="10.1.2.3")
IN = Flow(source="10.1.2.3", destination="10.1.1.2")
OUT6 = Flow(source="fd00:0:0:1::2", destination="fd00:0:0:2::3")
IN6 = Flow(source="fd00:0:0:2::3", destination="fd00:0:0:1::2")
OWN = Own((IPv4Network("10.1.1.0/24"), IPv6Network("fd00:0:0:1::/64")), IPv4Address("10.1.1.0"), IPv6Address("fd00::1"))


@pytest.fixture
def engine() -> Engine:
    made = Engine(batch.PYTHON)
    made.table.add(IPv4Network("10.1.2.0/24"), PEER)
    made.table.add(IPv6Network("fd00:0:0:2::/64"), PEER)
    made.set_own(OWN)
    made.answers = 10
    return made


def peer_counters(engine: Engine) -> Counters:
    (peer,) = engine.table.peers
    return peer.counters


def outbound(engine: Engine, *frames: bytes) -> Output:
    return engine.outbound([memoryview(bytearray(frame)) for frame in frames])


def datagrams(output: Output) -> list[tuple[bytes, int, Endpoint]]:
    assert not output.frames
    return [(payload, size, peer.endpoint) for payload, size, peer in output.datagrams]


def frames(output: Output) -> list[bytes]:
    assert not output.datagrams
    return [bytes(frame) for frame in output.frames]


@pytest.mark.parametrize("flow", [OUT, OUT6], ids=["ipv4", "ipv6"])
def test_a_packet_goes_to_its_peer_with_its_ttl_one_lower(engine: Engine, flow: Flow) -> None:
    packet = with_ttl(flow.udp(b"x"), 63)
    assert datagrams(outbound(engine, plain(flow.udp(b"x")))) == [(packet, len(packet), PEER)]
    assert peer_counters(engine) == Counters(packets_out=1, bytes_out=len(packet))


def test_the_ttl_goes_down_in_every_segment(engine: Engine) -> None:
    (sent,) = datagrams(outbound(engine, OUT.tcp_super(bytes(2500), 1000)))
    wanted = b"".join(replace(OUT, ttl=63).tcp_segments(bytes(2500), 1000))
    assert sent == (wanted, 1052, PEER)
    assert peer_counters(engine) == Counters(packets_out=3, bytes_out=len(wanted))


def test_packets_of_one_size_are_sent_at_once(engine: Engine) -> None:
    packets = [OUT.udp(b"x" * 100, number) for number in range(3)]
    (sent,) = datagrams(outbound(engine, *map(plain, packets)))
    assert sent == (b"".join(with_ttl(packet, 63) for packet in packets), 128, PEER)


def test_a_partial_checksum_is_completed(engine: Engine) -> None:
    (sent,) = datagrams(outbound(engine, OUT.partial(OUT.udp(b"x"), 17)))
    assert sent[0] == with_ttl(OUT.udp(b"x"), 63)


def test_an_unknown_destination_is_network_unreachable(engine: Engine) -> None:
    packet = replace(OUT, destination="10.1.3.3").udp(b"x")
    (answer,) = frames(outbound(engine, plain(packet)))
    assert answer[VNET + 20 : VNET + 22] == b"\3\0"
    assert answer[VNET + 12 : VNET + 20] == IPv4Address("10.1.1.0").packed + IPv4Address("10.1.1.2").packed
    assert answer.endswith(packet)
    assert engine.counters.drops == {Drop.NO_ROUTE: 1}


@pytest.mark.parametrize(("flow", "kind"), [(OUT, (11, 0)), (OUT6, (3, 0))], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("ttl", [0, 1])
def test_a_ttl_at_its_end_is_answered(engine: Engine, flow: Flow, kind: tuple[int, int], ttl: int) -> None:
    (answer,) = frames(outbound(engine, plain(replace(flow, ttl=ttl).udp(b"x"))))
    assert tuple(answer[VNET + flow.ip_size : VNET + flow.ip_size + 2]) == kind
    assert peer_counters(engine).drops == {Drop.TTL: 1}


def test_answers_stop_when_there_may_be_no_more(engine: Engine) -> None:
    engine.answers = 2
    unroutable = plain(replace(OUT, destination="10.1.3.3").udp(b"x"))
    assert len(frames(outbound(engine, *[unroutable] * 5))) == 2
    assert engine.counters.drops == {Drop.NO_ROUTE: 5}


def test_without_an_address_there_are_no_answers(engine: Engine) -> None:
    engine.set_own(Own(OWN.subnets))
    assert frames(outbound(engine, plain(replace(OUT, destination="10.1.3.3").udp(b"x")))) == []


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", Drop.SHORT),
        (plain(b"\x45" * 19), Drop.SHORT),
        (plain(b"\x55" * 30), Drop.VERSION),
        (plain(OUT.udp(b"xyz")[:-1]), Drop.LENGTH),
    ],
    ids=["empty", "short", "version", "length"],
)
def test_what_is_no_packet_is_dropped_and_counted(engine: Engine, frame: bytes, reason: Drop) -> None:
    assert datagrams(outbound(engine, frame)) == []
    assert engine.counters.drops == {reason: 1}


def test_a_senseless_virtio_header_is_dropped_and_counted(engine: Engine) -> None:
    frame = bytearray(OUT.tcp_super(bytes(100), 50))
    frame[1] = 77
    assert datagrams(outbound(engine, bytes(frame))) == []
    assert peer_counters(engine).drops == {Drop.OFFLOAD: 1}


def test_what_no_datagram_holds_is_answered_with_the_size_that_fits(engine: Engine) -> None:
    flow = replace(OUT, fragment=0x4000)
    (answer,) = frames(outbound(engine, plain(flow.udp(bytes(65507 - 27)))))
    assert answer[VNET + 20 : VNET + 28] == b"\3\4" + answer[VNET + 22 : VNET + 24] + b"\0\0" + (65507).to_bytes(
        2, "big"
    )
    assert frames(outbound(engine, plain(replace(flow, fragment=0).udp(bytes(65507 - 27))))) == []
    assert peer_counters(engine).drops == {Drop.TOO_BIG: 2}
    assert len(datagrams(outbound(engine, plain(flow.udp(bytes(65507 - 28)))))) == 1


@pytest.mark.parametrize("flow", [IN, IN6], ids=["ipv4", "ipv6"])
def test_a_datagram_of_a_peer_comes_in_with_its_ttl_one_lower(engine: Engine, flow: Flow) -> None:
    packet = flow.udp(b"x")
    assert frames(engine.inbound(packet, 0, SENDER)) == [plain(with_ttl(packet, 63))]
    assert peer_counters(engine) == Counters(packets_in=1, bytes_in=len(packet))


def test_segments_come_in_together(engine: Engine) -> None:
    segments = IN.tcp_segments(bytes(2500), 1000)
    (frame,) = frames(engine.inbound(b"".join(segments), 1052, SENDER))
    assert frame == replace(IN, ttl=63).tcp_super(bytes(2500), 1000)
    assert peer_counters(engine) == Counters(packets_in=3, bytes_in=sum(map(len, segments)))


def test_segments_come_in_one_by_one_where_the_device_wants_it_so(engine: Engine) -> None:
    engine.merge = False
    segments = IN.tcp_segments(bytes(2500), 1000)
    got = frames(engine.inbound(b"".join(segments), 1052, SENDER))
    assert got == [plain(with_ttl(one, 63)) for one in segments]


def test_who_is_no_peer_is_not_heard(engine: Engine) -> None:
    assert frames(engine.inbound(IN.udp(b"x") * 3, len(IN.udp(b"x")), SENDER + 1)) == []
    assert engine.counters.drops == {Drop.UNKNOWN_SENDER: 3}


@pytest.mark.parametrize("source", ["10.1.3.3", "10.1.1.9", "192.0.2.2", "8.8.8.8"])
def test_a_peer_speaks_for_its_own_subnet_only(engine: Engine, source: str) -> None:
    engine.table.add(IPv4Network("10.1.3.0/24"), Endpoint(IPv4Address("192.0.2.3"), 8285))
    assert frames(engine.inbound(replace(IN, source=source).udp(b"x"), 0, SENDER)) == []
    assert next(iter(engine.table.peers)).counters.drops == {Drop.FOREIGN_SOURCE: 1}


@pytest.mark.parametrize("destination", ["10.1.3.3", "10.1.2.9", "255.255.255.255", "224.0.0.1"])
def test_a_peer_reaches_nothing_but_our_subnets(engine: Engine, destination: str) -> None:
    assert frames(engine.inbound(replace(IN, destination=destination).udp(b"x"), 0, SENDER)) == []
    assert peer_counters(engine).drops == {Drop.FOREIGN_DESTINATION: 1}


def test_all_segments_of_a_rejected_run_are_counted(engine: Engine) -> None:
    segments = replace(IN, source="8.8.8.8").tcp_segments(bytes(2500), 1000)
    assert frames(engine.inbound(b"".join(segments), 1052, SENDER)) == []
    assert peer_counters(engine).drops == {Drop.FOREIGN_SOURCE: 3}


def test_a_ttl_at_its_end_is_answered_through_the_tunnel(engine: Engine) -> None:
    ((answer, size, peer),) = datagrams(engine.inbound(replace(IN, ttl=1).udp(b"x"), 0, SENDER))
    assert (peer, size, answer[20:22]) == (PEER, len(answer), b"\x0b\0")
    assert peer_counters(engine) == Counters(packets_out=1, bytes_out=size, drops={Drop.TTL: 1})


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [(b"", Drop.SHORT), (b"\x45", Drop.SHORT), (b"\x15" * 40, Drop.VERSION), (IN.udp(b"xyz")[:-1], Drop.LENGTH)],
    ids=["empty", "short", "version", "length"],
)
def test_a_datagram_that_is_no_packet_is_counted_with_its_peer(engine: Engine, datagram: bytes, reason: Drop) -> None:
    assert frames(engine.inbound(datagram, 0, SENDER)) == []
    assert peer_counters(engine).drops == {reason: 1}


def test_an_echo_request_comes_through_as_it_is(engine: Engine) -> None:
    assert frames(engine.inbound(echo_request(IN), 0, SENDER)) == [plain(with_ttl(echo_request(IN), 63))]


def test_a_fragment_comes_through_as_it_is(engine: Engine) -> None:
    fragment = replace(IN, fragment=0x2005).ip(17, b"rest of a datagram")
    assert frames(engine.inbound(fragment, 0, SENDER)) == [plain(with_ttl(fragment, 63))]


def test_before_it_is_told_anything_the_engine_lets_nothing_through() -> None:
    engine = Engine(batch.PYTHON)
    assert frames(engine.inbound(IN.udp(b"x"), 0, SENDER)) == []
    assert outbound(engine, plain(OUT.udp(b"x"))) == Output([], [])
    assert engine.counters.drops == {Drop.UNKNOWN_SENDER: 1, Drop.NO_ROUTE: 1}
