"""``flannelctl trace`` where it is asked wrongly or nothing is known; traces are made in tests/netns/test_trace.py."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest
from click.testing import CliRunner

from pyflannel.cli.trace import asked_by_agent, trace
from pyflannel.trace.follow import NoAnswer
from tests.support.crossings import THERE, known


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["10.2.71.2"],
        ["10.2.71.2", "nowhere"],
        ["10.2.71.2", "fd00::1"],
        ["10.2.71.2", "10.2.41.2", "--port", "80"],
        ["10.2.71.2", "10.2.41.2", "--size", "7"],
        ["10.2.71.2", "10.2.41.2", "--protocol", "sctp"],
        ["10.2.71.2", "10.2.41.2", "--", "-nope"],
    ],
)
def test_a_wrong_question_has_a_status_of_its_own(arguments: list[str]) -> None:
    result = CliRunner().invoke(trace, ["--no-defaults", *arguments])
    assert (result.exit_code, result.stdout) == (2, "")


def test_where_no_network_is_known_nothing_can_be_told(tmp_path: Path) -> None:
    where = ["--no-defaults", "10.2.71.2", "10.2.41.2", "--", f"-store=local:{tmp_path}/store.db"]
    result = CliRunner().invoke(trace, where)
    assert (result.exit_code, result.stdout) == (3, "")
    assert "no network configuration" in result.stderr
    assert not list(tmp_path.iterdir())


def test_an_agent_that_is_silent_is_named_with_where_it_was_asked(tmp_path: Path) -> None:
    peer = known().peer(ip_address(THERE))
    assert peer is not None
    with pytest.raises(NoAnswer, match=r"cannot be asked: .*flanneld\.sock"):
        asked_by_agent(tmp_path / "flanneld.sock", peer, b"\1")
