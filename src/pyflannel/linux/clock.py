"""The clock that leases live on."""

from __future__ import annotations

import time


def boottime() -> float:
    """Seconds since this machine was started, those it slept through included.

    A lease runs out while its holder sleeps, so what is due must be reckoned on a clock that goes on meanwhile.
    CLOCK_MONOTONIC, and with it every timer of asyncio, stands still during suspend; the wall clock goes on, but jumps
    whenever somebody sets it (clock_gettime(2)).
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)
