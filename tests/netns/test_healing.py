"""Whatever somebody does to what the agent keeps in the kernel is undone, and nothing of anybody else's is touched."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.faults import FAULTS, PEERS, STALE, Fault, patient
from tests.support.machines import eventually
from tests.support.pair import Host
from tests.support.pictures import Picture, rules

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge", "iptables")


class Ward:
    """One host for all tests of this file; a new one when a test has left it other than it should be."""

    def __init__(self, fresh_directory: Callable[[], Path]) -> None:
        self._directory, self._stack = fresh_directory, ExitStack()
        self._healthy: tuple[Host, Picture] | None = None

    def admit(self) -> tuple[Host, Picture]:
        """A host whose agent has done its work, and the picture of it."""
        if self._healthy is not None:
            host, before = self._healthy
            if host.agent is not None and host.agent.poll() is None and host.picture() == before:
                return self._healthy
        self.close()
        host = self._stack.enter_context(patient(self._directory()))
        self._healthy = host, host.picture()
        return self._healthy

    def close(self) -> None:
        self._healthy = None
        self._stack.close()


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    made = Ward(lambda: tmp_path_factory.mktemp("ward"))
    yield made
    made.close()


@pytest.mark.parametrize(
    "fault",
    [pytest.param(fault, id=fault.name.replace(" ", "-"), marks=pytest.mark.needs(*fault.needs)) for fault in FAULTS],
)
def test_what_somebody_did_is_undone(ward: Ward, fault: Fault) -> None:
    host, before = ward.admit()
    order = rules(host.space)
    with host.asleep():
        fault.happen(host)
        assert (host.picture(), rules(host.space)) != (before, order), "nothing has happened"
    # How soon is measured by tests/bench/healing.py; here it only has to be long before the next regular audit.
    host.await_picture(before, f"{fault.name}: back to what was", 5.0 if fault.event == "told" else 10.0)
    eventually(lambda: rules(host.space) == order, f"{fault.name}: the order of rules", 5.0)
    assert host.agent is not None
    assert host.agent.poll() is None, host.said()


def test_many_things_at_once_are_undone(ward: Ward) -> None:
    host, before = ward.admit()
    rng = random.Random(3)
    with host.asleep():
        for fault in rng.sample(FAULTS, len(FAULTS)):
            try:
                fault.happen(host)
            except AssertionError:
                continue  # what it is about has been taken away by another
    host.await_picture(before, "back to what was")


def test_what_happens_again_and_again_is_undone_each_time(ward: Ward) -> None:
    host, before = ward.admit()
    for _ in range(5):
        host.space.run("ip link delete flannel.1")
        host.await_picture(before, "the device and all that was on it")


def test_an_address_outside_the_network_stays_when_ours_is_put_back(ward: Ward) -> None:
    host, before = ward.admit()
    with host.asleep():
        host.space.run("ip address add 192.0.2.77/32 dev flannel.1")
        host.space.run(f"ip address delete {host.subnet.network_address}/32 dev flannel.1")
        lacking = host.picture()
    try:
        eventually(lambda: host.picture().ours == before.ours, "our address", 5.0)
        assert host.picture().foreign == lacking.foreign
        assert "flannel.1 192.0.2.77/32" in lacking.foreign.addresses
    finally:
        host.space.run("ip address delete 192.0.2.77/32 dev flannel.1")


def test_what_is_refused_by_a_rule_before_ours_is_let_through_again(ward: Ward) -> None:
    host, before = ward.admit()
    refusal = "FORWARD -s 10.2.0.0/16 -j DROP"
    host.space.run(f"iptables -I {refusal}")
    try:

        def accepted_first() -> bool:
            lines = rules(host.space)
            jump = next(line for line in lines if line.startswith("-A FORWARD") and line.endswith("FLANNEL-FWD"))
            return lines.index(jump) < lines.index(f"-A {refusal}")

        eventually(accepted_first, "our jump before the refusal", 5.0)
        assert host.picture().ours == before.ours
    finally:
        host.space.run(f"iptables -D {refusal}")


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_what_was_left_and_what_was_lost_between_two_runs_is_put_right_by_the_second(ward: Ward, end: str) -> None:
    host, before = ward.admit()
    host.stop() if end == "stopped" else host.kill()
    STALE.happen(host)
    host.space.run(f"ip route delete {PEERS[0].subnet}")
    host.space.run(f"ip neigh delete {PEERS[1].gateway} dev flannel.1")
    host.space.run("iptables -F FLANNEL-FWD")
    host.started()
    host.await_picture(before, "what was")
