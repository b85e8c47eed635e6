"""What this process may do to the network."""

from __future__ import annotations

from pathlib import Path
from typing import Final

CAP_NET_ADMIN: Final = 12
"""Its bit in a capability mask (linux/capability.h)."""
STATUS: Final = Path("/proc/self/status")


def may_administer(status: str) -> bool:
    """Whether the process with this ``/proc/PID/status`` holds CAP_NET_ADMIN (proc_pid_status(5), CapEff)."""
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            return bool(int(value, 16) >> CAP_NET_ADMIN & 1)
    return False


def may_administer_network() -> bool:
    """Whether we may program the network of our namespace."""
    return may_administer(STATUS.read_text())
