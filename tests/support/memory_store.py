"""A store in memory, with a clock that stands still until told and faults on demand.  The contract suite covers it.

``MemoryData`` is the server, ``MemoryStore`` one client of it.  Revisions, history and expiry behave as in etcd v3.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace

from pyflannel.lease.model import Attrs, Changes, Event, Lease, Removed, Snapshot, Subnet, Unreadable
from pyflannel.lease.wire import BadRecord, decode_attrs, encode_attrs, parse_subnet_name, subnet_name
from pyflannel.store.api import ConfigRecord, Conflict, HistoryLost
from pyflannel.store.api import Record as RawRecord

HEARTBEAT_S = 20.0


class StoodClock:
    """Seconds which pass when a test says so."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True, slots=True)
class Record:
    """What stands under one key."""

    value: str
    created: int
    modified: int
    expires: float | None


@dataclass(slots=True)
class MemoryData:
    """The records, shared by all clients."""

    clock: Callable[[], float] = field(default_factory=StoodClock)
    config: str | None = None
    """Set it with ``write_config`` where watchers are to hear of it."""
    prefix: str = "/coreos.com/network"
    revision: int = 1
    compacted: int = 0
    records: dict[str, Record] = field(default_factory=dict)
    history: list[tuple[int, str | None, Record | None]] = field(default_factory=list)
    """Revision, name below ``subnets/`` or None for the configuration, and what was written or None for a removal."""
    watchers: set[asyncio.Event] = field(default_factory=set)

    def write_config(self, text: str | None) -> None:
        """Write the configuration as an administrator does; None removes it."""
        self.revision += 1
        self.config = text
        self._log(None, None if text is None else Record(text, self.revision, self.revision, None))

    def write_beside(self) -> None:
        """Write a key that is neither the configuration nor below ``subnets/``: nothing is to be seen of it."""
        self.revision += 1
        self.wake()

    def put(self, name: str, value: str, ttl: float | None = None) -> Record:
        """Write a record as anybody may, whatever was there; ``ttl`` None writes a reservation."""
        self.revision += 1
        before = self.records.get(name)
        created = before.created if before else self.revision
        record = Record(value, created, self.revision, None if ttl is None else self.clock() + ttl)
        self.records[name] = record
        self._log(name, record)
        return record

    def delete(self, name: str) -> None:
        """Delete a record as anybody may."""
        if self.records.pop(name, None):
            self.revision += 1
            self._log(name, None)

    def expire(self) -> None:
        """Drop what the clock says is over; call it after moving the clock, so that watchers hear of it."""
        for name, record in list(self.records.items()):
            if record.expires is not None and record.expires <= self.clock():
                self.delete(name)

    def compact(self) -> None:
        """Forget how it came to the present records."""
        self.compacted = self.revision
        self.history.clear()
        self.wake()

    def wake(self) -> None:
        """Let every watch look again, at the data and at its client's ``fault``."""
        for watcher in self.watchers:
            watcher.set()

    def _log(self, name: str | None, record: Record | None) -> None:
        self.history.append((self.revision, name, record))
        self.wake()


def _no_fault(_operation: str) -> Exception | None:
    return None


