"""The last good state of a network on disk, so that an agent can start while the store is down.

Rules of this file
  1. Whoever opens the file finds one whole state, the old or the new one, also after a power cut: it is written beside
     its place, flushed to the disk and renamed.
  2. The disk may take its time.  All that touches it while the agent works happens in a thread, which holds nothing up:
     neither the event loop, between small slices of work, nor the end of the process.
  3. A disk that refuses costs a line, never the network.
  4. Only a regular file of our own, which nobody else may write, is believed.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import stat
import threading
import time
from binascii import crc32
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from pyflannel.conditions import CACHE
from pyflannel.health import Health
from pyflannel.store.keys import config_key
from pyflannel.store.lastknown import BadCache, LastKnown, last_line, lines, read

log = logging.getLogger(__name__)
T = TypeVar("T")

SOON: Final = 2.0
"""Seconds from a change until it is saved, in which others may join it."""
PAUSE: Final = 60.0
"""Seconds from one save to the next at the least."""
RETRY: Final = 1.0
"""The same after a save that failed."""
FLUSH_LIMIT: Final = 2.0
"""Seconds which the end of the agent waits for the disk."""
LARGEST: Final = 64 * 1024 * 1024
"""Bytes.  Ten thousand leases make two million; what is larger is neither written nor read."""
_LAST_LINE: Final = 100
"""Bytes it has at the most."""
_SLICE: Final = 64
"""Records written at a stretch, less than a millisecond's work; then the event loop has its turn."""
_BREATH: Final = 0.001
"""Seconds.  Without a rest the thread that writes would keep the interpreter to itself for up to 5 ms at a time."""


def path(state_dir: Path, network: str) -> Path:
    """Where in ``state_dir`` the state of ``network``, the prefix of its keys, is kept: a file of its own for each."""
    key = config_key(network)
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", key.removesuffix("/config")).strip("-.")[:100]
    return state_dir / f"last-known-{readable}-{crc32(key.encode(errors='surrogatepass')):08x}.jsonl"


def load(file: Path, network: str) -> LastKnown | None:
    """What was last saved in ``file`` of ``network``; None if there is no file, ``BadCache`` if it cannot be used."""
    try:
        with open(file, "rb", opener=_open_cautiously) as source:
            _refuse_foreign(os.fstat(source.fileno()))
            return read(source, network)
    except FileNotFoundError:
        return None
    except OSError as exc:
        reason = "it is a symbolic link" if exc.errno == errno.ELOOP else exc.strerror
        raise BadCache(f"it cannot be read: {reason}") from None


def _open_cautiously(name: str, flags: int) -> int:
    """Open, but neither look at what a link leads to nor wait for whoever writes to a pipe."""
    return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _refuse_foreign(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise BadCache("it is no regular file")
    if status.st_uid != os.geteuid():
        raise BadCache(f"it belongs to user {status.st_uid}: expected {os.geteuid()}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise BadCache(f"others may write it: its mode is {stat.S_IMODE(status.st_mode):04o}")
    if status.st_size > LARGEST:
        raise BadCache(f"it has {status.st_size} bytes: expected at most {LARGEST}")


def save(file: Path, known: LastKnown, unless: int | None = None) -> int:
    """Make ``known`` the content of ``file``, at once and for good; returns a number that stands for the content.

    If that number is ``unless``, nothing is changed: what an earlier save returned it for said the same, all but the
    revision.  Missing directories are made.  ``OSError`` if it cannot be done; then ``file`` is what it was.

    It blocks, and rests after each slice of work: call it from a thread.
    """
    for directory in (*reversed(file.parent.parents), file.parent):
        directory.mkdir(0o755, exist_ok=True)
    # Always the same name, so that however often we are killed in the middle of a save, one file at most is left.
    unfinished = file.with_name(f".{file.name}0")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as target:
            fingerprint = _write(target, known)
            if fingerprint == unless:
                unfinished.unlink()
                return fingerprint
            target.flush()
            os.fsync(descriptor)
        unfinished.rename(file)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise
    _sync_directory(file.parent)
    return fingerprint


def _write(target: BinaryIO, known: LastKnown) -> int:
    """Write all of ``known``; returns the checksum of everything but the last line."""
    checksum = size = count = 0
    for line in lines(known):
        target.write(line)
        checksum, size, count = crc32(line, checksum), size + len(line), count + 1
        if size > LARGEST - _LAST_LINE:
            raise OSError(errno.EFBIG, f"it would have more than {LARGEST} bytes")
        if count % _SLICE == 0:
            time.sleep(_BREATH)
    target.write(last_line(known.snapshot.revision, count, checksum))
    return checksum


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Cache:
    """Keeps one file at what is known."""

    def __init__(
        self,
        file: Path,
        known: Callable[[], LastKnown],
        jitter: Callable[[float], float],
        health: Health | None = None,
    ) -> None:
        """``known`` is asked on the event loop whenever it is time to save; what it returns is not kept.

        ``jitter`` spreads a delay, so that the hosts of a rack do not all write in the same second.
        """
        self._file, self._known, self._jitter = file, known, jitter
        self._health = health or Health()
        self._changed = asyncio.Event()
        self._saving: asyncio.Future[int] | None = None
        self._fingerprint: int | None = None

    def note(self) -> None:
        """Something changed that the file should know.  Costs nothing, and may be said as often as one likes."""
        self._changed.set()

    def confirm(self) -> None:
        """Say that the store bears out what was saved: the file is as good as new."""
        with suppress(OSError):
            os.utime(self._file)

    async def run(self) -> None:
        """Save each change soon, and no more than once a minute; for ever, whatever the disk does."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(self._jitter(SOON))
            saved = await self._save()
            await asyncio.sleep(self._jitter(PAUSE if saved else RETRY))

    async def flush(self, limit: float = FLUSH_LIMIT) -> None:
        """After ``run`` has ended: save what is not saved yet, unless the disk needs more than ``limit`` seconds."""
        try:
            async with asyncio.timeout(limit):
                if self._saving is not None:
                    await self._save()
                if self._changed.is_set():
                    await self._save()
        except TimeoutError:
            self._complain(f"the disk needs more than {limit:g} s")

    async def _save(self) -> bool:
        """Save once, or see a save to its end whose wait was cut short; whether it succeeded.

        Two at a time would be in each other's way.
        """
        if self._saving is None:
            self._changed.clear()
            self._saving = _in_thread(partial(save, self._file, self._known(), self._fingerprint))
        saving = self._saving
        # Unlike an await of the thing itself this leaves it alone when we are cancelled: no thread can be.
        await asyncio.wait([saving])
        self._saving = None
        try:
            self._fingerprint = saving.result()
        except OSError as exc:
            self._changed.set()
            self._complain(exc.strerror or str(exc))
            return False
        self._health.clear(CACHE, said=f"Can save the last known state to {self._file} again")
        return True

    def _complain(self, reason: str) -> None:
        what = "Could not save the last known state, which a start without the store would need"
        self._health.set(CACHE, f"{what}, to {self._file}: {reason}")


def _in_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """What ``work`` returns or raises.  The end of the process does not wait for its thread, as for asyncio's own."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        settle: Callable[[], None]
        try:
            settle = partial(future.set_result, work())
        except BaseException as exc:  # raised again where the result is asked for
            settle = partial(future.set_exception, exc)
        # RuntimeError: the loop is closed, and nobody asks any more.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle)

    try:
        threading.Thread(target=run, name="cache", daemon=True).start()
    except RuntimeError:
        future.set_exception(OSError(errno.EAGAIN, "no thread can be started"))
    return future
