"""The options for Docker, byte for byte as mk-docker-opts.sh writes them (compat §4.3), by both ways to ask for them.

The first five files are the reference outputs flannel itself is tested with.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pyflannel.cli.flannelctl import cli

GOLDEN = Path(__file__).parent / "docker-opts"
SCRIPT = Path(__file__).parents[2] / "contrib" / "mk-docker-opts.sh"

CASES: dict[str, tuple[list[str], dict[str, str]]] = {
    "no-options": ([], {}),
    "individual": (["-i"], {}),
    "combined": (["-c"], {}),
    "custom-key": (["-k", "CUSTOM_KEY"], {}),
    "no-ip-masq": (["-m"], {}),
    "no-input": (["-f", "/nowhere/subnet.env"], {}),
    "from-environment": (["-ic"], {"DOCKER_OPT_DEBUG": "-D", "DOCKER_OPTS": "-H fd://"}),
}


def test_every_golden_file_has_a_case() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == {*CASES, "subnet"}


@pytest.mark.parametrize("name", CASES)
def test_flannelctl_writes_what_the_script_writes(name: str, tmp_path: Path) -> None:
    options, environment = CASES[name]
    target = tmp_path / "docker_opts.env"
    arguments = ["docker-opts", "-f", str(GOLDEN / "subnet.env"), "-d", str(target), *options]
    result = CliRunner().invoke(cli, arguments, env=environment)
    assert (result.exit_code, result.output) == (0, "")
    assert target.read_bytes() == (GOLDEN / f"{name}.env").read_bytes()


@pytest.fixture
def flannelctl(tmp_path: Path) -> Path:
    """A program ``flannelctl`` as an installation would have it."""
    program = tmp_path / "bin" / "flannelctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pyflannel.cli.flannelctl "$@"\n')
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("name", CASES)
def test_our_mk_docker_opts_hands_everything_to_flannelctl(name: str, tmp_path: Path, flannelctl: Path) -> None:
    options, environment = CASES[name]
    target = tmp_path / "docker_opts.env"
    subprocess.run(
        [SCRIPT, "-f", GOLDEN / "subnet.env", "-d", target, *options],
        env={**os.environ, "PATH": f"{flannelctl.parent}:{os.environ['PATH']}", **environment},
        check=True,
    )
    assert target.read_bytes() == (GOLDEN / f"{name}.env").read_bytes()


def test_our_mk_docker_opts_passes_the_exit_status_on(tmp_path: Path, flannelctl: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", SCRIPT, "-q"], env={**os.environ, "FLANNELCTL": str(flannelctl)}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "Usage:" in done.stderr


def test_our_mk_docker_opts_without_flannelctl_says_where_it_looked() -> None:
    done = subprocess.run(["/bin/sh", SCRIPT], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "FLANNELCTL=PATH" in done.stderr
