"""``flannelctl peers``: the other hosts, one row each; or who of all hosts reaches whom."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import click

from pyflannel.cli import agent_socket, matrix_view
from pyflannel.cli.status_view import HEADER, STYLES, rows
from pyflannel.cli.terminal import Progress, echo_table
from pyflannel.cli.watching import looks, show
from pyflannel.telemetry import matrix
from pyflannel.telemetry.document import Document, State
from pyflannel.telemetry.matrix import SILENT, Matrix, Name, Row

AT_ONCE: Final = 2
"""Questions to peers that are under way: the agent has room for a trace beside them."""


@click.command()
@looks
@click.option("--matrix", "as_matrix", is_flag=True, help="Ask the other hosts, too: who reaches whom.")
def peers(socket_path: Path, as_json: bool, watch: float | None, as_matrix: bool) -> None:
    """Show the other hosts, and how they answer.

    The last column says why a host is not reached as it should be. MTU is the size of the largest packet that was seen
    to pass to a host.  Ends with status 0 if nothing is known to be wrong with any of them, 1 if something is or no
    agent runs.

    With --matrix each row is what that host says of the others: round trips in milliseconds, and how much gets lost.
    Up to 32 hosts are shown, those in trouble first.
    """
    raise SystemExit(show(socket_path, watch, _printer(socket_path, as_json, as_matrix)))


def _printer(socket_path: Path, as_json: bool, as_matrix: bool) -> Callable[[Document], bool]:
    if as_matrix:
        return partial(_as_matrix, socket_path, as_json)
    return _as_json if as_json else _as_table


def _as_json(document: Document) -> bool:
    click.echo(json.dumps([dataclasses.asdict(peer) for peer in document.peers]))
    return _all_well(document)


def _as_table(document: Document) -> bool:
    echo_table(HEADER, rows(document.peers, time.time()), STYLES)
    return _all_well(document)


def _all_well(document: Document) -> bool:
    return all(peer.state in (State.REACHABLE, State.UNKNOWN) for peer in document.peers)


def _as_matrix(socket_path: Path, as_json: bool, document: Document) -> bool:
    with Progress() as progress:
        progress("asking the other hosts")
        found = asked(socket_path, document)
    if as_json:
        click.echo(json.dumps(matrix_view.document(found)))
    elif found.hosts:
        echo_table(*matrix_view.table(found))
        for note in matrix_view.notes(found):
            click.echo(note)
    return _all_well(document) and matrix_view.is_well(found)


def asked(socket_path: Path, document: Document) -> Matrix:
    """What each of the hosts that are shown says of all of them; our own row is in ``document``."""
    shown = matrix.hosts(document)
    own, question = matrix.own_name(document), matrix.question(shown)

    def row(host: Name) -> Row:
        subnet = matrix.subnet(host)
        if host == own:
            return matrix.own_row(document, shown)
        if subnet is None:
            return Row(why=SILENT)
        try:
            return matrix.told(agent_socket.ask(socket_path, subnet, question), shown, time.time())
        except agent_socket.AgentSilent:
            return Row(why=SILENT)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return Matrix(shown, len(document.peers) + 1, dict(zip(shown, pool.map(row, shown), strict=True)))
