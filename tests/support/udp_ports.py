"""UDP on the loopback device: a port that nobody has, and whether there is IPv6."""

from __future__ import annotations

import socket


def free_udp_port() -> int:
    """A port that is free at this moment, of every address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", 0))
        return int(sock.getsockname()[1])


def without_ipv6() -> bool:
    """Whether the loopback device has no IPv6 address."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return True
    return False
