"""Who keeps items for one agent besides the kernel: forwarders, and the commands of an administrator.

Each is there for the backend that needs it, and where an earlier run has left something with it.  An agent that needs
neither pays for neither.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from pyflannel.backends.api import Backend
from pyflannel.backends.extension import Extension
from pyflannel.backends.udp import Udp
from pyflannel.health import Health
from pyflannel.holders import Holder, Joined
from pyflannel.linux.kernel import Kernel
from pyflannel.settings import Settings
from pyflannel.state import Item

if TYPE_CHECKING:
    from pyflannel.forwarding import Forwarders
    from pyflannel.hooks.runner import HookRunner


class Companions:
    """Those that one agent has."""

    def __init__(
        self,
        settings: Settings,
        backends: Collection[Backend],
        kernel: Kernel,
        wake: Callable[[], None],
        health: Health | None = None,
    ) -> None:
        """For these ``backends``; ``wake`` is called when something is not as it was left."""
        kinds = {type(backend) for backend in backends}
        directory = Path(settings.subnet_file).parent
        self._forwarders = _forwarders(directory, wake) if Udp in kinds else None
        self._hooks = _hooks(directory, settings.etcd_prefix, backends, wake, Extension in kinds, health)
        holders: list[Holder] = [each for each in (self._forwarders, self._hooks) if each is not None]
        self.kinds = frozenset[type[Item]]().union(*(holder.kinds for holder in holders))
        """What they keep."""
        self.kernel: Kernel = Joined(kernel, holders) if holders else kernel
        """All of them, and the kernel itself."""

    async def run(self) -> None:
        """Do what takes time, for ever or until there is nothing of that kind."""
        if self._hooks is not None:
            await self._hooks.run()

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
    backends: Collection[Backend],
    wake: Callable[[], None],
    wanted: bool,
    health: Health | None,
) -> HookRunner | None:
    # Where there is no such file, no hook of an earlier run is left either; and its module need not be loaded to know.
    if not wanted and not any(directory.glob("hooks*")):
        return None
    from pyflannel.hooks.record import Record, path
    from pyflannel.hooks.runner import HookRunner, at_once

    return HookRunner(Record(path(directory, network)), wake, max(map(at_once, backends)), health)
