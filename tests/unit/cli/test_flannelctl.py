from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pyflannel import __version__
from pyflannel.cli.flannelctl import COMMANDS, LazyGroup, cli


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The real program."""
    return subprocess.run(
        [sys.executable, "-m", "pyflannel.cli.flannelctl", *arguments], capture_output=True, text=True, check=False
    )


def test_the_version_is_printed() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"flannelctl {__version__}\n")


def test_help_names_every_command_and_its_purpose() -> None:
    result = CliRunner().invoke(cli, ["--help"])
    assert result.exit_code == 0
    for name, lazy in COMMANDS.items():
        assert f"{name} " in result.output
        assert lazy.purpose in result.output


def test_help_imports_no_command() -> None:
    script = (
        "import sys; from pyflannel.cli.flannelctl import cli; cli(['--help'], standalone_mode=False); "
        "print(*[name for name in sys.modules if name.startswith('pyflannel.')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == ["pyflannel.cli", "pyflannel.cli.flannelctl"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_name_leads_to_a_command_that_says_of_itself_what_help_says(name: str) -> None:
    command = LazyGroup().get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name
    assert command.get_short_help_str(limit=200).startswith(COMMANDS[name].purpose.removesuffix("."))


def test_an_unknown_command_is_a_usage_error() -> None:
    done = run("dokcer")
    assert done.returncode == 2
    assert "No such command 'dokcer'" in done.stderr
    assert done.stdout == ""


def test_no_color_takes_the_colours_out(tmp_path: Path) -> None:
    def diff(**environment: str) -> str:
        arguments = ["docker", "configure", "--dry-run", "--root", str(tmp_path)]
        # With color=True the runner keeps the escapes, as a terminal does.
        return CliRunner().invoke(cli, arguments, color=True, env=environment).output

    assert "\x1b[32m+" in diff(NO_COLOR="")
    assert "\x1b" not in diff(NO_COLOR="1")
