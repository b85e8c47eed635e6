"""The clock that leases live on."""

from __future__ import annotations

from pathlib import Path

from pyflannel.linux.clock import boottime


def test_it_counts_from_the_start_of_the_machine_sleep_included() -> None:
    # /proc/uptime is the same clock in hundredths of a second (proc_uptime(5)).
    before = boottime()
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert before - 0.01 <= uptime <= boottime()
