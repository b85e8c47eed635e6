"""As test_explains, where the agent itself, or a program beside it, is the trouble."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.doctors import arguments
from tests.support.explained import SILENT, WELL, Chronicle, Fault, Told, awaited, explained, unspoken
from tests.support.machines import eventually, stop
from tests.support.mischief import Occupant, provide, restart, withdraw
from tests.support.pair import Pair

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge", "iptables", "nft")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The agent of the first finds its programs in a directory of its own, and keeps what it knows in another."""
    home = tmp_path_factory.mktemp("pair")
    with Pair(home) as made:
        tools = home / "bin"
        tools.mkdir()
        provide(tools)
        made.one.environment["PATH"] = str(tools)
        made.one.flags += [f"-state-dir={home / 'state'}", "-peer-filter"]
        made.start()
        awaited(made, WELL, "two hosts that are well")
        yield made


def test_a_subnet_file_that_somebody_deletes(pair: Pair, chronicle: Chronicle) -> None:
    file = pair.one.subnet_file
    text = file.read_text()
    told = Told(doctor=("subnet-file-missing",))
    explained(pair, Fault("subnet.env is gone", file.unlink, lambda: file.write_text(text), told), chronicle)


def test_a_program_that_takes_our_device_for_its_own(pair: Pair, chronicle: Chronicle, tmp_path: Path) -> None:
    program, before = tmp_path / "nmcli", list(pair.one.enter)
    program.write_text("#!/bin/sh\necho flannel.1:connected\n")
    program.chmod(0o755)

    def come() -> None:
        pair.one.enter = [*before, "env", f"PATH={tmp_path}:{os.environ['PATH']}"]

    def go() -> None:
        pair.one.enter = before

    told = Told(doctor=("device-managed",))
    explained(pair, Fault("NetworkManager manages flannel.1", come, go, told), chronicle)


def test_a_second_agent_on_a_host_is_not_spoken_of_but_by_itself(pair: Pair, tmp_path: Path) -> None:
    one, log = pair.one, tmp_path / "second.log"
    command = [*one.enter, sys.executable, "-m", "pyflannel.cli.flanneld", *arguments(one)]

    def run_beside() -> None:
        with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as second:
            try:
                eventually(lambda: "Running backend." in log.read_text(), "a second agent")
                awaited(pair, WELL, "two agents on one host")
            finally:
                stop(second)

    unspoken(pair, run_beside, "two agents on one host")
    assert "another agent is asked there" in log.read_text()


def test_an_agent_that_hangs(pair: Pair, chronicle: Chronicle) -> None:
    one = pair.one
    assert one.agent is not None
    fault = Fault(
        "the agent here hangs",
        partial(one.agent.send_signal, signal.SIGSTOP),
        partial(one.agent.send_signal, signal.SIGCONT),
        Told(SILENT, doctor=("agent-silent",), trace="unsure there, at agent"),
    )
    explained(pair, fault, chronicle)


def test_an_agent_that_is_stopped(pair: Pair, chronicle: Chronicle) -> None:
    gone, untold = ("agent-not-running",), "unsure there, at agent"
    for host, told in (
        (pair.two, Told(conditions_there=SILENT, doctor_there=gone, trace=untold)),
        (pair.one, Told(SILENT, doctor=gone, trace=untold)),
    ):
        name = "no agent runs here" if host is pair.one else "no agent runs there"
        explained(pair, Fault(name, host.stop, host.start, told), chronicle)


def test_a_device_of_somebody_else_that_has_the_tunnels_name_at_a_start(pair: Pair, chronicle: Chronicle) -> None:
    one = pair.one

    def come() -> None:
        one.stop()
        one.space.run("ip link delete flannel.1")
        one.space.run("ip link add flannel.1 type bridge")
        assert one.start().wait(20) == 1

    def go() -> None:
        one.space.run("ip link delete flannel.1")
        one.start()

    told = Told(SILENT, ("tunnel-blocked",), ("agent-not-running", "name-taken"), trace="ends here, at device")
    explained(pair, Fault("a bridge is called flannel.1", come, go, told), chronicle)


