"""Where the settings of this host's agent come from."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from pyflannel.cli.agent_settings import agent_settings


@pytest.fixture
def defaults(tmp_path: Path) -> Path:
    path = tmp_path / "flanneld"
    path.write_text('# of this host\nFLANNELD_IFACE="ens33"\nFLANNELD_ETCD_PREFIX=/file\nFLANNELD_IP_MASQ=true\n')
    return path


def test_a_flag_beats_the_environment_and_that_beats_the_file(defaults: Path) -> None:
    environ = {"FLANNELD_ETCD_PREFIX": "/environment", "FLANNELD_IFACE": "ens34"}
    settings = agent_settings(["-iface=ens35"], defaults=defaults, environ=environ)
    assert (settings.iface, settings.etcd_prefix, settings.ip_masq) == (("ens35",), "/environment", True)


def test_without_the_file_there_is_the_rest(tmp_path: Path, defaults: Path) -> None:
    assert not agent_settings([], defaults=None, environ={}).ip_masq
    assert not agent_settings([], defaults=tmp_path / "none", environ={}).ip_masq


def test_a_file_that_cannot_be_read_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match="--no-defaults goes on without"):
        agent_settings([], defaults=tmp_path, environ={})


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-nope"], "flag provided but not defined: -nope"),
        (["-help"], "flanneld -help lists the options of flanneld"),
        (["-public-ip=x"], "-public-ip=x: expected an IPv4 address"),
    ],
)
def test_what_flanneld_would_refuse_is_refused_here(flags: list[str], message: str) -> None:
    with pytest.raises(click.ClickException, match=message):
        agent_settings(flags, defaults=None, environ={})


def test_what_flanneld_would_warn_of_is_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    agent_settings(["-networks=blue"], defaults=None, environ={"FLANNELD_NOPE": "1"})
    said = capsys.readouterr()
    assert said.out == ""
    assert "warning: FLANNELD_NOPE is ignored" in said.err
    assert "warning: -networks is ignored" in said.err
