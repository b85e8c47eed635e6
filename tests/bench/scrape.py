"""What it costs to be watched: one scrape, and an agent that is scraped all the time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from pyflannel.cli.agent_socket import get, status
from pyflannel.telemetry.document import State
from tests.bench.answering import Answering
from tests.bench.idle import SETTLE, cpu_s
from tests.bench.stage import Stage, install, resident_mb
from tests.bench.table import show, spread

PEERS = (1000, 5000)
ANSWERING = 1000
"""Peers, where all of them answer."""
SCRAPES = 20
EVERY = 15.0
"""Seconds between scrapes while the agent is watched: as often as Prometheus usually asks, or more often."""
SPAN = 60.0
"""Seconds for which it is watched, and for which it is not."""
PORT = 9000


def main(_huge: bool) -> None:
    """Print the tables."""
    costs, rest = [], []
    with tempfile.TemporaryDirectory() as where:
        program = install(Path(where))
        for peers in PEERS:
            with Stage(program, Path(where), peers) as stage:
                for path in ("/metrics", "/status"):
                    costs.append([path, f"{peers:,}", *_one(stage, path)])
                for flag, said in (("-probe=false", "no probes"), ("-probe", "probes, and nobody answers")):
                    with _settled(stage, flag) as pid:
                        rest.append([said, f"{peers:,}", *_watched(stage, pid, "")])
        with Stage(program, Path(where), ANSWERING) as stage, _settled(stage, "-probe") as pid, Answering(stage):
            _await_answers(stage)
            for path, said in (("", ""), ("/metrics", f", /metrics every {EVERY:.0f} s")):
                rest.append([f"probes, and all answer{said}", f"{ANSWERING:,}", *_watched(stage, pid, path)])
    show("One look at the agent", ["path", "peers", "ms", "processor, ms", "KB"], costs)
    show(f"An agent that is watched, over {SPAN:.0f} s", ["with", "peers", "of one CPU", "resident memory, MB"], rest)


@contextmanager
def _settled(stage: Stage, *flags: str) -> Iterator[int]:
    """An agent that has come to rest, by its number."""
    with stage.agent(f"-status-port={PORT}", *flags) as process:
        stage.await_peers()
        time.sleep(SETTLE)
        yield process.pid


def _one(stage: Stage, path: str) -> list[str]:
    control, took = stage.subnet_file.with_name("flanneld.sock"), []
    with _settled(stage, "-probe=false") as pid:
        get(control, path)
        before = cpu_s(pid)
        for _ in range(SCRAPES):
            began = time.perf_counter()
            text = get(control, path)
            took.append((time.perf_counter() - began) * 1000)
        spent = (cpu_s(pid) - before) / SCRAPES * 1000
    return [spread(took, 1), f"{spent:.1f}", f"{len(text) / 1000:.0f}"]


def _await_answers(stage: Stage) -> None:
    """Return once every peer has answered: of thousands, that takes minutes."""
    control = stage.subnet_file.with_name("flanneld.sock")
    while any(peer.state != State.REACHABLE for peer in status(control).peers):
        time.sleep(10)


def _watched(stage: Stage, pid: int, path: str) -> list[str]:
    """Share of a processor, and memory, of an agent that is asked for ``path`` now and then, if for any."""
    control = stage.subnet_file.with_name("flanneld.sock")
    before, begun, memory = cpu_s(pid), time.monotonic(), []
    while time.monotonic() < begun + SPAN:
        if path:
            get(control, path)
        time.sleep(EVERY)
        memory.append(resident_mb(pid))
    share = (cpu_s(pid) - before) / (time.monotonic() - begun)
    return [f"{share:.2%}", f"{median(memory):.1f}"]
