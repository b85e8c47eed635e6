"""Events of the kernel as a test tells them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable

from pyflannel.linux.kernel import KernelError
from pyflannel.sighting import Sighting
from pyflannel.state import Scope


class Told:
    """These and no more; where one is an error, it is raised."""

    def __init__(self, *events: Collection[Sighting] | KernelError) -> None:
        self._events = list(events)
        self.below: list[str] = []
        """The devices below ours that are listened to."""
        self.closed = False

    def watch(self, scope: Scope, devices: Iterable[str], routes: Iterable[str] = ()) -> None:
        self.below = list(devices)

    def heard(self) -> Collection[Sighting]:
        event = self._events.pop(0) if self._events else ()
        if isinstance(event, KernelError):
            raise event
        return event

    async def wait(self) -> Collection[Sighting]:
        if not self._events:
            await asyncio.sleep(1e6)
        return self.heard()

    def close(self) -> None:
        self.closed = True
