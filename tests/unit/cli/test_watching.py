from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from pyflannel.cli.watching import show
from tests.support.served import told
from tests.support.status import TROUBLE, document


def test_once_is_enough_unless_asked_to_watch(tmp_path: Path) -> None:
    path = tmp_path / "flanneld.sock"
    with told(path, document()) as asked:
        assert show(path, None, lambda _: True) == 0
        assert show(path, None, lambda _: False) == 1
        assert asked == ["/status"] * 2


def test_no_agent_is_an_error_for_people(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match="no agent runs on this host"):
        show(tmp_path / "flanneld.sock", None, lambda _: True)


def test_watching_goes_on_through_an_agents_absence_until_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "flanneld.sock"
    words = [
        sys.executable,
        "-m",
        "pyflannel.cli.flannelctl",
        "status",
        "--watch",
        "0.1",
        "--json",
        "--socket",
        str(path),
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "no agent runs on this host" in process.stderr.readline()
        with told(path, document(TROUBLE), document()):
            first, second = process.stdout.readline(), process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    assert "store-unreachable" in first
    assert "store-unreachable" not in second
    assert process.returncode in (0, 1)
