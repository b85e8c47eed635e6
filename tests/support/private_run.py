"""Hosts that share this machine's file system, and yet can all run wireguard-go for devices of one name."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.machines import stop
from tests.support.pair import Host


@contextmanager
def private_run(host: Host) -> Iterator[None]:
    """A ``/run`` of its own for a host: programs of WireGuard listen there by the name of the device alone."""
    script = "mount -t tmpfs tmpfs /run; echo; exec sleep 1d"
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script], stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline()
        host.enter = ["nsenter", f"--net={host.space.path}", f"--mount=/proc/{holder.pid}/ns/mnt", "--"]
        yield
    finally:
        if host.agent is not None:
            stop(host.agent)
        for pid in programs(host):
            os.kill(pid, signal.SIGKILL)
        holder.kill()
        holder.communicate()


def programs(host: Host) -> list[int]:
    """The processes of wireguard-go on a host."""
    found = []
    for pid in subprocess.check_output(["ip", "netns", "pids", host.space.name], text=True).split():
        # Some end while we look.
        with suppress(FileNotFoundError):
            found += [int(pid)] if Path(f"/proc/{pid}/comm").read_text().strip() == "wireguard-go" else []
    return found
