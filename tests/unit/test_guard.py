"""When the guard looks, what it says, and that nothing keeps it from going on.  Time jumps; the tools are fakes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

import pytest

from pyflannel.firewall.iptables import compare, parse_save
from pyflannel.firewall.rules import rules
from pyflannel.guard import LONG_PAUSE, PATIENCE, PAUSE, RETRY, SETTLE, Guard, Policy, RuleChanges, policy
from pyflannel.linux.run import CommandMissing, Completed
from pyflannel.linux.xtables import FirewallError, Xtables
from pyflannel.settings import Settings
from tests.support.builders import config, subnet
from tests.support.loops import run_jumping
from tests.support.tables import Changes, Tables, Tools

HOUR = 3600.0
FORWARD_ONLY = Policy(masquerade=False, forward=True, random_fully=True)
JUMP = '-m comment --comment "flanneld forward" -j FLANNEL-FWD'
DOCKER_MASQUERADES = "-s 10.2.71.0/24 ! -o docker0 -j MASQUERADE"
DUAL = (config(ipv6_network="fd00:2::/48"), subnet("10.2.71.0/24", "fd00:2:0:71::/64"))


class Host:
    """Tables of both families, whose changes are told, and the times at which somebody looked at those of IPv4."""

    def __init__(self) -> None:
        self.tools = {4: Tools(), 6: Tools()}
        self.broken: dict[int, str] = {}
        self.changes = Changes()
        self.listen: Callable[[], RuleChanges] = lambda: self.changes
        self.looks: list[float] = []
        for tools in self.tools.values():
            tools.written = self.changes.ring

    def xtables(self, family: Literal[4, 6]) -> Xtables:
        async def execute(argv: Sequence[str], stdin: str | None) -> Completed:
            # One look reads the tables again after writing; the clock stands still meanwhile.
            if argv[0] == "iptables-save" and (now := asyncio.get_running_loop().time()) not in self.looks:
                self.looks.append(now)
            if family in self.broken:
                raise CommandMissing(self.broken[family])
            return await self.tools[family](argv, stdin)

        return Xtables(family, run=execute)

    def guard(self, policy: Policy = FORWARD_ONLY, *, dual: bool = False) -> Guard:
        network, own = DUAL if dual else (config(), subnet("10.2.71.0/24"))
        return Guard(network, own, policy, self.xtables, lambda: self.listen())

    @property
    def forward(self) -> list[str]:
        return self.tools[4].tables.tables["filter"]["FORWARD"]

    @property
    def postrouting(self) -> list[str]:
        return self.tools[4].tables.tables["nat"]["POSTROUTING"]

    def foreign(self, edit: Callable[[Tables], None]) -> None:
        """Somebody else edits the IPv4 tables, and the kernel tells."""
        edit(self.tools[4].tables)
        self.changes.ring()

    def flush_forward(self) -> None:
        self.foreign(lambda tables: tables.tables["filter"]["FORWARD"].clear())


def while_guarded(
    host: Host, scenario: Callable[[], Awaitable[None]], *, every: float = HOUR, policy: Policy = FORWARD_ONLY
) -> None:
    """Run ``scenario`` while the rules are guarded, from the moment when they were first brought up."""

    async def whole() -> None:
        guard = host.guard(policy)
        await guard.ensure()
        async with asyncio.TaskGroup() as tasks:
            guarding = tasks.create_task(guard.run(every), name="guard")
            await asyncio.sleep(1)
            host.looks.clear()
            await scenario()
            guarding.cancel()

    run_jumping(whole())


# At the start.


def test_rules_of_both_families_are_brought_up_and_named(caplog: pytest.LogCaptureFixture) -> None:
    host = Host()
    with caplog.at_level(logging.INFO, "pyflannel"):
        run_jumping(host.guard(dual=True).ensure())
    for tools, (network, own) in zip(
        host.tools.values(),
        ((DUAL[0].ipv4, DUAL[1].ipv4), (DUAL[0].ipv6, DUAL[1].ipv6)),
        strict=True,
    ):
        assert network is not None
        assert own is not None
        wanted = rules(network.network, own, masquerade=False, forward=True, random_fully=True)
        assert compare(parse_save(tools.tables.save()), wanted) == ()
    assert [record.getMessage() for record in caplog.records] == [
        f"Firewall for IPv{family} put right: FLANNEL-NOMASQ is missing; POSTROUTING does not lead to FLANNEL-NOMASQ; "
        "FLANNEL-FWD is missing; FORWARD does not lead to FLANNEL-FWD"
        for family in (4, 6)
    ]


def test_random_ports_are_left_to_tools_that_know_them() -> None:
    for version, known in (("iptables v1.8.9", True), ("iptables v1.6.1", False)):
        host = Host()
        host.tools[4].version = version
        run_jumping(host.guard(Policy(masquerade=True, forward=True, random_fully=True)).ensure())
        assert ("--random-fully" in host.tools[4].tables.save()) is known


@pytest.mark.parametrize("broken", [4, 6])
def test_a_family_that_fails_does_not_keep_the_other_from_being_done(broken: int) -> None:
    host = Host()
    host.broken[broken] = "running the tool: No such file or directory"
    with pytest.raises(FirewallError, match="running the tool: No such file"):
        run_jumping(host.guard(dual=True).ensure())
    assert {family for family, tools in host.tools.items() if "FLANNEL-FWD" in tools.tables.save()} == {4, 6} - {broken}


@pytest.mark.parametrize("broken", [4, 6])
def test_what_is_wrong_can_be_asked_and_stays_as_it_is(broken: Literal[4, 6]) -> None:
    host = Host()
    host.broken[broken] = "running the tool: No such file or directory"
    guard, other = host.guard(dual=True), host.tools[10 - broken]
    before = other.tables.save()
    found, failures = run_jumping(guard.faults())
    assert {family: [fault.text for fault in faults] for family, faults in found.items()} == {
        10 - broken: [
            *("FLANNEL-NOMASQ is missing", "POSTROUTING does not lead to FLANNEL-NOMASQ"),
            *("FLANNEL-FWD is missing", "FORWARD does not lead to FLANNEL-FWD"),
        ]
    }
    assert len(failures) == 1
    assert "running the tool" in failures[0]
    assert other.tables.save() == before


def test_in_a_firewall_put_right_nothing_is_wrong() -> None:
    host = Host()
    run_jumping(host.guard(dual=True).ensure())
    assert run_jumping(host.guard(dual=True).faults()) == ({}, ())


def test_every_family_that_fails_is_named() -> None:
    host = Host()
    host.broken = {4: "no iptables", 6: "no ip6tables"}
    with pytest.raises(FirewallError, match=r"no ip6tables.*; no iptables"):
        run_jumping(host.guard(dual=True).ensure())


def test_a_firewall_of_which_nothing_is_wanted_is_not_looked_at() -> None:
    host = Host()

    async def scenario() -> None:
        guard = host.guard(Policy(masquerade=False, forward=False, random_fully=True), dual=True)
        await guard.ensure()
        await guard.run(HOUR)

    run_jumping(scenario())
    assert not host.tools[4].calls
    assert not host.tools[6].calls


# When it looks.


def test_a_flushed_chain_is_right_again_without_waiting_for_the_clock() -> None:
    host = Host()

    async def scenario() -> None:
        host.flush_forward()
        await asyncio.sleep(1)
        assert host.forward == [JUMP]
        assert host.looks[0] == pytest.approx(1 + SETTLE)

    while_guarded(host, scenario)


def test_dockers_rule_before_ours_is_behind_it_again_without_waiting_for_the_clock() -> None:
    host = Host()

    async def scenario() -> None:
        ours = list(host.postrouting)
        host.foreign(lambda tables: tables.tables["nat"]["POSTROUTING"].insert(0, DOCKER_MASQUERADES))
        await asyncio.sleep(1)
        assert host.postrouting == [*ours, DOCKER_MASQUERADES]

    while_guarded(host, scenario)


def test_what_happened_before_it_listened_is_found_at_once() -> None:
    host = Host()

    async def scenario() -> None:
        guard = host.guard()
        await guard.ensure()
        host.forward.clear()
        async with asyncio.TaskGroup() as tasks:
            guarding = tasks.create_task(guard.run(HOUR))
            await asyncio.sleep(1)
            assert host.forward == [JUMP]
            guarding.cancel()

    run_jumping(scenario())


def test_a_change_that_harms_nothing_costs_one_look() -> None:
    host = Host()

    async def scenario() -> None:
        host.foreign(lambda tables: tables.tables["filter"]["INPUT"].append("-j ACCEPT"))
        await asyncio.sleep(HOUR / 2)
        assert len(host.looks) == 1

    while_guarded(host, scenario)


def test_the_echo_of_its_own_writing_costs_one_look_more() -> None:
    host = Host()

    async def scenario() -> None:
        host.flush_forward()
        await asyncio.sleep(HOUR / 2)
        assert len(host.looks) == 2

    while_guarded(host, scenario)


def test_a_burst_of_changes_is_one() -> None:
    host = Host()

    async def scenario() -> None:
        for _ in range(20):
            host.changes.ring()
            await asyncio.sleep(SETTLE / 40)
        await asyncio.sleep(HOUR / 2)
        assert len(host.looks) == 1

    while_guarded(host, scenario)


def test_under_constant_churn_it_looks_four_times_a_second() -> None:
    host = Host()

    async def scenario() -> None:
        for _ in range(6000):
            host.changes.ring()
            await asyncio.sleep(0.01)
        assert len(host.looks) == pytest.approx(60 / (PAUSE + SETTLE), rel=0.02)
        assert len(host.looks) / 60 == pytest.approx(4, abs=0.5)

    while_guarded(host, scenario)


def test_with_nothing_told_it_looks_by_the_clock() -> None:
    host = Host()

    async def scenario() -> None:
        host.forward.clear()
        await asyncio.sleep(50)
        assert host.forward == [JUMP]
        # The one that found something was followed by its echo.
        assert len(host.looks) == 11

    while_guarded(host, scenario, every=5)


def test_where_the_kernel_tells_nothing_the_clock_is_enough(caplog: pytest.LogCaptureFixture) -> None:
    host = Host()

    def refuse() -> RuleChanges:
        raise OSError(93, "Protocol not supported")

    host.listen = refuse

    async def scenario() -> None:
        host.flush_forward()
        await asyncio.sleep(5)
        assert host.forward == [JUMP]

    with caplog.at_level(logging.INFO, "pyflannel.guard"):
        while_guarded(host, scenario, every=5)
    (said,) = [record.getMessage() for record in caplog.records if "does not tell" in record.getMessage()]
    assert "every 5 s" in said
    assert "Protocol not supported" in said


def test_it_stops_listening_when_it_is_stopped() -> None:
    host = Host()

    async def scenario() -> None:
        assert not host.changes.closed

    while_guarded(host, scenario)
    assert host.changes.closed


# What goes wrong.


def test_a_program_that_always_undoes_our_work_is_not_given_up_but_not_raced_either() -> None:
    host = Host()

    def rival() -> None:
        """Puts itself first, a moment after we did."""
        host.changes.ring()
        asyncio.get_running_loop().call_later(
            PAUSE / 2, host.foreign, lambda tables: tables.tables["filter"]["FORWARD"].insert(0, "-j DROP")
        )

    async def scenario() -> None:
        host.tools[4].written = rival
        host.flush_forward()
        await asyncio.sleep(10 * PATIENCE * LONG_PAUSE)
        # About one look for each long pause, after those that patience took.
        assert len(host.looks) == pytest.approx(10 * PATIENCE + PATIENCE, rel=0.05)

    while_guarded(host, scenario)


def test_a_failure_is_said_once_and_again_when_it_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    host = Host()

    async def scenario() -> None:
        for _ in range(2):
            host.broken[4] = "no iptables"
            await asyncio.sleep(60)
            del host.broken[4]
            await asyncio.sleep(60)

    while_guarded(host, scenario, every=5)
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(said) == 2
    assert all(text.startswith("Firewall: no iptables") for text in said)


def test_what_was_raised_at_the_start_is_not_said_again(caplog: pytest.LogCaptureFixture) -> None:
    host = Host()
    host.broken[4] = "no iptables"

    async def scenario() -> None:
        guard = host.guard()
        with pytest.raises(FirewallError):
            await guard.ensure()
        async with asyncio.TaskGroup() as tasks:
            guarding = tasks.create_task(guard.run(5))
            await asyncio.sleep(60)
            guarding.cancel()

    run_jumping(scenario())
    assert [line.startswith("Firewall: no iptables") for line in caplog.messages] == [True]


def test_it_goes_on_after_a_failure_until_all_is_well() -> None:
    host = Host()

    async def scenario() -> None:
        host.broken[4] = "no iptables"
        host.flush_forward()
        await asyncio.sleep(500)
        assert host.forward == []
        del host.broken[4]
        await asyncio.sleep(5)
        assert host.forward == [JUMP]

    while_guarded(host, scenario, every=5)


def test_what_has_failed_just_now_is_tried_again_before_the_clock_says_so() -> None:
    host = Host()

    async def scenario() -> None:
        host.broken[4] = "no iptables"
        host.flush_forward()
        await asyncio.sleep(20)
        del host.broken[4]
        await asyncio.sleep(RETRY + 0.5)
        assert host.forward == [JUMP]

    while_guarded(host, scenario, every=60)


def test_the_command_line_says_what_the_firewall_is_for() -> None:
    assert policy(Settings()) == Policy(masquerade=False, forward=True, random_fully=True)
    other = Settings(ip_masq=True, iptables_forward_rules=False, ip_masq_fully_random_disable=True)
    assert policy(other) == Policy(masquerade=True, forward=False, random_fully=False)


def test_it_is_told_whether_the_rules_are_well_and_how_often_they_were_altered() -> None:
    host = Host()

    async def whole() -> None:
        guard = host.guard()
        assert (guard.wanted, guard.ok) == (True, False)
        await guard.ensure()
        async with asyncio.TaskGroup() as tasks:
            guarding = tasks.create_task(guard.run(HOUR), name="guard")
            await asyncio.sleep(1)
            assert (guard.ok, guard.repairs) == (True, 0)
            host.flush_forward()
            await asyncio.sleep(1)
            assert (guard.ok, guard.repairs) == (True, 1)
            host.broken[4] = "running the tool: No such file or directory"
            host.changes.ring()
            await asyncio.sleep(1)
            assert (guard.ok, guard.repairs) == (False, 1)
            guarding.cancel()

    run_jumping(whole())


def test_nothing_is_wanted_where_nothing_was_asked_for() -> None:
    assert not Host().guard(Policy(masquerade=False, forward=False, random_fully=False)).wanted
