"""``flannelctl lab``: a whole cluster on this machine, to try flannel out, test it, or reproduce a fault.

This file asks; what is done is in ``pyflannel.lab``, how it is shown in ``lab_view``.  Exit status: 0 done, 1 tried and
failed (an agent that does not run, a ping that did not cross), 2 asked wrongly; ``exec`` and ``shell`` end as the
command inside does.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn, TextIO

import click

from pyflannel.backends import from_config
from pyflannel.cli.lab_view import echo_hosts, echo_matrix, echo_routes, echo_summary, ping_document, status_document
from pyflannel.cli.terminal import Progress
from pyflannel.lab import LabError, cluster, ping, record
from pyflannel.lab.plan import MOST_CONTAINERS, MOST_HOSTS, Plan, network_config
from pyflannel.lab.record import Lab
from pyflannel.lease.network import parse_network_config

DEFAULT_NETWORK: Final = "10.2.0.0/16"
DEFAULT_BACKEND: Final = "vxlan"

_SETTLE_S = 5.0


class _Group(click.Group):
    """Turns ``LabError`` into a message and exit status 1."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except LabError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Group)
def lab() -> None:
    """Build a whole cluster on this machine: hosts and containers in namespaces, a real agent on each host.

    The machine's own network is not touched.  Without root, an unprivileged user namespace is used.
    """


def _named(command: Callable[..., None]) -> Callable[..., None]:
    return click.option("--name", default="lab", show_default=True, help="Which lab; several can be up at once.")(
        command
    )


