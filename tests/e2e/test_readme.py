"""Every command of the README, run as it stands there.

The guide is followed on three machines, once with each API of etcd.  What differs from one cluster to the next (which
subnets are drawn, MAC addresses) is put in for the README's examples; everything else is taken by the letter.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.support.guide import ROOT, Command, commands
from tests.support.machines import Machine, Switch, eventually
from tests.support.rootfs import busybox_archive

GUIDE = "Three hosts, step by step"
OLD_ETCD = "With an etcd of the old days"
SERVICE = "As a service"
LAB = "The lab"
LOOK = "Look before you leap"
LEASES = "Who has which subnet"
SEE = "See it, fix it"
HOSTS = {"host1#": ["host1"], "host2#": ["host2"], "host3#": ["host3"], "hosts#": ["host2", "host3"]}
DONE = "pyflannel-done"


class Shell:
    """A root shell that stays open on one machine, as a person's would."""

    def __init__(self, machine: Machine, home: Path) -> None:
        self.machine = machine
        home.mkdir()
        # Entering a mount namespace leads to its root directory, wherever one stood before.
        opened = machine.argv("sh", "-c", f"cd {home} && exec bash")
        self._bash = subprocess.Popen(opened, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        # The jobs are the etcd, flanneld and dockerd which the guide starts with an ampersand.
        self.say('for job in $(jobs -p); do kill "$job"; done; wait; true')
        self._bash.stdin.close()
        self._bash.stdout.close()
        self._bash.wait(20)

    def say(self, command: str) -> list[str]:
        """Type ``command`` and return the lines it prints; it must succeed."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f"{command}\necho {DONE} $?\n")
        self._bash.stdin.flush()
        lines: list[str] = []
        for line in self._bash.stdout:
            if line.startswith(DONE):
                assert line.split()[1] == "0", f"{command}: exit status {line.split()[1]}\n{''.join(lines)}"
                return lines
            lines.append(line.rstrip("\n"))
        raise AssertionError(f"the shell ended during: {command}")

    def install(self, command: str) -> None:
        """Type an installation command in the checkout, with a network from which packages can be had."""
        script = f"cd {ROOT} && {command}"
        subprocess.run([word for word in self.machine.argv("sh", "-ec", script) if "--net=" not in word], check=True)


@contextmanager
def three_hosts(home: Path) -> Iterator[dict[str, Shell]]:
    """The machines of the README's picture."""
    with ExitStack() as stack:
        switch = stack.enter_context(Switch())
        shells = {}
        for number in (1, 2, 3):
            name = f"host{number}"
            machine = stack.enter_context(Machine(name, switch, f"172.16.41.{129 + number}/24", home))
            shells[name] = stack.enter_context(Shell(machine, home / name))
        yield shells


def guide(api: str) -> list[Command]:
    """The steps for a cluster with that API: those for the old one stand in for the two that speak to etcd."""
    steps = [step for step in commands() if step.section == GUIDE]
    if api == "3":
        return steps
    old = [step for step in commands() if step.section == OLD_ETCD]
    assert [re.split(r"[ =]", step.text)[0] for step in old] == ["etcd", "ETCDCTL_API"]
    return [next((each for each in old if _purpose(each) == _purpose(step)), step) for step in steps]


def _purpose(step: Command) -> str:
    return re.split(r"[ =]", step.text)[0] if step.where == "host1#" else step.text


@pytest.mark.needs("root", "netns", "vxlan", "bridge", "veth", "iptables", "etcd", "docker", "busybox")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("api", ["3", "2"], ids=["etcd-v3", "etcd-v2"])
def test_following_the_guide_connects_the_containers(api: str, tmp_path: Path) -> None:
    archive = busybox_archive(tmp_path)
    with three_hosts(tmp_path) as shells:
        for step in guide(api):
            for name in HOSTS[step.where]:
                follow(step, shells, name)
                settle(step, shells[name], archive)
        for step in commands():
            if step.section == SERVICE:
                for name in HOSTS[step.where]:
                    follow(step, shells, name)
                    assert "--bip=" in "".join(shells[name].say("cat /etc/systemd/system/docker.service.d/*.conf"))


def settle(step: Command, shell: Shell, archive: Path) -> None:
    """Wait until what a step started in the background is there, as a person does before typing on."""
    for program, sign in (
        ("etcd ", "echo >/dev/tcp/172.16.41.130/2379"),
        ("flanneld ", "test -s /run/flannel/subnet.env"),
        ("dockerd ", "docker version"),
    ):
        if step.text.startswith(program):
            eventually(lambda sign=sign: _is_up(shell, sign), program, 60)  # type: ignore[misc]
    if step.text.startswith("dockerd "):
        # There is nowhere to pull it from.
        shell.say(f"docker import {archive} busybox >/dev/null")


def _is_up(shell: Shell, command: str) -> bool:
    return shell.say(f"({command}) >/dev/null 2>&1 && echo yes || echo no") == ["yes"]


def follow(step: Command, shells: dict[str, Shell], name: str) -> None:
    """Do one step on one machine, and compare what it prints with what the README shows, figures aside."""
    if "pip install" in step.text or "-m venv" in step.text:
        shells[name].install(step.text.replace("python3", sys.executable))
        return
    printed = shells[name].say(_with_real_subnets(step.text, shells))
    if step.output:
        assert [_shape(line) for line in printed] == [_shape(line) for line in step.output]


def _with_real_subnets(text: str, shells: dict[str, Shell]) -> str:
    """The README's example addresses, replaced by those of this cluster."""
    for example, name in (("10.2.71", "host2"), ("10.2.41", "host3")):
        if example in text:
            (subnet,) = shells[name].say("sed -n 's/^FLANNEL_SUBNET=//p' /run/flannel/subnet.env")
            text = text.replace(example, subnet.rsplit(".", 1)[0])
    return text


def _shape(line: str) -> str:
    return re.sub(r"10\.2\.[1-9]\d*", "SUBNET", re.sub(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", "MAC", line)).strip()


@pytest.mark.needs("root", "netns", "vxlan", "bridge", "veth", "iptables")
def test_the_lab_section_works_as_written() -> None:
    steps = [step for step in commands() if step.section == LAB]
    assert steps
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    try:
        for step in steps:
            subprocess.run(["sh", "-ec", step.text], env={**os.environ, "PATH": programs}, check=True, timeout=60)
    finally:
        subprocess.run(["flannelctl", "lab", "down"], env={**os.environ, "PATH": programs}, check=False)


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab of its own name, in which a person types at host2."""

    name: str
    place: Path

    def run(self, *arguments: str) -> str:
        """``flannelctl lab …``; it must succeed."""
        done = subprocess.run(
            ["flannelctl", "lab", arguments[0], "--name", self.name, *arguments[1:]],
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=self.place,
        )
        assert done.returncode == 0, f"{arguments}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def say(self, script: str) -> str:
        """What a command prints that is typed on host2."""
        return self.run("exec", "host2", "--", "sh", "-ec", script)


@contextmanager
def lab(name: str, place: Path, containers: int) -> Iterator[Lab]:
    """Two hosts with so many containers each; commands leave their files in ``place``."""
    made = Lab(name, place)
    try:
        made.run("up", "--hosts", "2", "--containers", str(containers))
        yield made
    finally:
        made.run("down")


@pytest.mark.needs("root", "netns", "vxlan", "bridge", "veth", "iptables")
def test_looking_before_leaping_works_as_written_and_changes_nothing(tmp_path: Path) -> None:
    steps = [step for step in commands() if step.section == LOOK]
    assert steps
    with lab("look", tmp_path, containers=0) as made:
        looks = ("ip -4 addr", "ip route", "iptables -S", "ls -I 'last-known-*' /run/flannel /var/lib/flannel")
        seen = [made.say(look) for look in looks]
        for step in steps:
            made.say(step.text)
        assert [made.say(look) for look in looks] == seen


@pytest.mark.needs("root", "netns", "vxlan", "bridge", "veth", "iptables")
def test_the_section_about_leases_works_as_written_and_ends_where_it_began(tmp_path: Path) -> None:
    steps = [step.text for step in commands() if step.section == LEASES]
    assert steps
    with lab("leases", tmp_path, containers=0) as made:
        before = json.loads(made.say("flannelctl leases --json"))["leases"]
        subnets = {lease["public_ip"]: lease["subnet"] for lease in before}
        assert [lease["public_ip"] for lease in before if lease["this_host"]] == ["172.16.41.132"]
        printed = [made.say(step.replace("10.2.41.0/24", subnets["172.16.41.132"])) for step in steps]
        assert printed[0].splitlines()[0].split() == ["SUBNET", "HOST", "BACKEND", "VTEP", "MAC", "TTL", "CREATED"]
        assert "(this host)" in printed[0]
        after = json.loads(made.say("flannelctl leases --json"))["leases"]
        assert [_said(lease) for lease in after] == [_said(lease) for lease in before]


@pytest.mark.needs("root", "netns", "vxlan", "bridge", "veth", "iptables")
def test_the_section_about_seeing_works_as_written_where_all_is_well(tmp_path: Path) -> None:
    steps = [step.text for step in commands() if step.section == SEE]
    assert steps
    with lab("see", tmp_path, containers=1) as made:
        leases = json.loads(made.say("flannelctl leases --json"))["leases"]
        container = {lease["this_host"]: lease["subnet"].replace(".0/24", ".2") for lease in leases}
        eventually(lambda: "1 reachable" in made.say("flannelctl status || true"), "an answer of the other host")
        asked = [step.replace("10.2.71.2", container[True]).replace("10.2.41.2", container[False]) for step in steps]
        status, peers, matrix, doctor, trace, capture, report = map(made.say, asked)
        assert status.rstrip().endswith("All is well.")
        assert peers.split()[:2] == ["SUBNET", "HOST"]
        assert len(re.findall(r"^[12] 10\.2\.\d+\.0/24 .*\d", matrix, re.MULTILINE)) == 2
        assert doctor == "nothing found\n"
        assert trace.rstrip().endswith("It arrives, and so does the answer.")
        # What the agents ask one another is there to be seen.
        assert ".8286: UDP" in capture
        assert (tmp_path / report.partition(":")[0]).is_file()


def _said(lease: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in lease.items() if name not in ("ttl", "modified")}


def test_no_command_of_the_readme_is_left_out() -> None:
    sections = {step.section for step in commands() if step.where != "$"}
    assert sections == {GUIDE, OLD_ETCD, SERVICE, LAB, LOOK, LEASES, SEE}
    # These two are what CI runs, in this order; they cannot run within themselves.
    script = (ROOT / ".ci" / "run").read_text()
    for step in commands():
        if step.where == "$":
            assert step.text in script.splitlines()


def test_the_translation_has_the_same_commands() -> None:
    english, chinese = commands(), commands("README.zh-CN.md")
    assert [(step.where, step.text, step.output) for step in english] == [
        (step.where, step.text, step.output) for step in chinese
    ]
