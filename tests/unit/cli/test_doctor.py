"""How findings are shown, and how the command ends."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from pyflannel.cli.doctor import doctor, document, mend, notes, show
from pyflannel.doctor import procfs
from pyflannel.doctor.checks import examine
from pyflannel.doctor.facts import Agent, Facts, SubnetFile
from pyflannel.doctor.findings import Argv
from pyflannel.telemetry.document import ConditionPart
from tests.support.healthy_host import HEALTHY, STATUS

BROKEN = replace(HEALTHY, sysctls={**HEALTHY.sysctls, "net/ipv4/ip_forward": "0"})


@pytest.mark.parametrize(
    "arguments",
    [["--nope"], ["--", "-nope"], ["--", "-public-ip=x"], ["--", "-help"], ["--json", "--fix"]],
    ids=["option", "flag", "value", "help", "nobody to ask"],
)
def test_a_wrong_question_ends_with_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(doctor, ["--no-defaults", *arguments])
    assert (result.exit_code, result.stdout) == (2, "")


def test_a_machine_without_an_agent_is_told_so_and_ends_with_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whatever runs here, and be it another test's agent.
    monkeypatch.setattr(procfs, "processes", lambda: ())
    flags = [f"-store=local:{tmp_path}/s.db", f"-subnet-file={tmp_path}/subnet.env", f"-state-dir={tmp_path}"]
    result = CliRunner().invoke(doctor, ["--no-defaults", "--json", "--", *flags])
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert told["findings"] == []
    assert any("no agent runs here" in note or "as root" in note for note in told["notes"])


def shown(facts: Facts, capsys: pytest.CaptureFixture[str], offer: bool = True) -> str:
    show(facts, examine(facts), offer)
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("fix", "done", "said"),
    [
        ((("true",), ("sh", "-c", "exit 0")), True, ""),
        ((("sh", "-c", "echo no such thing >&2; exit 3"), ("touch", "{tmp}/later")), False, "no such thing"),
        ((("false",),), False, "false: exit status 1"),
        ((("pyflannel-no-such-program",),), False, "No such file or directory"),
    ],
    ids=["done", "failed", "silent failure", "no such program"],
)
def test_the_first_command_that_fails_ends_a_repair(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fix: tuple[Argv, ...], done: bool, said: str
) -> None:
    commands = tuple(tuple(word.replace("{tmp}", str(tmp_path)) for word in argv) for argv in fix)
    (finding,) = examine(BROKEN)
    assert mend(finding, commands, yes=True, quiet=True) is done
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_nothing_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(HEALTHY, capsys) == "nothing found\n"


def test_a_finding_says_what_is_seen_what_it_means_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(BROKEN, capsys)
    assert text.startswith(
        "error forwarding-off: this host forwards no packets, and containers are other hosts to it\n"
    )
    assert "\n  seen   net.ipv4.ip_forward is 0\n" in text
    assert "\n  means  Packets between containers of two hosts" in text
    assert "\n  do     Set it, and for good" in text
    assert "\n  fix    sysctl -w net.ipv4.ip_forward=1\n" in text
    assert text.endswith("1 found; `flannelctl doctor --fix` puts 1 of it right, after asking\n")
    assert shown(BROKEN, capsys, offer=False).endswith("\n1 found\n")


def test_what_others_wrote_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    condition = ConditionPart("record-ignored", "warning", "", "a lease says \x1b[2J", "It does.", "Look.")
    agent = replace(HEALTHY.agent or Agent(""), status=replace(STATUS, conditions=(condition,)))
    assert "\x1b" not in shown(replace(HEALTHY, agent=agent), capsys)


def test_programs_get_the_same_as_json() -> None:
    told = document(BROKEN, examine(BROKEN))
    (entry,) = json.loads(json.dumps(told))["findings"]
    assert entry["code"] == "forwarding-off"
    assert entry["severity"] == "error"
    assert entry["fix"] == [["sysctl", "-w", "net.ipv4.ip_forward=1"]]
    assert set(entry) == {"code", "severity", "finding", "evidence", "means", "remedy", "fix"}


def test_notes_say_what_is_missing_where_no_agent_runs() -> None:
    agent = Agent("/run/flannel/flanneld.sock", None, "nobody listens", False, ())
    facts = Facts(agent, subnet_file=SubnetFile("/run/flannel/subnet.env", there=False), unseen=("the moon",))
    assert list(notes(facts)) == [
        "no agent runs here: nobody answers at /run/flannel/flanneld.sock, there is no process flanneld, "
        "no /run/flannel/subnet.env",
        "not looked at: the moon",
    ]


def test_an_agent_that_cannot_be_asked_and_a_mere_notice_are_notes() -> None:
    agent = Agent("/run/flannel/flanneld.sock", None, "nobody listens", False, ("flanneld (process 7)",))
    assert list(notes(Facts(agent))) == [
        "flanneld (process 7) runs here and does not say how it is: nobody listens",
    ]
    condition = ConditionPart("peer-silent", "notice", "10.2.9.0/24", "10.2.9.0/24 has never answered")
    told = replace(agent, status=replace(STATUS, conditions=(condition,)))
    assert list(notes(Facts(told))) == ["peer-silent: 10.2.9.0/24 has never answered"]
