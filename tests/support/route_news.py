"""What the kernel of a host tells of its routes through flannel.1, and when: ``ip -ts monitor route``, written down."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from tests.support.machines import eventually, stop
from tests.support.namespaces import Namespace


class RouteNews:
    """Everything that is told from its making on, or since ``forget``."""

    def __init__(self, space: Namespace, path: Path) -> None:
        """Listen in ``space`` and write to ``path``, until ``close``."""
        self._path = path
        self._since = 0
        with self._path.open("wb") as out:
            command = ["stdbuf", "-oL", "ip", "-ts", "monitor", "route"]
            self._monitor = subprocess.Popen(["nsenter", f"--net={space.path}", "--", *command], stdout=out)

        def hears() -> bool:
            space.run("ip route add 203.0.113.1/32 dev lo")
            space.run("ip route delete 203.0.113.1/32")
            return "203.0.113.1" in self._path.read_text()

        eventually(hears, "ip monitor")
        self.forget()

    def close(self) -> None:
        """Listen no longer."""
        stop(self._monitor)

    def forget(self) -> None:
        """Begin anew."""
        self._since = self._path.stat().st_size

    def made_at(self, subnet: str) -> float | None:
        """When a route to ``subnet`` was last made, as ``time.time`` counts; None if none was."""
        times = [moment for moment, gone, each in self._told() if each == subnet and not gone]
        return times[-1] if times else None

    def removed(self) -> set[str]:
        """The subnets to which a route was taken away, if only for a moment."""
        return {subnet for _, gone, subnet in self._told() if gone}

    def _told(self) -> Iterator[tuple[float, bool, str]]:
        with self._path.open() as log:
            log.seek(self._since)
            whole, _, _ = log.read().rpartition("\n")
        for line in whole.splitlines():
            stamp, *words = line.split()
            if "flannel.1" in words and "via" in words:
                gone = words[0] == "Deleted"
                yield datetime.fromisoformat(stamp.strip("[]")).timestamp(), gone, words[gone]
