"""Processes that a test asks about by number."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tests.support.machines import eventually


def alive(pid: int) -> bool:
    """Whether it runs; a zombie, whose parent may take its time, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def await_end(pids: Iterable[int]) -> None:
    """Wait until none of ``pids`` runs: one sent SIGKILL does, until the kernel gives it a turn to die."""
    waited = list(pids)
    eventually(lambda: not any(map(alive, waited)), f"the end of the processes {waited}")
