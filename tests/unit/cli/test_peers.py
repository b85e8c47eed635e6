from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from pyflannel.cli.peers import peers
from tests.support.served import told
from tests.support.status import PEER, document

LOST = replace(PEER, subnet="10.2.9.0/24", state="unreachable", reason="no answer for 20 s")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "flanneld.sock"


def test_every_peer_has_a_row_and_all_reached_ends_with_0(path: Path) -> None:
    with told(path, document(peers=[PEER, replace(PEER, subnet="10.2.9.0/24", state="unknown")])):
        result = CliRunner().invoke(peers, ["--socket", str(path)])
    assert result.exit_code == 0, result.output
    header, first, second = result.output.splitlines()
    assert header.split() == ["SUBNET", "HOST", "STATE", "RTT", "LOSS", "MTU", "CHANGED", "REASON"]
    assert first.startswith("10.2.9.0/24")
    assert second.startswith("10.2.41.0/24")


def test_a_peer_that_is_not_reached_says_why_and_ends_with_1(path: Path) -> None:
    with told(path, document(peers=[LOST])):
        result = CliRunner().invoke(peers, ["--socket", str(path)])
    assert result.exit_code == 1
    assert result.output.splitlines()[1].endswith("no answer for 20 s")


def test_programs_get_a_list(path: Path) -> None:
    with told(path, document(peers=[PEER, LOST])):
        result = CliRunner().invoke(peers, ["--json", "--socket", str(path)])
    assert [peer["reason"] for peer in json.loads(result.output)] == ["", "no answer for 20 s"]
