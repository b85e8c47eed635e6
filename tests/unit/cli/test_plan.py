"""``flannelctl plan`` where there is nothing to plan; plans are made in tests/netns/test_plan.py."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from click.testing import CliRunner

from pyflannel.cli.plan import plan
from pyflannel.settings import Settings
from pyflannel.store.local import LocalStore


@pytest.mark.parametrize(
    "arguments",
    [["--nope"], ["--", "-nope"], ["--", "-public-ip=x"], ["--", "-help"]],
    ids=["option", "flag", "value", "help"],
)
def test_a_wrong_question_is_no_change(arguments: list[str]) -> None:
    result = CliRunner().invoke(plan, ["--no-defaults", *arguments])
    assert (result.exit_code, result.stdout) == (1, "")


async def configure(file: Path, text: str) -> None:
    store = LocalStore(file, Settings().etcd_prefix)
    await store.write_config(text)
    await store.close()


@pytest.mark.needs("root")
def test_a_backend_that_is_not_supported_has_a_status_of_its_own(tmp_path: Path) -> None:
    asyncio.run(configure(tmp_path / "store.db", '{"Network":"10.2.0.0/16","Backend":{"Type":"ipsec"}}'))
    result = CliRunner().invoke(plan, ["--no-defaults", "--", f"-store=local:{tmp_path}/store.db"])
    assert (result.exit_code, result.stdout) == (3, "")
    assert 'Backend.Type "ipsec" is not supported' in result.stderr
    assert "take wireguard" in result.stderr


def test_what_cannot_be_told_is_no_change_and_leaves_no_trace(tmp_path: Path) -> None:
    result = CliRunner().invoke(plan, ["--no-defaults", "--json", "--", f"-store=local:{tmp_path}/store.db"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert not list(tmp_path.iterdir())
