"""A runner of hooks with a fake shell, in a time that jumps, and what a reconciler would do for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from pyflannel.diff import diff
from pyflannel.health import Health
from pyflannel.hooks.record import Record
from pyflannel.hooks.runner import HookRunner
from pyflannel.state import Commands, Hook, Item, Scope, State
from tests.support.fake_shell import ADD, CHECK, REMOVE, FakeShell
from tests.support.loops import run_jumping

HOOKS = Scope(hooks=True)


def hook(number: int = 41, data: str = "", *, host: int = 132, check: bool = False, remove: bool = True) -> Hook:
    """A peer's."""
    commands = Commands(ADD, REMOVE if remove else "", CHECK if check else "")
    return Hook(commands, IPv4Network(f"10.2.{number}.0/24"), None, IPv4Address(f"172.16.41.{host}"), None, data)


class Stage:
    """One agent's runner after another, with one record and one world."""

    def __init__(self, home: Path, shell: FakeShell | None = None, at_once: int = 1) -> None:
        """Nothing has been run since the host was booted."""
        self.file, self.shell, self.at_once = home / "hooks.jsonl", shell or FakeShell(), at_once
        self.wanted: tuple[Hook, ...] = ()
        self.asked_for = 0
        """How often the runner has asked to be looked at."""
        self.health = Health()

    def agent(self, scenario: Callable[[HookRunner], Awaitable[None]]) -> None:
        """Let an agent run for as long as ``scenario`` takes."""

        async def life() -> None:
            # Whoever wakes us is answered at once: a reconciler does the same a moment later.
            runner = HookRunner(
                Record(self.file, "boot"), lambda: self._woken(runner), self.at_once, self.health, self.shell
            )
            async with asyncio.TaskGroup() as tasks:
                task = tasks.create_task(runner.run())
                await scenario(runner)
                task.cancel()

        run_jumping(life())

    @property
    def failing(self) -> list[str]:
        """The conditions, in words."""
        return [condition.text for condition in self.health.present()]

    def start(self, *hooks: Hook, then: float = 0.5) -> None:
        """Let an agent run that wants ``hooks``, and nothing else, for so many seconds."""

        async def scenario(runner: HookRunner) -> None:
            self.want(runner, hooks)
            await asyncio.sleep(then)

        self.agent(scenario)

    def want(self, runner: HookRunner, hooks: Iterable[Hook]) -> None:
        """Want these from now on, and have the runner told what differs."""
        self.wanted = tuple(hooks)
        items: dict[object, Item] = {item.key: item for item in runner.observe(HOOKS)}
        runner.apply(diff(State(self.wanted), State(items.values())))

    def _woken(self, runner: HookRunner) -> None:
        self.asked_for += 1
        # By then somebody may want something else.
        asyncio.get_running_loop().call_soon(lambda: self.want(runner, self.wanted))
