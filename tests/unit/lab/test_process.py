"""Telling processes apart, and ending the right ones.  Only children of the test are touched."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pyflannel.lab.process import AT_ONCE, Process, end, inhabitants, namespace_of, start_time


def identity(pid: int) -> Process:
    started, namespace = start_time(pid), namespace_of(pid)
    assert started is not None
    assert namespace is not None
    return Process(pid, started, namespace)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_running_process_is_known_again(child: subprocess.Popen[bytes]) -> None:
    assert identity(child.pid).runs


def test_later_process_with_the_same_pid_is_another(child: subprocess.Popen[bytes]) -> None:
    assert not replace(identity(child.pid), started=identity(child.pid).started - 1).runs


def test_process_in_another_namespace_is_another(child: subprocess.Popen[bytes]) -> None:
    assert not replace(identity(child.pid), namespace=1).runs


def test_name_with_blanks_and_parentheses_does_not_hide_the_start_time() -> None:
    code = "import ctypes; ctypes.CDLL(None).prctl(15, b'a) b (c 1 2', 0, 0, 0); print(); input()"
    with subprocess.Popen(["python3", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        started = start_time(process.pid)
        process.stdout.readline()
        assert started is not None
        assert start_time(process.pid) == started
        process.communicate(b"\n")


def test_zombie_has_ended() -> None:
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert start_time(process.pid) is None


def test_no_process_has_no_identity(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    assert start_time(child.pid) is None
    assert namespace_of(child.pid) is None


def test_those_in_a_namespace_are_found_but_not_oneself(child: subprocess.Popen[bytes]) -> None:
    here = namespace_of(os.getpid())
    assert here is not None
    found = {process.pid for process in inhabitants({here})}
    assert child.pid in found
    assert os.getpid() not in found
    assert list(inhabitants(set())) == []


def test_process_is_ended_and_reaped(child: subprocess.Popen[bytes]) -> None:
    end([identity(child.pid)], patience_s=20)
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, os.WNOHANG)


def test_process_that_ignores_the_request_is_killed() -> None:
    script = 'trap "" TERM; echo; exec sleep 60'
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        end([identity(process.pid)], patience_s=0.01)
        assert start_time(process.pid) is None


def test_process_that_is_no_longer_the_recorded_one_is_left_alone(child: subprocess.Popen[bytes]) -> None:
    recorded = replace(identity(child.pid), started=0)
    end([recorded], patience_s=0.01)
    assert identity(child.pid).runs


def test_ended_process_needs_no_ending(child: subprocess.Popen[bytes]) -> None:
    recorded = identity(child.pid)
    child.kill()
    child.wait()
    end([recorded], patience_s=0.01)


def test_more_processes_are_ended_than_there_may_be_files_open() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    children = [subprocess.Popen(["sleep", "60"]) for _ in range(AT_ONCE + 20)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + AT_ONCE + 5, hard))
    try:
        end(map(identity, [child.pid for child in children]), patience_s=20)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for child in children:
            child.kill()
            child.wait()
    assert [start_time(child.pid) for child in children] == [None] * len(children)
