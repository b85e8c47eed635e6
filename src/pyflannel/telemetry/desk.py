"""Where the surfaces look: what the agent process is about, and the parts of the network it has at the moment.

The daemon keeps it up to date; nobody else writes to it.  It outlives the agents, which come one after another.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from pyflannel.guard import Guard
from pyflannel.health import Health
from pyflannel.keeper import Keeper
from pyflannel.lease.model import Subnet
from pyflannel.network import Network
from pyflannel.publisher import Publisher
from pyflannel.reconcile import Reconciler
from pyflannel.settings import Settings
from pyflannel.store.metered import Meter
from pyflannel.telemetry.roster import Roster

if TYPE_CHECKING:
    from pyflannel.probes.sight import Sight


def no_sights(_of: Iterable[Subnet]) -> Mapping[Subnet, Sight]:
    """What is seen of peers where nobody looks."""
    return {}


class Phase(StrEnum):
    """What an agent process is about."""

    WAITING = "waiting"
    """For a network configuration, or a lease."""
    STARTING = "starting"
    RUNNING = "running"
    """The kernel has been programmed, and subnet.env written."""
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Parts:
    """Those of one agent."""

    kind: str
    """Which store it has its leases from."""
    network: Network
    keeper: Keeper
    reconciler: Reconciler
    guard: Guard
    publisher: Publisher
    roster: Roster
    sights: Callable[[Iterable[Subnet]], Mapping[Subnet, Sight]] = no_sights
    """What is seen of these peers."""
    ask: Callable[[Subnet, bytes], Awaitable[bytes]] | None = None
    """Put a question to a peer; ``NoAnswer`` if none comes.  None where nobody is asked anything."""


@dataclass(slots=True)
class Desk:
    """What is known of one process."""

    settings: Settings
    health: Health
    meter: Meter = field(default_factory=Meter)
    parts: Parts | None = None
    """None until there is a lease, and between two agents."""
    stopping: bool = False
    started: float = field(default_factory=time.time)
    """Seconds since 1970."""

    @property
    def phase(self) -> Phase:
        """What the process is about."""
        if self.stopping:
            return Phase.STOPPING
        if self.parts is None:
            return Phase.WAITING
        return Phase.RUNNING if self.parts.publisher.ready else Phase.STARTING

    @property
    def ready(self) -> bool:
        """Whether containers of this host can rely on its network."""
        if self.parts is None or self.stopping or not self.parts.publisher.ready or self.health.blocked:
            return False
        failing = self.parts.reconciler.failing
        return not failing or not any(item.key in failing for item in self.parts.network.self_items())
