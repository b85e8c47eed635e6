"""``flannelctl trace``: at which hop a packet ends, and why.

What is found out is in ``pyflannel.trace``, how it is shown in ``trace_view``.
"""

from __future__ import annotations

import asyncio
import json
from ipaddress import ip_address
from pathlib import Path

import click

from pyflannel.cli import agent_socket, trace_view
from pyflannel.cli.agent_settings import DEFAULTS, agent_settings, takes_agent_settings
from pyflannel.cli.known_network import NotKnown, known_network
from pyflannel.network import Network
from pyflannel.settings import Settings
from pyflannel.state import IPAddress
from pyflannel.telemetry.address import control_socket
from pyflannel.trace.facts import Flow, Peer, overlay
from pyflannel.trace.follow import Ask, NoAnswer, NotHere, Trace, Verdict, follow
from pyflannel.trace.gather import CannotLook


class Untold(click.ClickException):
    """Nothing can be told of any packet."""

    exit_code = trace_view.STATUSES[Verdict.UNTOLD]


class Address(click.ParamType[IPAddress]):
    """An IP address on the command line."""

    name = "address"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> IPAddress:
        """Or an error that says what it is not."""
        try:
            return ip_address(str(value))
        except ValueError:
            self.fail(f"{value!r} is no IP address, like 10.1.15.2", param, ctx)


@click.command()
@click.argument("source", type=Address(), metavar="SRC")
@click.argument("destination", type=Address(), metavar="DST")
@click.option("--protocol", type=click.Choice(["icmp", "tcp", "udp"]), default="icmp", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), help="Of the destination, for tcp and udp.")
@click.option("--size", type=click.IntRange(20, 65535), metavar="BYTES", help="Of the packet, not to be fragmented.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@takes_agent_settings
def trace(
    source: IPAddress,
    destination: IPAddress,
    protocol: str,
    port: int | None,
    size: int | None,
    as_json: bool,
    no_defaults: bool,
    flags: tuple[str, ...],
) -> None:
    """Show at which hop a packet ends, and why.

    It is followed from SRC, a container of this host or the host itself, to DST, and its answer back.  No packet is
    sent: the kernel is asked what it would do at each step, and the agent of the other host what happens there.  Only
    neighbours are asked whether they are there, as the kernel does by itself.

    FLAGS, after a --, are those of flanneld, as with flannelctl plan.

    Exit status: 0 it arrives and so does the answer, 1 it ends somewhere, 3 that cannot be told, 2 asked wrongly.
    """
    if source.version != destination.version:
        raise click.UsageError(f"{source} and {destination} are of different families")
    if port is not None and protocol == "icmp":
        raise click.UsageError("ICMP has no ports: expected --protocol tcp or udp beside --port")
    try:
        settings = agent_settings(flags, defaults=None if no_defaults else DEFAULTS)
    except click.ClickException as error:
        # Its own status would say that the packet ends somewhere.
        raise click.UsageError(error.format_message()) from None
    try:
        network, note = asyncio.run(known_network(settings))
        found = traced(network, settings, Flow(source, destination, protocol, port, size))
    except (NotKnown, CannotLook) as error:
        raise Untold(str(error)) from None
    except NotHere as error:
        raise click.UsageError(str(error)) from None
    if note:
        click.secho(note, fg="yellow", err=True)
    if as_json:
        click.echo(json.dumps(trace_view.document(found), indent=2))
    else:
        for line, mood in trace_view.lines(found):
            click.secho(line, fg=None if mood is None else trace_view.COLOURS[mood], bold=mood is None)
    if status := trace_view.STATUSES[found.verdict]:
        raise SystemExit(status)


def traced(network: Network, settings: Settings, flow: Flow, ask: Ask | None = None) -> Trace:
    """The trace of ``flow`` from this host; other hosts are asked by way of our agent unless ``ask`` does it."""
    asked = ask or (lambda peer, question: asked_by_agent(control_socket(settings.subnet_file), peer, question))
    known = overlay(network, flow.source, flow.destination)
    return follow(known, flow, asked, Path(settings.subnet_file).parent)


def asked_by_agent(socket_path: Path, peer: Peer, question: bytes) -> bytes:
    """What the agent of ``peer`` answers, asked by ours; ``NoAnswer`` otherwise."""
    try:
        return agent_socket.ask(socket_path, peer.subnet, question)
    except agent_socket.AgentSilent as error:
        raise NoAnswer(f"its agent cannot be asked: {error}") from error
