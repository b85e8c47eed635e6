"""What reaches a pipe, and what a terminal."""

from __future__ import annotations

import io
import threading

import click
import pytest
from click.testing import CliRunner

from pyflannel.cli.terminal import Progress, StatusOneCommand, aligned, echo_table


class Listening(io.StringIO):
    """A stream that tells when something was written to it."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self.heard = threading.Event()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def write(self, text: str) -> int:
        written = super().write(text)
        if text.strip():
            self.heard.set()
        return written


def test_columns_are_aligned_without_blanks_at_the_end() -> None:
    assert aligned(["HOST", "MTU"], [["h", "1450"], ["host2", ""]]) == "HOST   MTU\nh      1450\nhost2"


def test_pipe_gets_plain_text() -> None:
    @click.command()
    def show() -> None:
        echo_table(["HOST", "AGENT"], [["host1", "runs"]], {"runs": "green"})

    assert CliRunner().invoke(show).output == "HOST   AGENT\nhost1  runs\n"


def test_what_is_quick_is_done_in_silence() -> None:
    stream = Listening(terminal=False)
    with Progress(stream, after_s=60) as progress:
        progress("one")
        progress("two")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("terminal", [False, True])
def test_what_takes_long_is_named(terminal: bool) -> None:
    stream = Listening(terminal=terminal)
    with Progress(stream, after_s=0) as progress:
        progress("waiting for host1")
        assert stream.heard.wait(30)
    assert "waiting for host1" in stream.getvalue()


def test_each_later_phase_gets_a_line_in_a_pipe() -> None:
    stream = Listening(terminal=False)
    with Progress(stream, after_s=0) as progress:
        progress("one")
        assert stream.heard.wait(30)
        progress("two")
        progress("three")
    assert stream.getvalue() == "one …\ntwo …\nthree …\n"


def test_nothing_is_said_after_the_end() -> None:
    stream = Listening(terminal=False)
    with Progress(stream, after_s=60) as progress:
        progress("one")
    progress("two")
    assert stream.getvalue() == ""


def test_a_command_whose_2_is_taken_ends_with_1_where_it_is_asked_wrongly() -> None:
    @click.command(cls=StatusOneCommand)
    def verdict() -> None:
        raise SystemExit(2)

    assert CliRunner().invoke(verdict, []).exit_code == 2
    wrong = CliRunner().invoke(verdict, ["--nope"])
    assert wrong.exit_code == 1
    assert "--nope" in wrong.output
