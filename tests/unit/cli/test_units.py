from __future__ import annotations

import pytest

from pyflannel.cli.units import (
    DIRECT_ACCESS,
    DOCKERD,
    Version,
    conflicts,
    direct_access,
    docker_drop_in,
    docker_version,
    exec_start,
    flanneld_service,
)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Docker version 28.2.2, build e6534b4\n", (28, 2, 2)),
        ("Docker version 20.10.24+dfsg1, build 5d6db84", (20, 10, 24)),
        ("29.0", (29, 0, 0)),
        ("Docker version dev, build HEAD", None),
        ("", None),
    ],
)
def test_the_version_is_read_from_what_dockerd_prints(text: str, version: Version | None) -> None:
    assert docker_version(text) == version


@pytest.mark.parametrize(
    ("version", "settings", "environment"),
    [
        ((20, 10, 24), (), ()),
        ((27, 5, 1), (), ()),
        ((28, 0, 1), (), ()),
        ((28, 0, 2), (), ("DOCKER_INSECURE_NO_IPTABLES_RAW=1",)),
        ((28, 1, 1), (), ("DOCKER_INSECURE_NO_IPTABLES_RAW=1",)),
        ((28, 2, 0), ("allow-direct-routing",), ()),
        ((29, 4, 0), ("allow-direct-routing",), ()),
    ],
)
def test_each_docker_is_told_in_its_own_way_to_let_the_overlay_in(
    version: Version, settings: tuple[str, ...], environment: tuple[str, ...]
) -> None:
    row = direct_access(version)
    assert (row.settings, row.environment) == (settings, environment)


def test_a_person_hears_of_every_docker_that_needs_something() -> None:
    assert [bool(row.note) for row in DIRECT_ACCESS] == [row.since >= (28, 0, 0) for row in DIRECT_ACCESS]


def last_line(text: str) -> str:
    return text.splitlines()[-1]


def test_options_docker_was_started_with_are_kept() -> None:
    command = "/usr/sbin/dockerd -H fd:// --log-level=warn $DOCKER_OPTS"
    assert last_line(docker_drop_in(command)) == f"ExecStart={command} --bip=${{FLANNEL_SUBNET}} --mtu=${{FLANNEL_MTU}}"


@pytest.mark.parametrize("given", ["--bip=192.0.2.1/24 --mtu 1400", "--mtu=1400 --bip 192.0.2.1/24"])
def test_an_address_and_mtu_given_before_give_way(given: str) -> None:
    assert docker_drop_in(f"dockerd {given} -D") == docker_drop_in("dockerd -D")


@pytest.mark.parametrize("given", ["--ip-masq", "--ip-masq=true", "--ip-masq=false"])
def test_a_switch_we_set_gives_way_and_one_we_do_not_set_stays(given: str) -> None:
    ours = docker_drop_in(f"dockerd {given} -D", {"ip-masq": False})
    assert last_line(ours) == "ExecStart=dockerd -D --bip=${FLANNEL_SUBNET} --mtu=${FLANNEL_MTU} --ip-masq=false"
    assert f" {given} " in docker_drop_in(f"dockerd {given} -D")


def test_a_longer_option_is_not_mistaken_for_ours() -> None:
    command = "dockerd --network-control-plane-mtu=1400 --mtu-probe=1"
    assert command in docker_drop_in(command)


def test_the_old_command_is_reset_before_the_new_one() -> None:
    lines = docker_drop_in(DOCKERD, environment=["A=1"]).splitlines()
    assert lines[-3:-1] == ["Environment=A=1", "ExecStart="]


def test_another_subnet_file_is_told_to_both_sides() -> None:
    assert "\nEnvironmentFile=/run/other.env\n" in docker_drop_in(subnet_file="/run/other.env")
    assert "\nEnvironment=FLANNELD_SUBNET_FILE=/run/other.env\n" in flanneld_service(subnet_file="/run/other.env")
    assert "SUBNET_FILE" not in flanneld_service()


UNIT = """\
[Unit]
ExecStart=/not/here
[Service]
# ExecStart=/not/this
ExecStart=/usr/bin/dockerd \\
    -H fd://
"""


@pytest.mark.parametrize(
    ("drop_ins", "command"),
    [
        ([], "/usr/bin/dockerd  -H fd://"),
        (["[Service]\nRestartSec=5"], "/usr/bin/dockerd  -H fd://"),
        (["[Service]\nExecStart=\nExecStart = /opt/dockerd -D "], "/opt/dockerd -D"),
        (["[Service]\nExecStart="], None),
    ],
)
def test_the_command_that_holds_is_found_as_systemd_finds_it(drop_ins: list[str], command: str | None) -> None:
    assert exec_start([UNIT, *drop_ins]) == command


def test_no_unit_no_command() -> None:
    assert exec_start([]) is None


def test_what_docker_would_not_start_with_is_named() -> None:
    assert conflicts({"mtu": 1400, "bip": "", "log-level": "warn", "ip-masq": True}) == ("bip", "mtu")
    assert conflicts({"ip-masq": True, "bridge": "br0"}, ["ip-masq"]) == ("bridge", "ip-masq")
