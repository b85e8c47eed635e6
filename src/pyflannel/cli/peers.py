"""``flannelctl peers``: the other hosts, one row each."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import click

from pyflannel.cli.status_view import HEADER, STYLES, rows
from pyflannel.cli.terminal import echo_table
from pyflannel.cli.watching import looks, show
from pyflannel.telemetry.document import Document, State


@click.command()
@looks
def peers(socket_path: Path, as_json: bool, watch: float | None) -> None:
    """Show the other hosts, and how they answer.

    The last column says why a host is not reached as it should be. MTU is the size of the largest packet that was seen
    to pass to a host.  Ends with status 0 if nothing is known to be wrong with any of them, 1 if something is or no
    agent runs.
    """
    raise SystemExit(show(socket_path, watch, _as_json if as_json else _as_table))


def _as_json(document: Document) -> bool:
    click.echo(json.dumps([dataclasses.asdict(peer) for peer in document.peers]))
    return _all_well(document)


def _as_table(document: Document) -> bool:
    echo_table(HEADER, rows(document.peers, time.time()), STYLES)
    return _all_well(document)


def _all_well(document: Document) -> bool:
    return all(peer.state in (State.REACHABLE, State.UNKNOWN) for peer in document.peers)
