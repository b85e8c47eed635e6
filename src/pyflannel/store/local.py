"""Leases in one SQLite file, shared by all daemons of one machine: for the lab, for tests, for a single host.

Rules of this file
  1. Compare and set happens in one IMMEDIATE transaction.  SQLite's lock is what makes two daemons take turns.
  2. Calls are short and run in the event loop; nothing waits longer than ``sqlitefile.BUSY_S`` for another process.
  3. Whoever notices that a lease has expired deletes it: every writer, and every watcher.
  4. A watcher writes now and then even if nothing expires, for the time to be noted (see ``sqlitefile``): a machine
     that is switched off every night must not keep the leases of hosts that are gone for ever.

Names and values are the texts flannel writes to etcd (compat §3.1, §3.2), so records can be carried over as they are.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Final

from pyflannel.lease.model import Attrs, Changes, Event, Lease, Removed, Snapshot, Subnet, Unreadable
from pyflannel.lease.wire import BadRecord, decode_attrs, encode_attrs, parse_subnet_name, subnet_name
from pyflannel.store.api import ConfigRecord, Conflict, HistoryLost, Record
from pyflannel.store.keys import config_key, subnets_key
from pyflannel.store.sqlitefile import Pulse, SQLiteFile, boot_id, seconds_since_boot

POLL_S: Final = 0.15
"""How often a watcher looks.  Waking a process costs some 0.2 ms of CPU, the look itself 0.01 ms."""
HEARTBEAT_S: Final = 20.0
"""How long a watcher says nothing when nothing happens."""
NOTE_S: Final = 600.0
"""How often a watcher sees to it that the time is noted: so much of a lease's time, at most, a reboot forgets."""


def open_url(url: str, prefix: str) -> LocalStore:
    """The store that ``local:/path/to/file.db`` names; ``ValueError`` if that is not the form of ``url``."""
    scheme, _, path = url.partition(":")
    if scheme != "local" or not path.startswith("/"):
        raise ValueError(f"store {url!r}: expected local:/path/to/file.db, with an absolute path")
    return LocalStore(Path(path), prefix)


