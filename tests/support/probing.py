"""Probers on hosts in namespaces, and what they say.

with Watcher(pair, pair.one) as one:
    one.until(lambda: one.codes() == ["peer-unreachable"], SOON)
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support import prober_program
from tests.support.machines import eventually
from tests.support.pair import PREFIX, Host, Records

PATIENCE = 20.0
"""Seconds; how soon things are known is the business of tests/unit/probes/test_book.py, in a time of its own."""


class Watcher:
    """A prober on one host."""

    def __init__(self, host: Host, store: Records, own: list[str], **more: object) -> None:
        """It runs within the ``with`` block; ``own`` is the host's subnet, ``more`` goes to ``Plan``."""
        self._host = host
        self.words = {"store": str(store.path), "prefix": PREFIX, "own": own, "address": host.address, **more}
        self._log: Path = host.home / "prober.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def start(self) -> None:
        """Begin to ask."""
        command = [*self._host.enter, sys.executable, prober_program.__file__, json.dumps(self.words)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT)

    def stop(self) -> None:
        """As an agent that dies."""
        assert self._process is not None
        self._process.kill()
        self._process.communicate()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _latest(self, key: str) -> object:
        found: object = None
        for line in self._log.read_text().splitlines():
            if line.startswith("{") and key in (said := json.loads(line)):
                found = said[key]
        return found

    def sights(self) -> dict[str, dict[str, object]]:
        """What is known of each peer."""
        found = self._latest("sights")
        return found if isinstance(found, dict) else {}

    def sight(self, host: Host) -> dict[str, object]:
        """What is known of that peer."""
        return self.sights().get(str(host.subnet), {})

    def conditions(self) -> list[dict[str, str]]:
        """What is wrong."""
        found = self._latest("conditions")
        return found if isinstance(found, list) else []

    def codes(self) -> list[str]:
        """The same, in short."""
        return [each["code"] for each in self.conditions()]

    def texts(self) -> str:
        """The same, in words."""
        return "\n".join(each["text"] for each in self.conditions())

    def ask(self, peer: str, words: str) -> str:
        """What the agent of a peer answers."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{peer} {words}\n".encode())
        self._process.stdin.flush()
        self.until(lambda: self._latest("said"), "an answer")
        return str(self._latest("said"))

    def until(self, condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
        """Return once that is so."""
        try:
            eventually(condition, what, patience)
        except AssertionError as late:
            raise AssertionError(f"{late}\n{self._log.read_text()[-3000:]}") from None

    def await_reach(self, host: Host, reach: str) -> None:
        """Return once that peer is said to be so."""
        self.until(lambda: self.sight(host).get("reach") == reach, f"{host.subnet} {reach}")

    def await_codes(self, *codes: str) -> None:
        """Return once these and no other troubles are there."""
        self.until(lambda: self.codes() == list(codes), f"{list(codes)}")
