"""Whole labs on the real kernel: they come up, packets cross, and nothing of them stays."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pyflannel.lab import process, record
from tests.support.machines import eventually

STAND_IN = """#!/bin/sh
# Does by hand what an agent would: a subnet by the host's number, and a route to each of the others.
number=$(hostname | tr -dc 0-9)
for other in 1 2 3; do
    [ $other = $number ] || ip route add 10.2.$other.0/24 via 172.16.41.$((130 + other))
done
iptables -w -A FORWARD -s 10.2.0.0/16 -j ACCEPT
echo "FLANNEL_SUBNET=10.2.$number.1/24\nFLANNEL_MTU=1400" >/run/flannel/new
mv /run/flannel/new /run/flannel/subnet.env
exec sleep infinity
"""

UNPRIVILEGED = """
import asyncio.unix_events, encodings.ascii, os, pyflannel.cli.lab
if os.geteuid() == 0:  # everything is imported: the source may be where others cannot read
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
pyflannel.cli.lab.lab(prog_name="flannelctl lab")
"""

pytestmark = pytest.mark.needs("netns", "bridge", "veth", "iptables")
as_root = pytest.mark.needs("root")


@dataclass(frozen=True, slots=True)
class Program:
    """``flannelctl lab`` for one lab."""

    command: tuple[str, ...]
    name: str
    labs: Path
    environ: dict[str, str]

    def arguments(self, *words: str) -> list[str]:
        return [*self.command, words[0], "--name", self.name, *words[1:]]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.arguments(*words), capture_output=True, text=True, timeout=60, check=False, env=self.environ
        )

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.arguments(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.environ
        )

    def does(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, f"{words}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def processes(self) -> dict[str, process.Process]:
        """What is recorded.  Read as it is: a record of another user is nothing ``record.load`` would touch."""
        try:
            text = (self.labs / self.name / "lab.json").read_text()
        except FileNotFoundError:
            return {}
        return {name: process.Process(**one) for name, one in json.loads(text)["processes"].items()}


def nothing_of(processes: dict[str, process.Process]) -> bool:
    """Whether neither these processes nor any other in their namespaces is left."""
    namespaces = {one.namespace for one in processes.values()}
    return not any(one.runs for one in processes.values()) and not list(process.inhabitants(namespaces))


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that others may look into; those of pytest are for their owner alone."""
    with tempfile.TemporaryDirectory(prefix="pyflannel-test-") as path:
        Path(path).chmod(0o755)
        yield Path(path)


@pytest.fixture
def stand_in(place: Path) -> str:
    path = place / "agent"
    path.write_text(STAND_IN)
    path.chmod(0o755)
    return str(path)


def _program(environ: dict[str, str], labs: Path, *command: str) -> Iterator[Program]:
    program = Program((sys.executable, *command), f"test-{secrets.token_hex(4)}", labs, environ)
    yield program
    left = program.processes()
    program.run("down")
    assert nothing_of(left)


@pytest.fixture
def program() -> Iterator[Program]:
    labs = record.labs_directory(0, {})
    yield from _program(dict(os.environ), labs, "-m", "pyflannel.cli.flannelctl", "lab")


@pytest.fixture
def unprivileged(place: Path) -> Iterator[Program]:
    home = place / "home"
    home.mkdir()
    if os.geteuid() == 0:
        os.chown(home, 65534, 65534)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")} | {"HOME": str(home)}
    yield from _program(environ, home / ".cache" / "pyflannel-lab", "-c", UNPRIVILEGED)


def up(program: Program, agent: str, *options: str) -> None:
    program.does("up", "--hosts=2", "--containers=1", f"--agent={agent}", *options)


