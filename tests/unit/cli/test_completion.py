from __future__ import annotations

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from pyflannel.cli.flannelctl import COMMANDS, cli


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_own_script(shell: str) -> None:
    result = CliRunner().invoke(cli, ["completion", shell])
    assert result.exit_code == 0
    assert f"_FLANNELCTL_COMPLETE={shell}_complete" in result.output


def test_another_shell_is_a_usage_error() -> None:
    assert CliRunner().invoke(cli, ["completion", "tcsh"]).exit_code == 2


def offered(line: str) -> list[str]:
    """What bash is offered at the end of ``line``, and which of our modules that took."""
    words = line.split(" ")
    script = (
        "import sys, atexit; from pyflannel.cli.flannelctl import cli; "
        "atexit.register(lambda: print(*[name for name in sys.modules if name.startswith('pyflannel.cli.')])); "
        "cli(prog_name='flannelctl')"
    )
    environment = os.environ | {
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_FLANNELCTL_COMPLETE": "bash_complete",
    }
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    return done.stdout.splitlines()


def test_commands_are_offered_without_importing_any() -> None:
    *names, modules = offered("flannelctl ")
    assert names == [f"plain,{name}" for name in sorted(COMMANDS)]
    assert modules == "pyflannel.cli.flannelctl"


def test_options_of_a_command_are_offered() -> None:
    *names, _ = offered("flannelctl status --")
    assert {"plain,--json", "plain,--watch", "plain,--socket"} <= set(names)
