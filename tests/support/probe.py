"""Numbered datagrams there and back, a thousand a second: how much of a path's traffic is lost, and for how long.

Run as a program it is either end of the path, and needs nothing but the standard library:

    python probe.py reflect PORT          sends back whatever arrives, until it is ended
    python probe.py send ADDRESS PORT     says "ready" once the path carries traffic, sends until its input is closed,
                                          then prints a ``Loss`` as JSON

Why its figures can be trusted: what is counted are numbers, so no clock of the receiver matters; the schedule is
absolute, so a sender that was not let run sends what it owes at once, and says for how long it was silent
(``longest_silence_s``); both ends run before everything else where they may, and their sockets hold seconds of traffic.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

# The sender runs before everything else: where a thousand datagrams are all that a CPU can do, it would run alone.
PERIOD_S = 0.001 * float(os.environ.get("PYFLANNEL_TEST_SLOWNESS") or 1)
BUFFER = 8 << 20
"""Bytes of socket buffer: some ten thousand of our datagrams."""
WARMING_S = 30.0
"""How long a path may take to carry its first datagram."""
LINGER_S = 1.0
"""How long to wait for answers after the last datagram: far longer than any way through memory takes."""
WARM_UP = -1
"""The number of a datagram that does not count."""
_NUMBER = struct.Struct("!q")


@dataclass(frozen=True, slots=True)
class Loss:
    """What became of the datagrams."""

    sent: int
    received: int
    """How many different ones came back."""
    longest_gap_s: float
    """From the sending of a lost datagram to that of the next one which was not lost; the longest of these."""
    duplicates: int = 0
    out_of_order: int = 0
    longest_silence_s: float = 0.0
    """The longest time in which nothing was sent: a gap shorter than this might not have been seen."""

    @property
    def lost(self) -> int:
        """How many never came back."""
        return self.sent - self.received


def account(sent_at: Sequence[float], arrivals: Sequence[int]) -> Loss:
    """The loss, from the time each number was sent and the numbers in the order in which they came back."""
    times = Counter(arrivals)
    gap, since = 0.0, None
    for number, moment in enumerate(sent_at):
        if number in times:
            gap = max(gap, moment - since) if since is not None else gap
            since = None
        elif since is None:
            since = moment
    if since is not None:
        gap = max(gap, sent_at[-1] + PERIOD_S - since)
    newest, late = -1, 0
    for number in times:
        late += number < newest
        newest = max(newest, number)
    pauses = (after - before for before, after in pairwise(sent_at))
    return Loss(len(sent_at), len(times), gap, len(arrivals) - len(times), late, max(pauses, default=0.0))


def _socket() -> socket.socket:
    """A UDP socket with all the room it can get."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for forced, polite in ((33, socket.SO_RCVBUF), (32, socket.SO_SNDBUF)):
        try:
            # SO_RCVBUFFORCE and SO_SNDBUFFORCE (socket(7)) pass the limits of the machine, and are root's.
            made.setsockopt(socket.SOL_SOCKET, forced, BUFFER)
        except PermissionError:
            made.setsockopt(socket.SOL_SOCKET, polite, BUFFER)
    return made


def _run_first() -> None:
    """Ask to be run before everything else."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))


def reflect(port: int) -> None:
    """Be the far end, until killed."""
    with _socket() as sock:
        sock.bind(("", port))
        print("ready", flush=True)
        while True:
            data, sender = sock.recvfrom(64)
            # A way back that is closed for the moment loses the datagram, which is for the near end to tell.
            with contextlib.suppress(OSError):
                sock.sendto(data, sender)


def send(address: str, port: int) -> Loss | None:
    """Be the near end, until the input is closed; None if nothing ever came back."""
    with _socket() as sock:
        sock.setblocking(False)
        if not _warm(sock, (address, port)):
            return None
        print("ready", flush=True)
        sent_at: list[float] = []
        arrivals: list[int] = []
        began = time.monotonic()
        stopped = False
        while not stopped:
            while began + len(sent_at) * PERIOD_S <= (now := time.monotonic()):
                _send(sock, (address, port), len(sent_at))
                sent_at.append(now)
            arrivals += _arrived(sock)
            wait = began + len(sent_at) * PERIOD_S - time.monotonic()
            stopped = sys.stdin in select.select([sys.stdin, sock], [], [], max(0.0, wait))[0]
        deadline = time.monotonic() + LINGER_S
        while len(set(arrivals)) < len(sent_at) and (wait := deadline - time.monotonic()) > 0:
            select.select([sock], [], [], wait)
            arrivals += _arrived(sock)
    return account(sent_at, arrivals)


def _warm(sock: socket.socket, target: tuple[str, int]) -> bool:
    """Whether the path carries traffic: addresses are resolved on the way, which is not what we measure."""
    deadline = time.monotonic() + WARMING_S
    while time.monotonic() < deadline:
        _send(sock, target, WARM_UP)
        if select.select([sock], [], [], 0.02)[0]:
            return True
    return False


def _send(sock: socket.socket, target: tuple[str, int], number: int) -> None:
    # What the kernel refuses to send is lost like what gets lost on the way.
    with contextlib.suppress(OSError):
        sock.sendto(_NUMBER.pack(number), target)


def _arrived(sock: socket.socket) -> list[int]:
    """The numbers of what has come back since the last look."""
    numbers: list[int] = []
    with contextlib.suppress(BlockingIOError):
        while True:
            (number,) = _NUMBER.unpack(sock.recv(64))
            if number != WARM_UP:
                numbers.append(number)
    return numbers


def main(arguments: Sequence[str]) -> int:
    """Be the end that the arguments ask for."""
    _run_first()
    match arguments:
        case ["reflect", port]:
            reflect(int(port))
        case ["send", address, port]:
            loss = send(address, int(port))
            if loss is None:
                return 1
            print(json.dumps(asdict(loss)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
