from __future__ import annotations

import socket
from pathlib import Path

import pytest

from pyflannel.tunnel.device import SOL_UDP, UDP_GRO, Tun, can_segment, open_socket


def test_the_socket_is_bound_and_does_not_block() -> None:
    with open_socket("127.0.0.1", 0) as sock:
        assert sock.getsockname()[0] == "127.0.0.1"
        with pytest.raises(BlockingIOError):
            sock.recv(1)


def test_the_socket_has_the_offloads_of_this_kernel() -> None:
    with open_socket("127.0.0.1", 0) as sock:
        assert can_segment(sock)
        assert sock.getsockopt(SOL_UDP, UDP_GRO) == 1


def test_a_socket_that_knows_no_udp_segment_is_told_from_one_that_does() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        assert not can_segment(sock)


def test_a_taken_port_is_an_error() -> None:
    with open_socket("127.0.0.1", 0) as sock, pytest.raises(OSError, match="in use"):
        open_socket(*sock.getsockname())


def test_what_is_no_tun_device_is_an_error() -> None:
    with Path("/dev/null").open("rb") as file, pytest.raises(OSError, match="ioctl"):
        Tun.adopt(file.fileno())
