from __future__ import annotations

import secrets
import socket
from pathlib import Path

import pytest

from pyflannel.linux.systemd import notify


def test_a_message_reaches_a_socket_with_a_path(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        assert notify("READY=1\nSTATUS=up", address)
        assert systemd.recv(100) == b"READY=1\nSTATUS=up"


def test_a_message_reaches_an_abstract_socket_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"pyflannel-test-{secrets.token_hex(4)}"
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0{name}")
        assert notify("READY=1")
        assert systemd.recv(100) == b"READY=1"


def test_without_systemd_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    delivery = notify("READY=1")
    assert not delivery
    assert delivery.reason == "NOTIFY_SOCKET is not set"


def test_a_socket_nobody_listens_to_is_named(tmp_path: Path) -> None:
    address = str(tmp_path / "nobody")
    delivery = notify("READY=1", address)
    assert not delivery
    assert address in delivery.reason
    assert "No such file" in delivery.reason


@pytest.mark.parametrize("address", ["vsock:2:1234", "relative/path"])
def test_an_address_of_another_kind_is_refused(address: str) -> None:
    assert address in notify("READY=1", address).reason


def test_an_address_too_long_for_a_socket_is_refused() -> None:
    assert not notify("READY=1", "/" + "x" * 200)
