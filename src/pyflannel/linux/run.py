"""Running a program of the host's and waiting, on the event loop, for what it says.

No shell is involved; every run has a time limit; and nothing we started outlives the call, however it ends.  The lines
that an administrator wrote are run by ``linux.shell``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TIMEOUT_S = 10.0


class CommandFailed(Exception):
    """The program could not be started, or not be run to its end; another time it may."""


class CommandMissing(CommandFailed):
    """The program is not installed, or may not be executed: a person has to act."""


class CommandTimeout(CommandFailed):
    """The program did not finish in time and was killed; what it had done by then is not known."""


@dataclass(frozen=True, slots=True)
class Completed:
    """How a program ended."""

    argv: tuple[str, ...]
    status: int
    """Exit status; negative is the number of the signal that ended it."""
    out: str
    err: str


async def run(
    argv: Sequence[str],
    stdin: str | None = None,
    timeout: float = TIMEOUT_S,  # noqa: ASYNC109 - killing what runs is our business, not the caller's
    env: Mapping[str, str] | None = None,
) -> Completed:
    """Run a program to its end, feeding it ``stdin`` (None: nothing), for at most ``timeout`` seconds.

    ``env`` is added to our own environment.  A status other than 0 is an answer, not an error.  Output that is not
    UTF-8 keeps its readable part.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=None if env is None else {**os.environ, **env},
            # Its own group: so that we can kill its children too, and a Ctrl-C meant for us does not stop it half way.
            start_new_session=True,
        )
    except OSError as error:
        kind = CommandMissing if isinstance(error, FileNotFoundError | PermissionError) else CommandFailed
        raise kind(f"running {argv[0]}: {error.strerror}") from error
    try:
        async with asyncio.timeout(timeout):
            out, err = await process.communicate(None if stdin is None else stdin.encode())
    except TimeoutError:
        raise CommandTimeout(f"{shlex.join(argv)} did not finish within {timeout:g} s") from None
    finally:
        await _end(process)
    assert process.returncode is not None
    return Completed(tuple(argv), process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill what is left of it, and collect what it leaves behind."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()
