from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network

import pytest

from pyflannel.doctor.checks import examine
from pyflannel.doctor.facts import Agent, Facts, Record, SubnetFile
from pyflannel.health import Severity
from pyflannel.telemetry.document import AgentPart, ConditionPart, LeasePart
from tests.support.healthy_host import CONFIG, DEVICES, HEALTHY, STATUS, codes

SOCKET = "/run/flannel/flanneld.sock"
GONE = Agent(SOCKET, None, f"nobody listens at {SOCKET}", False, ())
UNIT = "/etc/systemd/system/flanneld.service"


def test_what_the_agent_complains_about_comes_under_its_own_code() -> None:
    condition = ConditionPart("store-unreachable", "error", "", "it does not answer", "No member answers.", "Look.")
    assert HEALTHY.agent is not None
    agent = replace(HEALTHY.agent, status=replace(STATUS, conditions=(condition,)))
    (found,) = examine(replace(HEALTHY, agent=agent))
    assert (found.code, found.severity, found.finding) == (
        "store-unreachable",
        Severity.ERROR,
        "it does not answer",
    )
    assert (found.means, found.remedy) == ("No member answers.", "Look.")


def test_a_mere_notice_of_the_agents_is_no_finding() -> None:
    condition = ConditionPart("peer-silent", "notice", "10.2.9.0/24", "it never answered")
    assert HEALTHY.agent is not None
    agent = replace(HEALTHY.agent, status=replace(STATUS, conditions=(condition,)))
    assert codes(replace(HEALTHY, agent=agent)) == []


def test_traces_without_an_agent_are_found() -> None:
    (found,) = examine(replace(HEALTHY, agent=GONE))
    assert found.code == "agent-not-running"
    assert "there is /run/flannel/subnet.env, the device flannel.1, the device flannel-v6.1" in found.evidence
    assert found.fix is None


def test_an_agent_with_a_unit_can_be_started() -> None:
    (found,) = examine(Facts(agent=replace(GONE, unit=UNIT)))
    assert found.code == "agent-not-running"
    assert found.fix == (("systemctl", "start", "flanneld.service"),)


def test_a_machine_that_never_had_an_agent_is_well() -> None:
    file = SubnetFile("/run/flannel/subnet.env", there=False)
    assert codes(Facts(agent=GONE, subnet_file=file, devices=DEVICES[:2])) == []


def test_an_agent_of_another_make_need_not_answer() -> None:
    assert codes(replace(HEALTHY, agent=replace(GONE, programs=("flanneld (process 7)",)))) == []


def test_an_agent_that_has_a_socket_and_does_not_answer_is_found() -> None:
    agent = Agent(SOCKET, None, f"the agent at {SOCKET} did not answer within 3 s", True, ("flanneld (process 7)",))
    (found,) = examine(replace(HEALTHY, agent=agent))
    assert found.code == "agent-silent"
    assert "flanneld (process 7); the agent at" in found.evidence


def test_a_subnet_file_that_is_gone_is_found() -> None:
    file = SubnetFile("/run/flannel/subnet.env", there=False)
    assert HEALTHY.agent is not None
    facts = replace(HEALTHY, subnet_file=file, agent=replace(HEALTHY.agent, unit=UNIT))
    (found,) = examine(facts)
    assert found.code == "subnet-file-missing"
    assert "there is no /run/flannel/subnet.env, and the agent has 10.2.7.0/24" in found.evidence
    assert found.fix == (("systemctl", "restart", "flanneld.service"),)


def test_an_agent_that_has_not_come_so_far_is_not_blamed_for_it() -> None:
    assert HEALTHY.agent is not None
    starting = replace(STATUS, agent=AgentPart("0.1", 42, 0.0, "starting"))
    file = SubnetFile("/run/flannel/subnet.env", there=False)
    assert codes(replace(HEALTHY, subnet_file=file, agent=replace(HEALTHY.agent, status=starting))) == []


def test_a_subnet_file_of_another_subnet_is_found() -> None:
    assert HEALTHY.subnet_file is not None
    facts = replace(HEALTHY, subnet_file=replace(HEALTHY.subnet_file, ipv4=IPv4Network("10.2.8.0/24")))
    (found,) = examine(facts)
    assert found.code == "subnet-file-stale"
    assert "says 10.2.8.0/24, and the agent has 10.2.7.0/24" in found.evidence


def test_a_subnet_file_with_another_mtu_is_found() -> None:
    assert HEALTHY.subnet_file is not None
    (found,) = examine(replace(HEALTHY, subnet_file=replace(HEALTHY.subnet_file, mtu=1450)))
    assert (found.code, "FLANNEL_MTU=1450" in found.evidence) == ("subnet-file-stale", True)


def test_a_subnet_file_that_does_not_fit_the_device_is_found_without_an_agent() -> None:
    device = replace(DEVICES[2], addresses=(IPv4Interface("10.2.8.0/32"),))
    facts = replace(HEALTHY, agent=None, devices=(*DEVICES[:2], device, *DEVICES[3:]))
    (found,) = examine(facts)
    assert found.code == "subnet-file-stale"
    assert "flannel.1 has 10.2.8.0/32" in found.evidence
    somebodys = replace(DEVICES[2], addresses=(*DEVICES[2].addresses, IPv4Interface("192.0.2.1/32")))
    assert codes(replace(facts, devices=(*DEVICES[:2], somebodys, *DEVICES[3:]))) == []


@pytest.mark.parametrize(("spoken", "other"), [("2", "3"), ("3", "2")])
def test_a_configuration_in_the_api_nobody_looks_at_is_found(spoken: str, other: str) -> None:
    records = {spoken: Record(None, "here"), other: Record(CONFIG, "there")}
    (found,) = examine(replace(HEALTHY, etcd_api=spoken, records=records))
    assert found.code == "etcd-api"
    assert f"there is there; here: no such key; -etcd-api={spoken}" in found.evidence


def test_two_configurations_that_differ_are_found_and_two_alike_are_not() -> None:
    other = CONFIG.replace("10.2", "10.3")
    records = {"2": Record(CONFIG, "two"), "3": Record(other, "three")}
    (found,) = examine(replace(HEALTHY, records=records))
    assert (found.code, found.evidence.startswith("three and two;")) == ("etcd-api", True)
    assert codes(replace(HEALTHY, records={"2": Record(CONFIG + "\n", "two"), "3": Record(CONFIG, "three")})) == []


def test_a_reservation_and_a_missing_family_are_no_trouble() -> None:
    assert HEALTHY.agent is not None
    assert HEALTHY.subnet_file is not None
    status = replace(STATUS, lease=LeasePart("10.2.7.0/24", None, None, reserved=True))
    facts = replace(HEALTHY, agent=replace(HEALTHY.agent, status=status))
    assert codes(replace(facts, subnet_file=replace(HEALTHY.subnet_file, ipv6=None))) == []
