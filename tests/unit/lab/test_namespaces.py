"""Starting what stays, and saying what is missing.  No namespace is made here: tests/netns/test_lab.py does that."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyflannel.lab import LabError
from pyflannel.lab.namespaces import (
    TOOLS,
    entering,
    environment,
    inside,
    outermost,
    program,
    read_sysctl,
    require,
    run,
    staying,
    why_no_user_namespace,
)
from pyflannel.lab.process import Process, end


def test_program_outlives_its_starter_once_it_was_recorded(tmp_path: Path) -> None:
    with staying({"nap": program(["sleep", "60"], tmp_path / "log")}) as started:
        assert started["nap"].runs
    assert started["nap"].runs
    assert os.getsid(started["nap"].pid) == started["nap"].pid
    end(started.values(), patience_s=20)


def test_program_that_could_not_be_recorded_ends(tmp_path: Path) -> None:
    seen: list[Process] = []

    def start() -> None:
        with staying({"nap": program(["sleep", "60"], tmp_path / "log")}) as started:
            seen.extend(started.values())
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        start()
    assert [process.runs for process in seen] == [False]


def test_program_does_not_run_before_it_was_recorded(tmp_path: Path) -> None:
    with staying({"it": program(["sh", "-c", f"echo done >{tmp_path}/proof; sleep 60"], tmp_path / "log")}) as started:
        assert not (tmp_path / "proof").exists()
    end(started.values(), patience_s=20)


def test_what_a_program_prints_is_logged(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    with staying({"it": program(["sh", "-c", "echo out; echo err >&2"], log)}) as started:
        pass
    os.waitid(os.P_PID, started["it"].pid, os.WEXITED)
    assert log.read_text() == "before\nout\nerr\n"


def test_program_that_is_not_there_says_so_in_its_log(tmp_path: Path) -> None:
    with staying({"it": program(["/no/such/flanneld"], tmp_path / "log")}) as started:
        pass
    os.waitid(os.P_PID, started["it"].pid, os.WEXITED)
    assert "/no/such/flanneld: not found" in (tmp_path / "log").read_text()


def test_one_that_does_not_come_up_is_reported_and_takes_the_others_along(tmp_path: Path) -> None:
    commands = {
        "good": ["sh", "-ec", f"echo $$ >{tmp_path}/pid; echo ready; read -r go; sleep 60"],
        "bad": ["sh", "-c", "echo Operation not permitted >&2; exit 1"],
    }
    with pytest.raises(LabError, match="cannot start bad: Operation not permitted"), staying(commands):
        pytest.fail("must not get here")
    with pytest.raises(ChildProcessError):
        os.waitpid(int((tmp_path / "pid").read_text()), os.WNOHANG)


def test_environment_is_given_to_programs(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with staying(
        {"it": program(["sh", "-c", "echo $GREETING"], log)}, environment() | {"GREETING": "hello"}
    ) as started:
        pass
    os.waitid(os.P_PID, started["it"].pid, os.WEXITED)
    assert log.read_text() == "hello\n"


def test_agents_are_not_configured_by_the_callers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FLANNELD_IFACE", "ETCD_DATA_DIR", "ETCDCTL_ENDPOINTS", "NOTIFY_SOCKET"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("PATH", "/usr/bin")
    env = environment()
    assert not {"FLANNELD_IFACE", "ETCD_DATA_DIR", "ETCDCTL_ENDPOINTS", "NOTIFY_SOCKET"} & env.keys()
    assert env["PATH"].split(":")[0] == "/usr/bin"
    assert "/usr/sbin" in env["PATH"].split(":")


def test_missing_programs_are_named_with_their_packages() -> None:
    with pytest.raises(LabError, match=r"not installed: no-such-tool \(install left-pad\)"):
        require({"sh": "dash", "no-such-tool": "left-pad"})
    require({"sh": "dash"})
    assert TOOLS["ip"] == "iproute2"


def test_failure_of_a_command_tells_what_was_attempted_and_what_came_back() -> None:
    assert run("asking", ["cat"], "hello") == "hello"
    with pytest.raises(LabError, match="setting up host1: RTNETLINK answers; Command failed"):
        run("setting up host1", ["sh", "-c", "echo RTNETLINK answers >&2; echo Command failed >&2; exit 1"])
    with pytest.raises(LabError, match="setting up host1: exit status 3"):
        run("setting up host1", ["sh", "-c", "exit 3"])


def test_command_starts_in_the_directory_it_was_asked_from(tmp_path: Path) -> None:
    assert run("asking", inside(str(tmp_path), ["pwd"])).strip() == str(tmp_path)
    assert run("asking", inside("/no/such/directory", ["echo", "a  b", "$HOME"])) == "a  b $HOME\n"


def test_only_a_lab_without_root_needs_a_user_namespace() -> None:
    holder = Process(17, 1, 1)
    assert "--user" not in entering(holder, user=False) + outermost("switch", user=False)
    assert "--user" in entering(holder, user=True)
    assert "--user" in outermost("switch", user=True)


@pytest.mark.parametrize(
    ("setting", "value", "failure", "advice"),
    [
        ("kernel/unprivileged_userns_clone", "0", "not permitted", "sysctl -w kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "No space left", "sysctl -w user.max_user_namespaces=10000"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "denied", "AppArmor"),
        ("none", "", "unshare: unrecognized option '--map-root-user'", "util-linux 2.26 or newer"),
        ("none", "", "Operation not permitted", "this kernel or container forbids"),
    ],
)
def test_without_user_namespaces_the_cause_and_a_way_out_are_named(
    setting: str, value: str, failure: str, advice: str
) -> None:
    text = why_no_user_namespace(failure, {setting: value}.get)
    assert text.startswith(failure)
    assert advice in text
    assert text.endswith("or run it as root")


def test_setting_the_kernel_does_not_have_is_none() -> None:
    assert read_sysctl("kernel/no_such_setting") is None
    assert read_sysctl("kernel/ostype") == "Linux"
