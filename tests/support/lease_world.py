"""Hosts that lease subnets from one store, in a time of their own, with everything that can happen to a request.

What a host does is the real thing, ``tenancy`` and ``keeper``; the store is the one in memory behind a network which
delays, loses and answers late; how a host comes to hear of changes is the least that the agent does.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from itertools import count
from typing import TypeVar

from pyflannel.keeper import Keeper, LeaseLost
from pyflannel.lease.alloc import own_lease
from pyflannel.lease.model import Attrs, Lease, Snapshot, Subnet
from pyflannel.lease.network import NetworkConfig
from pyflannel.lease.table import LeaseTable
from pyflannel.lease.wire import decode_attrs, subnet_name
from pyflannel.store.api import Conflict, Unavailable
from pyflannel.tenancy import Tenant, acquire, patiently
from tests.support.memory_store import MemoryData, MemoryStore, Record

T = TypeVar("T")

DEADLINE = 5.0
"""Seconds after which a client gives a request up."""
RELIST = 300.0
"""Seconds after which a host lists the store though it heard of nothing."""


@dataclass(frozen=True)
class Fate:
    """What becomes of one request."""

    delay: float = 0.0
    """Seconds later than others that it reaches the store: with more than ``DEADLINE``, when nobody expects it."""
    lost: bool = False
    mute: bool = False
    """It is done, and the answer is lost."""


PROMPT = Fate()


def attrs_of(address: IPv4Address, mac: int) -> Attrs:
    """What a vxlan host publishes."""
    data = f'{{"VNI":1,"VtepMAC":"02:00:00:00:{mac >> 8:02x}:{mac & 0xFF:02x}"}}'
    return Attrs(address, IPv6Address(f"fd00:41::{int(address) & 0xFFFF:x}"), "vxlan", data, data)


@dataclass
class World:
    """What all hosts share."""

    data: MemoryData
    config: NetworkConfig
    restarts: int = 0
    """How often the store was restored from a backup; no request survives it."""
    back_at: float = 0.0
    """When the store answers again."""
    compares: bool = True
    """False: a create that finds the key there overwrites it."""
    macs: Iterator[int] = field(default_factory=lambda: count(0x100))
    """For whoever needs another one."""
    flaws: list[str] = field(default_factory=list)
    """What happened and must not."""


class Line(MemoryStore):
    """One host's connection to the store."""

    def __init__(self, world: World, host: Host) -> None:
        super().__init__(world.data)
        self.world, self.host = world, host
        self.fates: deque[Fate] = deque()
        self.cut = False
        self.disturbed_at = 0.0
        self._flying: set[asyncio.Task[None]] = set()

    async def leases(self) -> Snapshot:
        return await self._send(super().leases)

    async def create(self, subnet: Subnet, attrs: Attrs, ttl: int | None) -> Lease:
        async def request() -> Lease:
            if not self.world.compares:
                self.data.records.pop(subnet_name(subnet), None)
            return await MemoryStore.create(self, subnet, attrs, ttl)

        return await self._send(lambda: self._touch(subnet, request))

    async def update(self, lease: Lease, attrs: Attrs, ttl: int) -> Lease:
        return await self._send(lambda: self._touch(lease.subnet, lambda: MemoryStore.update(self, lease, attrs, ttl)))

    async def renew(self, lease: Lease, ttl: int) -> Lease:
        return await self._send(lambda: MemoryStore.renew(self, lease, ttl))

    async def release(self, lease: Lease) -> None:
        return await self._send(lambda: self._touch(lease.subnet, lambda: MemoryStore.release(self, lease)))

    async def _touch(self, subnet: Subnet, request: Callable[[], Coroutine[object, object, T]]) -> T:
        """Do it, and see whose record that was."""
        before = self.data.records.get(subnet_name(subnet))
        answer = await request()
        if before is not None and not self.host.may_touch(before):
            self.world.flaws.append(f"{self.host.name} changed or removed {subnet}, which said {before.value}")
        return answer

    async def _send(self, request: Callable[[], Coroutine[object, object, T]]) -> T:
        loop = asyncio.get_running_loop()
        fate = self.fates.popleft() if self.fates else PROMPT
        if fate != PROMPT:
            self.disturbed_at = loop.time() + fate.delay
        if self.cut or loop.time() < self.world.back_at:
            self.disturbed_at = max(self.disturbed_at, loop.time())
            await asyncio.sleep(self.host.latency)
            raise Unavailable("no connection")
        answer: asyncio.Future[T] = loop.create_future()
        # What is on its way stays on its way when its sender dies.
        task = loop.create_task(self._carry(request, fate, answer))
        self._flying.add(task)
        task.add_done_callback(self._flying.discard)
        try:
            async with asyncio.timeout(DEADLINE):
                return await answer
        except TimeoutError:
            raise Unavailable("no answer in time") from None

    async def _carry(
        self, request: Callable[[], Coroutine[object, object, T]], fate: Fate, answer: asyncio.Future[T]
    ) -> None:
        restarts = self.world.restarts
        await asyncio.sleep(self.host.latency + fate.delay)
        if fate.lost or restarts != self.world.restarts:
            return
        result: T | Conflict
        try:
            result = await request()
        except Conflict as exc:
            result = exc
        await asyncio.sleep(self.host.latency)
        if fate.mute or answer.done():
            return
        if isinstance(result, Conflict):
            answer.set_exception(result)
        else:
            answer.set_result(result)


