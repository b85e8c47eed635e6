"""Which process listens at a UNIX socket: for one that does not answer when it is asked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

ACCEPTS: Final = 0x10000
"""The flag of sockets that listen (__SO_ACCEPTCON)."""


def listener(path: Path) -> int | None:
    """A descriptor (pidfd_open(2)) of another process that listens at ``path``, to be closed; None if none does.

    What counts is where the socket was bound, whatever its file is called since.
    """
    sockets = {f"socket:[{inode}]" for inode in _inodes(path)}
    for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()) if sockets else ():
        if pid == os.getpid() or not _holds(pid, sockets):
            continue
        with suppress(ProcessLookupError):
            process = os.pidfd_open(pid)
            # It could have ended, and its number be another's, before the descriptor held on to it.
            if _holds(pid, sockets):
                return process
            os.close(process)
    return None


def _inodes(path: Path) -> Iterator[str]:
    """Of the sockets that listen there, as proc(5) tells of /proc/net/unix."""
    for line in Path("/proc/self/net/unix").read_text(errors="replace").splitlines()[1:]:
        _, _, _, flags, _, _, inode, *name = line.split(maxsplit=7)
        if name == [os.fspath(path)] and int(flags, 16) & ACCEPTS:
            yield inode


def _holds(pid: int, sockets: set[str]) -> bool:
    with suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if str(descriptor.readlink()) in sockets:
                    return True
    return False
