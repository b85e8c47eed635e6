"""How a lab is shown: to people as tables, to programs as JSON documents."""

from __future__ import annotations

import subprocess

import click

from pyflannel.cli.terminal import echo_table
from pyflannel.lab import cluster, namespaces, ping
from pyflannel.lab.record import Lab

_LOOKS = ("ip route", "ip neigh show nud permanent", "bridge fdb show | grep ' dst '")
# More columns do not fit a terminal.
_WIDEST = 12


def echo_summary(found: Lab) -> None:
    """Which lab this is, and what is not as in a real cluster (on standard error)."""
    plan = found.plan
    store = "etcd" if plan.etcd else "an embedded store"
    root = ", without root" if found.user_namespace else ""
    click.echo(f"lab {plan.name!r}: {plan.host_count} hosts, {plan.container_count} containers each, on {store}{root}")
    click.echo(f"network configuration: {plan.config.strip()}")
    for remark in found.remarks:
        click.secho(f"note: {remark}", fg="yellow", err=True)


def echo_hosts(found: Lab) -> None:
    """A row for each host."""
    rows = []
    for host in cluster.status(found):
        containers = [str(one.address.ip) if one.address and one.runs else "down" for one in host.containers]
        rows.append(
            [
                host.host.name,
                str(host.host.address.ip),
                str(host.bridge.address.network) if host.bridge else "none",
                str(host.bridge.mtu) if host.bridge else "",
                "runs" if host.agent else "down",
                " ".join(containers),
            ]
        )
    styles = {"runs": "green", "down": "red", "none": "red"}
    echo_table(["HOST", "ADDRESS", "SUBNET", "MTU", "AGENT", "CONTAINERS"], rows, styles)


def echo_matrix(matrix: ping.Matrix) -> None:
    """Who reached whom and in what time; of a large lab only who did not."""
    names = [end.name for end in matrix.endpoints]
    if len(names) <= _WIDEST:
        rows = [[a, *("" if a == b else _cell(matrix.rtt_ms[a, b]) for b in names)] for a in names]
        echo_table(["FROM \\ TO", *names], rows, {"lost": "bold red"})
    elif matrix.lost:
        echo_table(["FROM", "TO", ""], [[a, b, "lost"] for a, b in matrix.lost], {"lost": "bold red"})
    crossed = len(matrix.rtt_ms) - len(matrix.lost)
    click.secho(f"{crossed} of {len(matrix.rtt_ms)} pings crossed", fg="red" if matrix.lost else "green")


def _cell(rtt_ms: float | None) -> str:
    return "lost" if rtt_ms is None else f"{rtt_ms:.2f}"


def echo_routes(found: Lab, host: str) -> None:
    """What the kernel of ``host`` knows of the others, in the words of ``ip`` and ``bridge``."""
    env = namespaces.environment()
    for look in _LOOKS:
        command = cluster.command_in(found, host, ["sh", "-c", look])
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
        click.secho(f"{host}$ {look}", bold=True)
        click.echo(done.stdout + done.stderr, nl=False)


def status_document(found: Lab) -> dict[str, object]:
    """The lab for programs; what is unknown is null."""
    return {
        "name": found.plan.name,
        "directory": str(found.directory),
        "config": found.plan.config,
        "etcd": found.plan.etcd,
        "user_namespace": found.user_namespace,
        "remarks": found.remarks,
        "hosts": [
            {
                "name": host.host.name,
                "address": str(host.host.address.ip),
                "subnet": str(host.bridge.address.network) if host.bridge else None,
                "mtu": host.bridge.mtu if host.bridge else None,
                "agent_pid": host.agent.pid if host.agent else None,
                "log": str(host.log),
                "containers": [
                    {"name": one.name, "address": str(one.address.ip) if one.address else None, "runs": one.runs}
                    for one in host.containers
                ],
            }
            for host in cluster.status(found)
        ],
    }


def ping_document(matrix: ping.Matrix) -> dict[str, object]:
    """The pings for programs; a lost one has no time (null)."""
    return {
        "sent": len(matrix.rtt_ms),
        "lost": len(matrix.lost),
        "pings": [{"from": a, "to": b, "rtt_ms": rtt} for (a, b), rtt in matrix.rtt_ms.items()],
    }