class Host:
    """One host: what it keeps on disk, and its agent while that runs."""

    def __init__(self, world: World, number: int, address: IPv4Address, latency: float) -> None:
        self.name, self.mac, self.latency = f"host{number}", number, latency
        self.world = world
        self.addresses = [address]
        self.previous: Subnet | None = None
        self.written: Lease | None = None
        self.keeper: Keeper | None = None
        self.line = Line(world, self)
        self.slept = 0.0
        self.task: asyncio.Task[None] | None = None
        self._rng = random.Random(number)

    @property
    def attrs(self) -> Attrs:
        return attrs_of(self.addresses[-1], self.mac)

    @property
    def holds(self) -> Subnet | None:
        """The subnet the host believes to be its own."""
        return self.keeper.lease.subnet if self.task is not None and self.keeper is not None else None

    def may_touch(self, record: Record) -> bool:
        """Whether a record is, or once was, about this host."""
        return decode_attrs(record.value).public_ip in self.addresses

    def start(self) -> None:
        self.task = asyncio.get_running_loop().create_task(self._live(), name=self.name)

    async def crash(self) -> None:
        """The agent is killed, wherever it is."""
        if self.task is not None:
            task, self.task = self.task, None
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self.keeper = None

    async def stop(self) -> None:
        """The agent ends in good order, and gives its lease back."""
        keeper = self.keeper
        await self.crash()
        if keeper is not None:
            await keeper.release()

    def move(self, address: IPv4Address) -> None:
        """The host gets another address."""
        self.addresses.append(address)
        if self.keeper is not None:
            self.keeper.publish(self.attrs)

    async def _live(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            listed = await patiently("list the leases", self.line.leases)
            self._be_nobody_else(listed)
            tenant = Tenant(self.world.config, self.attrs, self.previous, margin=3600.0, written=self.written)
            lease = await acquire(self.line, tenant, self._rng, listed)
            self.keeper = Keeper(self.line, tenant, lease, self._rng, lambda: now() + self.slept)
            self.keeper.publish(self.attrs)
            self.previous, self.written = lease.subnet, lease
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self.keeper.run())
                    tasks.create_task(self._watch(self.keeper))
            except* LeaseLost:
                self.keeper = None
            if self.task is not asyncio.current_task():
                # A TaskGroup that ends with an error forgets that it was cancelled at that moment (before Python 3.13).
                raise asyncio.CancelledError

    def _be_nobody_else(self, listed: Snapshot) -> None:
        """Take another MAC address if ours is in a record of which nothing else says that it is ours."""
        attrs = self.attrs
        own = own_lease(self.world.config, listed.leases, attrs.public_ip, attrs.public_ipv6)
        others = (lease for lease in listed.leases if lease not in (own, self.written))
        if any(lease.attrs.backend_data == attrs.backend_data for lease in others):
            self.mac = next(self.world.macs)

    async def _watch(self, keeper: Keeper) -> None:
        """List whenever something happened, and have the keeper look if that is not what it wrote."""
        table, woken = LeaseTable(), asyncio.Event()
        self.world.data.watchers.add(woken)
        try:
            while True:
                woken.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(RELIST):
                        await self._list(table)
                        self.written = keeper.lease
                        if not keeper.recognises(table):
                            keeper.look_again()
                        await woken.wait()
        finally:
            self.world.data.watchers.discard(woken)

    async def _list(self, table: LeaseTable) -> None:
        while True:
            try:
                table.apply_snapshot(await self.line.leases())
            except Unavailable:
                await asyncio.sleep(1.0)
            else:
                return