class LocalStore:
    """A ``Store`` in the SQLite file ``path``, for the network at ``prefix``; one file may hold several networks."""

    def __init__(
        self,
        path: Path,
        prefix: str,
        *,
        clock: Callable[[], float] = seconds_since_boot,
        boot: Callable[[], str] = boot_id,
    ) -> None:
        """``clock`` says how many seconds ago the boot named by ``boot`` was.  No file is touched yet."""
        self._file = SQLiteFile(path, clock=clock, boot=boot)
        self._config_key = config_key(prefix)
        self._subnets_key = subnets_key(prefix)
        self._prefix = self._config_key.removesuffix("/config")
        self._clock = clock

    @property
    def name(self) -> str:
        """See ``Store``."""
        return self._file.name

    async def network_config(self) -> ConfigRecord:
        """See ``Store``."""
        with self._file.transaction("reading the network configuration", "DEFERRED") as db:
            return ConfigRecord(f"{self._config_key} in {self.name}", self._config(db))

    async def write_config(self, text: str) -> None:
        """Set the record ``<prefix>/config``, as an administrator does with etcdctl."""
        with self._file.transaction("writing the network configuration", "IMMEDIATE") as db:
            db.execute("INSERT OR REPLACE INTO config VALUES (?, ?)", (self._prefix, text))

    async def leases(self) -> Snapshot:
        """See ``Store``."""
        now = self._clock()
        with self._file.transaction("listing leases", "DEFERRED") as db:
            revision, _ = _history(db)
            config = self._config(db)
            rows = db.execute(
                "SELECT name, value, created, modified, expires FROM lease"
                " WHERE prefix = ? AND (expires IS NULL OR expires > ?) ORDER BY created",
                (self._prefix, now),
            ).fetchall()
        leases: list[Lease] = []
        unreadable: list[Unreadable] = []
        for name, value, created, modified, expires in rows:
            record = self._understand(name, value, created, modified, reservation=expires is None)
            if isinstance(record, Unreadable):
                unreadable.append(record)
            else:
                leases.append(record if expires is None else replace(record, ttl=expires - now))
        return Snapshot(revision, tuple(leases), tuple(unreadable), config or "")

    async def watch(self, revision: int) -> AsyncIterator[Changes]:
        """See ``Store``."""
        seen: Pulse | None = None
        expiry = inf
        spoke = self._clock()
        noted = -inf
        while True:
            now = self._clock()
            if now >= expiry or now - noted >= NOTE_S:
                noted = now
                with self._file.transaction("expiring leases", "IMMEDIATE"):
                    pass
            pulse = self._file.pulse("watching leases")
            if seen is not None and pulse[0] != seen[0]:
                raise HistoryLost(f"{self.name} is another file than before")
            changes = Changes(revision)
            if pulse != seen:
                changes, expiry = self._since(revision)
            seen, revision = pulse, changes.revision
            if changes.events or changes.config is not None or now - spoke >= HEARTBEAT_S:
                spoke = now
                yield changes
            await asyncio.sleep(POLL_S)

    async def create(self, subnet: Subnet, attrs: Attrs, ttl: int | None) -> Lease:
        """See ``Store``."""
        name = subnet_name(subnet)
        with self._file.transaction(f"taking {subnet}", "IMMEDIATE") as db:
            done = db.execute(
                "INSERT OR IGNORE INTO lease (prefix, name, value, ttl, expires) VALUES (?, ?, ?, ?, ?)",
                (self._prefix, name, encode_attrs(attrs), ttl, self._expiry(ttl)),
            )
            if not done.rowcount:
                raise Conflict(f"{self._key(name)} exists already in {self.name}")
            return Lease(subnet, attrs, *self._revisions(db, name), ttl=ttl, reservation=ttl is None)

    async def update(self, lease: Lease, attrs: Attrs, ttl: int) -> Lease:
        """See ``Store``."""
        name = subnet_name(lease.subnet)
        with self._file.transaction(f"updating {lease.subnet}", "IMMEDIATE") as db:
            extended = self._extend(db, lease, ttl)
            db.execute(
                "UPDATE lease SET value = ? WHERE prefix = ? AND name = ?", (encode_attrs(attrs), self._prefix, name)
            )
            created, modified = self._revisions(db, name)
        return replace(extended, attrs=attrs, created=created, modified=modified)

    async def renew(self, lease: Lease, ttl: int) -> Lease:
        """See ``Store``."""
        with self._file.transaction(f"renewing {lease.subnet}", "IMMEDIATE") as db:
            return self._extend(db, lease, ttl)

    async def set_ttl(self, lease: Lease, ttl: int | None) -> Lease:
        """See ``Store``."""
        name = subnet_name(lease.subnet)
        with self._file.transaction(f"setting how long {lease.subnet} lives", "IMMEDIATE") as db:
            # The value is named so that the watchers hear of it.
            done = db.execute(
                "UPDATE lease SET value = value, ttl = ?, expires = ? WHERE prefix = ? AND name = ? AND modified = ?",
                (ttl, self._expiry(ttl), self._prefix, name, lease.modified),
            )
            if not done.rowcount:
                raise self._changed(name)
            created, modified = self._revisions(db, name)
        return replace(lease, created=created, modified=modified, ttl=ttl, reservation=ttl is None)

    async def release(self, lease: Lease) -> None:
        """See ``Store``."""
        name = subnet_name(lease.subnet)
        with self._file.transaction(f"releasing {lease.subnet}", "IMMEDIATE") as db:
            done = db.execute(
                "DELETE FROM lease WHERE prefix = ? AND name = ? AND modified = ?", (self._prefix, name, lease.modified)
            )
            if not done.rowcount and self._revisions(db, name) != (0, 0):
                raise self._changed(name)

    async def inspect(self, subnet: Subnet) -> Record | None:
        """The record as it stands there."""
        now = self._clock()
        with self._file.transaction(f"reading the record of {subnet}", "DEFERRED") as db:
            row: tuple[str, float | None] | None = db.execute(
                "SELECT value, expires - ? FROM lease"
                " WHERE prefix = ? AND name = ? AND (expires IS NULL OR expires > ?)",
                (now, self._prefix, subnet_name(subnet), now),
            ).fetchone()
        return None if row is None else Record(*row)

    async def close(self) -> None:
        """See ``Store``."""
        self._file.close()

    def _key(self, name: str) -> str:
        return self._subnets_key + name

    def _changed(self, name: str) -> Conflict:
        return Conflict(f"{self._key(name)} in {self.name} was changed or removed since it was read")

    def _expiry(self, ttl: int | None) -> float | None:
        return None if ttl is None else self._clock() + ttl

    def _config(self, db: sqlite3.Connection) -> str | None:
        row: tuple[str] | None = db.execute("SELECT text FROM config WHERE prefix = ?", (self._prefix,)).fetchone()
        return None if row is None else row[0]

    def _understand(
        self, name: str, value: str, created: int, modified: int, *, reservation: bool
    ) -> Lease | Unreadable:
        try:
            return Lease(_subnet(name), decode_attrs(value), created, modified, reservation=reservation)
        except BadRecord as exc:
            return Unreadable(self._key(name), str(exc))

    def _revisions(self, db: sqlite3.Connection, name: str) -> tuple[int, int]:
        """When the record appeared and when it was last written; (0, 0) if there is none."""
        row: tuple[int, int] | None = db.execute(
            "SELECT created, modified FROM lease WHERE prefix = ? AND name = ?", (self._prefix, name)
        ).fetchone()
        return row or (0, 0)

    def _extend(self, db: sqlite3.Connection, lease: Lease, ttl: int) -> Lease:
        """Move the expiry of the record that ``lease`` was read from, unless it is a reservation, which has none."""
        name = subnet_name(lease.subnet)
        which = (self._prefix, name, lease.modified)
        found = db.execute("SELECT expires FROM lease WHERE prefix = ? AND name = ? AND modified = ?", which).fetchone()
        if found is None:
            raise self._changed(name)
        if found == (None,):
            return replace(lease, ttl=None, reservation=True)
        db.execute(
            "UPDATE lease SET ttl = ?, expires = ? WHERE prefix = ? AND name = ? AND modified = ?",
            (ttl, self._clock() + ttl, *which),
        )
        return replace(lease, ttl=ttl, reservation=False)

    def _since(self, revision: int) -> tuple[Changes, float]:
        """What happened after ``revision``, and when the next lease expires."""
        with self._file.transaction("watching leases", "DEFERRED") as db:
            newest, oldest = _history(db)
            if not oldest - 1 <= revision <= newest:
                raise HistoryLost(f"{self.name} holds changes {oldest} to {newest}, not all those after {revision}")
            rows = db.execute(
                "SELECT name, value, coalesce(created, revision), revision, reservation FROM change"
                " WHERE revision > ? AND prefix = ? ORDER BY revision",
                (revision, self._prefix),
            ).fetchall()
            (expiry,) = db.execute("SELECT min(expires) FROM lease WHERE expires IS NOT NULL").fetchone()
        events = [event for row in rows if row[0] is not None and (event := self._event(*row)) is not None]
        config = next((text or "" for name, text, *_ in reversed(rows) if name is None), None)
        return Changes(newest, tuple(events), config), inf if expiry is None else expiry

    def _event(self, name: str, value: str | None, created: int, modified: int, reservation: int) -> Event | None:
        """What one row of the history means; None for the end of a record that never meant anything."""
        if value is not None:
            return self._understand(name, value, created, modified, reservation=bool(reservation))
        try:
            return Removed(_subnet(name))
        except BadRecord:
            return None


def _subnet(name: str) -> Subnet:
    """The subnet a record right below ``subnets/`` is about; ``BadRecord`` for what lies deeper, or names none."""
    if "/" in name:
        raise BadRecord(f"key {name!a} lies below another: expected one like 10.1.5.0-24")
    return parse_subnet_name(name)


def _history(db: sqlite3.Connection) -> tuple[int, int]:
    """The newest revision, and the oldest whose change is still remembered (newest + 1 if none is)."""
    (newest,) = db.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'change'").fetchone()
    (oldest,) = db.execute("SELECT min(revision) FROM change").fetchone()
    return newest, newest + 1 if oldest is None else oldest
