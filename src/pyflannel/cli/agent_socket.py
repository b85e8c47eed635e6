"""Asking the agent of this host, over its control socket.

Rules of this file
  1. One question, one connection, and one deadline for all of it.
  2. Whatever goes wrong is an ``AgentSilent`` whose text is for people, with what to do where that is known.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

import click
import h11

from pyflannel.lease.model import Subnet
from pyflannel.outputs import SUBNET_FILE, parse_env
from pyflannel.telemetry.address import control_socket
from pyflannel.telemetry.document import BadDocument, Document, read

DEFAULTS: Final = Path("/etc/default/flanneld")
"""What the agent's unit reads, and so do we, to find a subnet file that is not in the usual place."""
LONGEST: Final = 64 * 1024 * 1024
"""Bytes of an answer; the status of ten thousand peers takes five million."""
PATIENCE_S: Final = 3.0
"""For all of an answer: one about ten thousand peers takes a tenth of that."""
ASK_S: Final = 4.0
"""For an answer of a peer's agent, which ours awaits for three."""
_PORTION: Final = 64 * 1024
_START: Final = "start one with `systemctl start flanneld`, or see the README for a first try"

Command = TypeVar("Command", bound=Callable[..., None])


class AgentSilent(Exception):
    """The agent cannot be asked; the text says why, and what to do."""


def get(socket_path: Path, target: str, timeout: float = PATIENCE_S) -> bytes:
    """What the agent at ``socket_path`` answers to ``GET target``, within ``timeout`` seconds; else ``AgentSilent``."""
    deadline = time.monotonic() + timeout
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        try:
            channel.settimeout(timeout)
            channel.connect(os.fspath(socket_path))
            status, body = _exchange(channel, target, deadline)
        except (FileNotFoundError, ConnectionRefusedError):
            raise AgentSilent(f"no agent runs on this host (nobody listens at {socket_path}): {_START}") from None
        except PermissionError:
            raise AgentSilent(f"only root may ask the agent (at {socket_path}): try it with sudo") from None
        except TimeoutError:
            raise AgentSilent(f"the agent at {socket_path} did not answer within {timeout:g} s") from None
        except OSError as exc:
            raise AgentSilent(f"asking the agent at {socket_path}: {exc.strerror or exc}") from None
        except h11.RemoteProtocolError as exc:
            raise AgentSilent(f"what came back from {socket_path} is no answer: {exc}") from None
    if status != 200:
        raise AgentSilent(body.decode(errors="replace").strip() or f"the agent answered {status}")
    return body


def status(socket_path: Path) -> Document:
    """The status document of that agent; ``AgentSilent`` if there is none that can be read."""
    text = get(socket_path, "/status")
    try:
        return read(text)
    except BadDocument as exc:
        raise AgentSilent(f"the status that came back from {socket_path} cannot be read: {exc}") from None


def ask(socket_path: Path, subnet: Subnet, question: bytes) -> bytes:
    """What the agent of the peer with ``subnet`` answers, asked by the one at ``socket_path``; else ``AgentSilent``."""
    name = quote(str(subnet.ipv4 or subnet.ipv6), safe="")
    return get(socket_path, f"/ask?subnet={name}&q={question.hex()}", ASK_S)


def asks_agent(command: Command) -> Command:
    """Give a command the option ``--socket`` and the parameter ``socket_path``, a ``Path``."""
    return click.option(
        "--socket",
        "socket_path",
        type=click.Path(path_type=Path),
        default=usual_socket,
        metavar="PATH",
        help=f"Ask the agent that listens there.  [default: beside the subnet file that {DEFAULTS} names, or "
        f"{control_socket(SUBNET_FILE)}]",
    )(command)


def usual_socket(environ: Mapping[str, str] = os.environ, defaults: Path = DEFAULTS) -> Path:
    """Where the agent of this host is asked, going by what its unit says."""
    file = environ.get("FLANNELD_SUBNET_FILE")
    if not file:
        with suppress(OSError):
            file = parse_env(defaults.read_text(errors="replace")).get("FLANNELD_SUBNET_FILE")
    return control_socket(file or SUBNET_FILE)


def _exchange(channel: socket.socket, target: str, deadline: float) -> tuple[int, bytes]:
    connection = h11.Connection(h11.CLIENT)
    try:
        request = h11.Request(method="GET", target=target, headers=[("Host", "flanneld"), ("Connection", "close")])
    except h11.LocalProtocolError as exc:
        raise AgentSilent(f"{target!r} cannot be asked for: {exc}") from None
    channel.sendall(connection.send(request) + connection.send(h11.EndOfMessage()))
    answered, body = 0, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            if (left := deadline - time.monotonic()) <= 0:
                raise TimeoutError
            channel.settimeout(left)
            connection.receive_data(channel.recv(_PORTION))
        elif isinstance(event, h11.Response):
            answered = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > LONGEST:
                raise AgentSilent(f"the agent's answer to {target} is longer than {LONGEST} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return answered, bytes(body)
