"""Many hosts without a kernel (``tests.support.allocator``), in as many processes as one likes, and what they say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final

ROOT: Final = Path(__file__).parents[2]
START_S: Final = 300.0
END_S: Final = 30.0


class Fleet:
    """They run from the start of the ``with`` block to its end, and set off at ``begin``."""

    def __init__(self, directory: Path, where: str, hosts: int, processes: int) -> None:
        """``where`` is the store, as the program is told.  What is said and logged goes to ``directory``."""
        directory.mkdir(exist_ok=True)
        self.hosts = hosts
        self._directory, self._where = directory, where
        self._ends = [hosts * index // processes for index in range(processes + 1)]
        self._running: list[subprocess.Popen[bytes]] = []
        self._ready = 0
        self._rest = b""
        self.subnets: dict[int, str] = {}
        """What each host that has a lease says it holds."""
        self.after: dict[int, float] = {}
        """Seconds that each took to its lease."""
        self.knows: dict[int, dict[str, str]] = {}
        """Subnet and address of every lease, as each host knew them when all were last asked."""
        self.final: dict[int, str] = {}
        """What each held when it was dismissed."""
        self.lost: list[str] = []
        """Why hosts had to look for another subnet."""
        self.races = 0
        """How often hosts were told that another had been faster."""

    def __enter__(self) -> Fleet:
        said = self._directory / "said.jsonl"
        gate, self._gate = os.pipe()
        with said.open("ab") as out:
            for first, end in zip(self._ends, self._ends[1:], strict=False):
                self._spawn(first, end, gate, out.fileno())
        os.close(gate)
        self._said = said.open("rb")
        try:
            self.until(lambda: self._ready == len(self._running), "all are ready", START_S)
        except BaseException:
            self._finish()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish()

    def begin(self) -> None:
        """Let all set off at once; a second time does nothing."""
        gate, self._gate = self._gate, -1
        if gate >= 0:
            os.close(gate)

    def until(self, condition: Callable[[], bool], what: str, patience: float) -> None:
        """Listen until ``condition()`` is true; ``AssertionError`` if it does not come, or if a process has ended."""
        give_up = time.monotonic() + patience
        while not self._holds(condition):
            for index, process in enumerate(self._running):
                assert process.poll() is None, f"process {index} has ended: {self.log(index)[-2000:]}"
            without = sorted(set(range(self.hosts)) - set(self.subnets))
            assert time.monotonic() < give_up, f"waited {patience:.0f} s in vain until {what}; no lease: {without}"
            time.sleep(0.02)

    def ask(self, patience: float) -> None:
        """Have all hosts say what they know; they must have set off."""
        self.knows.clear()
        for process in self._running:
            process.send_signal(signal.SIGUSR1)
        self.until(lambda: len(self.knows) == self.hosts, "all have said what they know", patience)

    def dismiss(self) -> list[int]:
        """Ask all processes to end; their exit statuses."""
        for process in self._running:
            process.terminate()
        # One more SIGTERM, as ``machines.stop`` sends, would catch some in their last moment.
        statuses = [process.wait(END_S) for process in self._running]
        self._listen()
        return statuses

    def log(self, index: int) -> str:
        """What a process has logged."""
        return (self._directory / f"log{index}").read_text()

    def logs(self) -> str:
        """What all processes have logged."""
        return "".join(self.log(index) for index in range(len(self._running)))

    def ended(self) -> int:
        """How many processes have ended."""
        return sum(process.poll() is not None for process in self._running)

    def _finish(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()
        self.begin()
        self._said.close()

    def _holds(self, condition: Callable[[], bool]) -> bool:
        self._listen()
        return condition()

    def _listen(self) -> None:
        *lines, self._rest = (self._rest + self._said.read()).split(b"\n")
        for line in lines:
            self._hear(**json.loads(line))

    def _hear(
        self,
        event: str,
        host: int = -1,
        subnet: str = "",
        after: float = 0.0,
        leases: dict[str, str] | None = None,
        why: str = "",
        races: int = 0,
    ) -> None:
        match event:
            case "ready":
                self._ready += 1
            case "acquired":
                self.subnets[host] = subnet
                self.after[host] = after
            case "lost":
                del self.subnets[host]
                self.lost.append(why)
            case "knows":
                self.knows[host] = leases or {}
            case "final":
                self.final[host] = subnet
            case "end":
                self.races += races

    def _spawn(self, first: int, end: int, gate: int, out: int) -> None:
        command = [sys.executable, "-m", "tests.support.allocator", self._where, str(first), str(end)]
        paths = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        with (self._directory / f"log{len(self._running)}").open("wb") as log:
            self._running.append(
                subprocess.Popen(command, stdin=gate, stdout=out, stderr=log, env={**os.environ, **paths})
            )