def test_a_device_of_somebody_else_that_takes_the_tunnels_name_later(pair: Pair, chronicle: Chronicle) -> None:
    one = pair.one

    def come() -> None:
        with one.asleep():
            one.space.shell("ip link delete flannel.1; ip link add flannel.1 up address 02:00:00:00:09:09 type bridge")

    def go() -> None:
        # It is as they made it, and carries nothing of ours.
        assert "02:00:00:00:09:09" in one.space.run("ip -o link show dev flannel.1 type bridge")
        assert one.space.run("ip -4 route show dev flannel.1") == ""
        one.space.run("ip link delete flannel.1")

    told = Told(
        ("kernel-refuses", "tunnel-blocked"), ("tunnel-blocked",), ("name-taken",), trace="ends here, at device"
    )
    explained(pair, Fault("a bridge takes the name flannel.1 while the agent runs", come, go, told), chronicle)


def test_a_device_of_somebody_else_that_has_our_vni(pair: Pair, chronicle: Chronicle) -> None:
    def take() -> None:
        with pair.one.asleep():
            pair.one.space.run("ip link delete flannel.1")
            pair.one.space.run("ip link add vx1 type vxlan id 1 dstport 8472 dev ens33")

    told = Told(
        ("kernel-refuses", "tunnel-blocked"), ("tunnel-blocked",), ("port-taken",), trace="ends here, at device"
    )
    explained(pair, Fault("another device has our VNI and port", take, {"one": "ip link del vx1"}, told), chronicle)


def test_a_tunnel_port_that_another_program_has_while_the_agent_runs(pair: Pair, chronicle: Chronicle) -> None:
    occupant = Occupant(pair.one, 8472)

    def come() -> None:
        with pair.one.asleep():
            pair.one.space.run("ip link delete flannel.1")
            occupant.come()

    told = Told(
        ("kernel-refuses", "tunnel-blocked"), ("tunnel-blocked",), ("port-taken",), trace="ends here, at device"
    )
    name = "another program has taken the tunnel's port"
    explained(pair, Fault(name, come, occupant.go, told), chronicle)


def test_a_tunnel_port_that_another_program_has_at_a_start(pair: Pair, chronicle: Chronicle) -> None:
    occupant, one = Occupant(pair.one, 8472), pair.one

    def come() -> None:
        one.stop()
        one.space.run("ip link delete flannel.1")
        occupant.come()
        assert one.start().wait(20) == 1

    def go() -> None:
        occupant.go()
        one.start()

    told = Told(
        SILENT,
        ("tunnel-blocked",),
        ("agent-not-running", "port-taken"),
        trace="ends here, at device",
    )
    explained(pair, Fault("another program has the tunnel's port", come, go, told), chronicle)


def test_a_probe_port_that_another_program_has(pair: Pair, chronicle: Chronicle) -> None:
    occupant, one = Occupant(pair.one, 8286), pair.one

    def come() -> None:
        one.stop()
        occupant.come()
        one.start()

    told = Told(("probe-port-taken",), trace="unsure there, at agent")
    explained(pair, Fault("another program has the probes' port", come, occupant.go, told), chronicle)


def test_files_that_cannot_be_written(pair: Pair, chronicle: Chronicle) -> None:
    one = pair.one
    state, away = one.home.parent / "state", one.home.parent / "away"
    file = one.subnet_file
    text = file.read_text()

    def shut() -> None:
        one.stop()
        state.rename(away)
        state.write_text("a file where a directory should be")
        file.unlink()
        file.mkdir()
        one.start()

    def open_() -> None:
        state.unlink()
        away.rename(state)
        file.rmdir()
        file.write_text(text)

    told = Told(("cache-unwritable", "subnet-file-unwritable"))
    explained(pair, Fault("neither state nor subnet.env can be written", shut, open_, told), chronicle)


def test_programs_that_are_missing(pair: Pair, chronicle: Chronicle) -> None:
    one, tools = pair.one, Path(pair.one.environment["PATH"])

    def remove() -> None:
        withdraw(tools, "tables", "nft")
        one.space.run("iptables -F FORWARD")
        restart(one)

    told = Told(("firewall-not-in-sync", "peer-filter-off"), (), ("forward-dropped",), trace="ends here, at firewall")
    fault = Fault("neither iptables nor nft is installed", remove, partial(provide, tools), told)
    explained(pair, fault, chronicle)
