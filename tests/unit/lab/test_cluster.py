"""A lab as its record shows it.  Building one is tested in tests/netns/test_lab.py."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyflannel.lab import LabError, record
from pyflannel.lab.cluster import command_in, down, environment_in, status, up
from pyflannel.lab.plan import Plan
from pyflannel.lab.process import Process, namespace_of, start_time
from pyflannel.lab.record import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return record.create(tmp_path / "labs", Plan("lab", 2, 1, "{}"), user_namespace=False)


@pytest.fixture
def child() -> Iterator[Process]:
    with subprocess.Popen(["sleep", "60"]) as process:
        started, namespace = start_time(process.pid), namespace_of(process.pid)
        assert started is not None
        assert namespace is not None
        yield Process(process.pid, started, namespace)
        process.kill()


def test_process_that_only_has_a_recorded_pid_survives_the_end_of_the_lab(lab: Lab, child: Process) -> None:
    lab.processes["host1"] = Process(child.pid, child.started - 1, child.namespace)
    lab.processes["host1/flanneld"] = Process(child.pid, child.started, child.namespace - 1)
    down(lab)
    assert child.runs
    assert not lab.directory.exists()


def test_record_that_points_outside_the_lab_is_refused(lab: Lab, child: Process) -> None:
    lab.processes["host1"] = child
    with pytest.raises(LabError, match="'lab' is where you are"):
        down(lab)
    assert child.runs
    assert lab.directory.exists()


def test_ending_a_half_built_lab_twice_is_fine(lab: Lab) -> None:
    down(lab)
    down(lab)
    assert not lab.directory.parent.exists()


def test_lab_of_which_nothing_runs_is_shown_as_such(lab: Lab) -> None:
    hosts = status(lab)
    assert [host.host.name for host in hosts] == ["host1", "host2"]
    for host in hosts:
        assert (host.bridge, host.agent) == (None, None)
        assert [(one.address, one.runs) for one in host.containers] == [(None, False)]


def test_unknown_host_is_answered_with_the_known_ones(lab: Lab, child: Process) -> None:
    lab.processes |= {"switch": child, "host1": child, "host1/flanneld": child, "etcd": child}
    with pytest.raises(LabError, match=r"has no 'host7'; it has switch, host1$"):
        command_in(lab, "host7", ["true"])
    with pytest.raises(LabError, match="has no 'host1/flanneld'"):
        command_in(lab, "host1/flanneld", ["true"])


def test_host_that_has_ended_is_not_entered(lab: Lab, child: Process) -> None:
    lab.processes["host1"] = Process(child.pid, child.started + 1, child.namespace)
    with pytest.raises(LabError, match=r"host1 has ended .* lab down --name lab"):
        command_in(lab, "host1", ["true"])


def test_command_enters_the_place_it_was_sent_to(lab: Lab, child: Process) -> None:
    lab.processes["host1"] = child
    command = command_in(lab, "host1", ["ip", "route"])
    assert command[:2] == ["nsenter", f"--target={child.pid}"]
    assert command[-3:] == ["--", "ip", "route"]


def test_second_lab_of_one_name_leaves_the_first_alone(lab: Lab) -> None:
    before = (lab.directory / "lab.json").read_text()
    with pytest.raises(LabError, match="there is a lab 'lab' already"):
        up(lab.plan, lab.directory.parent, agent=["false"])
    assert (lab.directory / "lab.json").read_text() == before
    assert [path.name for path in lab.directory.iterdir()] == ["lab.json"]


def test_on_a_host_programs_know_what_its_agent_was_told(lab: Lab) -> None:
    assert environment_in(lab, "host1")["FLANNELD_STORE"] == f"local:{lab.directory}/store.db"
    assert not [name for name in environment_in(lab, "host1-c1") if name.startswith("FLANNELD_")]
