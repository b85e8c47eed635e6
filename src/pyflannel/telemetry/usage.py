"""What our own process takes of the machine (proc_pid_stat(5), proc_pid_statm(5))."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_SELF = Path("/proc/self")


@dataclass(frozen=True, slots=True)
class Usage:
    """As of one moment."""

    cpu_s: float
    """Seconds of processor time so far."""
    resident_bytes: int
    open_fds: int

    @classmethod
    def now(cls) -> Usage:
        """Look."""
        spent = os.times()
        pages = int((_SELF / "statm").read_text().split()[1])
        # One descriptor is ours, for looking.
        descriptors = sum(1 for _ in (_SELF / "fd").iterdir()) - 1
        return cls(spent.user + spent.system, pages * os.sysconf("SC_PAGESIZE"), descriptors)
