"""Laws of the tunnel: what goes in comes out, nothing else does, and both twins agree about every octet."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflannel.tunnel import icmp
from pyflannel.tunnel.batch import PYTHON, Batch
from pyflannel.tunnel.engine import Engine, Own
from pyflannel.tunnel.packet import Malformed, decrement_ttl, read_header
from pyflannel.tunnel.peers import Endpoint
from pyflannel.tunnel.routes import Network, Routes
from pyflannel.tunnel.segments import MOST_SEGMENTS, Run
from tests.support.tunnel_packets import ACK, CWR, ECE, FIN, PSH, URG, Flow, internet_checksum, plain, with_ttl
from tests.support.tunnel_twin import c_twin

PEER = Endpoint(IPv4Address("192.0.2.2"), 8285)
ends = st.sampled_from([("10.1.2.3", "10.1.1.2"), ("fd00::2:3", "fd00::1:2")])
flags = st.sampled_from([0, PSH, FIN, CWR, ECE, URG, PSH | FIN | ECE]).map(lambda some: some | ACK)
numbers = st.one_of(st.integers(0, 0xFFFFFFFF), st.integers(0xFFFF0000, 0xFFFFFFFF))
tcp_options = st.integers(0, 10).flatmap(lambda words: st.binary(min_size=4 * words, max_size=4 * words))


@st.composite
def flows(draw: st.DrawFn, *, options: bool = True) -> Flow:
    source, destination = draw(ends)
    return Flow(
        source,
        destination,
        tos=draw(st.integers(0, 255)),
        identification=draw(st.integers(0, 0xFFFF)),
        fragment=draw(st.sampled_from([0, 0x4000])),
        ttl=draw(st.integers(2, 255)),
        ip_options=draw(st.sampled_from([b"", b"\1" * 4, b"\1" * 40])) if options and ":" not in source else b"",
        sequence=draw(numbers),
        acknowledgement=draw(numbers),
        flags=draw(flags),
        window=draw(st.integers(0, 0xFFFF)),
        tcp_options=draw(tcp_options),
    )


sizes = st.one_of(st.integers(1, 40), st.integers(500, 1460))
payloads = st.one_of(st.binary(min_size=1, max_size=300), st.integers(1, 65000).map(bytes))
"""Long ones hold zeros: what they hold is a matter for short ones."""


@st.composite
def supers(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """A super-packet, and what it is to be cut into."""
    flow, size = draw(flows()), draw(sizes)
    payload = draw(payloads)[: 200 * size][: 65535 - 120]
    if draw(st.booleans()):
        return flow.tcp_super(payload, size), flow.tcp_segments(payload, size)
    return flow.udp_super(payload, size), flow.udp_segments(payload, size)


def cut(runs: Sequence[Run]) -> list[bytes]:
    return [payload[at : at + size] for payload, size in runs for at in range(0, len(payload), size)]


def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Some octets changed, mostly in the headers; then perhaps truncated or prolonged."""
    made = bytearray(data)
    for _ in range(draw(st.integers(0, 3))):
        if made:
            at = draw(st.integers(0, min(len(made), 130) - 1))
            made[at] = draw(st.one_of(st.integers(0, 255), st.sampled_from([0, 1, 4, 5, 0x45, 0x60, 255])))
    end = draw(st.one_of(st.just(len(made)), st.integers(0, len(made))))
    return bytes(made[:end]) + draw(st.sampled_from([b"", b"", b"x"]))


