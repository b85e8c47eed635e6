from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pyflannel.cli.flannelctl import cli


def check(text: str) -> Result:
    return CliRunner().invoke(cli, ["config", "check", "-"], input=text)


def told(result: Result) -> dict[str, str]:
    return {line.split()[0]: line.split()[1] for line in result.stdout.splitlines()}


def test_what_follows_from_a_configuration_is_printed() -> None:
    result = check('{"Network":"10.2.0.0/16","SubnetLen":24,"Backend":{"Type":"vxlan"}}')
    assert result.exit_code == 0
    assert told(result) == {
        "Network": "10.2.0.0/16",
        "SubnetLen": "24",
        "SubnetMin": "10.2.1.0",
        "SubnetMax": "10.2.255.0",
        "Subnets": "255",
        "Backend": "vxlan",
    }


def test_both_families_are_told_apart() -> None:
    result = check(
        '{"Network":"10.5.0.0/22","EnableIPv6":true,"IPv6Network":"fc00::/48","EnableNFTables":true,'
        '"Backend":{"Type":"vxlan"}}'
    )
    facts = told(result)
    assert (facts["Subnets"], facts["IPv6Subnets"]) == ("3", "65535")
    assert (facts["IPv6SubnetMin"], facts["IPv6SubnetMax"]) == ("fc00:0:0:1::", "fc00:0:0:ffff::")
    assert "EnableNFTables" in result.stderr


def test_a_configuration_that_means_a_backend_we_do_not_have_fails() -> None:
    result = check('{"Network":"10.2.0.0/16","Backend":{"Type":"carrier-pigeon"}}')
    assert result.exit_code == 1
    assert "'carrier-pigeon'" in result.stderr


def test_a_backend_that_is_not_supported_has_a_status_of_its_own() -> None:
    result = check('{"Network":"10.2.0.0/16","Backend":{"Type":"aws-vpc"}}')
    assert result.exit_code == 3
    assert 'Backend.Type "aws-vpc" is not supported' in result.stderr
    assert "take vxlan" in result.stderr


def test_an_option_of_the_backend_that_means_nothing_is_a_warning() -> None:
    result = check('{"Network":"10.2.0.0/16","Backend":{"Type":"vxlan","Prot":4789}}')
    assert result.exit_code == 0
    assert (
        result.stderr == "warning: Backend.Prot is not a key we know, and has no effect: did you mean Backend.Port?\n"
    )


@pytest.mark.parametrize("text", ["", "{", '{"Network":"10.5.5.0/29"}', '{"Network":"fd00::/48"}'])
def test_a_configuration_no_network_can_be_made_of_fails_with_the_reason(text: str) -> None:
    result = check(text)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: <stdin>: ")
    assert result.stdout == ""


def test_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "network.json"
    file.write_text('{"Network":"10.2.0.0/16","Backend":{"Type":"vxlan"}}')
    done = subprocess.run(
        [sys.executable, "-m", "pyflannel.cli.flannelctl", "config", "check", file],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "SubnetMax      10.2.255.0\n" in done.stdout


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "network.json"
    file.write_bytes(b"\xff\xfe")
    result = CliRunner().invoke(cli, ["config", "check", str(file)])
    assert result.exit_code == 1
    assert f"{file}: " in result.stderr


def test_a_missing_file_is_a_usage_error() -> None:
    assert CliRunner().invoke(cli, ["config", "check", "/nowhere/network.json"]).exit_code == 2
