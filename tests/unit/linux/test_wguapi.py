"""The words with a program that serves a device; the program itself is in tests/contract."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from pyflannel.diff import Cut, Put
from pyflannel.linux import wguapi
from pyflannel.linux.errors import KernelError
from pyflannel.linux.netlink import Ack
from pyflannel.wireguard import SESSION_S, WireguardPeer
from tests.support.wireguard_items import DEVICE, OWN, PSK, WG, key, peer

NOW = 1_800_000_000.0
PLAIN, RICH = peer(2), peer(3, "10.2.3.0/24", "fd00:2:3::/64", host="2001:db8::3", psk=PSK)
ANSWER = f"""private_key={OWN.private.hex()}
listen_port=51820
public_key={PLAIN.public_key.hex()}
preshared_key={"0" * 64}
protocol_version=1
endpoint=192.0.2.2:51820
last_handshake_time_sec=0
last_handshake_time_nsec=0
tx_bytes=5
rx_bytes=7
persistent_keepalive_interval=25
allowed_ip=10.2.2.0/24
public_key={RICH.public_key.hex()}
preshared_key={PSK.hex()}
endpoint=[2001:db8::3]:51820
persistent_keepalive_interval=25
allowed_ip=10.2.3.0/24
allowed_ip=fd00:2:3::/64
"""


@contextmanager
def serving(path: Path, *answers: bytes) -> Iterator[list[str]]:
    """A program that answers one request after another like this; yields what it was asked."""
    heard: list[str] = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        for answer in answers:
            channel, _ = listener.accept()
            with channel:
                said = b""
                while not said.endswith(b"\n\n") and (more := channel.recv(65536)):
                    said += more
                heard.append(said.decode())
                channel.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield heard
    finally:
        thread.join()
        listener.close()


def test_what_a_program_says_is_read() -> None:
    assert list(wguapi.read(ANSWER, WG, NOW)) == [DEVICE, PLAIN, RICH]


def test_a_device_without_a_key_has_no_identity() -> None:
    assert list(wguapi.read("listen_port=5\n", WG, NOW)) == []
    assert list(wguapi.read(f"private_key={'0' * 64}\nlisten_port=5\n", WG, NOW)) == []


def test_a_peer_is_live_while_its_last_handshake_is_good() -> None:
    for ago, live in ((SESSION_S - 1, True), (SESSION_S, False)):
        said = ANSWER.replace("time_sec=0", f"time_sec={int(NOW) - ago}")
        peers = [item for item in wguapi.read(said, WG, NOW) if isinstance(item, WireguardPeer)]
        assert [item.live for item in peers] == [live, False]


def test_a_device_comes_before_its_peers() -> None:
    lines = wguapi.request([Put(PLAIN), Put(DEVICE)]).splitlines()
    assert lines == [
        "set=1",
        f"private_key={OWN.private.hex()}",
        "listen_port=51820",
        f"public_key={PLAIN.public_key.hex()}",
        f"preshared_key={'0' * 64}",
        "endpoint=192.0.2.2:51820",
        "persistent_keepalive_interval=25",
        "replace_allowed_ips=true",
        "allowed_ip=10.2.2.0/24",
    ]


def test_only_what_has_to_be_is_said_of_a_peer_that_is_there() -> None:
    more = replace(PLAIN, allowed=PLAIN.allowed | {ip_network("10.2.77.0/24")})
    lines = wguapi.request([Put(more, PLAIN)]).splitlines()
    assert "replace_allowed_ips=true" not in lines
    assert not [line for line in lines if line.startswith("endpoint=")]
    assert "replace_allowed_ips=true" in wguapi.request([Put(PLAIN, more)])


def test_what_is_cut_is_removed_and_a_device_forgets_who_it_is() -> None:
    assert wguapi.request([Cut(PLAIN)]) == f"set=1\npublic_key={PLAIN.public_key.hex()}\nremove=true\n"
    assert wguapi.request([Cut(DEVICE)]) == f"set=1\nprivate_key={'0' * 64}\nlisten_port=0\n"


def test_a_peer_with_a_new_key_is_put_then_greeted_then_the_old_one_removed() -> None:
    successor = replace(PLAIN, public_key=key(7))
    lines = wguapi.request([Put(successor, PLAIN)]).splitlines()
    keys = [line.removeprefix("public_key=") for line in lines if line.startswith("public_key=")]
    assert keys == [key(7).hex()] * 4 + [PLAIN.public_key.hex()]
    assert [line for line in lines if line.startswith("persistent")] == [
        f"persistent_keepalive_interval={seconds}" for seconds in (25, 0, 1, 25)
    ]
    assert lines.count("update_only=true") == 3
    assert lines[-1] == "remove=true"


def test_a_device_that_becomes_somebody_else_greets_its_peers(tmp_path: Path) -> None:
    success = b"errno=0\n\n"
    with serving(tmp_path / f"{WG}.sock", success, f"{ANSWER}errno=0\n\n".encode(), success) as heard:
        assert wguapi.carry_out([Put(DEVICE, replace(DEVICE, private_key=PSK))], WG, tmp_path) == [Ack(0)]
    assert heard[1] == "get=1\n\n"
    assert heard[2].count("update_only=true") == 6
    assert "private_key" not in heard[2]


def test_a_request_ends_with_an_empty_line_and_its_answer_is_taken_in_pieces(tmp_path: Path) -> None:
    with serving(tmp_path / f"{WG}.sock", f"{ANSWER}errno=0\n\n".encode()) as heard:
        assert list(wguapi.observe(WG, tmp_path)) == [DEVICE, PLAIN, RICH]
    assert heard == ["get=1\n\n"]


def test_what_a_program_refuses_is_tried_one_by_one(tmp_path: Path) -> None:
    refusal, success = b"errno=-22\n\n", b"errno=0\n\n"
    with serving(tmp_path / f"{WG}.sock", refusal, success, refusal) as heard:
        acks = wguapi.carry_out([Put(PLAIN), Put(RICH)], WG, tmp_path)
    assert acks == [Ack(0), Ack(errno.EINVAL, f"the program behind {WG}: it refused")]
    assert [said.count("public_key") for said in heard] == [2, 1, 1]


def test_a_program_that_is_not_there_is_an_answer_too(tmp_path: Path) -> None:
    assert not wguapi.is_served(WG, tmp_path)
    assert wguapi.carry_out([Put(PLAIN)], WG, tmp_path)[0].code == errno.ENOENT
    with pytest.raises(KernelError, match=f"asking the program behind {WG}"):
        list(wguapi.observe(WG, tmp_path))


@pytest.mark.parametrize("answer", [b"", b"private_key=", b"errno=0"])
def test_a_program_that_ends_amid_its_answer_is_not_believed(tmp_path: Path, answer: bytes) -> None:
    with serving(tmp_path / f"{WG}.sock", answer), pytest.raises(KernelError, match="in the middle of an answer"):
        list(wguapi.observe(WG, tmp_path))


def test_a_socket_that_nobody_listens_at_serves_nothing(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / f"{WG}.sock"))
    assert not wguapi.is_served(WG, tmp_path)


def test_where_there_is_neither_module_nor_program_both_ways_out_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    ack = wguapi.start(WG, None)
    assert ack.code == errno.EOPNOTSUPP
    assert "modprobe wireguard" in ack.text
    assert "apt-get install wireguard-go" in ack.text


def test_a_program_that_cannot_make_the_device_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / wguapi.PROGRAM
    program.write_text("#!/bin/sh\necho a warning\necho 'no such device'\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert wguapi.start(WG, None) == Ack(errno.EIO, "wireguard-go ended with status 3: no such device")


def test_a_program_is_not_told_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / wguapi.PROGRAM
    program.write_text(f"#!/bin/sh\nenv >{tmp_path}/seen\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("FLANNELD_ETCD_PASSWORD", "my secret")
    assert wguapi.start(WG, None) == Ack(0)
    assert "my secret" not in (tmp_path / "seen").read_text()


def test_a_key_shows_as_hexadecimal_to_the_program_alone() -> None:
    assert key(7).hex() in wguapi.request([Put(peer(7))])