@as_root
def test_lab_comes_up_and_goes_without_a_trace(program: Program, stand_in: str) -> None:
    up(program, stand_in)
    status = json.loads(program.does("status", "--json"))
    assert [(host["name"], host["address"], host["subnet"], host["mtu"]) for host in status["hosts"]] == [
        ("host1", "172.16.41.131", "10.2.1.0/24", 1400),
        ("host2", "172.16.41.132", "10.2.2.0/24", 1400),
    ]
    assert status["hosts"][1]["containers"] == [{"name": "host2-c1", "address": "10.2.2.2", "runs": True}]
    ping = json.loads(program.does("ping", "--json"))
    assert (ping["sent"], ping["lost"]) == (2, 0)
    processes = program.processes()
    assert len(processes) == 7  # a switch, and two of each: host, agent, container
    assert all(one.runs for one in processes.values())
    program.does("down")
    assert nothing_of(processes)
    assert not (program.labs / program.name).exists()
    program.does("down")


@as_root
def test_each_host_has_its_own_network_and_files(program: Program, stand_in: str) -> None:
    machine = {path: set(Path(path).iterdir()) for path in ("/run", "/var/lib")}
    up(program, stand_in)
    for host, subnet in (("host1", "10.2.1"), ("host2", "10.2.2")):
        assert f"FLANNEL_SUBNET={subnet}.1/24" in program.does("exec", host, "--", "cat", "/run/flannel/subnet.env")
        assert f"{subnet}.1/24" in program.does("exec", host, "ip", "-brief", "addr", "show", "docker0")
        assert program.does("exec", host, "ls", "/var/lib/flannel") == ""
    assert "172.16.41.131/24" in program.does("exec", "host1", "ip", "-brief", "addr", "show", "ens33")
    assert "default via 172.16.41.1 dev ens33" in program.does("routes", "host1")
    assert "default via 10.2.2.1 dev eth0" in program.does("exec", "host2-c1", "ip", "route")
    assert "mtu 1400" in program.does("exec", "host2-c1", "ip", "link", "show", "eth0")
    program.does("exec", "host1", "touch", "/run/flannel/mine", "/run/xtables.lock")
    program.does("down")
    for path, before in machine.items():
        assert set(Path(path).iterdir()) - before <= {program.labs}


@as_root
def test_hosts_forward_only_what_their_agent_lets_through(program: Program, stand_in: str) -> None:
    up(program, stand_in)
    assert "-P FORWARD DROP" in program.does("exec", "host2", "iptables", "-S", "FORWARD")
    program.does("exec", "host2", "iptables", "-F", "FORWARD")
    done = program.run("ping", "--json", "--wait=0")
    assert done.returncode == 1
    assert json.loads(done.stdout)["lost"] == 2


@as_root
def test_command_in_a_host_ends_with_its_own_status(program: Program, stand_in: str) -> None:
    up(program, stand_in)
    assert program.run("exec", "host1", "--", "sh", "-c", "exit 42").returncode == 42
    assert program.run("exec", "host1", "no-such-command").returncode == 127
    assert program.run("exec", "host9", "true").returncode == 1


@as_root
def test_dead_agent_is_shown_and_fails_status(program: Program, stand_in: str) -> None:
    up(program, stand_in)
    process.end([program.processes()["host2/flanneld"]], patience_s=20)
    done = program.run("status")
    assert done.returncode == 1
    assert [line.split()[4] for line in done.stdout.splitlines() if line.startswith("host")] == ["runs", "down"]


@as_root
def test_what_was_started_inside_ends_with_the_lab(program: Program, stand_in: str) -> None:
    up(program, stand_in)
    processes = program.processes()
    with program.start("exec", "host1-c1", "sleep", "infinity") as guest:
        eventually(lambda: process.namespace_of(guest.pid) == processes["host1-c1"].namespace, "the guest is inside")
        program.does("down")
        assert guest.wait(20) == -signal.SIGTERM
    assert nothing_of(processes)


