"""Which surfaces there are; what they look like is in tests/netns/test_status.py."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from pyflannel.health import Health
from pyflannel.settings import Settings
from pyflannel.telemetry.desk import Desk
from pyflannel.telemetry.surfaces import PAGE_PORT, surfaces

CONTROL = "/run/flannel/flanneld.sock"


def names(settings: Settings) -> list[str]:
    return surfaces(Desk(settings, Health())).names


def test_nothing_listens_to_the_network_unless_it_is_asked_for() -> None:
    assert names(Settings()) == [CONTROL]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (replace(Settings(), healthz_port=8080), "0.0.0.0:8080"),
        (replace(Settings(), healthz_port=80, healthz_ip=IPv4Address("127.0.0.2")), "127.0.0.2:80"),
        (replace(Settings(), status_port=9000), "127.0.0.1:9000"),
        (replace(Settings(), status_port=9000, ui=True), "127.0.0.1:9000"),
        (replace(Settings(), ui=True), f"127.0.0.1:{PAGE_PORT}"),
    ],
)
def test_what_is_asked_for_is_served_where_it_is_asked_for(settings: Settings, expected: str) -> None:
    assert names(settings) == [CONTROL, expected]


def test_several_agents_have_a_control_socket_each() -> None:
    assert names(replace(Settings(), subnet_file="/run/second/subnet.env")) == ["/run/second/flanneld.sock"]


def test_what_only_answers_need_is_not_imported_before_somebody_asks() -> None:
    script = (
        "import sys; from pyflannel import daemon; "
        "sys.exit(any(name in sys.modules for name in ('h11', 'pyflannel.telemetry.http', 'pyflannel.telemetry.views', "
        "'pyflannel.telemetry.document', 'prometheus_client')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
