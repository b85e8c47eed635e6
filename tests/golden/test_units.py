"""The units in contrib are those flannelctl writes, and systemd understands them."""

from __future__ import annotations

import os
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

from pyflannel.cli import units

SYSTEMD = Path(__file__).parents[2] / "contrib" / "systemd"
CASES = {
    "flanneld.service": units.flanneld_service(),
    "docker.service.d/flannel.conf": units.docker_drop_in(f"{units.DOCKERD} $DOCKER_OPTS"),
}

DOCKER_SERVICE = """\
[Unit]
Requires=docker.socket
[Service]
Type=notify
EnvironmentFile=-/etc/default/docker
ExecStart=/bin/true -H fd:// $DOCKER_OPTS
Restart=on-failure
StartLimitBurst=3
StartLimitInterval=60s
"""


def parsed(text: str) -> ConfigParser:
    parser = ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


def test_every_file_in_contrib_has_a_case() -> None:
    assert {str(path.relative_to(SYSTEMD)) for path in SYSTEMD.rglob("*") if path.is_file()} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_contrib_holds_what_flannelctl_writes(name: str) -> None:
    assert (SYSTEMD / name).read_text() == CASES[name]


def test_docker_starts_after_the_agent_and_survives_its_restart() -> None:
    unit = parsed(CASES["docker.service.d/flannel.conf"])["Unit"]
    assert unit["After"] == unit["Wants"] == "flanneld.service"
    assert not {"Requires", "BindsTo", "PartOf", "Requisite"} & set(unit)


def test_the_drop_in_takes_address_and_mtu_from_the_file_the_agent_writes() -> None:
    service = parsed(CASES["docker.service.d/flannel.conf"])["Service"]
    assert service["EnvironmentFile"] == "/run/flannel/subnet.env"
    assert service["ExecStart"].endswith(" $DOCKER_OPTS --bip=${FLANNEL_SUBNET} --mtu=${FLANNEL_MTU}")


def test_the_agent_keeps_subnet_env_over_a_restart_and_tells_when_it_is_ready() -> None:
    service = parsed(CASES["flanneld.service"])["Service"]
    assert service["Type"] == "notify"
    assert service["Restart"] == "on-failure"
    assert (service["RuntimeDirectory"], service["RuntimeDirectoryPreserve"]) == ("flannel", "yes")


def test_the_forwarder_outlives_the_agent() -> None:
    assert parsed(CASES["flanneld.service"])["Service"]["KillMode"] == "process"


@pytest.mark.needs("systemd")
def test_systemd_finds_nothing_to_complain_about(tmp_path: Path) -> None:
    (tmp_path / "flanneld.service").write_text(units.flanneld_service("/bin/true"))
    (tmp_path / "docker.service").write_text(DOCKER_SERVICE)
    (tmp_path / "docker.socket").write_text("[Socket]\nListenStream=/run/docker.sock\n")
    drop_in = tmp_path / "docker.service.d" / "flannel.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(units.docker_drop_in("/bin/true -H fd:// $DOCKER_OPTS", environment=["A=1"]))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / "flanneld.service", tmp_path / "docker.service"],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "flanneld.service" in line]
    assert (complaints, done.returncode) == ([], 0), done.stderr
