"""From the start of the process to subnet.env and to the last peer in the kernel, and the memory it takes.

The host has its lease, as after a reboot, and the kernel is empty.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.stage import Stage, install, resident_mb
from tests.bench.table import show, spread

RUNS = 7
PEERS = {"3": (0, 1000, 5000, 10_000), "2": (0, 1000)}
HUGE = 30_000


@dataclass(frozen=True)
class Sample:
    """One start of the agent."""

    subnet_env_s: float
    peers_s: float
    resident_mb: float
    """Once all peers are in the kernel."""


def main(huge: bool) -> None:
    """Print the table."""
    rows = []
    with tempfile.TemporaryDirectory() as where:
        program = install(Path(where))
        for api, sizes in PEERS.items():
            for peers in (*sizes, *([HUGE] if huge and api == "3" else [])):
                samples = measure(program, Path(where), api, peers)
                rows.append(
                    [
                        f"etcd v{api}",
                        f"{peers:,}",
                        spread([sample.subnet_env_s for sample in samples]),
                        spread([sample.peers_s for sample in samples]),
                        spread([sample.resident_mb for sample in samples], 1),
                    ]
                )
    head = ["store", "peers", "start → subnet.env, s", "start → last peer's route, s", "resident memory, MB"]
    show(f"Start of the agent; median (least–greatest) of {RUNS}", head, rows)


def measure(program: Path, where: Path, api: str, peers: int, runs: int = RUNS) -> list[Sample]:
    """Several starts, the first not counted."""
    with Stage(program, where, peers, api) as stage:
        return [one_start(stage) for _ in range(runs + 1)][1:]


def one_start(stage: Stage) -> Sample:
    """Start the agent, look at it, and stop it again."""
    stage.forget_device()
    began = time.monotonic()
    with stage.agent() as process:
        while not stage.subnet_file.exists():
            time.sleep(0.0005)
        written = time.monotonic() - began
        stage.await_peers()
        programmed = time.monotonic() - began
        time.sleep(0.5)
        return Sample(written, programmed, resident_mb(process.pid))
