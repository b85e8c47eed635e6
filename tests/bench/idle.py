"""What the agent costs while nothing happens."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from tests.bench.stage import Stage, install, resident_mb
from tests.bench.table import show

PEERS = (0, 1000, 5000)
SETTLE = 5.0
"""Seconds after the start that do not count."""
SPAN = 20.0
"""Seconds that do."""


def main(_huge: bool) -> None:
    """Print the table."""
    rows = []
    with tempfile.TemporaryDirectory() as where:
        program = install(Path(where))
        for peers in PEERS:
            with Stage(program, Path(where), peers) as stage, stage.agent() as process:
                stage.await_peers()
                time.sleep(SETTLE)
                before = cpu_s(process.pid)
                time.sleep(SPAN)
                share = (cpu_s(process.pid) - before) / SPAN
                rows.append([f"{peers:,}", f"{share:.2%}", f"{resident_mb(process.pid):.1f}"])
    show(f"The agent at rest, over {SPAN:.0f} s", ["peers", "of one CPU", "resident memory, MB"], rows)


def cpu_s(pid: int) -> float:
    """Seconds of processor time a process has had so far (proc_pid_stat(5), utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
