"""The pictures of the page in the documentation: ``python -m tests.support.screenshots`` makes them again.

Nothing is made up but the troubles: the texts of the conditions are those that agents use.  pngquant(1) makes the
pictures a third of the size.
"""

from __future__ import annotations

import random
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pyflannel.conditions import PEER_LOSSY, PEER_UNREACHABLE
from pyflannel.health import Kind
from pyflannel.lease.model import Subnet
from pyflannel.probes.errands import NoAnswer
from pyflannel.probes.rows import Cell, How, answer, read_question
from pyflannel.telemetry.document import (
    AgentPart,
    ConditionPart,
    DevicePart,
    Document,
    KernelPart,
    LeasePart,
    PeerPart,
    StorePart,
)
from tests.support.browser import Browser, Page, opened
from tests.support.page_stage import Stage, staged
from tests.support.status import document

DOCS = Path(__file__).parents[2] / "docs"
WATCHED = 50
"""Seconds of traffic before the pictures are taken."""
PICTURES: dict[str, dict[str, Any]] = {
    "light": {"width": 1180},
    "dark": {"width": 1180, "dark": True},
    "phone": {"width": 390, "height": 844, "phone": True},
}
HEIGHTS = {"phone": 1912}
HEIGHT = 1596
"""Of the others, at most: so much that no panel is cut."""
FAR, GONE = "10.2.65.0/24", "10.2.90.0/24"
ONE_WAY = "10.2.41.0/24", "10.2.83.0/24"
"""Packets arrive from the first at the second, and nothing comes back."""


def condition(kind: Kind, subject: str, text: str, since: float) -> ConditionPart:
    """A condition of this kind, as an agent shows it."""
    return ConditionPart(kind.code, kind.severity.name.lower(), subject, text, kind.means, kind.remedy, since)


def five_hosts(now: float, passed: int = 0) -> Document:
    """A network of five: one host beyond a line that loses packets, one that is down."""
    peers = (
        _peer(41, now, rtt=0.00041, loss=0.0, mtu=1450, heard=now - 2),
        _peer(65, now, state="lossy", rtt=0.0183, loss=0.23, mtu=1450, heard=now - 4, reason="many packets get lost"),
        _peer(83, now, rtt=0.00128, loss=0.0, mtu=1450, heard=now - 3, changed=now - 2_700),
        _peer(90, now, state="unreachable", loss=1.0, heard=now - 134, reason="does not answer any more"),
    )
    troubles = (
        condition(PEER_UNREACHABLE, "10.2.90.0/24", "10.2.90.0/24: 172.16.41.181 does not answer any more", now - 134),
        condition(
            PEER_LOSSY,
            "10.2.65.0/24",
            "10.2.65.0/24: many questions to 10.2.65.0 are not answered: most get lost on the way there",
            now - 1260,
        ),
    )
    return replace(
        document(*troubles, peers=peers),
        agent=AgentPart("0.1.0", 812, now - 3.4 * 86400, "running"),
        lease=LeasePart("10.2.71.0/24", None, now + 16.2 * 3600, False, now - 7.8 * 3600),
        store=StorePart("etcd v3", ("http://172.16.41.130:2379",), True, now - 3.4 * 86400, 2, now - 4),
        devices=(
            DevicePart("flannel.1", 48_211_733_120 + passed, 9_120_481_002 + passed // 3, 39_112_008, 11_203_557),
        ),
        kernel=KernelPart(
            {"Link": 1, "Address": 1, "Route": 4, "Neighbour": 4, "FdbEntry": 4},
            {},
            {"start": 1, "event": 6, "interval": 288},
            {"Route": 2, "Neighbour": 1},
            True,
        ),
    )


def _peer(third: int, now: float, **seen: Any) -> PeerPart:
    plain = PeerPart(f"10.2.{third}.0/24", None, f"172.16.41.{third + 91}", backend="vxlan", state="reachable")
    return replace(plain, **{"changed": now - 93_000, **seen})


async def rows(subnet: Subnet, question: bytes) -> bytes:
    """What the others say: to the host beyond the bad line packets get lost, and between two they pass one way only."""
    here = str(subnet)
    if here == GONE:
        raise NoAnswer("asked 4 times")
    chance = random.Random(here)

    def cell(there: str) -> Cell:
        if there == here:
            return Cell(How.ITSELF)
        if there == GONE:
            return Cell(How.LOST, loss=1.0)
        if (here, there) == ONE_WAY:
            return Cell(How.ARRIVES, loss=1.0)
        if (there, here) == ONE_WAY:
            return Cell(How.LOST, loss=1.0)
        if FAR in (here, there):
            return Cell(How.LOSSY, chance.uniform(0.016, 0.021), chance.choice((0.15, 0.2, 0.25)))
        return Cell(How.REACHED, chance.uniform(0.0003, 0.0017), 0.0)

    return answer([cell(str(each)) for each in read_question(question)])


class Traffic:
    """What passes while the page is open: never the same, and never quite another."""

    def __init__(self, page: Page, stage: Stage) -> None:
        self._page, self._stage = page, stage
        self._chance, self._rate, self._passed = random.Random(4), 3e7, 0.0

    def pass_for(self, seconds: int) -> None:
        """Have so much time go by."""
        for _ in range(seconds):
            self._rate = 0.8 * self._rate + 0.2 * self._chance.uniform(0, 9e7)
            self._passed += self._rate
            self._stage.document = five_hosts(time.time(), int(self._passed))
            self._page.wait(1.0)


def main() -> None:
    """Make all of them."""
    with (
        TemporaryDirectory() as profile,
        staged(five_hosts(time.time()), ask=rows) as stage,
        Browser(Path(profile)) as browser,
        opened(browser, stage.url) as page,
    ):
        traffic = Traffic(page, stage)
        traffic.pass_for(WATCHED)
        for name, looks in PICTURES.items():
            page.look(**looks)
            traffic.pass_for(3)
            picture = DOCS / f"page-{name}.png"
            picture.write_bytes(page.picture(height=HEIGHTS.get(name, HEIGHT)))
            subprocess.run(["pngquant", "--strip", "--speed=1", "--force", "--ext=.png", picture], check=True)


if __name__ == "__main__":
    main()
