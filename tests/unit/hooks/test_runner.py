"""With a shell that is a fake, in a time that jumps; with a real one at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from pyflannel.diff import Cut, Put
from pyflannel.hooks.record import Entry, Record, read
from pyflannel.hooks.runner import BACKOFF, CHECK_EVERY, HookRunner, at_once
from pyflannel.linux.shell import Outcome, run_line
from pyflannel.state import Commands, Hook, Route, Scope
from tests.support.builders import backend, config
from tests.support.fake_shell import ADD, CHECK, REMOVE, FakeShell
from tests.support.hook_stage import HOOKS, Stage, hook
from tests.support.loops import run

NET = "10.2.41.0/24"


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


# What is asked for.


def test_a_peer_that_comes_and_goes_is_added_and_removed_with_what_it_publishes(stage: Stage) -> None:
    async def scenario(runner: HookRunner) -> None:
        stage.want(runner, [hook(data="c6:d2")])
        assert list(runner.observe(HOOKS)) == [hook(data="c6:d2")]
        await asyncio.sleep(1)
        assert stage.shell.world == {NET: "172.16.41.132 c6:d2"}
        stage.want(runner, [])
        assert list(runner.observe(HOOKS)) == []
        await asyncio.sleep(1)

    stage.agent(scenario)
    assert stage.shell.world == {}
    assert stage.shell.runs == [(ADD, NET, "172.16.41.132 c6:d2"), (REMOVE, NET, "172.16.41.132 c6:d2")]


@pytest.mark.parametrize("changed", [hook(data="new"), hook(data="old", host=133)], ids=["data", "address"])
def test_what_changes_is_removed_by_its_old_values_before_it_is_added_by_the_new(stage: Stage, changed: Hook) -> None:
    async def scenario(runner: HookRunner) -> None:
        for wanted in (hook(data="old"), changed):
            stage.want(runner, [wanted])
            await asyncio.sleep(1)

    stage.agent(scenario)
    values = [(line, value) for line, _, value in stage.shell.runs]
    new = f"{changed.host} {changed.data}"
    assert values == [(ADD, "172.16.41.132 old"), (REMOVE, "172.16.41.132 old"), (ADD, new)]


def test_other_commands_undo_what_theirs_have_done_and_then_do_their_own(stage: Stage) -> None:
    stage.start(hook())
    stage.shell.lines()
    other = replace(hook(), commands=Commands("other", "un-other"))
    stage.start(other, then=0.5)
    assert stage.shell.lines() == [REMOVE, "other"]


def test_what_comes_and_goes_while_nobody_looks_is_not_run(stage: Stage) -> None:
    async def scenario(runner: HookRunner) -> None:
        runner.apply([Put(hook(data="1")), Cut(hook(data="1")), Put(hook(data="2"))])
        await asyncio.sleep(1)
        runner.apply([Cut(hook(data="2")), Put(hook(data="2"))])
        await asyncio.sleep(1)

    stage.agent(scenario)
    assert [value for _, _, value in stage.shell.runs] == ["172.16.41.132 2"]


def test_who_changes_its_mind_while_a_command_runs_gets_what_it_wanted_last(stage: Stage) -> None:
    stage.shell.takes = lambda: 1.0

    async def scenario(runner: HookRunner) -> None:
        runner.apply([Put(hook(data="1"))])
        await asyncio.sleep(0.5)
        runner.apply([Cut(hook(data="1")), Put(hook(data="2"))])
        await asyncio.sleep(10)

    stage.agent(scenario)
    assert stage.shell.lines() == [ADD, REMOVE, ADD]
    assert stage.shell.world == {NET: "172.16.41.132 2"}


@pytest.mark.parametrize(("status", "lines"), [(0, [ADD]), (2, [ADD, REMOVE, ADD])], ids=["succeeds", "fails"])
def test_who_asks_for_the_same_again_while_it_is_made_has_asked_once(
    stage: Stage, status: int, lines: list[str]
) -> None:
    stage.shell.takes = lambda: 0.4
    stage.shell.status = lambda line, subnet: status

    async def scenario(runner: HookRunner) -> None:
        runner.apply([Put(hook())])
        await asyncio.sleep(0.2)
        runner.apply([Cut(hook()), Put(hook())])
        await asyncio.sleep(1.0)
        stage.want(runner, [hook()])
        await asyncio.sleep(1.0)

    stage.agent(scenario)
    assert stage.shell.lines() == lines


def test_a_start_runs_a_command_again_even_for_who_goes_and_comes_back_at_once(stage: Stage) -> None:
    stage.start(hook())
    stage.shell.world.clear()

    async def scenario(runner: HookRunner) -> None:
        runner.apply([Put(hook()), Cut(hook()), Put(hook())])
        await asyncio.sleep(0.5)

    stage.agent(scenario)
    assert stage.shell.world == {NET: "172.16.41.132"}


@pytest.mark.parametrize("number", [1, 4])
def test_commands_run_one_after_the_other_unless_more_are_allowed(tmp_path: Path, number: int) -> None:
    stage = Stage(tmp_path, FakeShell(takes=lambda: 1.0), number)
    stage.start(*(hook(each) for each in range(10)), then=20)
    assert stage.shell.most == number
    assert len(stage.shell.world) == 10


def test_how_many_are_allowed_is_said_by_the_extension_backend_alone() -> None:
    assert at_once(backend(config('{"Type":"extension","ParallelCommands":4}'))) == 4
    assert at_once(backend(config('{"Type":"extension"}'))) == at_once(backend()) == 1


def test_a_peer_whose_commands_hang_delays_nobody_for_ever(stage: Stage) -> None:
    stage.shell.takes = lambda: 60.0 if len(stage.shell.runs) == 1 else 0.0
    stage.start(hook(1), hook(2), then=61)
    assert set(stage.shell.world) == {"10.2.1.0/24", "10.2.2.0/24"}


def test_hooks_are_nobodys_where_they_are_not_in_scope(stage: Stage) -> None:
    async def scenario(runner: HookRunner) -> None:
        stage.want(runner, [hook()])
        assert list(runner.observe(Scope())) == []
        assert runner.kinds == {Hook}
        with pytest.raises(TypeError, match="is no hook"):
            runner.apply([Put(Route(IPv4Network(NET), "ens33"))])

    stage.agent(scenario)


# Failures.


def test_a_command_that_fails_is_run_again_ever_more_rarely_and_first_undone(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.shell.status = lambda line, subnet: 2

    async def scenario(runner: HookRunner) -> None:
        stage.want(runner, [hook()])
        await asyncio.sleep(0.5)
        assert stage.failing == [f"SubnetAddCommand for {NET}: exit status 2"]
        assert list(runner.observe(HOOKS)) == [hook()]
        await asyncio.sleep(sum(BACKOFF) + 1)
        assert stage.shell.lines() == [ADD, *[REMOVE, ADD] * 3, *[ADD] * 3]
        stage.shell.status = lambda line, subnet: None
        await asyncio.sleep(BACKOFF[-1])
        assert stage.failing == []

    stage.agent(scenario)
    assert stage.shell.world == {NET: "172.16.41.132"}
    assert caplog.messages == [f"SubnetAddCommand for {NET}: exit status 2"]


def test_what_go_flanneld_has_made_is_replaced_by_our_own(stage: Stage) -> None:
    stage.shell.world[NET] = "172.16.41.132"
    stage.start(hook(), then=10)
    assert stage.shell.lines() == [ADD, REMOVE, ADD]
    assert stage.shell.world == {NET: "172.16.41.132"}


def test_a_failure_is_forgotten_with_its_peer(stage: Stage) -> None:
    stage.shell.status = lambda line, subnet: 1

    async def scenario(runner: HookRunner) -> None:
        stage.want(runner, [hook()])
        await asyncio.sleep(0.5)
        stage.want(runner, [])
        await asyncio.sleep(600)
        assert stage.failing == []
        assert stage.shell.lines() == [ADD, REMOVE, REMOVE, REMOVE]

    stage.agent(scenario)
    assert read(stage.file, "boot") == {}


def test_a_peer_that_comes_back_while_its_removal_fails_is_added_at_once(stage: Stage) -> None:
    async def scenario(runner: HookRunner) -> None:
        stage.want(runner, [hook()])
        await asyncio.sleep(0.5)
        stage.shell.status = lambda line, subnet: 1 if line == REMOVE else 0
        stage.want(runner, [])
        await asyncio.sleep(0.5)
        stage.want(runner, [hook()])
        await asyncio.sleep(600)

    stage.agent(scenario)
    assert stage.shell.lines() == [ADD, REMOVE, ADD]


def test_when_something_has_changed_what_waits_is_tried_at_once(stage: Stage) -> None:
    stage.shell.status = lambda line, subnet: 2

    async def scenario(runner: HookRunner) -> None:
        stage.want(runner, [hook()])
        await asyncio.sleep(200)
        stage.shell.status = lambda line, subnet: None
        runner.try_again()
        await asyncio.sleep(0.5)
        assert stage.shell.world == {NET: "172.16.41.132"}

    stage.agent(scenario)


def test_of_very_many_that_fail_a_few_are_named(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.shell.status = lambda line, subnet: 2
    stage.start(*(hook(number) for number in range(50)))
    assert len(stage.failing) == 50
    assert len(caplog.messages) < 25


# One agent after another.


def test_a_start_runs_everything_again_and_takes_a_failure_for_already_done(stage: Stage) -> None:
    stage.start(hook())
    stage.shell.lines()
    stage.start(hook(), then=3600)
    assert stage.shell.lines() == [ADD] * 4
    assert stage.shell.world == {NET: "172.16.41.132"}
    assert read(stage.file, "boot") == {hook().key: Entry(hook(), True)}


def test_a_start_brings_back_what_was_lost_meanwhile(stage: Stage) -> None:
    stage.start(hook())
    stage.shell.world.clear()
    stage.start(hook())
    assert stage.shell.world == {NET: "172.16.41.132"}


def test_who_left_while_no_agent_ran_is_removed_and_who_changed_is_changed(stage: Stage) -> None:
    stage.start(hook(1), hook(2, "old"), hook(3))
    stage.shell.lines()
    stage.start(hook(2, "new"), hook(3), then=20)
    assert stage.shell.world == {"10.2.2.0/24": "172.16.41.132 new", "10.2.3.0/24": "172.16.41.132"}
    assert (REMOVE, "10.2.2.0/24", "172.16.41.132 old") in stage.shell.runs


def test_before_all_peers_are_known_nobody_is_removed(stage: Stage) -> None:
    stage.start(hook())
    stage.shell.lines()

    async def scenario(runner: HookRunner) -> None:
        assert list(runner.observe(HOOKS)) == [replace(hook(), lapsed=True)]
        await asyncio.sleep(60)

    stage.agent(scenario)
    assert stage.shell.lines() == []


def test_a_command_that_was_cut_short_by_the_end_is_undone_before_it_is_run_again(stage: Stage) -> None:
    stage.shell.takes = lambda: 60.0
    stage.start(hook())
    assert stage.shell.lines() == [ADD]
    stage.shell.takes = lambda: 0.0
    stage.start(hook())
    assert stage.shell.lines() == [REMOVE, ADD]
    assert stage.shell.world == {NET: "172.16.41.132"}


# SubnetCheckCommand.


def test_what_is_there_is_not_made_again(stage: Stage) -> None:
    stage.shell.world[NET] = "172.16.41.132"
    for _ in range(2):
        stage.start(hook(check=True))
        assert stage.shell.lines() == [CHECK]
    assert read(stage.file, "boot") == {hook().key: Entry(hook(), True)}


def test_what_is_lost_is_made_again(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(runner: HookRunner) -> None:
        stage.want(runner, [hook(check=True)])
        await asyncio.sleep(3 * CHECK_EVERY)
        assert set(stage.shell.lines()[3:]) == {CHECK}
        stage.shell.world.clear()
        await asyncio.sleep(CHECK_EVERY + 1)
        assert stage.shell.world == {NET: "172.16.41.132"}
        assert stage.asked_for == 1

    stage.agent(scenario)
    assert caplog.messages == [f"What SubnetAddCommand has made for {NET} is not there any more"]


def test_a_check_that_never_finds_anything_makes_failures_that_are_put_off(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.shell.status = lambda line, subnet: 1 if line == CHECK else 0
    stage.start(hook(check=True), then=sum(BACKOFF) + 1)
    assert stage.shell.lines().count(ADD) == len(BACKOFF) + 1
    assert caplog.messages == [
        f"SubnetAddCommand for {NET}: ended well, but SubnetCheckCommand does not find what it should have made"
    ]


@pytest.mark.parametrize("status", [126, 127])
def test_a_check_that_cannot_be_run_tells_nothing(stage: Stage, status: int, caplog: pytest.LogCaptureFixture) -> None:
    stage.shell.status = lambda line, subnet: status if line == CHECK else 0
    stage.start(hook(check=True), then=10 * CHECK_EVERY)
    assert stage.shell.lines().count(ADD) == 1
    assert caplog.messages == [f"SubnetCheckCommand tells nothing: exit status {status}"]
    assert stage.failing == caplog.messages


# With a real shell.


def test_real_commands_get_their_values_and_what_they_print_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    hostile = "$(touch pwned) `touch pwned`; touch pwned\n'\"\\ end"
    commands = Commands(
        f'cd {tmp_path}; printf %s "$SUBNET $PUBLIC_IP|" >added; cat >>added; echo done',
        f"cd {tmp_path}; cat >removed; echo gone >&2; exit 3",
    )
    item = Hook(commands, IPv4Network(NET), None, IPv4Address("172.16.41.132"), None, hostile)

    async def scenario() -> None:
        ended: asyncio.Queue[Outcome] = asyncio.Queue()

        async def shell(line: str, variables: Mapping[str, str], stdin: str, limit: float) -> Outcome:
            ended.put_nowait(outcome := await run_line(line, variables, stdin, limit))
            return outcome

        runner = HookRunner(Record(tmp_path / "hooks.jsonl"), lambda: None, shell=shell)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(runner.run())
            runner.apply([Put(item)])
            assert (await ended.get()).ok
            runner.apply([Cut(item)])
            assert (await ended.get()).status == 3
            task.cancel()

    run(scenario())
    assert (tmp_path / "added").read_text() == f"{NET} 172.16.41.132|{hostile}\n"
    assert (tmp_path / "removed").read_text() == f"{hostile}\n"
    assert not (tmp_path / "pwned").exists()
    assert f"SubnetAddCommand for {NET}: done" in caplog.messages
    assert f"SubnetRemoveCommand for {NET}: gone" in caplog.messages
