"""When each peer last changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from pyflannel.lease.model import Subnet
from pyflannel.network import Replan


class Roster:
    """Peers that have been of use to one agent."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        """Nobody is known yet."""
        self._now = now
        self._changed: dict[Subnet, float] = {}

    @property
    def changed(self) -> Mapping[Subnet, float]:
        """Since when each peer says what it says, or is known at all; seconds since 1970."""
        return MappingProxyType(self._changed)

    def learn(self, replan: Replan) -> None:
        """Take in who has come, gone, or says something else."""
        now = self._now()
        for lease in replan.removed:
            self._changed.pop(lease.subnet, None)
        for lease in replan.added:
            self._changed[lease.subnet] = now
