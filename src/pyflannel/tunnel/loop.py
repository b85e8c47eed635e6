"""Who is called when a descriptor is ready: a few lines of epoll.

asyncio would do as well, at the price of 10 MB and of a callback scheduled for every packet.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import TypeAlias

Handler: TypeAlias = Callable[[int], None]
"""Takes the mask of epoll."""


class Loop:
    """Descriptors and their handlers, in one thread."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._running = True

    def watch(self, fd: int, handler: Handler) -> None:
        """Call ``handler`` while there is something to be read, and after an error or the end in any case."""
        self._handlers[fd] = handler
        self._epoll.register(fd, select.EPOLLIN)

    def change(self, fd: int, mask: int) -> None:
        """Call the handler for these events instead."""
        self._epoll.modify(fd, mask)

    def unwatch(self, fd: int) -> None:
        """No more, as is due before it is closed."""
        del self._handlers[fd]
        self._epoll.unregister(fd)

    def run(self) -> None:
        """Until ``stop``."""
        while self._running:
            self.turn()

    def stop(self) -> None:
        """End ``run`` after the present turn."""
        self._running = False

    def turn(self, timeout_s: float | None = None) -> None:
        """Wait for something to happen, for ever if there is no time given, and call who waits for it."""
        for fd, mask in self._epoll.poll(timeout_s):
            # A handler called before may have sent this one home.
            handler = self._handlers.get(fd)
            if handler is not None:
                handler(mask)

    def close(self) -> None:
        """Let go of the epoll descriptor; those watched stay open."""
        self._epoll.close()
