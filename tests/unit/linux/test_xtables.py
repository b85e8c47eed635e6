"""How the tools are called, and what is made of their answers.  The real ones are in tests/netns/test_firewall.py."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network
from typing import Literal

import pytest

from pyflannel.firewall.rules import rules
from pyflannel.linux.run import CommandMissing, CommandTimeout, Completed
from pyflannel.linux.xtables import Ensured, FirewallError, Run, Variant, Version, Xtables
from tests.support.loops import run
from tests.support.tables import Tables, Tools

WANTED = rules(
    IPv4Network("10.2.0.0/16"), IPv4Network("10.2.71.0/24"), masquerade=True, forward=True, random_fully=True
)
NOT_MASQUERADING = rules(
    IPv4Network("10.2.0.0/16"), IPv4Network("10.2.71.0/24"), masquerade=False, forward=True, random_fully=True
)
ALL_NEW = (
    "FLANNEL-POSTRTG is missing",
    "POSTROUTING does not lead to FLANNEL-POSTRTG",
    "FLANNEL-FWD is missing",
    "FORWARD does not lead to FLANNEL-FWD",
)


def answering(status: int, out: str, err: str = "") -> Run:
    async def tool(argv: Sequence[str], stdin: str | None) -> Completed:
        return Completed(tuple(argv), status, out, err)

    return tool


def failing(error: Exception) -> Run:
    async def tool(argv: Sequence[str], stdin: str | None) -> Completed:
        raise error

    return tool


def test_rules_are_written_once_and_then_only_looked_at() -> None:
    tools = Tools()
    xtables = Xtables(4, run=tools)
    assert run(xtables.ensure(WANTED)) == Ensured(ALL_NEW)
    assert tools.calls == [
        "iptables-save",
        "iptables --version",
        "iptables-restore --noflush --wait=5",
        "iptables-save",
    ]
    tools.calls.clear()
    assert run(xtables.ensure(WANTED)) == Ensured()
    assert tools.calls == ["iptables-save"]


def test_rules_for_the_other_way_of_masquerading_are_taken_out_in_the_same_write() -> None:
    tools = Tools()
    xtables = Xtables(4, run=tools)
    run(xtables.ensure(WANTED))
    tools.calls.clear()
    assert run(xtables.ensure(NOT_MASQUERADING)).mended == (
        "FLANNEL-POSTRTG is still there",
        "FLANNEL-NOMASQ is missing",
        "POSTROUTING does not lead to FLANNEL-NOMASQ",
    )
    assert tools.calls == ["iptables-save", "iptables-restore --noflush --wait=5", "iptables-save"]


def test_ensured_tells_whether_anything_was_written() -> None:
    assert (Ensured(("x",)).changed, Ensured().changed) == (True, False)


def test_removing_takes_two_looks_and_one_write() -> None:
    tools = Tools()
    empty = tools.tables.save()
    xtables = Xtables(4, run=tools)
    run(xtables.ensure(WANTED))
    assert run(xtables.remove()).mended == ("FLANNEL-POSTRTG is still there", "FLANNEL-FWD is still there")
    assert tools.tables.save() == empty
    assert run(xtables.remove()) == Ensured()


@pytest.mark.parametrize(
    ("family", "variant", "program"),
    [(4, "", "iptables"), (6, "", "ip6tables"), (4, "legacy", "iptables-legacy"), (6, "nft", "ip6tables-nft")],
)
def test_family_and_variant_pick_the_programs(family: Literal[4, 6], variant: Variant, program: str) -> None:
    tools = Tools()
    run(Xtables(family, variant, tools).ensure(WANTED))
    assert {call.split()[0] for call in tools.calls} == {program, f"{program}-save", f"{program}-restore"}


def test_a_payload_from_a_stale_view_is_made_anew() -> None:
    """Docker started between our look and our write, and our jump went with the rules it flushed."""
    tools = Tools()
    xtables = Xtables(4, run=tools)
    run(xtables.ensure(WANTED))
    jump = tools.tables.tables["filter"]["FORWARD"][0]
    tools.tables.tables["filter"]["FORWARD"] = ["-j DROP", jump]

    def flush(tables: Tables) -> None:
        tables.tables["filter"]["FORWARD"] = []
        tools.meddle = lambda tables: None

    tools.meddle = flush
    assert run(xtables.ensure(WANTED)).mended == ("FORWARD does not lead to FLANNEL-FWD",)
    assert tools.tables.tables["filter"]["FORWARD"] == [jump]


class Undone(Tools):
    """Somebody takes our jump out again after every write."""

    async def __call__(self, argv: Sequence[str], stdin: str | None) -> Completed:
        done = await super().__call__(argv, stdin)
        if "-restore" in argv[0]:
            self.tables.tables["filter"]["FORWARD"] = []
        return done


def test_a_program_that_keeps_undoing_our_work_is_an_error_and_no_endless_quarrel() -> None:
    tools = Undone()
    with pytest.raises(FirewallError) as caught:
        run(Xtables(4, run=tools).ensure(WANTED))
    assert str(caught.value) == ("iptables-restore did its work, and still: FORWARD does not lead to FLANNEL-FWD")
    assert sum("-restore" in call for call in tools.calls) == 3


def test_a_refusal_that_was_overcome_is_not_what_is_reported() -> None:
    tools = Undone()

    def refuse_once(tables: Tables) -> None:
        del tables.tables["nat"]["POSTROUTING"]
        tools.meddle = lambda tables: tables.tables["nat"].setdefault("POSTROUTING", []).clear()

    tools.meddle = refuse_once
    with pytest.raises(FirewallError, match="did its work, and still"):
        run(Xtables(4, run=tools).ensure(WANTED))


def test_refusal_is_reported_in_the_tools_words_with_the_line_it_speaks_of() -> None:
    tools = Tools()

    def keep_out(tables: Tables) -> None:
        tables.tables["nat"].pop("POSTROUTING", None)

    tools.meddle = keep_out
    with pytest.raises(FirewallError) as caught:
        run(Xtables(4, run=tools).ensure(WANTED))
    assert str(caught.value) == (
        "iptables-restore --noflush --wait=5: exit status 1: iptables-restore: line 10 failed "
        '(that is: -A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG)'
    )


def test_refusal_without_a_reason_says_so() -> None:
    with pytest.raises(FirewallError, match="iptables-save: exit status 3: it printed no reason"):
        run(Xtables(4, run=answering(3, "")).observe())


def test_missing_tool_is_named_with_its_package() -> None:
    missing = failing(CommandMissing("running iptables-save: No such file or directory"))
    with pytest.raises(FirewallError, match=r"running iptables-save: No such file .* package .* iptables"):
        run(Xtables(4, run=missing).ensure(WANTED))


def test_tool_that_hangs_is_reported() -> None:
    with pytest.raises(FirewallError, match="did not finish within 10 s"):
        run(Xtables(4, run=failing(CommandTimeout("iptables-save did not finish within 10 s"))).observe())


@pytest.mark.parametrize(
    ("said", "version", "able"),
    [
        ("iptables v1.8.9 (nf_tables)", Version((1, 8, 9), "nf_tables"), True),
        ("ip6tables v1.8.11 (legacy)", Version((1, 8, 11), "legacy"), True),
        ("iptables v1.6.2", Version((1, 6, 2), ""), True),
        ("iptables v1.6.1", Version((1, 6, 1), ""), False),
        ("iptables v1.4.21", Version((1, 4, 21), ""), False),
        ("iptables v2.0", Version((2, 0, 0), ""), True),
    ],
)
def test_version_tells_what_the_tools_can_do(said: str, version: Version, able: bool) -> None:
    found = run(Xtables(4, run=Tools(said)).version())
    assert found == version
    assert (found.random_fully, found.wait) == (able, able)


def test_version_that_cannot_be_read_is_an_error_that_quotes_it() -> None:
    with pytest.raises(FirewallError, match="iptables --version: expected a version, got 'BusyBox'"):
        run(Xtables(4, run=Tools("BusyBox")).version())


def test_old_tools_are_not_told_to_wait() -> None:
    tools = Tools("iptables v1.4.21")
    run(Xtables(4, run=tools).restore("*filter\nCOMMIT\n"))
    assert tools.calls[-1] == "iptables-restore --noflush"
