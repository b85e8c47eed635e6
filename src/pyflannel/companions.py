"""Who keeps items for one agent besides the kernel: forwarders, and the commands of an administrator.

Each is there for the backend that needs it, and where an earlier run has left something with it.  An agent that needs
neither pays for neither.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from pyflannel.health import Health
from pyflannel.holders import Holder, Joined
from pyflannel.linux.kernel import Kernel
from pyflannel.network import Way
from pyflannel.settings import Settings
from pyflannel.state import Item

if TYPE_CHECKING:
    from pyflannel.forwarding import Forwarders
    from pyflannel.hooks.runner import HookRunner


class CompanionFailed(Exception):
    """There is no network here without it; the message says what failed, and how."""


class Companions:
    """Those that one agent has."""

    def __init__(
        self,
        settings: Settings,
        ways: Collection[Way],
        kernel: Kernel,
        wake: Callable[[], None],
        health: Health | None = None,
    ) -> None:
        """For these ``ways``, ours first; ``wake`` is called when something is not as it was left."""
        self._hooked = [way for way in ways if way.view.config.backend_type == "extension"]
        types = {way.view.config.backend_type for way in ways}
        directory = Path(settings.subnet_file).parent
        self._forwarders = _forwarders(directory, wake) if "udp" in types else None
        self._hooks = _hooks(directory, settings.etcd_prefix, self._hooked, wake, health)
        holders: list[Holder] = [each for each in (self._forwarders, self._hooks) if each is not None]
        self.kinds = frozenset[type[Item]]().union(*(holder.kinds for holder in holders))
        """What they keep."""
        self.kernel: Kernel = Joined(kernel, holders) if holders else kernel
        """All of them, and the kernel itself."""

    async def run(self) -> None:
        """Do what takes time, for ever or until there is nothing of that kind."""
        if self._hooks is not None:
            await self._hooks.run()

    async def settle(self, ours: Way) -> None:
        """What is to be done once there is a lease; ``CompanionFailed`` if it cannot be."""
        if ours in self._hooked:
            from pyflannel.hooks.host import CommandFailed, settle

            try:
                await settle(ours.backend, ours.view)
            except CommandFailed as exc:
                raise CompanionFailed(str(exc)) from None

    async def shut_down(self, way: Way) -> None:
        """What is to be done when a way is left for good, or the agent ends in order."""
        if way.view.config.backend_type == "extension":
            from pyflannel.hooks.host import shut_down

            await shut_down(way.backend, way.view)

    def try_again(self) -> None:
        """What failed may succeed now: something has changed about this host."""
        if self._hooks is not None:
            self._hooks.try_again()

    def close(self) -> None:
        """Let go of all; what they keep stays as it is."""
        if self._forwarders is not None:
            self._forwarders.close()


def _forwarders(directory: Path, wake: Callable[[], None]) -> Forwarders:
    from pyflannel.forwarding import Forwarders

    forwarders = Forwarders(directory)
    forwarders.watch(asyncio.get_running_loop(), wake)
    return forwarders


def _hooks(
    directory: Path,
    network: str,
    ways: Collection[Way],
    wake: Callable[[], None],
    health: Health | None,
) -> HookRunner | None:
    # Where there is no such file, no hook of an earlier run is left either; and its module need not be loaded to know.
    if not ways and not any(directory.glob("hooks*")):
        return None
    from pyflannel.hooks.record import Record, path
    from pyflannel.hooks.runner import HookRunner, at_once

    return HookRunner(
        Record(path(directory, network)), wake, max((at_once(way.backend) for way in ways), default=1), health
    )
