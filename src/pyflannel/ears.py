"""Hearing what happens in the kernel: to what is ours, which asks for an audit, and below it, which asks for a look."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Final, NoReturn, Protocol

from pyflannel.backends import direct
from pyflannel.backends.api import View
from pyflannel.conditions import EVENTS_LOST
from pyflannel.health import Health
from pyflannel.linux.kernel import KernelError
from pyflannel.reconcile import Reconciler
from pyflannel.sighting import Changed, Lost, Sighting, contradicts
from pyflannel.state import Scope

RETRY: Final = 1.0
"""Seconds to wait when the kernel does not let us listen; until then every look is a full one."""


class Events(Protocol):
    """As ``linux.events.KernelEvents``."""

    def watch(self, scope: Scope, devices: Iterable[str], routes: Iterable[str] = ()) -> None:
        """Tell of these from now on."""

    def heard(self) -> Collection[Sighting]:
        """What has happened; ``KernelError``."""

    async def wait(self) -> Collection[Sighting]:
        """The same once there is something."""

    def close(self) -> None:
        """Tell nothing any more."""


class Ears:
    """Those of one agent."""

    def __init__(self, events: Events, reconciler: Reconciler, health: Health) -> None:
        """``events`` tell nothing of our own doings, which are what we want, and are ours to close."""
        self.host_changed = asyncio.Event()
        """Something happened to the external interface."""
        self._events, self._reconciler, self._health = events, reconciler, health

    def watch(self, view: View) -> None:
        """From now on hear of what happens to our devices and to the one below them; look at them after that."""
        below = [view.underlay.name]
        self._events.watch(self._reconciler.scope, below, below if direct.wanted(view.config) else ())

    def catch_up(self) -> None:
        """Take in what was heard so far; ``run`` tells of it if that cannot be had."""
        with suppress(KernelError):
            self._hear(self._events.heard())

    async def run(self) -> NoReturn:
        """Listen, for ever."""
        while True:
            try:
                self._hear(await self._events.wait())
                self._health.clear(EVENTS_LOST)
            except KernelError as exc:
                self._health.set(EVENTS_LOST, f"cannot tell what happens in the kernel: {exc}")
                await asyncio.sleep(RETRY)
                self._hear([Lost()])

    def close(self) -> None:
        """Hear nothing any more."""
        self._events.close()

    def _hear(self, sightings: Collection[Sighting]) -> None:
        scope = self._reconciler.scope
        below = {each for each in sightings if isinstance(each, Changed) and each.dev not in scope.devices}
        if below or Lost() in sightings:
            self.host_changed.set()
        if contradicts([each for each in sightings if each not in below], self._reconciler.wanted, scope):
            self._reconciler.mark_dirty()