class MemoryStore:
    """One client.  ``fault`` is asked before every operation, by the method's name, and raises what it returns.

    After the effect it is asked again, as in ``"create answered"``: a request that is done but whose answer is lost.
    """

    def __init__(self, data: MemoryData, *, fault: Callable[[str], Exception | None] = _no_fault) -> None:
        self.data = data
        self.fault = fault

    @property
    def name(self) -> str:
        return "memory store"

    async def network_config(self) -> ConfigRecord:
        self._meet("network_config")
        return ConfigRecord(f"{self.data.prefix}/config in {self.name}", self.data.config)

    async def leases(self) -> Snapshot:
        self._meet("leases")
        records = [self._understand(name, record) for name, record in self.data.records.items()]
        return Snapshot(
            self.data.revision,
            tuple(record for record in records if isinstance(record, Lease)),
            tuple(record for record in records if isinstance(record, Unreadable)),
            self.data.config or "",
        )

    async def watch(self, revision: int) -> AsyncGenerator[Changes, None]:
        woken = asyncio.Event()
        self.data.watchers.add(woken)
        try:
            while True:
                self._meet("watch")
                if not self.data.compacted <= revision <= self.data.revision:
                    raise HistoryLost(f"revision {revision} cannot be watched from")
                changes = self._after(revision)
                revision = changes.revision
                woken.clear()
                if changes.events or changes.config is not None:
                    yield changes
                    continue
                try:
                    async with asyncio.timeout(HEARTBEAT_S):
                        await woken.wait()
                except TimeoutError:
                    yield Changes(revision)
        finally:
            self.data.watchers.discard(woken)

    async def create(self, subnet: Subnet, attrs: Attrs, ttl: int | None) -> Lease:
        self._meet("create")
        name = subnet_name(subnet)
        if name in self.data.records:
            raise Conflict(f"{name} exists")
        record = self.data.put(name, encode_attrs(attrs), ttl)
        self._meet("create answered")
        return Lease(subnet, attrs, record.created, record.modified, ttl=ttl, reservation=ttl is None)

    async def update(self, lease: Lease, attrs: Attrs, ttl: int) -> Lease:
        self._meet("update")
        reservation = self._current(lease).expires is None
        left = None if reservation else ttl
        record = self.data.put(subnet_name(lease.subnet), encode_attrs(attrs), left)
        self._meet("update answered")
        return Lease(lease.subnet, attrs, record.created, record.modified, ttl=left, reservation=reservation)

    async def renew(self, lease: Lease, ttl: int) -> Lease:
        self._meet("renew")
        record = self._current(lease)
        if record.expires is None:
            return replace(lease, ttl=None, reservation=True)
        self.data.records[subnet_name(lease.subnet)] = replace(record, expires=self.data.clock() + ttl)
        self._meet("renew answered")
        return replace(lease, ttl=ttl)

    async def set_ttl(self, lease: Lease, ttl: int | None) -> Lease:
        self._meet("set_ttl")
        record = self.data.put(subnet_name(lease.subnet), self._current(lease).value, ttl)
        self._meet("set_ttl answered")
        return replace(lease, created=record.created, modified=record.modified, ttl=ttl, reservation=ttl is None)

    async def release(self, lease: Lease) -> None:
        self._meet("release")
        if subnet_name(lease.subnet) in self.data.records:
            self._current(lease)
            self.data.delete(subnet_name(lease.subnet))
        self._meet("release answered")

    async def inspect(self, subnet: Subnet) -> RawRecord | None:
        self._meet("inspect")
        record = self.data.records.get(subnet_name(subnet))
        if record is None:
            return None
        return RawRecord(record.value, None if record.expires is None else record.expires - self.data.clock())

    async def close(self) -> None:
        pass

    def _meet(self, operation: str) -> None:
        self.data.expire()
        if (exc := self.fault(operation)) is not None:
            raise exc

    def _current(self, lease: Lease) -> Record:
        record = self.data.records.get(subnet_name(lease.subnet))
        if record is None or record.modified != lease.modified:
            raise Conflict(f"{lease.subnet} was changed or removed")
        return record

    def _understand(self, name: str, record: Record) -> Lease | Unreadable:
        left = None if record.expires is None else record.expires - self.data.clock()
        try:
            return Lease(
                _subnet(name),
                decode_attrs(record.value),
                record.created,
                record.modified,
                ttl=left,
                reservation=left is None,
            )
        except BadRecord as exc:
            return Unreadable(f"{self.data.prefix}/subnets/{name}", str(exc))

    def _after(self, revision: int) -> Changes:
        events: list[Event] = []
        config = None
        for at, name, record in self.data.history:
            if at <= revision:
                continue
            if name is None:
                config = "" if record is None else record.value
            elif (event := self._event(name, record)) is not None:
                events.append(event)
        return Changes(self.data.revision, tuple(events), config)

    def _event(self, name: str, record: Record | None) -> Event | None:
        if record is not None:
            return self._understand(name, record)
        try:
            return Removed(_subnet(name))
        except BadRecord:
            return None


def _subnet(name: str) -> Subnet:
    if "/" in name:
        raise BadRecord(f"{name} lies below another key")
    return parse_subnet_name(name)
