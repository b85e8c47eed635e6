"""``flannelctl capture``: the packets inside the tunnel to a peer, as they go by.

What a person sees with tcpdump on the external interface is the packets around them, encrypted perhaps.  Here it is
what containers say to each other, whatever the backend.
"""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from ipaddress import ip_address, ip_network
from typing import BinaryIO

import click

from pyflannel.cli.agent_settings import DEFAULTS, agent_settings, takes_agent_settings
from pyflannel.cli.known_network import NotKnown, known_network
from pyflannel.linux.packets import Seen, Watch
from pyflannel.network import Network
from pyflannel.state import IPAddress, IPNetwork
from pyflannel.trace.dissect import PCAP_HEADER, line, pcap_record
from pyflannel.trace.facts import Overlay, Peer, nets, overlay

TICK_S = 0.5
"""How long a quiet device may go unlooked at, so that an end that was asked for is not overslept."""


@click.command()
@click.argument("peer", metavar="PEER")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after so many packets.")
@click.option("--duration", type=click.FloatRange(min=0, min_open=True), metavar="S", help="End after so many seconds.")
@click.option("--pcap", "file", type=click.File("wb"), metavar="FILE", help="Write them there, for tcpdump -r.")
@takes_agent_settings
def capture(
    peer: str,
    count: int | None,
    duration: float | None,
    file: BinaryIO | None,
    no_defaults: bool,
    flags: tuple[str, ...],
) -> None:
    """Show the packets inside the tunnel to a peer, as they go by, until Ctrl-C.

    PEER is an address of the other host, its subnet, or a container there.

    FLAGS, after a --, are those of flanneld, as with flannelctl plan.
    """
    settings = agent_settings(flags, defaults=None if no_defaults else DEFAULTS)
    try:
        network, note = asyncio.run(known_network(settings))
    except NotKnown as error:
        raise click.ClickException(str(error)) from None
    if note:
        click.secho(note, fg="yellow", err=True)
    known, found = _peer(network, peer)
    places = devices(known, found)
    with ExitStack() as stack:
        try:
            watches = [stack.enter_context(Watch(dev, networks)) for dev, networks in places]
        except OSError as error:
            raise click.ClickException(f"watching {' and '.join(dev for dev, _ in places)}: {error.strerror}") from None
        what = " and ".join(f"{', '.join(map(str, networks))} on {dev}" for dev, networks in places)
        click.echo(f"watching {what}", err=True)
        shown = 0
        if file is not None:
            file.write(PCAP_HEADER)
        with suppress(KeyboardInterrupt):
            for seen in _packets(watches, count, duration):
                shown += 1
                _show(seen, file)
        dropped = sum(watch.dropped() for watch in watches)
    click.echo(f"{shown} packets, {dropped} more that there was no room for", err=True)


def devices(known: Overlay, peer: Peer) -> list[tuple[str, Sequence[IPNetwork]]]:
    """Where the packets of a peer go by, and what they are known by; a device once."""
    places: dict[str, list[IPNetwork]] = {}
    for network in nets(peer.subnet):
        route = known.route(peer, network.network_address)
        tunnel = known.tunnel(network.version)
        dev = route.dev if route is not None else tunnel.name if tunnel is not None else known.underlay
        places.setdefault(dev, []).append(network)
        if tunnel is not None and tunnel.name != dev:
            # With DirectRouting each end decides for itself, so packets may come the other way.
            places.setdefault(tunnel.name, []).append(network)
    return list(places.items())


def _peer(network: Network, text: str) -> tuple[Overlay, Peer]:
    try:
        address = _address(text)
    except ValueError:
        raise click.UsageError(f"{text!r} is neither an address nor a subnet") from None
    known = overlay(network, address)
    found = known.peer(address) or known.host(address)
    if found is None:
        raise click.ClickException(f"no host has {text}: flannelctl leases lists them")
    return known, found


def _address(text: str) -> IPAddress:
    return ip_network(text, strict=False).network_address if "/" in text else ip_address(text)


def _packets(watches: Sequence[Watch], count: int | None, duration: float | None) -> Iterator[Seen]:
    """What goes by, until there was enough or the time is over."""
    end = None if duration is None else time.monotonic() + duration
    number = 0
    while count is None or number < count:
        left = TICK_S if end is None else min(TICK_S, end - time.monotonic())
        if left <= 0:
            return
        ready, _, _ = select.select(watches, [], [], left)
        for watch in ready:
            seen = _taken(watch)
            if seen is not None and (count is None or number < count):
                number += 1
                yield seen


def _taken(watch: Watch) -> Seen | None:
    try:
        return watch.take()
    except OSError as error:
        raise click.ClickException(f"the device is gone: {error.strerror}") from None


def _show(seen: Seen, file: BinaryIO | None) -> None:
    moment = time.strftime("%H:%M:%S", time.localtime(seen.at)) + f".{int(seen.at * 1e6) % 10**6:06d}"
    click.echo(f"{moment} {'out' if seen.outgoing else 'in ':<3} {line(seen.data)}")
    if file is not None:
        file.write(pcap_record(seen.at, seen.data))
