from __future__ import annotations

import socket
import threading
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pyflannel.cli.agent_socket import AgentSilent, ask, asks_agent, get, status, usual_socket
from pyflannel.telemetry.http import Request, Response
from tests.support.builders import subnet
from tests.support.served import served, told
from tests.support.status import document


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "flanneld.sock"


async def echo(request: Request) -> Response:
    """Says what was asked, or that it will not."""
    if request.path == "/no":
        return Response(504, b"nobody answers\n")
    return Response(200, " ".join((request.path, *request.query.values())).encode() * 10_000)


def test_what_the_agent_answers_is_returned_whole(path: Path) -> None:
    with served(path, echo):
        assert get(path, "/ask?q=00ff") == b"/ask 00ff" * 10_000


def test_a_question_to_a_peer_names_it_by_one_of_its_networks(path: Path) -> None:
    with served(path, echo):
        assert ask(path, subnet("10.2.41.0/24", "fd00:2:41::/64"), b"\0\xff").startswith(b"/ask 10.2.41.0/24 00ff/ask")
        assert ask(path, subnet("fd00:2:41::/64"), b"\0\xff").startswith(b"/ask fd00:2:41::/64 00ff/ask")


def test_a_refusal_is_told_in_the_words_of_the_agent(path: Path) -> None:
    with served(path, echo), pytest.raises(AgentSilent, match=r"^nobody answers$"):
        get(path, "/no")


def test_the_status_is_read(path: Path) -> None:
    with told(path, document()):
        assert status(path) == document()


def test_a_status_that_is_none_is_silence(path: Path) -> None:
    with served(path, echo), pytest.raises(AgentSilent, match="cannot be read: a status document"):
        status(path)


def test_where_no_agent_runs_it_is_said_how_to_start_one(path: Path) -> None:
    with pytest.raises(AgentSilent, match=r"no agent runs on this host .*: start one with `systemctl start flanneld"):
        get(path, "/status")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(AgentSilent, match="no agent runs on this host"):
        get(path, "/status")


def test_an_agent_that_hangs_is_given_up(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(path))
        hung.listen()
        with pytest.raises(AgentSilent, match=r"did not answer within 0\.05 s"):
            get(path, "/status", timeout=0.05)


@pytest.mark.parametrize(
    "answer", [b"220 mail.example ESMTP\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", b""]
)
def test_whatever_else_listens_there_is_told_apart_from_an_agent(path: Path, answer: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def speak() -> None:
            visitor, _ = listener.accept()
            with visitor:
                visitor.recv(4096)
                visitor.sendall(answer)

        thread = threading.Thread(target=speak)
        thread.start()
        with pytest.raises(AgentSilent, match="is no answer"):
            get(path, "/status")
        thread.join()


def test_a_target_that_cannot_be_asked_for_is_refused_before_it_is_sent(path: Path) -> None:
    with served(path, echo), pytest.raises(AgentSilent, match="cannot be asked for"):
        get(path, "/a b\r\nX: y")


def test_the_socket_is_beside_the_subnet_file_that_the_unit_names(tmp_path: Path) -> None:
    defaults = tmp_path / "flanneld"
    assert usual_socket({}, defaults) == Path("/run/flannel/flanneld.sock")
    defaults.write_text('FLANNELD_SUBNET_FILE="/run/second/subnet.env"\n')
    assert usual_socket({}, defaults) == Path("/run/second/flanneld.sock")
    assert usual_socket({"FLANNELD_SUBNET_FILE": "/run/third/s.env"}, defaults) == Path("/run/third/flanneld.sock")


def test_a_command_can_be_told_which_agent_to_ask() -> None:
    @click.command()
    @asks_agent
    def command(socket_path: Path) -> None:
        click.echo(str(socket_path))

    assert CliRunner().invoke(command, ["--socket", "/tmp/x.sock"]).output == "/tmp/x.sock\n"
    assert CliRunner().invoke(command, [], env={"FLANNELD_SUBNET_FILE": "/a/b"}).output == "/a/flanneld.sock\n"
