"""Running a line that an administrator wrote, by ``sh -c``.

Rules of this file
  1. A line is run as it is.  Whatever it is to know comes in its environment and on its standard input.
  2. There is a bound to everything: to its time, to what it prints, to what is kept of that.
  3. A run that is cut short takes along all it has started, as far as that stayed in its process group.  A line that
     ends by itself may leave something running, as ``nebula … &`` does, and nobody waits for that.
  4. Of our own environment a line sees what ``inherited`` lets through: there are passwords in the rest of it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Final

SHELL: Final = "/bin/sh"
KEPT: Final = 32 * 1024
"""Bytes that are kept of each of the two outputs; the rest is read and forgotten."""
FLOOD: Final = 1024 * 1024
"""Bytes after which a line is taken to print for ever, and killed."""
GRACE: Final = 0.5
"""Seconds in which what a line has left running may still print for it."""
INHERITED: Final = frozenset(("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR"))
"""What a line inherits, beside all that begins with one of ``INHERITED_PREFIXES``."""
INHERITED_PREFIXES: Final = ("LC_", "HOOK_")
"""``HOOK_…`` is the administrator's way to tell the commands of one host what those of others need not know."""
DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a line ended."""

    status: int | None
    """Exit status; negative is the number of the signal that ended it; None if we cut it short, or could not begin."""
    trouble: str = ""
    """In words, what kept it from ending with status 0; empty if nothing did."""
    out: bytes = b""
    err: bytes = b""

    @property
    def ok(self) -> bool:
        """Whether it ended with status 0."""
        return self.status == 0


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """What a line may know of ``environ``, and a PATH in any case."""
    passed = {
        name: value for name, value in environ.items() if name in INHERITED or name.startswith(INHERITED_PREFIXES)
    }
    return {"PATH": DEFAULT_PATH, **passed}


async def run_line(line: str, variables: Mapping[str, str], stdin: str, limit: float) -> Outcome:
    """Run ``line`` to its end, for at most ``limit`` seconds, with ``stdin`` to read.

    However it ends is an answer, not an error.  Cancelled, it kills the line before it lets go.
    """
    with ExitStack() as stack:
        out, err = _Output(stack), _Output(stack)
        # Not a pipe: one of those may take less than all of it, and then waits for a reader who never comes.
        source = os.memfd_create("stdin")
        stack.callback(os.close, source)
        os.pwrite(source, stdin.encode(), 0)
        try:
            process = await asyncio.create_subprocess_exec(
                *(SHELL, "-c", line),
                stdin=source,
                stdout=out.mouth,
                stderr=err.mouth,
                env={**inherited(os.environ), **variables},
                # Its own group: so that we can kill its children too, and a Ctrl-C meant for us does not stop it.
                start_new_session=True,
            )
        except OSError as error:
            return Outcome(None, f"could not be started: {error.strerror}")
        out.listen(process)
        err.listen(process)
        return await _attend(process, out, err, limit)


async def _attend(process: asyncio.subprocess.Process, out: _Output, err: _Output, limit: float) -> Outcome:
    trouble = ""
    try:
        async with asyncio.timeout(limit):
            await process.wait()
    except TimeoutError:
        trouble = f"did not finish within {limit:g} s, and was killed"
    finally:
        if process.returncode is None:
            _kill(process)
            await process.wait()
    with suppress(TimeoutError):
        async with asyncio.timeout(GRACE):
            await out.ended.wait()
            await err.ended.wait()
    if out.flooding or err.flooding:
        trouble = f"printed more than {FLOOD} bytes, and was killed"
    status = process.returncode
    assert status is not None
    return Outcome(None if trouble else status, trouble or _in_words(status), bytes(out.kept), bytes(err.kept))


def _in_words(status: int) -> str:
    if status >= 0:
        return f"exit status {status}" if status else ""
    return f"was ended by {signal.Signals(-status).name}"


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


class _Output:
    """One of the two outputs of a line: read as it comes, kept up to a bound."""

    def __init__(self, stack: ExitStack) -> None:
        self.kept = bytearray()
        self.flooding = False
        self.ended = asyncio.Event()
        self._read = 0
        self._ear, self.mouth = os.pipe()
        """Where we read, and where the line writes; closed with ``stack``."""
        os.set_blocking(self._ear, False)
        self._loop = asyncio.get_running_loop()
        stack.callback(os.close, self._ear)
        stack.callback(self._loop.remove_reader, self._ear)
        self._mouth = stack.enter_context(ExitStack())
        self._mouth.callback(os.close, self.mouth)

    def listen(self, process: asyncio.subprocess.Process) -> None:
        """Read from now on, what ``process`` writes; nobody else in this process has the other end any more."""
        self._mouth.close()
        self._loop.add_reader(self._ear, self._take, process)

    def _take(self, process: asyncio.subprocess.Process) -> None:
        try:
            chunk = os.read(self._ear, 65536)
        except BlockingIOError:
            return
        if not chunk:
            self._loop.remove_reader(self._ear)
            self.ended.set()
        self._read += len(chunk)
        self.kept += chunk[: KEPT - len(self.kept)]
        if self._read > FLOOD and process.returncode is None:
            self.flooding = True
            _kill(process)
