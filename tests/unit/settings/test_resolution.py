from __future__ import annotations

import pytest

from pyflannel.settings import OPTIONS, RETIRED, Source, Value, environment_name, resolve, secrets
from pyflannel.settings.options import Settings


def test_nothing_given_means_defaults() -> None:
    resolved = resolve({}, {})
    assert resolved.settings == Settings()
    assert resolved.problems == ()
    assert resolved.warnings == ()


def test_the_command_line_beats_the_environment() -> None:
    settings = resolve({"v": [1]}, {"v": 2, "etcd-prefix": "/net"}).settings
    assert (settings.v, settings.source("v")) == (1, Source.FLAG)
    assert (settings.etcd_prefix, settings.source("etcd-prefix")) == ("/net", Source.ENVIRONMENT)


def test_a_list_from_the_environment_has_one_element() -> None:
    assert resolve({}, {"iface": "eth0,eth1"}).settings.iface == ("eth0,eth1",)


def test_all_problems_are_told_at_once_each_with_flag_value_and_expectation() -> None:
    resolved = resolve(
        {"subnet-lease-renew-margin": [1440], "public-ip": ["::1"], "etcd-api": ["4"], "v": [3]},
        {"healthz-port": 65536},
    )
    assert resolved.problems == (
        "-etcd-api=4: expected one of auto, 2, 3",
        "FLANNELD_HEALTHZ_PORT=65536: expected a number from 0 to 65535",
        "-public-ip=::1: expected an IPv4 address such as 192.0.2.7",
        "-subnet-lease-renew-margin=1440: expected a number from 1 to 1439",
    )


def test_an_option_with_a_problem_has_its_default_and_the_others_stand() -> None:
    settings = resolve({"log-format": ["xml"], "v": [3]}, {}).settings
    assert (settings.log_format, settings.source("log-format")) == ("text", Source.DEFAULT)
    assert settings.v == 3


def test_a_problem_shows_no_credentials() -> None:
    (problem,) = resolve({"etcd-endpoints": ["http://user:hunter2@a,ftp://b"]}, {}).problems
    assert problem.startswith("-etcd-endpoints=http://***@a,ftp://b: expected URLs")


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ({"etcd-keyfile": ["k"]}, ["-etcd-keyfile", "-etcd-certfile"]),
        ({"etcd-certfile": ["c"]}, ["-etcd-keyfile", "-etcd-certfile"]),
        ({"store": ["local:/s"], "etcd-endpoints": ["http://a"]}, ["-etcd-endpoints", "-store=local:/s"]),
        ({"store": ["local:/s"], "etcd-api": ["3"]}, ["-etcd-api", "-store=local:/s"]),
        ({"store": ["local:/s"], "kube-subnet-mgr": [True]}, ["-kube-subnet-mgr", "-store=local:/s"]),
    ],
)
def test_options_that_exclude_or_need_each_other_are_a_problem(flags: dict[str, list[Value]], parts: list[str]) -> None:
    (problem,) = resolve(flags, {}).problems
    assert all(part in problem for part in (*parts, "expected"))


def test_a_certificate_with_its_key_is_no_problem() -> None:
    assert resolve({"etcd-keyfile": ["k"], "etcd-certfile": ["c"]}, {}).problems == ()


@pytest.mark.parametrize(
    ("flags", "warning"),
    [
        ({"etcd-password": ["x"]}, "-etcd-password has no effect without -etcd-username"),
        (
            {"kube-subnet-mgr": [True], "etcd-endpoints": ["http://a"]},
            "-etcd-endpoints has no effect with -kube-subnet-mgr",
        ),
    ],
)
def test_an_option_without_effect_is_worth_a_warning(flags: dict[str, list[Value]], warning: str) -> None:
    assert resolve(flags, {}).warnings == (warning,)


@pytest.mark.parametrize("flag", RETIRED)
def test_a_retired_flag_is_accepted_with_advice(flag: str) -> None:
    value: Value = True if RETIRED[flag].kind is bool else "x"
    advice = f"is ignored: {RETIRED[flag].advice}"
    assert resolve({flag: [value]}, {}).warnings == (f"-{flag} {advice}",)
    assert resolve({}, {flag: value}).warnings == (f"{environment_name(flag)} {advice}",)
    assert resolve({flag: [value]}, {}).settings == Settings()


def test_environment_names_follow_gos_rule() -> None:
    assert environment_name("etcd-endpoints") == "FLANNELD_ETCD_ENDPOINTS"
    assert environment_name("log_backtrace_at") == "FLANNELD_LOG_BACKTRACE_AT"
    assert len({environment_name(flag) for flag in (*OPTIONS, *RETIRED)}) == len(OPTIONS) + len(RETIRED)


def test_secrets_are_the_password_and_what_urls_carry() -> None:
    settings = Settings(
        etcd_password="hunter2", etcd_endpoints=("http://user:swordfish@a", "http://b"), kube_api_url="https://token@c"
    )
    assert secrets(settings) == {"hunter2", "user:swordfish", "swordfish", "token"}


def test_settings_without_secrets_have_none() -> None:
    assert secrets(Settings()) == frozenset()