def _shaped(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say what to build."""
    hosts, containers = click.IntRange(1, MOST_HOSTS), click.IntRange(0, MOST_CONTAINERS)
    options = [
        click.option("--hosts", type=hosts, default=3, show_default=True, help="How many hosts."),
        click.option("--containers", type=containers, default=2, show_default=True, help="How many on each host."),
        click.option("--backend", help=f"Backend type of the network.  [default: {DEFAULT_BACKEND}]"),
        click.option("--network", help=f"Address range of the network.  [default: {DEFAULT_NETWORK}]"),
        click.option(
            "--config", type=click.File(encoding="utf-8"), help="Network configuration (JSON) to use instead."
        ),
        click.option("--etcd", is_flag=True, help="Run a real etcd instead of the embedded store."),
        click.option("--agent", help="Command line of another flanneld; one in Go needs --etcd."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@lab.command()
@_named
@_shaped
def up(
    name: str,
    hosts: int,
    containers: int,
    backend: str | None,
    network: str | None,
    config: TextIO | None,
    etcd: bool,
    agent: str | None,
) -> None:
    """Build a lab."""
    wanted = _plan(name, hosts, containers, _config(backend, network, config, agent), etcd=etcd)
    built = _up(wanted, agent)
    echo_summary(built)
    echo_hosts(built)
    suffix = "" if name == "lab" else f" --name {name}"
    commands = ("ping", "routes host1", "shell host1", "shell host1-c1", "down")
    click.echo("next: flannelctl lab " + " | ".join(f"{command}{suffix}" for command in commands))


@lab.command()
@_named
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(name: str, as_json: bool) -> None:
    """Show the hosts, their subnets and their agents.

    Exit status 0 only if every agent runs.
    """
    found = _load(name)
    if as_json:
        click.echo(json.dumps(status_document(found), indent=2))
    else:
        echo_summary(found)
        echo_hosts(found)
        click.echo(f"logs: {found.directory}/*.log")
    if any(host.agent is None for host in cluster.status(found)):
        raise SystemExit(1)


@lab.command(name="ping")
@_named
@click.option("--wait", type=click.FloatRange(0), default=_SETTLE_S, show_default=True, help="Seconds to keep trying.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def ping_command(name: str, wait: float, as_json: bool) -> None:
    """Ping every container from every other.

    Exit status 0 only if all answer.
    """
    matrix = _measure(_load(name), wait)
    if as_json:
        click.echo(json.dumps(ping_document(matrix), indent=2))
    else:
        echo_matrix(matrix)
    if matrix.lost:
        raise SystemExit(1)


@lab.command()
@_named
@click.argument("host")
def routes(name: str, host: str) -> None:
    """Show what the agent of HOST has put into its kernel."""
    echo_routes(_load(name), host)


@lab.command(name="exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@_named
@click.argument("where")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_command(name: str, where: str, command: tuple[str, ...]) -> None:
    """Run COMMAND in WHERE: a host, a container, or `switch`."""
    _become(_load(name), where, command[1:] if command[0] == "--" else command)


@lab.command()
@_named
@click.argument("where")
def shell(name: str, where: str) -> None:
    """Open a shell in WHERE: a host, a container, or `switch`."""
    _become(_load(name), where, [os.environ.get("SHELL") or "sh"])


@lab.command()
@_named
def down(name: str) -> None:
    """Take a lab down, without a trace.

    What was started inside ends with it.  Taking down what is not there is no error.
    """
    if (found := record.load(_labs(), name)) is None:
        click.echo(f"there is no lab {name!r}")
        return
    _down(found)
    click.echo(f"lab {name!r} is gone")


@lab.command()
@_shaped
def demo(
    hosts: int,
    containers: int,
    backend: str | None,
    network: str | None,
    config: TextIO | None,
    etcd: bool,
    agent: str | None,
) -> None:
    """Build a lab, show that packets cross, take it down.

    Exit status 0 only if every container answered every other.
    """
    wanted = _plan("demo", hosts, containers, _config(backend, network, config, agent), etcd=etcd)
    with _signals_raise():
        built = _up(wanted, agent)
        try:
            lost = _show(built)
        finally:
            _down(built)
    click.echo("\nthe lab is gone again; keep one with `flannelctl lab up`")
    if lost:
        raise SystemExit(1)


def _show(built: Lab) -> int:
    """Print everything worth seeing; how many pings were lost."""
    echo_summary(built)
    echo_hosts(built)
    click.echo("\nround trips between containers, in ms")
    matrix = _measure(built, _SETTLE_S)
    echo_matrix(matrix)
    click.echo("\nwhat the agent of host1 put into its kernel")
    echo_routes(built, "host1")
    return len(matrix.lost)


def _config(backend: str | None, network: str | None, file: TextIO | None, agent: str | None) -> str:
    if file is not None and (backend or network):
        raise click.UsageError("--config says what --backend and --network would; give one or the other")
    try:
        if file is None:
            text = network_config(IPv4Network(network or DEFAULT_NETWORK), backend or DEFAULT_BACKEND)
        else:
            text = file.read()
        # Our agents would wait for a better configuration; people should not.  Another's may understand more than ours.
        if agent is None:
            from_config(parse_network_config(text))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    return text


def _plan(name: str, hosts: int, containers: int, config: str, *, etcd: bool) -> Plan:
    try:
        return Plan(name, hosts, containers, config, etcd)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _labs() -> Path:
    return record.labs_directory(os.geteuid(), os.environ)


def _load(name: str) -> Lab:
    if (found := record.load(_labs(), name)) is None:
        others = ", ".join(record.names(_labs()))
        hint = f"there is: {others}; say --name" if others else "build one with `flannelctl lab up`"
        raise LabError(f"there is no lab {name!r}; {hint}")
    return found


def _up(wanted: Plan, agent: str | None) -> Lab:
    command: Sequence[str] = cluster.AGENT if agent is None else shlex.split(agent)
    with _signals_raise(), Progress() as progress:
        return cluster.up(wanted, _labs(), agent=command, progress=progress)


def _down(found: Lab) -> None:
    with Progress() as progress:
        progress(f"taking lab {found.plan.name!r} down")
        cluster.down(found)


def _measure(found: Lab, wait_s: float) -> ping.Matrix:
    ends, probe = ping.endpoints(found), ping.prober(found)
    with Progress() as progress:
        progress(f"sending {len(ends) * (len(ends) - 1)} pings")
        return ping.measure(ends, probe, wait_s)


@contextmanager
def _signals_raise() -> Iterator[None]:
    """What ends us from outside comes as the exception Ctrl-C raises, so that everything is cleaned up."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _become(found: Lab, where: str, command: Sequence[str]) -> NoReturn:
    arguments = cluster.command_in(found, where, command, str(Path.cwd()))
    os.execvpe(arguments[0], arguments, cluster.environment_in(found, where))
