"""What ``flannelctl lab`` makes of its command line.  What it does then is tested in tests/netns/test_lab.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from pyflannel.cli.lab import lab

ABSENT = "no-such-lab-of-the-tests"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["up", "--hosts", "0"], "0 is not in the range"),
        (["up", "--containers", "many"], "'many' is not a valid integer"),
        (["up", "--name", "../x"], "lab name '../x'"),
        (["up", "--network", "10.2.0.1/16"], "10.2.0.1/16 has host bits set"),
        (["up", "--network", "172.16.41.0/24"], "where the lab's hosts are"),
        (["up", "--backend", "pigeon"], "Backend.Type 'pigeon' is not one we have"),
        (["up", "--config", "/no/such/file"], "/no/such/file"),
        (["up", "--config", "/dev/null"], "the network configuration is not a JSON object"),
        (["exec", "host1"], "Missing argument 'COMMAND...'"),
        (["shell"], "Missing argument 'WHERE'"),
        (["fly"], "No such command 'fly'"),
    ],
)
def test_wrong_question_ends_with_status_2_and_the_reason(arguments: list[str], complaint: str) -> None:
    result = CliRunner().invoke(lab, arguments)
    assert result.exit_code == 2
    assert complaint in result.output


@pytest.mark.parametrize("option", ["--backend=vxlan", "--network=10.2.0.0/16"])
def test_configuration_is_given_in_one_way_only(tmp_path: Path, option: str) -> None:
    file = tmp_path / "config.json"
    file.write_text("{}")
    result = CliRunner().invoke(lab, ["up", f"--config={file}", option])
    assert result.exit_code == 2
    assert "give one or the other" in result.output


@pytest.mark.parametrize(
    "arguments", [["status"], ["ping"], ["routes", "host1"], ["exec", "host1", "--", "true"], ["shell", "host1"]]
)
def test_lab_that_is_not_there_ends_with_status_1(arguments: list[str]) -> None:
    result = CliRunner().invoke(lab, [arguments[0], "--name", ABSENT, *arguments[1:]])
    assert result.exit_code == 1
    assert f"there is no lab '{ABSENT}'" in result.output


def test_taking_down_what_is_not_there_is_done() -> None:
    result = CliRunner().invoke(lab, ["down", "--name", ABSENT])
    assert result.exit_code == 0
    assert f"there is no lab '{ABSENT}'" in result.output


def test_help_names_what_one_can_do() -> None:
    output = CliRunner().invoke(lab, ["--help"]).output
    for command in ("up", "status", "ping", "routes", "exec", "shell", "down", "demo"):
        assert f"\n  {command} " in output