@as_root
def test_two_labs_do_not_see_each_other(program: Program, stand_in: str) -> None:
    up(program, stand_in)
    other = Program(program.command, f"{program.name}-2", program.labs, program.environ)
    try:
        up(other, stand_in)
        assert json.loads(other.does("ping", "--json"))["lost"] == 0
    finally:
        other.does("down")
    assert json.loads(program.does("ping", "--json"))["lost"] == 0


@as_root
def test_second_lab_of_one_name_is_refused(program: Program, stand_in: str) -> None:
    up(program, stand_in)
    done = program.run("up", f"--agent={stand_in}")
    assert done.returncode == 1
    assert f"lab down --name {program.name}" in done.stderr
    assert json.loads(program.does("ping", "--json"))["lost"] == 0


@as_root
def test_agent_that_ends_early_is_quoted_and_the_rest_taken_down(program: Program) -> None:
    done = program.run("up", "--agent=sh -c 'echo the dog ate my lease; exit 1'")
    assert done.returncode == 1
    assert "the agent of host1" in done.stderr
    assert "the dog ate my lease" in done.stderr
    assert not (program.labs / program.name).exists()


@contextlib.contextmanager
def half_built(program: Program, started: str) -> Iterator[subprocess.Popen[bytes]]:
    """An ``up`` that has recorded ``started``; it then waits for agents that never get a subnet."""
    with program.start("up", "--agent=sh -c 'exec sleep infinity'") as going_up:
        try:
            eventually(lambda: started in program.processes(), f"{started} runs")
            assert going_up.poll() is None
            yield going_up
        finally:
            going_up.kill()


@as_root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_up_that_is_interrupted_leaves_nothing(program: Program, number: signal.Signals) -> None:
    with half_built(program, "host3-c2") as going_up:
        processes = program.processes()
        going_up.send_signal(number)
        assert going_up.wait(20) == 1
    assert nothing_of(processes)
    assert not (program.labs / program.name).exists()


@as_root
@pytest.mark.parametrize("started", ["switch", "host1", "host3/flanneld", "host3-c2"])
def test_lab_whose_up_was_killed_can_be_taken_down(program: Program, started: str) -> None:
    with half_built(program, started) as going_up:
        going_up.kill()
        going_up.wait()
    processes = program.processes()
    assert started in processes
    program.does("down")
    assert nothing_of(processes)
    assert not (program.labs / program.name).exists()


@as_root
@pytest.mark.needs("vxlan")
def test_containers_of_different_hosts_reach_each_other(program: Program) -> None:
    program.does("up")
    ping = json.loads(program.does("ping", "--json"))
    assert (ping["sent"], ping["lost"]) == (30, 0)
    assert "dev flannel.1 onlink" in program.does("routes", "host2")


@as_root
@pytest.mark.needs("vxlan", "etcd")
def test_lab_runs_on_a_real_etcd(program: Program) -> None:
    program.does("up", "--hosts=2", "--containers=1", "--etcd")
    assert json.loads(program.does("ping", "--json"))["lost"] == 0


@as_root
@pytest.mark.needs("vxlan")
def test_demo_shows_pings_crossing_and_cleans_up() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pyflannel.cli.flannelctl", "lab", "demo", "--hosts=2"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 of 12 pings crossed" in done.stdout
    assert "host1$ ip route" in done.stdout
    assert record.load(record.labs_directory(0, {}), "demo") is None


@pytest.mark.needs("userns")
def test_lab_needs_no_root(unprivileged: Program, stand_in: str) -> None:
    up(unprivileged, stand_in)
    status = json.loads(unprivileged.does("status", "--json"))
    assert status["user_namespace"] is True
    assert status["remarks"] == []
    assert json.loads(unprivileged.does("ping", "--json"))["lost"] == 0
    assert "10.2.2.1/24" in unprivileged.does("exec", "host2", "cat", "/run/flannel/subnet.env")
    processes = unprivileged.processes()
    unprivileged.does("down")
    assert nothing_of(processes)
    assert not unprivileged.labs.exists()