@st.composite
def damages(draw: st.DrawFn, data: bytes) -> bytes:
    return damaged(draw, data)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Anything a device might hand over, and more."""
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return draw(st.binary(max_size=200))
    if kind == 1:
        flow = draw(flows())
        return damaged(draw, flow.partial(flow.udp(draw(st.binary(max_size=20))), 17))
    return damaged(draw, draw(supers())[0])


@st.composite
def batches(draw: st.DrawFn) -> tuple[bytes, int]:
    """Anything a socket might hand over, and more."""
    flow, size = draw(flows()), draw(sizes)
    segments = flow.tcp_segments(draw(st.binary(min_size=1, max_size=8 * size))[: 8 * size], size)
    if draw(st.booleans()):
        other = replace(flow, window=flow.window ^ 1).tcp_segments(bytes(3 * size), size)
        segments = [one for pair in zip(segments, other, strict=False) for one in pair]
    if draw(st.booleans()):
        segments = draw(st.permutations(segments[:5]))
    length = draw(st.sampled_from([len(segments[0]), len(segments[0]), len(segments[0]) + 1, 0, 20, 1]))
    return damaged(draw, b"".join(segments)), length


@given(supers())
def test_a_super_packet_is_cut_as_the_senders_kernel_would(case: tuple[bytes, list[bytes]]) -> None:
    frame, wanted = case
    runs = PYTHON.segment(frame)
    assert cut(runs) == wanted
    assert all(len(payload) <= 65507 and -(-len(payload) // size) <= MOST_SEGMENTS for payload, size in runs)


@given(flows(options=False), sizes, st.integers(2, 40), st.data())
def test_segments_put_together_come_apart_the_same(flow: Flow, size: int, count: int, data: st.DataObject) -> None:
    flow = replace(flow, flags=ACK | (flow.flags & (PSH | ECE)))
    payload = bytes(size * (count - 1)) + data.draw(st.binary(min_size=1, max_size=size))
    segments = flow.tcp_segments(payload, size)
    (frame,) = PYTHON.coalesce(b"".join(segments), len(segments[0]))
    assert bytes(frame) == flow.tcp_super(payload, size)
    assert cut(PYTHON.segment(frame)) == segments


@given(batches())
def test_whatever_is_put_together_no_octet_of_it_is_lost(case: tuple[bytes, int]) -> None:
    data, size = case
    frames = PYTHON.coalesce(data, size)
    assert b"".join(b"".join(cut(PYTHON.segment(frame))) if frame[1] else bytes(frame[10:]) for frame in frames) == data


def twin() -> Batch:
    compiled = c_twin()
    if compiled is None:
        pytest.skip("neither the extension nor a compiler is there")
    return compiled


@given(frames())
def test_both_twins_cut_alike(frame: bytes) -> None:
    assert twin().segment(frame) == PYTHON.segment(frame)


@given(batches())
def test_both_twins_put_together_alike(case: tuple[bytes, int]) -> None:
    assert twin().coalesce(*case) == PYTHON.coalesce(*case)


@given(st.binary(max_size=3000), st.integers(0, 2**64 - 1))
def test_both_twins_add_up_alike(data: bytes, start: int) -> None:
    assert twin().checksum(data, start) == PYTHON.checksum(data, start)


@given(st.binary(max_size=3000))
def test_checksum_is_that_of_rfc_1071(data: bytes) -> None:
    assert PYTHON.checksum(data, 0) == internet_checksum(data)


def engine(functions: Batch) -> Engine:
    made = Engine(functions)
    made.table.add(IPv4Network("10.1.2.0/24"), PEER)
    made.table.add(IPv6Network("fd00::2:0/112"), PEER)
    subnets = (IPv4Network("10.1.1.0/24"), IPv6Network("fd00::1:0/112"))
    made.set_own(Own(subnets, IPv4Address("10.1.1.0"), IPv6Address("fd00::1:0")))
    made.answers = 1000
    return made


@given(st.lists(frames(), max_size=4))
def test_the_engine_survives_any_frame(read: list[bytes]) -> None:
    made = engine(PYTHON)
    output = made.outbound([memoryview(bytearray(frame)) for frame in read])
    assert all(0 < size <= len(payload) <= 65507 for payload, size, _ in output.datagrams)


@given(batches())
def test_the_engine_accounts_for_every_datagram(case: tuple[bytes, int]) -> None:
    data, size = case
    made = engine(PYTHON)
    output = made.inbound(data, size, int(PEER.address))
    (peer,) = made.table.peers
    count = max(1, -(-len(data) // size) if size else 1)
    assert peer.counters.packets_in + sum(peer.counters.drops.values()) == count
    assert all(len(frame) > 10 for frame in output.frames)


@given(flows(), st.binary(max_size=50))
def test_a_packet_crosses_two_engines_and_loses_two_of_its_ttl(flow: Flow, payload: bytes) -> None:
    sender, receiver = engine(PYTHON), Engine(PYTHON)
    receiver.table.add(IPv4Network("10.1.1.0/24"), PEER)
    receiver.table.add(IPv6Network("fd00::1:0/112"), PEER)
    receiver.set_own(Own((IPv4Network("10.1.2.0/24"), IPv6Network("fd00::2:0/112"))))
    flow = replace(flow, source=flow.destination, destination=flow.source, ttl=max(3, flow.ttl))
    packet = flow.tcp(payload)
    ((datagram, size, _),) = sender.outbound([memoryview(bytearray(plain(packet)))]).datagrams
    (frame,) = receiver.inbound(datagram, size, int(PEER.address)).frames
    assert bytes(frame) == plain(with_ttl(packet, flow.ttl - 2))


@given(st.one_of(st.binary(max_size=100), flows().map(lambda flow: flow.udp(b"x"))), st.data())
def test_no_icmp_message_is_about_another(packet: bytes, data: st.DataObject) -> None:
    packet = data.draw(damages(packet))
    makers: list[Callable[[bytes, int], bytes | None]] = [icmp.network_unreachable, icmp.time_exceeded]
    makers.append(lambda offender, source: icmp.too_big(offender, source, 1280))
    version = packet[0] >> 4 if packet else 0
    here = int(IPv6Address("fd00::1")) if version == 6 else int(IPv4Address("10.1.1.0"))
    message = data.draw(st.sampled_from(makers))(packet, here)
    if message is not None:
        assert icmp.time_exceeded(message, here) is None
        assert read_header(message).length == len(message)
        header = read_header(packet)
        assert read_header(message).destination == header.source


@given(st.one_of(st.binary(max_size=80), flows().map(lambda flow: flow.tcp(b""))), st.data())
def test_a_header_is_read_or_refused(packet: bytes, data: st.DataObject) -> None:
    packet = data.draw(damages(packet))
    try:
        header = read_header(packet)
    except Malformed:
        return
    assert header.size <= header.length <= len(packet)
    assert header.version == packet[0] >> 4
    if header.ttl:
        aged = bytearray(packet)
        decrement_ttl(aged, header)
        assert read_header(aged) == header._replace(ttl=header.ttl - 1)


def network(version: int, length: int, address: int) -> Network:
    bits = 32 if version == 4 else 128
    shift = bits - length
    first = (address >> shift << shift).to_bytes(bits // 8, "big")
    return ip_network((first, length))


addresses = st.one_of(st.integers(0x0A010000, 0x0A0103FF), st.integers(0, 2**32 - 1))
long_addresses = st.one_of(st.integers(0xFD00 << 112, (0xFD00 << 112) + 1000), st.integers(0, 2**128 - 1))
networks = st.one_of(
    st.builds(network, st.just(4), st.one_of(st.integers(0, 32), st.just(24)), addresses),
    st.builds(network, st.just(6), st.one_of(st.integers(0, 128), st.just(112)), long_addresses),
)


@given(
    st.lists(st.tuples(st.booleans(), networks, st.integers(0, 5)), max_size=30),
    st.lists(addresses, max_size=20),
    st.lists(long_addresses, max_size=20),
)
def test_routes_find_what_a_search_through_all_networks_finds(
    changes: list[tuple[bool, Network, int]], four: list[int], six: list[int]
) -> None:
    routes: Routes[int] = Routes()
    known: dict[Network, int] = {}
    for add, net, value in changes:
        if add:
            routes.add(net, value)
            known[net] = value
        else:
            assert routes.remove(net) == known.pop(net, None)
    assert len(routes) == len(known)
    assert sorted(value for _, value in routes.items()) == sorted(known.values())
    asked = [IPv4Address(one) for one in four] + [IPv6Address(one) for one in six]
    for address in [*asked, *(net[0] for net in known), *(net[-1] for net in known)]:
        holding = [net for net in known if net.version == address.version and address in net]
        best = max(holding, key=lambda net: net.prefixlen, default=None)
        assert routes.find(address.version, int(address)) == (None if best is None else known[best])


def test_the_layout_of_the_virtio_header_is_that_of_linux() -> None:
    frame = Flow().tcp_super(bytes(100), 50)
    assert struct.unpack_from("=BBHHHH", frame) == (1, 1, 52, 50, 20, 16)
