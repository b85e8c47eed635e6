from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

import pyflannel
from pyflannel.tunnel import messages
from pyflannel.tunnel.batch import PYTHON
from pyflannel.tunnel.control import ControlError, Remote, listen
from pyflannel.tunnel.engine import Own
from pyflannel.tunnel.forwarder import Forwarder
from pyflannel.tunnel.messages import Route
from pyflannel.tunnel.peers import Endpoint
from tests.support.tunnel_thread import Running

PEER = Endpoint(IPv4Address("192.0.2.2"), 8285)
ROUTES: list[Route] = [(IPv4Network((0x0A000000 + (number << 8), 24)), PEER) for number in range(1000)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tunnel.sock"


@pytest.fixture
def remote(path: Path) -> Iterator[Remote]:
    with Running(Forwarder(listen(path), PYTHON)):
        connected = Remote.connect(path)
        assert connected is not None
        with connected:
            yield connected
            connected.stop()


def test_a_new_forwarder_serves_nothing(remote: Remote) -> None:
    assert remote.hello() == messages.Status(
        messages.VERSION, os.getpid(), "Python", "", "", 0, 0, release=pyflannel.__version__
    )


def test_a_whole_table_takes_the_place_of_the_old_one(remote: Remote) -> None:
    remote.set_routes(3, ROUTES)
    assert (remote.hello().generation, remote.hello().routes) == (3, 1000)
    remote.set_routes(4, ROUTES[:10])
    assert (remote.hello().generation, remote.hello().routes) == (4, 10)
    remote.set_routes(5, [])
    assert (remote.hello().generation, remote.hello().routes) == (5, 0)


def test_half_a_table_changes_nothing(remote: Remote, path: Path) -> None:
    remote.set_routes(1, ROUTES[:10])
    other = Remote.connect(path)
    assert other is not None
    with other:
        other._ask(messages.parts_of(2, ROUTES)[0], messages.Done)
    assert (remote.hello().generation, remote.hello().routes) == (1, 10)


def test_parts_out_of_order_are_refused(remote: Remote) -> None:
    parts = messages.parts_of(2, ROUTES)
    remote._ask(parts[0], messages.Done)
    with pytest.raises(ControlError, match="part 2 of generation 2"):
        remote._ask(parts[2], messages.Done)
    with pytest.raises(ControlError):
        remote._ask(parts[1], messages.Done)
    assert remote.hello().routes == 0


def test_changes_apply_to_the_generation_they_were_made_for(remote: Remote) -> None:
    remote.set_routes(1, ROUTES[:10])
    remote.change_routes(1, 2, add=[ROUTES[10]], remove=[ROUTES[0][0], ROUTES[1][0]])
    assert (remote.hello().generation, remote.hello().routes) == (2, 9)
    with pytest.raises(ControlError, match="generation 2 is in use, not 1"):
        remote.change_routes(1, 3, add=[ROUTES[11]])
    assert remote.hello().routes == 9


def test_the_routes_in_use_can_be_read(remote: Remote) -> None:
    assert remote.routes() == (0, [])
    remote.set_routes(7, ROUTES)
    generation, found = remote.routes()
    assert (generation, sorted(found)) == (7, sorted(ROUTES))


def test_a_place_in_the_overlay_can_be_read(remote: Remote) -> None:
    own = Own((IPv4Network("10.1.1.0/24"),), IPv4Address("10.1.1.0"))
    remote.set_own(own)
    assert remote.hello().own == own


def test_one_that_was_never_started_ends_with_its_agent(path: Path) -> None:
    with Running(Forwarder(listen(path), PYTHON)):
        one, two = Remote.connect(path), Remote.connect(path)
        assert one is not None
        assert two is not None
        assert one.hello() == two.hello()
        one.close()
        assert two.hello().device == ""
        two.close()


def test_statistics_are_of_all_peers(remote: Remote) -> None:
    endpoints = [Endpoint(IPv4Address(0xC0000200 + number), 8285) for number in range(250)]
    remote.set_routes(1, [(network, endpoint) for (network, _), endpoint in zip(ROUTES, endpoints, strict=False)])
    statistics = remote.statistics()
    assert [endpoint for endpoint, _ in statistics.peers] == endpoints


def test_nothing_can_be_handed_over_before_the_start(remote: Remote) -> None:
    with pytest.raises(ControlError, match="not started"):
        remote.hand_over()


def test_a_start_without_two_descriptors_is_refused(remote: Remote) -> None:
    with pytest.raises(ControlError, match="expected 2 descriptors, found 0"):
        remote._ask(messages.Start(), messages.Done)


def test_what_is_no_tun_device_is_refused(remote: Remote) -> None:
    with socket.socket() as sock, pytest.raises(ControlError, match="ioctl"):
        remote.start(sock.fileno(), sock.fileno())
    assert remote.hello().device == ""


def test_nonsense_is_refused_and_the_next_request_served(remote: Remote) -> None:
    for raw in (b"nonsense", b"{}", b'{"do":"stop","version":99}', b"x" * (messages.LIMIT + 1)):
        remote._sock.send(raw)
        assert isinstance(messages.decode_answer(remote._sock.recv(messages.LIMIT)), messages.Refused)
    assert remote.hello().device == ""


def test_descriptors_nobody_asked_for_are_closed(remote: Remote) -> None:
    ours, theirs = os.pipe()
    remote._ask(messages.Hello(), messages.Status, [theirs])
    os.close(theirs)
    assert os.read(ours, 1) == b""
    os.close(ours)


def test_several_agents_are_served_and_one_that_leaves_does_not_matter(remote: Remote, path: Path) -> None:
    for _ in range(3):
        other = Remote.connect(path)
        assert other is not None
        with other:
            assert other.hello() == remote.hello()
    assert remote.hello().pid == os.getpid()
