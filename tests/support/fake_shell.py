"""A shell of which a test sees every run, and says how it ends and how long it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pyflannel.linux.shell import Outcome

ADD, REMOVE, CHECK = "add", "remove", "check"


@dataclass
class FakeShell:
    """Runs lines that are one of ``add``, ``remove`` and ``check``; as ``linux.shell.run_line`` to its caller.

    It keeps a world as routes would be kept: ``add`` fails where something is there for the subnet already, ``remove``
    where nothing is, ``check`` finds out.
    """

    status: Callable[[str, str], int | None] = lambda line, subnet: None
    """For a line and a subnet: the status to end with, whatever is there; None: as the world has it."""
    takes: Callable[[], float] = lambda: 0.0
    """Seconds that the next run takes."""
    world: dict[str, str] = field(default_factory=dict)
    """For each subnet: host and data that were added."""
    runs: list[tuple[str, str, str]] = field(default_factory=list)
    """Each run that has begun: line, subnet, host and data."""
    times: list[float] = field(default_factory=list)
    """When each of them has begun."""
    running: set[str] = field(default_factory=set)
    most: int = 0
    """How many ran at a time."""

    async def __call__(self, line: str, variables: Mapping[str, str], stdin: str, limit: float) -> Outcome:
        """A run."""
        subnet, value = variables["SUBNET"], f"{variables['PUBLIC_IP']} {stdin.strip()}".strip()
        assert subnet not in self.running, f"two commands for {subnet} at once"
        self.running.add(subnet)
        self.most = max(self.most, len(self.running))
        self.runs.append((line, subnet, value))
        self.times.append(asyncio.get_running_loop().time())
        try:
            await asyncio.sleep(self.takes())
            status = self.status(line, subnet)
            if status is None:
                status = self._act(line, subnet, value)
        finally:
            self.running.remove(subnet)
        return Outcome(status, f"exit status {status}" if status else "")

    def _act(self, line: str, subnet: str, value: str) -> int:
        there = subnet in self.world
        if line == ADD and not there:
            self.world[subnet] = value
        elif line == REMOVE and there:
            del self.world[subnet]
        elif line != CHECK or not there:
            return 2
        return 0

    def lines(self) -> list[str]:
        """What has been run since this was last asked, one word each."""
        lines = [line for line, _, _ in self.runs]
        self.runs.clear()
        self.times.clear()
        return lines
