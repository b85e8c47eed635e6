"""From a lease that comes or goes in the store to its route in the kernel, while thousands of others stand.

Two clocks: from the moment the request leaves the client, which includes the disk of etcd; and from the moment etcd
answers it, which can be later than the route.
"""

from __future__ import annotations

import selectors
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median

from pyflannel.linux.netlink import messages, open_socket
from pyflannel.linux.routes import RTM_DELROUTE, RTM_NEWROUTE
from tests.bench.stage import Etcd, Stage, install, leases, percentile
from tests.bench.table import show

PEERS = 5000
EVENTS = 500
DEPARTURES = 25
"""Fewer, for a host that goes is seen off two seconds later, on purpose."""
FIRST = 40_000
"""Number of the first host that joins; nobody has its subnet."""
PAUSE = 0.01
"""Seconds between two events."""
RTMGRP_IPV4_ROUTE = 0x40


@dataclass(frozen=True)
class Delay:
    """What one event took, in milliseconds."""

    from_request: float
    from_answer: float


def main(_huge: bool) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as where:
        program = install(Path(where))
        with Stage(program, Path(where), PEERS) as stage, stage.agent():
            stage.await_peers()
            come, go = follow(stage)
    rows = [row("lease written → route added", come), row("lease deleted → route removed", go)]
    head = ["event", "from request: p50, ms", "p99, ms", "from etcd's answer: p50, ms", "p99, ms"]
    show(f"Events at {PEERS:,} peers; {EVENTS} arrivals, {DEPARTURES} departures", head, rows)


def row(what: str, delays: list[Delay]) -> list[str]:
    """One line of the table."""
    cells = [what]
    for samples in ([each.from_request for each in delays], [each.from_answer for each in delays]):
        cells += [f"{median(samples):.2f}", f"{percentile(samples, 0.99):.2f}"]
    return cells


def follow(stage: Stage) -> tuple[list[Delay], list[Delay]]:
    """Let hosts come and go, one at a time, and see when the kernel says so."""
    heard = open_socket(str(stage.space.path))
    heard.bind((0, RTMGRP_IPV4_ROUTE))
    store, come, go = stage.store, [], []
    try:
        arrivals = list(islice(leases(FIRST), EVENTS))
        come += [one(store, heard, RTM_NEWROUTE, partial(store.begin_put, *each)) for each in arrivals]
        go += [one(store, heard, RTM_DELROUTE, partial(store.begin_delete, key)) for key, _ in arrivals[:DEPARTURES]]
    finally:
        heard.close()
    return come, go


def one(store: Etcd, heard: socket.socket, kind: int, request: Callable[[], None]) -> Delay:
    """Make a request and wait for etcd's answer and for the kernel's word, an event of this kind."""
    time.sleep(PAUSE)
    began = time.perf_counter()
    request()
    answered = routed = 0.0
    with selectors.DefaultSelector() as ready:
        ready.register(heard, selectors.EVENT_READ)
        ready.register(store.socket, selectors.EVENT_READ)
        while not (answered and routed):
            for key, _ in ready.select():
                now = time.perf_counter()
                if key.fileobj is store.socket:
                    store.finish()
                    answered = now
                # Nothing else moves meanwhile, so the next event of this kind is the one.
                elif any(message.type == kind for message in messages(heard.recv(65536))):
                    routed = now
    return Delay((routed - began) * 1e3, (routed - answered) * 1e3)
