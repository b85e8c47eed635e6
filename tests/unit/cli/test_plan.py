"""``flannelctl plan`` where there is nothing to plan; plans are made in tests/netns/test_plan.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from pyflannel.cli.plan import plan


@pytest.mark.parametrize(
    "arguments",
    [["--nope"], ["--", "-nope"], ["--", "-public-ip=x"], ["--", "-help"]],
    ids=["option", "flag", "value", "help"],
)
def test_a_wrong_question_is_no_change(arguments: list[str]) -> None:
    result = CliRunner().invoke(plan, ["--no-defaults", *arguments])
    assert (result.exit_code, result.stdout) == (1, "")


def test_what_cannot_be_told_is_no_change_and_leaves_no_trace(tmp_path: Path) -> None:
    result = CliRunner().invoke(plan, ["--no-defaults", "--json", "--", f"-store=local:{tmp_path}/store.db"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert not list(tmp_path.iterdir())
