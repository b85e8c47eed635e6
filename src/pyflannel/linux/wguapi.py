"""The same as ``linux/wireguard.py`` for a device that a program serves: wireguard-go, where the kernel has no module.

Such a program makes a tun device and listens on a socket under the name of the device.  A request is lines of
``name=value`` with an empty line at the end, and so is the answer (wireguard.com/xplatform).  Keys are in hexadecimal.

The program outlives us, so that an agent which is stopped, killed or upgraded costs no packet; the next one finds the
device with somebody at the socket, and goes on.  When the program ends its device goes, which the kernel tells of, and
the device is made again like any other: by starting the program.

The socket is in a directory that all network namespaces of a machine share: of two that are to have such a device under
one name, each needs a ``/run`` of its own.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final

from pyflannel.diff import Cut, Op, Put
from pyflannel.linux.errors import KernelError
from pyflannel.linux.netlink import Ack
from pyflannel.linux.netns import Netns, inside
from pyflannel.linux.wireguard import changes_key
from pyflannel.wireguard import (
    KEY_LENGTH,
    SESSION_S,
    Endpoint,
    PublicKey,
    SecretKey,
    WireguardDevice,
    WireguardPeer,
)

PROGRAM: Final = "wireguard-go"
SOCKETS: Final = Path("/var/run/wireguard")
TIMEOUT_S: Final = 2.0
"""How long an answer may take: a thousand peers take 0.1 s."""
START_S: Final = 5.0
"""How long the program may take to make its device."""
AT_ONCE: Final = 200
"""Peers in one request: the program carries one out line by line until one fails."""
NO_KEY: Final = bytes(KEY_LENGTH)
ADVICE: Final = (
    "neither does this kernel have the wireguard module (try: modprobe wireguard), "
    "nor is the program wireguard-go installed (try: apt-get install wireguard-go)"
)


def is_served(dev: str, sockets: Path = SOCKETS) -> bool:
    """Whether a program of WireGuard serves the device of this name."""
    try:
        with _connected(dev, sockets):
            return True
    except OSError:
        return False


def start(dev: str, netns: Netns) -> Ack:
    """Start a program that makes the device ``dev`` and serves it; it goes on when we end."""
    program = shutil.which(PROGRAM)
    if program is None:
        return Ack(errno.EOPNOTSUPP, ADVICE)
    try:
        # It goes to the background by itself, once its device is there.
        done = inside(netns, lambda: _start(program, dev))
    except subprocess.TimeoutExpired:
        return Ack(errno.ETIMEDOUT, f"{PROGRAM} did not make the device within {START_S:g} s")
    except OSError as error:
        return Ack(error.errno or errno.EIO, f"running {PROGRAM}: {error.strerror}")
    if done.returncode:
        words = (done.stdout.strip().splitlines() or ["it does not say why"])[-1]
        return Ack(errno.EIO, f"{PROGRAM} ended with status {done.returncode}: {words}")
    return Ack(0)


def observe(dev: str, sockets: Path = SOCKETS) -> Iterator[WireguardDevice | WireguardPeer]:
    """What the device holds; nothing about itself if it has no key.  ``KernelError`` if the program does not say."""
    try:
        said = _exchange(dev, "get=1\n", sockets)
    except OSError as error:
        raise KernelError(f"asking the program behind {dev}", error.errno or errno.EIO, error.strerror or "") from None
    yield from read(said, dev, time.time())


def carry_out(ops: Sequence[Op], dev: str, sockets: Path = SOCKETS) -> list[Ack]:
    """Carry out operations on one device, in their order, each on its own; the answers likewise."""
    acks: list[Ack] = []
    for begin in range(0, len(ops), AT_ONCE):
        portion = ops[begin : begin + AT_ONCE]
        ack = _told(dev, portion, sockets)
        acks += [_told(dev, [op], sockets) for op in portion] if ack.code and len(portion) > 1 else [ack] * len(portion)
        if any(map(changes_key, portion)):
            with suppress(OSError):
                known = read(_exchange(dev, "get=1\n", sockets), dev, 0.0)
                lines = [line for peer in known if isinstance(peer, WireguardPeer) for line in _greeting(peer)]
                _exchange(dev, "".join(f"{line}\n" for line in ("set=1", *lines)), sockets)
    return acks


def request(ops: Sequence[Op]) -> str:
    """The lines that carry out ``ops``: what they say of the device itself comes first, as it has to."""
    devices = [line for op in ops if isinstance(op.item, WireguardDevice) for line in _device_lines(op, op.item)]
    peers = [line for op in ops if isinstance(op.item, WireguardPeer) for line in _peer_lines(op, op.item)]
    return "".join(f"{line}\n" for line in ("set=1", *devices, *peers))


def read(said: str, dev: str, now: float) -> Iterator[WireguardDevice | WireguardPeer]:
    """Decode an answer; ``now`` is the time of day, in seconds since 1970."""
    own, *others = said.split("public_key=")
    fields = _fields(own)
    if fields.get("private_key", "") not in ("", NO_KEY.hex()):
        yield WireguardDevice(dev, SecretKey(bytes.fromhex(fields["private_key"])), int(fields.get("listen_port", "0")))
    for each in others:
        yield _peer(each, dev, now)


def _start(program: str, dev: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, dev],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=START_S,
        check=False,
        cwd="/",
        # Not our own environment: there are passwords in it.  And with a LOG_LEVEL it would keep our pipe for life.
        env={"PATH": os.environ.get("PATH", os.defpath)},
        start_new_session=True,
    )


def _connected(dev: str, sockets: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        made.settimeout(TIMEOUT_S)
        made.connect(str(sockets / f"{dev}.sock"))
    except BaseException:
        made.close()
        raise
    return made


def _exchange(dev: str, lines: str, sockets: Path) -> str:
    """The answer to a request, without the last line that says how it went; ``OSError`` if that was not well."""
    said = bytearray()
    with _connected(dev, sockets) as channel:
        channel.sendall(f"{lines}\n".encode())
        while not said.endswith(b"\n\n"):
            more = channel.recv(1 << 16)
            if not more:
                raise OSError(errno.EPIPE, "it ended in the middle of an answer")
            said += more
    answer, _, status = said.decode(errors="replace").rstrip("\n").rpartition("errno=")
    if status.strip("-").isdecimal() and int(status):
        raise OSError(abs(int(status)), "it refused")
    return answer


def _told(dev: str, ops: Sequence[Op], sockets: Path) -> Ack:
    try:
        _exchange(dev, request(ops), sockets)
    except OSError as error:
        return Ack(error.errno or errno.ETIMEDOUT, f"the program behind {dev}: {error.strerror or error}")
    return Ack(0)


def _device_lines(op: Op, item: WireguardDevice) -> list[str]:
    if isinstance(op, Put):
        return [f"private_key={item.private_key.hex()}", f"listen_port={item.listen_port}"]
    return [f"private_key={NO_KEY.hex()}", "listen_port=0"]


def _peer_lines(op: Op, item: WireguardPeer) -> list[str]:
    lines = [f"public_key={item.public_key.hex()}"]
    if not isinstance(op, Put):
        return [*lines, "remove=true"]
    old = op.old if isinstance(op.old, WireguardPeer) else None
    if old is not None and old.key != item.key:
        return [*_peer_lines(Put(item), item), *_greeting(item), *_peer_lines(Cut(old), old)]
    lines.append(f"preshared_key={(item.psk or NO_KEY).hex()}")
    if item.endpoint is not None and item.names_endpoint(old):
        lines.append(f"endpoint={item.endpoint}")
    lines.append(f"persistent_keepalive_interval={item.keepalive}")
    if old is None or old.allowed - item.allowed:
        lines.append("replace_allowed_ips=true")
    return [*lines, *(f"allowed_ip={network}" for network in sorted(item.allowed, key=str))]


def _greeting(item: WireguardPeer) -> list[str]:
    """As ``wireguard.greeting``."""
    lines = []
    for seconds in (0, 1, item.keepalive):
        lines += [f"public_key={item.public_key.hex()}", "update_only=true", f"persistent_keepalive_interval={seconds}"]
    return lines


def _fields(lines: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in lines.splitlines())
    return {name: value for name, _, value in pairs}


def _peer(lines: str, dev: str, now: float) -> WireguardPeer:
    key, _, rest = lines.partition("\n")
    fields = _fields(rest)
    psk = bytes.fromhex(fields.get("preshared_key", "")) or NO_KEY
    endpoint = fields.get("endpoint")
    networks = (line.partition("=")[2] for line in rest.splitlines() if line.startswith("allowed_ip="))
    return WireguardPeer(
        dev=dev,
        public_key=PublicKey(bytes.fromhex(key)),
        endpoint=None if endpoint is None else _endpoint(endpoint),
        allowed=frozenset(map(ip_network, networks)),
        keepalive=int(fields.get("persistent_keepalive_interval", "0")),
        psk=None if psk == NO_KEY else SecretKey(psk),
        live=abs(now - int(fields.get("last_handshake_time_sec", "0"))) < SESSION_S,
    )


def _endpoint(text: str) -> Endpoint:
    host, _, port = text.rpartition(":")
    return Endpoint(ip_address(host.strip("[]")), int(port))
