"""What flannelctl's commands share: tables and progress, with rich on a terminal, as plain aligned text in a pipe;
and exit statuses that mean something.

rich is imported only when something is about to be drawn with it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

import click

from pyflannel.cli.words import UNSUPPORTED

if TYPE_CHECKING:
    from rich.status import Status


class Unsupported(click.ClickException):
    """The network asks for a backend that we do not support."""

    exit_code = UNSUPPORTED


class StatusOneError(click.UsageError):
    """Wrong usage of a ``StatusOneCommand``."""

    exit_code = 1


class StatusOneCommand(click.Command):
    """A command which ends with 1 where it is asked wrongly: its 2, if it has one, means something else."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does it, but for the status."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise StatusOneError(error.format_message(), ctx) from None


def echo_table(header: Sequence[str], rows: Sequence[Sequence[str]], styles: Mapping[str, str] | None = None) -> None:
    """Print a table; ``styles`` says in which rich style a cell with that text is shown on a terminal."""
    if not sys.stdout.isatty():
        click.echo(aligned(header, rows))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(cell, (styles or {}).get(cell, "")) for cell in row))
    Console().print(table)


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table in columns, two blanks apart, without blanks at the ends of lines."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


class Progress:
    """Says what is being done once the whole takes longer than ``after_s``: a spinner on a terminal, else lines.

    with Progress() as progress:
        progress("waiting for the post")
    """

    def __init__(self, stream: TextIO | None = None, after_s: float = 1.0) -> None:
        """Show on ``stream``, standard error by default."""
        self._stream = stream or sys.stderr
        self._lock = threading.Lock()
        self._what = ""
        self._showing = False
        self._status: Status | None = None
        self._timer = threading.Timer(after_s, self._begin)
        self._timer.daemon = True

    def __enter__(self) -> Progress:
        """Start the clock."""
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say nothing any more."""
        self._timer.cancel()
        with self._lock:
            self._showing = False
            if self._status is not None:
                self._status.stop()

    def __call__(self, what: str) -> None:
        """``what`` is being done now."""
        with self._lock:
            self._what = what
            if self._showing:
                self._show()

    def _begin(self) -> None:
        with self._lock:
            if not self._timer.finished.is_set():
                self._showing = True
                if self._what:
                    self._show()

    def _show(self) -> None:
        if not self._stream.isatty():
            click.echo(f"{self._what} …", file=self._stream)
        elif self._status is None:
            from rich.console import Console

            self._status = Console(file=self._stream).status(self._what)
            self._status.start()
        else:
            self._status.update(self._what)
