"""``flannelctl status``: how this host's network is, on one screen."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import click

from pyflannel.cli.status_view import STYLES, is_well, lines, trouble
from pyflannel.cli.watching import looks, show
from pyflannel.telemetry.document import Document, write


@click.command()
@looks
def status(socket_path: Path, as_json: bool, watch: float | None) -> None:
    """Show how this host's network is.

    And what to do if it is not well. Asks the agent of this host, so it has to be run as root.  Ends with status 0 if
    all is well, 1 if anything is wrong or no agent runs.
    """
    raise SystemExit(show(socket_path, watch, _as_json if as_json else _on_screen))


def _as_json(document: Document) -> bool:
    click.echo(b"".join(write(document)), nl=False)
    return is_well(document)


def _fitting(line: str) -> str:
    """``line`` as wide as the terminal; in a pipe as it is."""
    if not sys.stdout.isatty():
        return line
    return click.wrap_text(line.strip(), shutil.get_terminal_size().columns, "  ", "    ")


def _on_screen(document: Document) -> bool:
    now = time.time()
    for line in lines(document, now):
        click.echo(line)
    click.echo()
    for condition in document.conditions:
        headline, *rest = trouble(condition, now)
        click.secho(headline, fg=STYLES.get(condition.severity), bold=True)
        for line in rest:
            click.echo(_fitting(line))
    if is_well(document):
        click.secho("All is well.", fg="green")
    return is_well(document)
