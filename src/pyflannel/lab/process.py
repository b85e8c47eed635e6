"""Which process is meant: never a bare pid.

Rules of this file
  1. A process is its pid, its start time and its network namespace.  All three agree, or it is not the one.
  2. A signal goes through a descriptor of the process (pidfd) opened *before* that check, so a pid that is given to
     another process in between is not hit.
  3. A zombie has ended.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyflannel.lab import LabError

AT_ONCE: Final = 200
"""How many are started, or ended, at a time: two descriptors for each, of the 1,024 that a process usually may have."""
_STATE, _STARTED = 0, 19  # in /proc/PID/stat, counted after the name; fields 3 and 22 in proc(5)


@dataclass(frozen=True, slots=True)
class Process:
    """One process, so described that no later process with its pid can be mistaken for it."""

    pid: int
    started: int
    """Clock ticks since boot, as /proc/PID/stat has it; does not change on exec."""
    namespace: int
    """The inode of its network namespace."""

    @property
    def runs(self) -> bool:
        """Whether it is there, and where it should be."""
        return start_time(self.pid) == self.started and namespace_of(self.pid) == self.namespace


def start_time(pid: int) -> int | None:
    """When ``pid`` was started, in clock ticks since boot; None if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name before it is in parentheses and may itself hold blanks and parentheses.
    fields = text.rpartition(")")[2].split()
    return None if fields[_STATE] in "ZX" else int(fields[_STARTED])


def namespace_of(pid: int) -> int | None:
    """The inode of the network namespace ``pid`` is in; None if it has ended or is not ours to look at."""
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return None


def inhabitants(namespaces: Collection[int]) -> Iterator[Process]:
    """Every process in one of these network namespaces, the caller excepted."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or (pid := int(entry.name)) == os.getpid():
            continue
        started, namespace = start_time(pid), namespace_of(pid)
        if started is not None and namespace in namespaces and namespace is not None:
            yield Process(pid, started, namespace)


def end(processes: Iterable[Process], patience_s: float) -> None:
    """Ask these to end (TERM), after ``patience_s`` make them (KILL), and return when they have.

    Those that have ended already, or are no longer what was recorded, are left alone.  ``LabError`` if one does not
    even die.
    """
    every = list(processes)
    for at in range(0, len(every), AT_ONCE):
        _end(every[at : at + AT_ONCE], patience_s)


def _end(processes: Iterable[Process], patience_s: float) -> None:
    with contextlib.ExitStack() as stack:
        left = {fd: process for process in processes if (fd := _open(process, stack)) is not None}
        for number, wait_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, 5.0)):
            for fd in left:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(fd, number)
            left = _await_end(left, wait_s)
    if left:
        pids = ", ".join(str(process.pid) for process in left.values())
        raise LabError(f"killed, and still there: process {pids}; run the same command again")


def _open(process: Process, stack: contextlib.ExitStack) -> int | None:
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    stack.callback(os.close, fd)
    return fd if process.runs else None


def _await_end(waiting: dict[int, Process], patience_s: float) -> dict[int, Process]:
    """Those that have not ended in time."""
    left, deadline = dict(waiting), time.monotonic() + patience_s
    poll = select.poll()
    for fd in left:
        poll.register(fd, select.POLLIN)
    while left and (rest := deadline - time.monotonic()) > 0:
        for fd, _ in poll.poll(rest * 1000):
            poll.unregister(fd)
            with contextlib.suppress(ChildProcessError):  # only our own children are ours to reap
                os.waitpid(left.pop(fd).pid, os.WNOHANG)
    return left
