"""A store that counts what it is asked, how long that takes, and what comes to nothing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from pyflannel.durations import Durations
from pyflannel.lease.model import Attrs, Changes, Lease, Snapshot, Subnet
from pyflannel.store.api import ConfigRecord, Record, Store, Unavailable
from pyflannel.store.endpoints import NotOffered

T = TypeVar("T")


@dataclass(slots=True)
class Meter:
    """What is known of the stores of one agent.  Times are seconds since 1970."""

    now: Callable[[], float] = time.time
    clock: Callable[[], float] = time.monotonic
    requests: dict[str, Durations] = field(default_factory=dict)
    """By operation, as the methods of ``Store`` are called; a watch is none."""
    errors: Counter[str] = field(default_factory=Counter)
    """How often an operation, a watch among them, found the store unavailable."""
    answers: bool | None = None
    """Whether the last one that was asked did; None before any was."""
    since: float | None = None
    """How long it has been so."""
    heard: float | None = None
    """When a watch last delivered something, if only that nothing happened."""

    def tell(self, operation: str, answered: bool) -> None:
        """Take in that the store answered, or did not."""
        if not answered:
            self.errors[operation] += 1
        if answered != self.answers:
            self.answers, self.since = answered, self.now()

    def hear(self) -> None:
        """Take in that a watch delivered something."""
        self.tell("watch", True)
        self.heard = self.now()

    async def time(self, operation: str, request: Awaitable[T]) -> T:
        """Await ``request`` and count it; an answer such as ``Conflict`` is an answer."""
        began = self.clock()
        try:
            result = await request
        except Unavailable as exc:
            # To say that an API is switched off is an answer as well.
            self.tell(operation, isinstance(exc, NotOffered))
            raise
        finally:
            self.requests.setdefault(operation, Durations()).note(self.clock() - began)
        self.tell(operation, True)
        return result


class Metered:
    """``store``, with every call told to ``meter``; all its promises are those of ``store``."""

    def __init__(self, store: Store, meter: Meter) -> None:
        """Ask nothing yet."""
        self._store, self._meter = store, meter

    @property
    def name(self) -> str:
        """As that of the store."""
        return self._store.name

    async def network_config(self) -> ConfigRecord:
        """As that of the store; so are all others."""
        return await self._meter.time("network_config", self._store.network_config())

    async def leases(self) -> Snapshot:
        """List."""
        return await self._meter.time("leases", self._store.leases())

    async def watch(self, revision: int) -> AsyncGenerator[Changes, None]:
        """Follow."""
        watch = self._store.watch(revision)
        try:
            async for changes in watch:
                self._meter.hear()
                yield changes
        except Unavailable:
            self._meter.tell("watch", False)
            raise
        finally:
            if isinstance(watch, AsyncGenerator):
                await watch.aclose()

    async def create(self, subnet: Subnet, attrs: Attrs, ttl: int | None) -> Lease:
        """Take."""
        return await self._meter.time("create", self._store.create(subnet, attrs, ttl))

    async def update(self, lease: Lease, attrs: Attrs, ttl: int) -> Lease:
        """Write."""
        return await self._meter.time("update", self._store.update(lease, attrs, ttl))

    async def renew(self, lease: Lease, ttl: int) -> Lease:
        """Prolong."""
        return await self._meter.time("renew", self._store.renew(lease, ttl))

    async def set_ttl(self, lease: Lease, ttl: int | None) -> Lease:
        """Reserve, or no longer."""
        return await self._meter.time("set_ttl", self._store.set_ttl(lease, ttl))

    async def release(self, lease: Lease) -> None:
        """Give back."""
        await self._meter.time("release", self._store.release(lease))

    async def inspect(self, subnet: Subnet) -> Record | None:
        """Show."""
        return await self._meter.time("inspect", self._store.inspect(subnet))

    async def close(self) -> None:
        """Drop connections."""
        await self._store.close()
