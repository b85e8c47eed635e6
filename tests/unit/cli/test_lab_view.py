"""How a lab is shown in a pipe, and to programs."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from pyflannel.cli.lab_view import echo_hosts, echo_matrix, echo_summary, ping_document, status_document
from pyflannel.lab import record
from pyflannel.lab.ping import Endpoint, Matrix
from pyflannel.lab.plan import Plan
from pyflannel.lab.record import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = record.create(tmp_path, Plan("green", 1, 2, '{"Network": "10.2.0.0/16"}\n'), user_namespace=True)
    lab.remarks.append("it rains")
    return lab


def matrix(count: int, *lost: tuple[int, int]) -> Matrix:
    ends = tuple(Endpoint(f"c{n}", IPv4Address(f"10.2.0.{n}")) for n in range(1, count + 1))
    pairs = [(a, b) for a in range(1, count + 1) for b in range(1, count + 1) if a != b]
    return Matrix(ends, {(f"c{a}", f"c{b}"): None if (a, b) in lost else 0.126 for a, b in pairs})


def test_matrix_has_senders_as_rows_and_targets_as_columns(capsys: pytest.CaptureFixture[str]) -> None:
    echo_matrix(matrix(2, (1, 2)))
    assert capsys.readouterr().out == (
        "FROM \\ TO  c1    c2\n"
        "c1               lost\n"
        "c2         0.13\n"
        "1 of 2 pings crossed\n"
    )  # fmt: skip


def test_matrix_too_wide_for_a_terminal_shows_only_what_was_lost(capsys: pytest.CaptureFixture[str]) -> None:
    echo_matrix(matrix(13, (3, 7)))
    assert capsys.readouterr().out == "FROM  TO\nc3    c7  lost\n155 of 156 pings crossed\n"


def test_pings_for_programs_have_null_where_no_answer_came() -> None:
    assert ping_document(matrix(2, (1, 2))) == {
        "sent": 2,
        "lost": 1,
        "pings": [{"from": "c1", "to": "c2", "rtt_ms": None}, {"from": "c2", "to": "c1", "rtt_ms": 0.126}],
    }


def test_host_that_is_gone_is_shown_as_down(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    echo_hosts(lab)
    assert capsys.readouterr().out.splitlines()[1].split() == ["host1", "172.16.41.131", "none", "down", "down", "down"]


def test_what_is_not_as_in_a_real_cluster_is_noted_on_standard_error(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    echo_summary(lab)
    shown = capsys.readouterr()
    assert shown.err == "note: it rains\n"
    assert shown.out == (
        "lab 'green': 1 hosts, 2 containers each, on an embedded store, without root\n"
        'network configuration: {"Network": "10.2.0.0/16"}\n'
    )


def test_status_for_programs_says_null_for_what_is_unknown(lab: Lab) -> None:
    document = status_document(lab)
    assert document["name"] == "green"
    assert document["remarks"] == ["it rains"]
    assert document["hosts"] == [
        {
            "name": "host1",
            "address": "172.16.41.131",
            "subnet": None,
            "mtu": None,
            "agent_pid": None,
            "log": str(lab.directory / "host1.log"),
            "containers": [
                {"name": "host1-c1", "address": None, "runs": False},
                {"name": "host1-c2", "address": None, "runs": False},
            ],
        }
    ]
