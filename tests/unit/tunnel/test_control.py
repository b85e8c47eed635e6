from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from pyflannel.tunnel import messages
from pyflannel.tunnel.control import ControlError, Remote, Silent, launch, listen


def test_where_nobody_listens_there_is_no_forwarder(tmp_path: Path) -> None:
    path = tmp_path / "tunnel.sock"
    assert Remote.connect(path) is None
    listen(path).close()
    assert Remote.connect(path) is None


def test_what_a_dead_forwarder_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "tunnel.sock"
    listen(path).close()
    with listen(path):
        found = Remote.connect(path)
        assert found is not None
        found.close()


def test_a_living_forwarder_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "tunnel.sock"
    with listen(path), pytest.raises(ControlError, match="a forwarder is running there"):
        listen(path)


def test_only_our_own_user_may_connect(tmp_path: Path) -> None:
    path = tmp_path / "tunnel.sock"
    with listen(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_launched_forwarder_answers_at_once_and_outlives_the_connection(tmp_path: Path) -> None:
    path = tmp_path / "tunnel.sock"
    first, pid = launch(path)
    again = Remote.connect(path)
    assert again is not None
    assert first.hello().pid == pid
    first.close()
    with again:
        assert again.hello().pid == pid
        again.stop()
    assert os.waitpid(pid, 0)[1] == 0


def test_a_forwarder_learns_nothing_that_is_for_the_agent_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NOTIFY_SOCKET", "FLANNELD_ETCD_PASSWORD"):
        monkeypatch.setenv(name, "secret")
    remote, pid = launch(tmp_path / "tunnel.sock")
    with remote:
        remote.hello()
        held = Path(f"/proc/{pid}/environ").read_bytes()
        remote.stop()
    os.waitpid(pid, 0)
    assert b"secret" not in held
    assert b"PATH=" in held


def test_a_path_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path / "x" / "tunnel.sock", tmp_path / ("x" * 120)):
        with pytest.raises(ControlError, match=f"{path}: "):
            listen(path)


def test_one_that_does_not_answer_is_told_from_one_that_is_gone() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, Remote(ours) as remote:
        ours.settimeout(0.01)
        with pytest.raises(Silent):
            remote.hello()


def test_where_a_forwarder_has_ended_the_next_one_can_start_at_once(tmp_path: Path) -> None:
    for _ in range(3):
        remote, pid = launch(tmp_path / "tunnel.sock")
        with remote:
            remote.stop()
        os.waitpid(pid, 0)


def test_a_forwarder_that_ends_is_an_error() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    with Remote(ours) as remote, pytest.raises(ControlError, match="Hello"):
        remote.hello()


@pytest.mark.parametrize("raw", [b"nonsense", messages.encode_answer(messages.Done())])
def test_an_answer_that_makes_no_sense_is_an_error(raw: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, Remote(ours) as remote:
        theirs.send(raw)
        with pytest.raises(ControlError):
            remote.hello()


def test_a_handover_without_descriptors_is_an_error() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, Remote(ours) as remote:
        theirs.send(messages.encode_answer(messages.Status(1, 1, "C", "x", "x", 1, 1)))
        with pytest.raises(ControlError, match="0 descriptors"):
            remote.hand_over()


def test_a_refusal_says_why() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, Remote(ours) as remote:
        theirs.send(messages.encode_answer(messages.Refused("not today")))
        with pytest.raises(ControlError, match="Stop: the forwarder said: not today"):
            remote.stop()
