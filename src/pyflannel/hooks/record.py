"""Which hooks have been run since the host was booted, on disk, so that the next agent can undo them.

    {"pyflannel":"hooks","version":1,"boot":"5b3f…"}
    {"put":{"subnet":"10.2.41.0/24","host":"172.16.41.132","data":"…","add":"ip route …","remove":"…"},"whole":true}
    {"cut":{"subnet":"10.2.41.0/24"}}

Rules of this file
  1. It grows at its end, a line at a time; the last word on each subnet counts.  A line that cannot be read, as one
     that was cut short, says nothing.  What nobody needs any more is left out when the file is opened, and when most of
     it has become such.
  2. A line is written before its command is run: what was begun has to be undone.
  3. What commands make is gone after a boot of the host, and then the file says nothing, wherever it lies.
  4. There are commands in it, to be run with all our rights.  So only a regular file of our own is believed which
     nobody else may write, and nobody else may read it either.
  5. A disk that refuses costs a line in the log, never the network.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Final, TextIO

from pyflannel.lease.fields import JSON, Fields, read_object
from pyflannel.state import Commands, Hook, Key
from pyflannel.store import cache

log = logging.getLogger(__name__)

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_VERSION: Final = 1
_SPARE: Final = 1000
"""Lines that may be out of date, beside three for each hook, before the file is written anew."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A hook whose command was begun."""

    hook: Hook
    whole: bool
    """It came to a good end."""


def path(directory: Path, network: str) -> Path:
    """Where in ``directory`` the record of ``network``, the prefix of its keys, is kept: a file of its own for each."""
    name = cache.path(directory, network).name
    return directory / f"hooks{name.removeprefix('last-known')}"


def read(file: Path, boot: str | None = None) -> dict[Key, Entry]:
    """What has been run since the host was booted and not undone; empty where nothing can be believed.

    ``boot`` stands for that boot; None: for the present one.
    """
    try:
        with open(file, encoding="utf-8", errors="replace", opener=_open_cautiously) as source:
            if (flaw := _flaw(os.fstat(source.fileno()))) is not None:
                log.warning("Ignoring %s, where it is kept which commands have been run: %s", file, flaw)
                return {}
            return _fold(source, boot_id() if boot is None else boot)
    except FileNotFoundError:
        return {}
    except OSError as exc:
        reason = "it is a symbolic link" if exc.errno == errno.ELOOP else exc.strerror
        log.warning("Ignoring %s, where it is kept which commands have been run: %s", file, reason)
        return {}


def boot_id() -> str:
    """What is another after each boot; empty where the kernel does not tell."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


class Record:
    """The record of one network, kept up to date."""

    def __init__(self, file: Path, boot: str | None = None) -> None:
        """Read ``file``; nothing is written yet."""
        self._file, self._boot = file, boot_id() if boot is None else boot
        self.entries: dict[Key, Entry] = read(file, self._boot)
        """What is known to have been run."""
        self._out: TextIO | None = None
        self._lines = 0
        self._complained = False

    def put(self, hook: Hook, whole: bool) -> None:
        """The command of ``hook`` is about to be run, or has come to a good end: ``whole``."""
        entry = Entry(hook, whole)
        if self.entries.get(hook.key) != entry:
            self.entries[hook.key] = entry
            self._append(_put_line(entry))

    def cut(self, hook: Hook) -> None:
        """What ``hook`` made is undone."""
        if self.entries.pop(hook.key, None) is not None:
            self._append({"cut": _subnets(hook)})

    def close(self) -> None:
        """Let go of the file; closing twice is fine."""
        if self._out is not None:
            with suppress(OSError):
                self._out.close()
            self._out = None

    def _append(self, line: JSON) -> None:
        try:
            if self._out is None or self._lines > 3 * len(self.entries) + _SPARE:
                self._write_anew()
            else:
                self._write([line])
        except OSError as exc:
            self.close()
            if not self._complained:
                log.error("Cannot write to %s which commands have been run: %s", self._file, exc.strerror)
            self._complained = True
        else:
            self._complained = False

    def _write_anew(self) -> None:
        """Begin with a file that says what is so, and put it in the place of the old one."""
        self.close()
        self._file.parent.mkdir(0o755, parents=True, exist_ok=True)
        beside = self._file.with_name(f".{self._file.name}0")
        beside.unlink(missing_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._out = os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogatepass")
        self._lines = 0
        header: JSON = {"pyflannel": "hooks", "version": _VERSION, "boot": self._boot}
        self._write([header, *map(_put_line, self.entries.values())])
        beside.rename(self._file)

    def _write(self, lines: list[JSON]) -> None:
        assert self._out is not None
        self._out.write("".join(f"{json.dumps(line)}\n" for line in lines))
        # Not to the disk: after a boot it would say nothing anyway.
        self._out.flush()
        self._lines += len(lines)


def _open_cautiously(name: str, flags: int) -> int:
    """Open, but neither look at what a link leads to nor wait for whoever writes to a pipe."""
    return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _flaw(status: os.stat_result) -> str | None:
    if not stat.S_ISREG(status.st_mode):
        return "it is no regular file"
    if status.st_uid != os.geteuid():
        return f"it belongs to user {status.st_uid}: expected {os.geteuid()}"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write it: its mode is {stat.S_IMODE(status.st_mode):04o}"
    return None


def _fold(source: TextIO, boot: str) -> dict[Key, Entry]:
    header = _object(source.readline())
    if not boot or (header.get("version"), header.get("boot")) != (_VERSION, boot):
        return {}
    entries: dict[Key, Entry] = {}
    for text in source:
        line = _object(text)
        put, cut = line.get("put"), line.get("cut")
        with suppress(ValueError):
            if isinstance(put, dict):
                hook = _hook(put)
                entries[hook.key] = Entry(hook, line.get("whole") is True)
            elif isinstance(cut, dict):
                entries.pop(_hook(cut).key, None)
    return entries


def _object(text: str) -> dict[str, JSON]:
    try:
        return read_object(text)
    except ValueError:
        return {}


def _put_line(entry: Entry) -> JSON:
    hook, commands = entry.hook, entry.hook.commands
    values: dict[str, JSON] = {
        **_subnets(hook),
        "host": _text(hook.host),
        "host_v6": _text(hook.host_v6),
        "data": hook.data,
        "add": commands.add,
        "remove": commands.remove,
        "check": commands.check,
        "limit": int(commands.limit),
    }
    return {"put": {name: value for name, value in values.items() if value}, "whole": entry.whole}


def _subnets(hook: Hook) -> dict[str, JSON]:
    return {"subnet": _text(hook.subnet), "subnet_v6": _text(hook.subnet_v6)}


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _hook(values: dict[str, JSON]) -> Hook:
    """``ValueError`` if these are the values of none."""
    fields = Fields(values)
    subnet, subnet_v6, host, host_v6 = (fields.text(name, "") for name in ("subnet", "subnet_v6", "host", "host_v6"))
    if not subnet and not subnet_v6:
        raise ValueError("a hook is about a subnet")
    add, remove, check = (fields.text(name, "") for name in ("add", "remove", "check"))
    return Hook(
        Commands(add, remove, check, float(fields.integer("limit", 60, 1))),
        IPv4Network(subnet) if subnet else None,
        IPv6Network(subnet_v6) if subnet_v6 else None,
        IPv4Address(host) if host else None,
        IPv6Address(host_v6) if host_v6 else None,
        fields.text("data", ""),
    )
