"""Showing what the agent says, once or again and again: what ``status`` and ``peers`` have in common."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import click

from pyflannel.cli.agent_socket import AgentSilent, asks_agent, status
from pyflannel.telemetry.document import Document

EVERY: Final = 2.0
"""Seconds between looks unless somebody says otherwise."""
CLEAR: Final = "\x1b[H\x1b[2J"
"""To the upper left, and nothing behind."""

Command = TypeVar("Command", bound=Callable[..., None])


def looks(command: Command) -> Command:
    """Give a command the parameters ``socket_path``, ``as_json`` and ``watch``."""
    watch = click.option(
        "--watch",
        is_flag=False,
        flag_value=EVERY,
        type=click.FloatRange(min=0.1),
        metavar="[SECONDS]",
        help=f"Look again every so many seconds ({EVERY:g}), until interrupted.",
    )
    as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, with --watch a document on each line.")
    return watch(as_json(asks_agent(command)))


def show(socket_path: Path, watch: float | None, print_it: Callable[[Document], bool]) -> int:
    """Print the status with ``print_it``, which says whether all is well; the exit status, 0 if so and 1 if not.

    While watching, an agent that cannot be asked is waited for; without one ``click.ClickException`` says so.
    """
    if watch is None:
        try:
            return 0 if print_it(status(socket_path)) else 1
        except AgentSilent as exc:
            raise click.ClickException(str(exc)) from None
    well = False
    try:
        while True:
            well = _look(socket_path, print_it)
            time.sleep(watch)
    except KeyboardInterrupt:
        return 0 if well else 1


def _look(socket_path: Path, print_it: Callable[[Document], bool]) -> bool:
    try:
        said = status(socket_path)
    except AgentSilent as exc:
        click.echo(f"Error: {exc}", err=True)
        return False
    if sys.stdout.isatty():
        click.echo(CLEAR, nl=False)
    well = print_it(said)
    sys.stdout.flush()
    return well
