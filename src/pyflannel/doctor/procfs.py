"""What the kernel tells in files: settings, processes, sockets, counts.

``/proc/net`` and ``/proc/sys/net`` are those of our network namespace; of processes we look only at those in it.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyflannel.doctor.facts import Count, Listener

PROC: Final = Path("/proc")
DOCKERD: Final = "dockerd"
_PYTHON: Final = re.compile(r"python[0-9.]*")
_AGENTS: Final = frozenset(("flanneld", "flanneld.pyz"))
_MODULE: Final = "pyflannel.cli.flanneld"
_UNSYNCHRONISED: Final = 5
"""TIME_ERROR, what adjtimex(2) returns while nobody keeps the clock."""
_TIMEX: Final = 512
"""Bytes; struct timex has 208 on most machines.  All zero it asks for nothing to be changed."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process in our network namespace."""

    pid: int
    argv: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of its program."""
        return Path(self.argv[0]).name

    @property
    def is_agent(self) -> bool:
        """Whether it is a flanneld, of whatever make."""
        if not _PYTHON.fullmatch(self.name):
            return self.name in _AGENTS
        words = [word for word in self.argv[1:] if word == "-m" or not word.startswith("-")]
        return words[:2] == ["-m", _MODULE] or (bool(words) and Path(words[0]).name in _AGENTS)


def processes(proc: Path = PROC) -> tuple[Process, ...] | None:
    """Those in our network namespace; None if we may not tell, of an agent or of Docker's daemon, whether it is."""
    try:
        here = (proc / "self/ns/net").readlink()
        # Where /proc hides other people's processes (hidepid), it hides the first one, too.
        return tuple(_processes(proc, here)) if (proc / "1").exists() else None
    except OSError:
        return None


def _processes(proc: Path, here: Path) -> Iterator[Process]:
    for entry in proc.iterdir():
        if not entry.name.isdecimal():
            continue
        # Processes end while we look.
        with suppress(FileNotFoundError, ProcessLookupError):
            argv = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
            if not argv or not argv[0]:
                continue
            process = Process(int(entry.name), tuple(argv))
            try:
                if (entry / "ns/net").readlink() == here:
                    yield process
            except PermissionError:
                if process.is_agent or process.name == DOCKERD:
                    raise


def listeners(port: int, among: Iterable[Process], proc: Path = PROC) -> tuple[Listener, ...] | None:
    """The UDP sockets bound to ``port``, and which of ``among`` hold them; None if that cannot be told."""
    inodes: dict[str, None] = {}
    for name in ("udp", "udp6"):
        with suppress(OSError):
            for line in (proc / "net" / name).read_text().splitlines()[1:]:
                words = line.split()
                if int(words[1].rpartition(":")[2], 16) == port:
                    inodes[f"socket:[{words[9]}]"] = None
    if not inodes:
        return ()
    holders: dict[str, Process] = {}
    hidden = False
    for process in among:
        try:
            holders |= {found: process for found in _descriptors(process.pid, proc) if found in inodes}
        except PermissionError:
            hidden = True
    if hidden and holders.keys() != inodes.keys():
        return None
    return tuple(Listener(port, _named(holders.get(inode))) for inode in inodes)


def is_bound(path: Path, proc: Path = PROC) -> bool | None:
    """Whether a process holds the Unix socket at ``path``; None if that cannot be told."""
    try:
        lines = (proc / "net/unix").read_text(errors="replace").splitlines()
    except OSError:
        return None
    return any(line.endswith(f" {path}") for line in lines)


def _descriptors(pid: int, proc: Path) -> Iterator[str]:
    with suppress(FileNotFoundError, ProcessLookupError):
        for descriptor in (proc / str(pid) / "fd").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                yield str(descriptor.readlink())


def _named(process: Process | None) -> str:
    """For people; the words after the first few may be secrets."""
    if process is None:
        return ""
    words = process.argv[:3] if _PYTHON.fullmatch(process.name) else process.argv[:1]
    return f"{' '.join([process.name, *words[1:]])} (process {process.pid})"


def sysctls(names: Iterable[str], proc: Path = PROC) -> dict[str, str]:
    """The settings of those names that can be read; empty for one the kernel does not have."""
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = " ".join((proc / "sys" / name).read_text().split())
        except FileNotFoundError:
            found[name] = ""
        except OSError:
            continue
    return found


def count(used: str, limit: str, proc: Path = PROC) -> Count | None:
    """What the first number of two files says; None if there are none such."""
    try:
        return Count(*(int((proc / name).read_text().split()[0]) for name in (used, limit)))
    except (OSError, ValueError, IndexError):
        return None


def number(name: str, proc: Path = PROC) -> int | None:
    """A single one."""
    found = count(name, name, proc)
    return None if found is None else found.used


def synchronised() -> bool | None:
    """Whether somebody keeps the clock, as far as the kernel knows."""
    libc = ctypes.CDLL(None, use_errno=True)
    answer = libc.adjtimex(ctypes.create_string_buffer(_TIMEX))
    return None if answer < 0 else bool(answer != _UNSYNCHRONISED)


def legacy_tables(family: int, proc: Path = PROC) -> bool:
    """Whether the legacy variant of iptables is in use here: asking its own tool would bring it in."""
    with suppress(OSError):
        return bool((proc / "net" / ("ip_tables_names" if family == 4 else "ip6_tables_names")).read_text().split())
    return False
