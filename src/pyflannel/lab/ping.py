"""Who reaches whom: one ``ping`` for every ordered pair.

Which pairs, how often and what to make of the answers is decided here without running anything; ``prober`` is the one
function that runs ``ping``.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address

from pyflannel.lab import LabError, cluster, namespaces
from pyflannel.lab.record import Lab

_AT_ONCE = 64
_RTT = re.compile(r"\btime[=<]([\d.]+) ms")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A container that sends and is sent to."""

    name: str
    address: IPv4Address


Probe = Callable[[Endpoint, Endpoint], float | None]
"""Sends one echo request from the first to the second; how long the answer took in ms, None if there was none."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """What came of pinging every endpoint from every other."""

    endpoints: tuple[Endpoint, ...]
    rtt_ms: Mapping[tuple[str, str], float | None]
    """By the names of sender and target; None where no answer came."""

    @property
    def lost(self) -> list[tuple[str, str]]:
        """The pairs that got no answer."""
        return [pair for pair, rtt in self.rtt_ms.items() if rtt is None]


def endpoints(lab: Lab) -> tuple[Endpoint, ...]:
    """The containers of the lab; ``LabError`` if there are not two of them with an address."""
    found = tuple(
        Endpoint(container.name, container.address.ip)
        for host in cluster.status(lab)
        for container in host.containers
        if container.address is not None
    )
    if len(found) < 2:
        raise LabError(f"lab {lab.plan.name!r} has {len(found)} containers with an address; a ping needs two")
    return found


def measure(ends: Sequence[Endpoint], probe: Probe, wait_s: float) -> Matrix:
    """Ping all pairs.  Those that stay silent are tried again until they answer or ``wait_s`` seconds have passed.

    A network that has only just come up needs that: a host's agent may have its subnet before another host has heard of
    it.  Every pair is tried at least once.
    """
    left = [(a, b) for a in ends for b in ends if a != b]
    rtt_ms: dict[tuple[str, str], float | None] = {(a.name, b.name): None for a, b in left}
    deadline = time.monotonic() + wait_s
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while True:
            for (a, b), rtt in zip(left, pool.map(lambda pair: probe(*pair), left), strict=True):
                rtt_ms[a.name, b.name] = rtt
            left = [(a, b) for a, b in left if rtt_ms[a.name, b.name] is None]
            if not left or time.monotonic() >= deadline:
                return Matrix(tuple(ends), rtt_ms)


def prober(lab: Lab) -> Probe:
    """Pings with the machine's ``ping``; ``LabError`` if it has none."""
    if namespaces.has("ping"):
        ping = ["ping", "-n"]
    elif namespaces.has("busybox"):
        ping = ["busybox", "ping"]
    else:
        raise LabError("not installed: ping (install iputils-ping on Debian and Ubuntu, iputils elsewhere, or busybox)")

    def probe(sender: Endpoint, target: Endpoint) -> float | None:
        # One second is long for a packet that crosses nothing but memory.
        command = cluster.command_in(lab, sender.name, [*ping, "-c1", "-W1", str(target.address)])
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=namespaces.environment())
        return round_trip(done.stdout) if done.returncode == 0 else None

    return probe


def round_trip(said: str) -> float | None:
    """The time, in ms, in what ``ping`` of iputils or busybox printed; None if it names none."""
    match = _RTT.search(said)
    return None if match is None else float(match[1])
