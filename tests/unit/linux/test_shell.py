"""With a real ``sh``: what it is told, what it may print, and that nothing of it outlives its time."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyflannel.linux.shell import DEFAULT_PATH, FLOOD, KEPT, Outcome, inherited, run_line
from tests.support.loops import run
from tests.support.processes import alive, await_end

LIMIT = 20.0


def outcome(line: str, stdin: str = "\n", limit: float = LIMIT, **variables: str) -> Outcome:
    return run(run_line(line, variables, stdin, limit))


def test_a_line_is_a_shells_with_all_that_shells_do() -> None:
    line = 'read A; read B; test -n "$C" && echo $(echo $A | tr a-z A-Z) "$B" \'$C\' $C | cat; echo oops >&2'
    assert outcome(line, "one\ntwo  three\n", C="four") == Outcome(0, "", b"ONE two  three $C four\n", b"oops\n")


@pytest.mark.parametrize(
    ("line", "status", "trouble"),
    [
        ("true", 0, ""),
        ("exit 3", 3, "exit status 3"),
        ("kill -9 $$", -9, "was ended by SIGKILL"),
        ("no-such-program", 127, "exit status 127"),
        ("'", 2, "exit status 2"),
    ],
)
def test_however_a_line_ends_is_told(line: str, status: int, trouble: str) -> None:
    got = outcome(line)
    assert (got.status, got.trouble, got.ok) == (status, trouble, status == 0)


def test_a_line_that_is_too_long_for_the_kernel_is_an_answer_as_well() -> None:
    assert outcome("#" * 3_000_000) == Outcome(None, "could not be started: Argument list too long")


def test_a_line_that_takes_too_long_is_killed_with_all_it_has_started(tmp_path: Path) -> None:
    got = outcome(f"sleep 600 & echo $! $$ >{tmp_path}/pids; wait", limit=1.0)
    assert (got.status, got.trouble) == (None, "did not finish within 1 s, and was killed")
    await_end(map(int, (tmp_path / "pids").read_text().split()))


def test_a_line_that_is_cancelled_is_killed_with_all_it_has_started(tmp_path: Path) -> None:
    pipe = tmp_path / "pids"
    os.mkfifo(pipe)

    async def scenario() -> list[str]:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(run_line(f"sleep 600 & echo $! $$ >{pipe}; wait", {}, "", LIMIT))
            pids = (await asyncio.to_thread(pipe.read_text)).split()
            task.cancel()
        return pids

    pids = run(scenario())
    assert len(pids) == 2
    await_end(map(int, pids))


def test_what_a_line_leaves_running_stays_and_is_not_waited_for() -> None:
    got = outcome("sleep 600 & echo $!")
    assert got.ok
    pid = int(got.out)
    assert alive(pid)
    os.kill(pid, 9)


@pytest.mark.parametrize("where", ["1", "2"])
def test_a_line_that_prints_for_ever_is_killed_and_little_of_it_kept(where: str) -> None:
    got = outcome(f"yes >&{where}")
    assert (got.status, got.trouble) == (None, f"printed more than {FLOOD} bytes, and was killed")
    assert {len(got.out), len(got.err)} == {0, KEPT}


def test_much_output_is_read_and_its_beginning_kept() -> None:
    got = outcome("head -c 500000 /dev/zero | tr '\\0' x")
    assert (got.ok, got.out) == (True, b"x" * KEPT)


def test_more_than_a_pipe_holds_can_be_read_or_left() -> None:
    assert outcome("wc -c", "x" * 300_000).out.strip() == b"300000"
    assert outcome("true", "x" * 300_000).ok


def test_of_our_environment_a_line_sees_a_few_things_and_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLANNELD_ETCD_PASSWORD", "secret")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    monkeypatch.setenv("HOOK_SITE", "cellar")
    monkeypatch.setenv("LC_ALL", "C")
    told = dict(line.split("=", 1) for line in outcome("env", SUBNET="10.2.41.0/24").out.decode().splitlines())
    assert (told["HOOK_SITE"], told["LC_ALL"], told["SUBNET"]) == ("cellar", "C", "10.2.41.0/24")
    assert told["PATH"] == os.environ["PATH"]
    assert not {"FLANNELD_ETCD_PASSWORD", "NOTIFY_SOCKET"} & told.keys()


def test_programs_are_found_even_where_we_have_no_path() -> None:
    assert inherited({"LD_PRELOAD": "x"}) == {"PATH": DEFAULT_PATH}
    assert inherited({"PATH": "/opt/bin"}) == {"PATH": "/opt/bin"}


HOSTILE = st.one_of(
    st.sampled_from(
        ["$(touch pwned)", "`touch pwned`", "'; touch pwned #", '"; touch pwned #', "\ntouch pwned\n", "-n", "*"]
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=100),
)


@settings(max_examples=25)
@given(data=HOSTILE, value=HOSTILE)
def test_no_value_is_ever_taken_for_a_command(tmp_path_factory: pytest.TempPathFactory, data: str, value: str) -> None:
    place = tmp_path_factory.mktemp("place")
    line = f'cd {place}; cat; printf %s "$VALUE" >&2; printf %s $VALUE >/dev/null; read A B <<END\n$VALUE\nEND\n'
    got = outcome(line, f"{data}\n", VALUE=value)
    assert (got.out, got.err) == (f"{data}\n".encode(), value.encode())
    assert list(place.iterdir()) == []
