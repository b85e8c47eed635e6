"""A plan as people and programs read it."""

from __future__ import annotations

import asyncio
import json
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflannel.cli.plan_view import (
    CHANGES,
    FAILED,
    IDLE,
    NOTHING,
    document,
    dry_run,
    lines,
    restoration,
    status,
)
from pyflannel.cli.words import UNSUPPORTED, plain
from pyflannel.diff import Cut
from pyflannel.firewall.iptables import Fault
from pyflannel.footing import Configured
from pyflannel.plan import FileChange, LeasePlan, Survey
from pyflannel.settings import Settings
from pyflannel.state import Route
from pyflannel.store.local import LocalStore
from tests.support.builders import backend, config, subnet, underlay

FAULT = Fault("filter", "FORWARD does not lead to FLANNEL-FWD", ("-I FORWARD 1 -j FLANNEL-FWD",))
STALE = Route(IPv4Network("10.2.99.0/24"), "flannel.1")
PLACE = Configured("/net/config in a store", "{}", config(), backend())
QUIET = Survey(PLACE, underlay(), LeasePlan(subnet("10.2.71.0/24")))
BUSY = Survey(
    PLACE,
    underlay(),
    LeasePlan(subnet("10.2.71.0/24"), "take 10.2.71.0/24 by lot", example=True),
    ops=(Cut(STALE),),
    firewall={4: (FAULT,)},
    files=(FileChange("/run/flannel/subnet.env", "FLANNEL_MTU=1400\n", "FLANNEL_MTU=1450\n"),),
    ignored=(("10.2.8.0/24", "says \x1b[2J"),),
    warnings=("mind the gap",),
)


def test_a_host_as_it_should_be_has_nothing_but_context() -> None:
    assert list(lines(QUIET)) == [
        "# network 10.2.0.0/16 by vxlan, as /net/config in a store has it",
        "# this host: 172.16.41.131 on ens33, chosen because: test",
        "# subnet: 10.2.71.0/24",
        IDLE,
    ]
    assert status(QUIET) == NOTHING


def test_changes_read_as_commands_with_context_as_comments() -> None:
    assert list(lines(BUSY))[2:] == [
        "# subnet: 10.2.71.0/24, for example: a start draws lots",
        r"# ignored: lease 10.2.8.0/24: says \x1b[2J",
        "# warning: mind the gap",
        "# in the store",
        "lease: take 10.2.71.0/24 by lot",
        "# in the kernel",
        "ip route del 10.2.99.0/24 dev flannel.1",
        "# in the firewall for IPv4",
        "# FORWARD does not lead to FLANNEL-FWD",
        "iptables-restore --noflush <<'END'",
        "*filter",
        "-I FORWARD 1 -j FLANNEL-FWD",
        "COMMIT",
        "END",
        "# in files",
        "--- /run/flannel/subnet.env",
        "+++ /run/flannel/subnet.env",
        "@@ -1 +1 @@",
        "-FLANNEL_MTU=1400",
        "+FLANNEL_MTU=1450",
    ]
    assert status(BUSY) == CHANGES


def test_rules_of_ipv6_are_for_its_own_program() -> None:
    assert list(restoration(6, [FAULT]))[1] == "ip6tables-restore --noflush <<'END'"


def test_a_program_gets_all_of_it() -> None:
    assert json.loads(json.dumps(document(BUSY))) == {
        "changes": True,
        "network": {"record": "/net/config in a store", "ranges": ["10.2.0.0/16"], "backend": "vxlan"},
        "underlay": {"name": "ens33", "addresses": ["172.16.41.131"], "mtu": 1500, "why": "test"},
        "lease": {"subnet": "10.2.71.0/24", "write": "take 10.2.71.0/24 by lot", "example": True},
        "kernel": ["ip route del 10.2.99.0/24 dev flannel.1"],
        "firewall": [{"family": 4, "table": "filter", "fault": FAULT.text, "mend": list(FAULT.mend)}],
        "files": [{"path": "/run/flannel/subnet.env", "old": "FLANNEL_MTU=1400\n", "new": "FLANNEL_MTU=1450\n"}],
        "ignored": [{"lease": "10.2.8.0/24", "reason": "says \x1b[2J"}],
        "warnings": ["mind the gap"],
    }


@given(st.text())
def test_no_foreign_text_reaches_a_terminal_as_anything_but_text(text: str) -> None:
    assert plain(text).isprintable()


def test_a_dry_run_that_cannot_be_told_prints_no_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert dry_run(Settings(kube_subnet_mgr=True)) == FAILED
    assert capsys.readouterr().out == ""


@pytest.mark.needs("root")
def test_a_dry_run_for_a_backend_that_is_not_supported_says_so_by_its_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(store=f"local:{tmp_path}/store.db")

    async def configure() -> None:
        store = LocalStore(tmp_path / "store.db", settings.etcd_prefix)
        await store.write_config('{"Network":"10.2.0.0/16","Backend":{"Type":"gce"}}')
        await store.close()

    asyncio.run(configure())
    assert dry_run(settings) == UNSUPPORTED
    assert capsys.readouterr().out == ""
