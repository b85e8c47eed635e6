from __future__ import annotations

import asyncio
import os
import resource
from pathlib import Path

import pytest

from pyflannel.linux.run import CommandFailed, CommandMissing, CommandTimeout, run
from tests.support.processes import await_end


def test_a_program_says_what_it_has_to_say() -> None:
    done = asyncio.run(run(["sh", "-c", "echo out; echo err >&2; exit 3"]))
    assert (done.status, done.out, done.err) == (3, "out\n", "err\n")
    assert done.argv == ("sh", "-c", "echo out; echo err >&2; exit 3")


def test_a_program_is_fed_its_input() -> None:
    assert asyncio.run(run(["cat"], stdin="grüß dich\n")).out == "grüß dich\n"


def test_without_input_there_is_none() -> None:
    assert asyncio.run(run(["cat"])).out == ""


def test_a_program_that_does_not_read_its_input_is_fine() -> None:
    assert asyncio.run(run(["true"], stdin="x" * 1_000_000)).status == 0


def test_no_shell_reads_the_arguments() -> None:
    assert asyncio.run(run(["echo", "$HOME; exit 1"])).out == "$HOME; exit 1\n"


def test_the_environment_is_added_to_ours() -> None:
    done = asyncio.run(run(["sh", "-c", 'echo $GREETING; test -n "$PATH"'], env={"GREETING": "hello"}))
    assert (done.status, done.out) == (0, "hello\n")
    assert "GREETING" not in os.environ


def test_output_that_is_no_text_keeps_its_readable_part() -> None:
    assert asyncio.run(run(["printf", r"a\377b"])).out == "a\ufffdb"


def test_a_signal_shows_in_the_status() -> None:
    assert asyncio.run(run(["sh", "-c", "kill -TERM $$"])).status == -15


def test_a_missing_program_is_named() -> None:
    with pytest.raises(CommandMissing, match="no-such-program: No such file"):
        asyncio.run(run(["no-such-program"]))


def test_a_program_that_cannot_be_started_for_want_of_anything_is_named(tmp_path: Path) -> None:
    file = tmp_path / "program"
    file.write_text("no program at all")
    file.chmod(0o755)
    with pytest.raises(CommandFailed, match=r"program: Exec format error"):
        asyncio.run(run([str(file)]))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def among_too_many_files() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 1, hard))
        try:
            await run(["true"])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    with pytest.raises(CommandFailed, match=r"running true: Too many open files"):
        asyncio.run(among_too_many_files())


def test_a_file_that_may_not_be_executed_is_named(tmp_path: Path) -> None:
    file = tmp_path / "program"
    file.write_text("#!/bin/sh\n")
    with pytest.raises(CommandMissing, match=r"program: Permission denied"):
        asyncio.run(run([str(file)]))


def test_a_program_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 60 & echo $$ $! > {pids}.new; mv {pids}.new {pids}; wait"

    async def scenario() -> None:
        with pytest.raises(CommandTimeout, match=r"sleep 60.* did not finish within 0.5 s"):
            await run(["sh", "-c", script], timeout=0.5)

    asyncio.run(scenario())
    await_end(map(int, pids.read_text().split()))


def test_a_cancelled_run_leaves_nothing_behind(tmp_path: Path) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)

    async def scenario() -> int:
        task = asyncio.ensure_future(run(["sh", "-c", f"echo $$ > {started}; exec sleep 60"]))
        pid = int(await asyncio.to_thread(started.read_text))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return pid

    await_end([asyncio.run(scenario())])
