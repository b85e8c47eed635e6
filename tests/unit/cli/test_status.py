from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from pyflannel.cli.status import status
from pyflannel.telemetry.document import Document, read
from tests.support.served import told
from tests.support.status import TROUBLE, document


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "flanneld.sock"


def test_a_host_that_is_well_is_shown_and_ends_with_0(path: Path) -> None:
    with told(path, document()):
        result = CliRunner().invoke(status, ["--socket", str(path)])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("host2: flanneld 0.1.0 is running")
    assert result.output.endswith("\n\nAll is well.\n")


def test_a_trouble_is_shown_last_and_ends_with_1(path: Path) -> None:
    with told(path, document(TROUBLE)):
        result = CliRunner().invoke(status, ["--socket", str(path)])
    assert result.exit_code == 1
    assert result.output.rstrip().endswith("What to do:    Look.")
    assert "All is well" not in result.output


@pytest.mark.parametrize("columns", [60, 100])
def test_what_is_to_be_read_fits_the_terminal(path: Path, columns: int) -> None:
    master, slave = pty.openpty()
    long = replace(TROUBLE, means="It means a lot. " * 20)
    command = [sys.executable, "-m", "pyflannel.cli.flannelctl", "status", f"--socket={path}"]
    with told(path, document(long)):
        environment = os.environ | {"COLUMNS": str(columns), "NO_COLOR": "1"}
        process = subprocess.Popen(command, stdout=slave, env=environment)
        os.close(slave)
        shown = b""
        with suppress(OSError):  # EIO: the other end is closed
            while more := os.read(master, 4096):
                shown += more
        process.wait()
    os.close(master)
    _, _, trouble = shown.decode().partition("ERROR")
    assert "It means a lot." in trouble
    assert max(map(len, trouble.splitlines())) <= columns


def test_programs_get_the_whole_document(path: Path) -> None:
    with told(path, document(TROUBLE)):
        result = CliRunner().invoke(status, ["--json", "--socket", str(path)])
    assert result.exit_code == 1
    assert read(result.output) == document(TROUBLE)
    assert result.output.count("\n") == 1


def test_an_agent_that_waits_for_its_configuration_is_not_well(path: Path) -> None:
    with told(path, Document()):
        assert CliRunner().invoke(status, ["--socket", str(path)]).exit_code == 1


def test_where_no_agent_runs_that_is_all_there_is_to_say(path: Path) -> None:
    result = CliRunner().invoke(status, ["--json", "--socket", str(path)])
    assert result.exit_code == 1
    assert "no agent runs on this host" in result.output
    with pytest.raises(json.JSONDecodeError):
        json.loads(result.output)
