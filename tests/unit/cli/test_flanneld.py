"""What a person sees of ``flanneld`` before there is an agent; none of these runs gets as far as starting one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyflannel
from pyflannel.cli import flanneld
from pyflannel.cli.goflags import parse
from pyflannel.settings import Source, config_line, resolve

GOLDEN = Path(__file__).parents[2] / "golden" / "flanneld-help.txt"
HINT = "flanneld -help lists the options"


def run(*arguments: str, module: str = "pyflannel.cli.flanneld", **environ: str) -> subprocess.CompletedProcess[str]:
    """A process of its own with nothing in its environment but ``environ``."""
    path = os.pathsep.join([str(Path(pyflannel.__file__).parents[1]), *sys.path])
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={"PYTHONPATH": path, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_help_is_what_the_golden_file_says() -> None:
    """After a wanted change: ``python -m pyflannel.cli.flanneld -help 2> tests/golden/flanneld-help.txt``."""
    assert flanneld.usage() == GOLDEN.read_text()


@pytest.mark.parametrize("argument", ["-h", "-help", "--help"])
def test_help_goes_to_stderr_and_is_no_failure(argument: str) -> None:
    done = run(argument)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", flanneld.usage())


@pytest.mark.parametrize("module", ["pyflannel", "pyflannel.cli.flanneld"])
def test_the_version_alone_goes_to_stderr(module: str) -> None:
    done = run("-version", module=module)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"v{pyflannel.__version__}\n")


def test_an_error_before_or_after_version_comes_first() -> None:
    assert run("-version", "-nope").returncode == 2


def test_help_and_version_load_neither_asyncio_nor_logging_nor_argparse() -> None:
    script = (
        "import sys; from pyflannel.cli.flanneld import main; main(['-version']); main(['-h']); print(*sys.modules)"
    )
    path = os.pathsep.join([str(Path(pyflannel.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], env={"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert not {"asyncio", "logging", "argparse", "socket", "json"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-nope"], "flag provided but not defined: -nope"),
        (["-etcd-endpoint-s=x"], "flag provided but not defined: -etcd-endpoint-s; did you mean -etcd-endpoints?"),
        (["-v=x"], 'invalid value "x" for flag -v: parse error: expected a whole number'),
        (["-ip-masq=x"], 'invalid boolean value "x" for -ip-masq: parse error: expected true or false'),
        (["-iface"], "flag needs an argument: -iface"),
    ],
)
def test_a_usage_error_names_the_flag_points_to_help_and_exits_2(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"flanneld: {message}\n{HINT}\n")


@pytest.mark.parametrize(
    ("arguments", "environ", "status"),
    [
        (["-compat-exit-codes", "-nope"], {}, 0),
        (["-nope", "--compat-exit-codes"], {}, 0),
        (["-nope", "-compat-exit-codes=true"], {}, 0),
        (["-nope"], {"FLANNELD_COMPAT_EXIT_CODES": "true"}, 0),
        (["-nope", "-compat-exit-codes=false"], {"FLANNELD_COMPAT_EXIT_CODES": "true"}, 2),
        (["-nope", "-compat-exit-codes=maybe"], {}, 2),
        (["-nope"], {"FLANNELD_COMPAT_EXIT_CODES": "maybe"}, 2),
        (["-subnet-lease-renew-margin=0"], {}, 2),
        (["-subnet-lease-renew-margin=0", "-compat-exit-codes"], {}, 1),
        (["-subnet-lease-renew-margin=0"], {"FLANNELD_COMPAT_EXIT_CODES": "true"}, 1),
        (["-nope", "-dry-run"], {}, 1),
        (["-subnet-lease-renew-margin=0", "-dry-run"], {}, 1),
    ],
)
def test_exit_status_of_what_is_wrong(arguments: list[str], environ: dict[str, str], status: int) -> None:
    assert run(*arguments, **environ).returncode == status


def test_all_wrong_settings_are_logged_before_giving_up() -> None:
    done = run("-public-ip=1.2.3", "-networks=blue", FLANNELD_HEALTHZ_PORT="-1", FLANNELD_V="much")
    assert (done.returncode, done.stdout) == (2, "")
    lines = [(line[0], line.partition("] ")[2]) for line in done.stderr.splitlines()]
    assert lines[0] == ("W", "FLANNELD_V=much is ignored: parse error: expected a whole number")
    assert lines[1][1].startswith("-networks is ignored: ")
    assert lines[2:] == [
        ("E", "FLANNELD_HEALTHZ_PORT=-1: expected a number from 0 to 65535"),
        ("E", "-public-ip=1.2.3: expected an IPv4 address such as 192.0.2.7"),
        ("E", HINT),
    ]


def test_problems_are_told_in_the_wanted_log_format() -> None:
    lines = run("-public-ip=1.2.3", "-log-format=json").stderr.splitlines()
    assert all(line.startswith("{") and line.endswith("}") for line in lines)


def test_secrets_are_in_no_output_of_a_failed_start() -> None:
    done = run(
        *(
            "-etcd-endpoints=http://user:hunter2@a,ftp://user:hunter3@b",
            "-public-ip=x",
            "-kube-api-url=http://hunter4@c",
        ),
        FLANNELD_ETCD_PASSWORD="hunter5",
    )
    assert done.returncode == 2
    assert "hunter" not in done.stderr


def test_a_dry_run_that_cannot_be_told_says_why_on_stderr_alone() -> None:
    done = run("-dry-run", "-kube-subnet-mgr")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1][0] == "F"


def test_variables_are_read_by_the_kind_of_their_flag() -> None:
    values, warnings = flanneld.from_environment(
        {"FLANNELD_IP_MASQ": "T", "FLANNELD_V": "0x5", "FLANNELD_IFACE": "eth0,eth1", "PATH": "/bin"}
    )
    assert values == {"ip-masq": True, "v": 5, "iface": "eth0,eth1"}
    assert warnings == []


def test_an_empty_variable_counts_as_unset() -> None:
    assert flanneld.from_environment({"FLANNELD_V": "", "FLANNELD_NOPE": ""}) == ({}, [])


def test_a_variable_that_cannot_be_read_leaves_the_default_with_a_warning() -> None:
    values, warnings = flanneld.from_environment({"FLANNELD_IP_MASQ": "yes", "FLANNELD_IPTABLES_RESYNC": "5s"})
    assert values == {}
    assert warnings == [
        "FLANNELD_IPTABLES_RESYNC=5s is ignored: parse error: expected a whole number",
        "FLANNELD_IP_MASQ=yes is ignored: parse error: expected true or false",
    ]


@pytest.mark.parametrize("name", ["FLANNELD_VERSION", "FLANNELD_ETCD_ENDPOINTZ"])
def test_a_variable_without_meaning_is_worth_a_warning(name: str) -> None:
    assert flanneld.from_environment({name: "true"}) == ({}, [f"{name} is ignored: there is no such option"])


def test_a_command_line_of_2017_gives_the_settings_it_meant() -> None:
    arguments = "-etcd-endpoints=http://172.16.41.130:2379 -iface=ens33 -etcd-prefix=/docker/network -alsologtostderr"
    parsed = parse(arguments.split(), flanneld.KINDS)
    settings = resolve(parsed.values, {}).settings
    assert settings.etcd_endpoints == ("http://172.16.41.130:2379",)
    assert settings.iface == ("ens33",)
    assert settings.etcd_prefix == "/docker/network"
    assert settings.source("iface") is Source.FLAG


@given(st.text(min_size=1).filter(lambda text: len(text) > 3))
def test_any_password_on_the_command_line_is_read_whole_and_described_never(password: str) -> None:
    quiet = config_line(resolve(parse(["-etcd-password", "x"], flanneld.KINDS).values, {}).settings)
    settings = resolve(parse(["-etcd-password", password], flanneld.KINDS).values, {}).settings
    assert settings.etcd_password == password
    assert config_line(settings) == quiet
