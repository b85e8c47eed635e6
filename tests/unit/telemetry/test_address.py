from __future__ import annotations

from pathlib import Path

from pyflannel.telemetry.address import control_socket


def test_the_control_socket_is_beside_the_subnet_file() -> None:
    assert control_socket("/run/flannel/subnet.env") == Path("/run/flannel/flanneld.sock")
    assert control_socket(Path("/run/second/own.env")) == Path("/run/second/flanneld.sock")
