"""The agent, what it complains about itself, and what it hands to others and finds in the store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Final

from pyflannel.doctor.facts import Facts, Record
from pyflannel.doctor.findings import Check, Finding, Sign
from pyflannel.health import Severity

RUNNING: Final = "running"
"""The phase of an agent that has programmed the kernel and written subnet.env."""
NOTICE: Final = "notice"
SEVERITIES: Final = {"error": Severity.ERROR, "warning": Severity.WARNING}


def conditions(facts: Facts) -> Iterator[Finding]:
    """What the agent itself says is not well, as findings under the condition's own code.

    Its mere notices are none: of a host of another make it cannot always tell whether it answers.
    """
    for each in () if facts.status is None else facts.status.conditions:
        if each.severity == NOTICE:
            continue
        subject = "" if each.subject in each.text else f"{each.subject}: "
        yield Finding(
            each.code,
            SEVERITIES.get(each.severity, Severity.WARNING),
            f"{subject}{each.text}",
            "the agent says so",
            each.means,
            each.remedy,
        )


def not_running(facts: Facts) -> Iterator[Sign]:
    """Something of flannel is here, and no agent keeps it."""
    agent = facts.agent
    if agent is None or agent.status is not None or agent.programs != () or not (left := _traces(facts)):
        return
    fix = None if agent.unit is None else (("systemctl", "start", PurePath(agent.unit).name),)
    yield Sign(
        "no agent runs on this host: what is there still works, and nobody keeps it up to date",
        f"no process flanneld here, and nobody answers at {agent.socket}; but there is {', '.join(left)}",
        fix,
    )


def silent(facts: Facts) -> Iterator[Sign]:
    """An agent that runs and does not answer."""
    agent = facts.agent
    if agent is not None and agent.status is None and agent.silence and agent.programs and agent.listens:
        yield Sign("the agent runs and does not answer", f"{', '.join(agent.programs)}; {agent.silence}")


def subnet_file_missing(facts: Facts) -> Iterator[Sign]:
    """An agent that has a subnet, and no file that tells Docker of it."""
    file, status = facts.subnet_file, facts.status
    if file is None or status is None or file.there is not False:
        return
    if status.agent.phase == RUNNING and (status.lease.subnet or status.lease.ipv6_subnet):
        yield Sign(
            "subnet.env is gone, so Docker does not start, or starts with addresses of its own",
            f"there is no {file.path}, and the agent has {status.lease.subnet or status.lease.ipv6_subnet}",
            _restart(facts),
        )


def subnet_file_stale(facts: Facts) -> Iterator[Sign]:
    """A subnet file that says something else than the agent and the kernel."""
    file, status = facts.subnet_file, facts.status
    if file is None or not file.there:
        return
    if status is not None and status.agent.phase == RUNNING:
        for lease, ours in ((status.lease.subnet, file.ipv4), (status.lease.ipv6_subnet, file.ipv6)):
            if lease is not None and ours is not None and lease != str(ours):
                yield Sign(
                    "subnet.env is about another subnet than the one this host has",
                    f"{file.path} says {ours}, and the agent has {lease}",
                    _restart(facts),
                )
                return
        if None not in (file.mtu, status.network.mtu) and file.mtu != status.network.mtu:
            yield Sign(
                "subnet.env is about another MTU than the overlay has",
                f"{file.path} says FLANNEL_MTU={file.mtu}, and the agent has {status.network.mtu}",
                _restart(facts),
            )
        return
    for name in facts.tunnels or ():
        device = facts.device(name)
        for address in device.addresses if device is not None else ():
            inside = any(whole.version == 4 and address.ip in whole for whole in facts.ranges)
            if inside and file.ipv4 is not None and address.ip not in file.ipv4:
                yield Sign(
                    "subnet.env is about another subnet than the one this host's device is in",
                    f"{file.path} says {file.ipv4}, and {name} has {address}",
                )


def other_api(facts: Facts) -> Iterator[Sign]:
    """A network configuration in the API of etcd that the agent does not look at, or two that differ."""
    two, three = facts.records.get("2"), facts.records.get("3")
    if two is None or three is None:
        return
    texts: dict[str, Record] = {"2": two, "3": three}
    spoken = facts.etcd_api
    if spoken in texts and texts[spoken].text is None:
        other = "3" if spoken == "2" else "2"
        if texts[other].text is not None:
            yield Sign(
                f"the network configuration is in etcd's v{other} API, and the agent is told to look in v{spoken}",
                f"{texts[other].where} is there; {texts[spoken].where}: no such key; -etcd-api={spoken}",
            )
    elif two.text is not None and three.text is not None and two.text.split() != three.text.split():
        yield Sign(
            "etcd has two network configurations, one in each API, and they differ",
            f"{three.where} and {two.where}; an agent with -etcd-api=auto goes by v3",
        )


def _traces(facts: Facts) -> list[str]:
    """What shows that an agent has run here, or was meant to."""
    found = [facts.subnet_file.path] if facts.subnet_file is not None and facts.subnet_file.there else []
    found += [f"the device {each.name}" for each in facts.devices or () if each.name.startswith("flannel")]
    if facts.agent is not None and facts.agent.unit is not None:
        found.append(facts.agent.unit)
    return found


def _restart(facts: Facts) -> tuple[tuple[str, ...], ...] | None:
    unit = None if facts.agent is None else facts.agent.unit
    return None if unit is None else (("systemctl", "restart", PurePath(unit).name),)


_WARNING, _ERROR = Severity.WARNING, Severity.ERROR
CHECKS: Final = (
    Check(
        "agent-not-running",
        _ERROR,
        "No agent runs here",
        "The kernel keeps what an agent made, so containers reach the hosts that were known. Hosts that come or move "
        "are not followed, what somebody deletes stays away, and the lease runs out within 24 hours.",
        "Start it (`systemctl start flanneld`) and look in its log for why it ended; if flannel is to leave this host, "
        "`flannelctl cleanup` takes away what is left.",
        not_running,
    ),
    Check(
        "agent-silent",
        _ERROR,
        "The agent does not answer",
        "It holds its socket and says nothing: it hangs, or was stopped (SIGSTOP), or the machine has no time for it.",
        "See what it does (`journalctl -u flanneld`, `ps`); a restart costs no packet.",
        silent,
    ),
    Check(
        "subnet-file-missing",
        _ERROR,
        "subnet.env is missing",
        "Docker and the CNI plug-in learn from that file which subnet and MTU to use.",
        "Restart the agent, which writes it and costs no packet; find out who clears its directory.",
        subnet_file_missing,
    ),
    Check(
        "subnet-file-stale",
        _ERROR,
        "subnet.env does not fit",
        "It is of another time or another agent, or somebody changed it: what Docker starts next gets addresses or "
        "packets that do not fit.",
        "Restart the agent, which writes it anew and costs no packet; then restart Docker.",
        subnet_file_stale,
    ),
    Check(
        "etcd-api",
        _ERROR,
        "The network configuration is in etcd's other API",
        "etcd keeps the records of its v2 and v3 APIs apart: hosts that use different ones wait for ever, or are two "
        "networks without knowing it.",
        "Write the configuration through the API that all hosts use and remove the other one, or let the agents look "
        "for it with -etcd-api=auto.",
        other_api,
    ),
)
