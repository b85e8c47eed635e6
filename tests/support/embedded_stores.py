"""The stores that need no server, under the contract suite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pyflannel.store.api import Store, Unavailable
from pyflannel.store.local import LocalStore
from pyflannel.store.metered import Meter, Metered
from pyflannel.store.sqlitefile import SQLiteFile
from tests.support.memory_store import MemoryData, MemoryStore, StoodClock
from tests.support.stores import LEASE, PREFIX, Harness, Maker


class MemoryHarness:
    """The fake itself."""

    shortest_ttl = 2
    secrets = ()
    can_forget = True
    can_stop = True

    def __init__(self) -> None:
        self._clock = StoodClock()
        self._data = MemoryData(self._clock, prefix=PREFIX)
        self._fault: Exception | None = None

    def open(self) -> Store:
        return MemoryStore(self._data, fault=lambda _operation: self._fault)

    def write_config(self, text: str) -> None:
        self._data.write_config(text)

    def delete_config(self) -> None:
        self._data.write_config(None)

    def write_beside(self, key: str) -> None:
        if (name := key.removeprefix("subnets/")) != key:
            self._data.put(name, LEASE)
        else:
            self._data.write_beside()

    def write_raw(self, name: str, value: str) -> None:
        self._data.put(name, value)

    def delete_raw(self, name: str) -> None:
        self._data.delete(name)

    def read_raw(self, name: str) -> str | None:
        record = self._data.records.get(name)
        return None if record is None else record.value

    def forget_history(self) -> None:
        self._data.compact()

    async def pass_time(self, seconds: float) -> None:
        self._clock.now += seconds
        self._data.expire()

    def stop(self) -> None:
        self._fault = Unavailable("stopped")
        self._data.wake()

    def start(self) -> None:
        self._fault = None


class MeteredHarness(MemoryHarness):
    """The fake, with every call counted: it is to remain the store it was."""

    def open(self) -> Store:
        return Metered(super().open(), Meter())


def write_local_record(path: Path, prefix: str, name: str, value: str) -> None:
    """Write a record as somebody with sqlite3(1) would; it lives for ever."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(
            "INSERT INTO lease (prefix, name, value) VALUES (?, ?, ?) ON CONFLICT (prefix, name)"
            " DO UPDATE SET value = excluded.value, ttl = NULL, expires = NULL",
            (prefix, name, value),
        )


class LocalHarness:
    """The SQLite file; the foreign writer is somebody with sqlite3(1)."""

    shortest_ttl = 2
    secrets = ()
    can_forget = True
    can_stop = True

    def __init__(self, directory: Path) -> None:
        self._path = directory / "leases.db"
        self._away = directory / "away.db"
        self._clock = StoodClock()
        made = SQLiteFile(self._path, clock=self._clock, boot=self._boot)
        made.pulse("making an empty store")
        made.close()

    def open(self) -> Store:
        return LocalStore(self._path, PREFIX, clock=self._clock, boot=self._boot)

    def write_config(self, text: str) -> None:
        self._execute("INSERT OR REPLACE INTO config VALUES (?, ?)", PREFIX, text)

    def delete_config(self) -> None:
        self._execute("DELETE FROM config WHERE prefix = ?", PREFIX)

    def write_beside(self, key: str) -> None:
        if (name := key.removeprefix("subnets/")) != key:
            self.write_raw(name, LEASE)
        else:
            # The nearest thing that a file has room for: the configuration of a network whose prefix begins with ours.
            self._execute("INSERT OR REPLACE INTO config VALUES (?, ?)", f"{PREFIX}/{key}", LEASE)

    def write_raw(self, name: str, value: str) -> None:
        write_local_record(self._path, PREFIX, name, value)

    def delete_raw(self, name: str) -> None:
        self._execute("DELETE FROM lease WHERE prefix = ? AND name = ?", PREFIX, name)

    def read_raw(self, name: str) -> str | None:
        rows = self._execute("SELECT value FROM lease WHERE prefix = ? AND name = ?", PREFIX, name)
        return str(rows[0][0]) if rows else None

    def forget_history(self) -> None:
        self._execute("DELETE FROM change")

    async def pass_time(self, seconds: float) -> None:
        self._clock.now += seconds

    def stop(self) -> None:
        self._path.rename(self._away)

    def start(self) -> None:
        self._away.rename(self._path)

    @staticmethod
    def _boot() -> str:
        return "this boot"

    def _execute(self, statement: str, *parameters: str) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(self._path, isolation_level=None)) as db:
            return db.execute(statement, parameters).fetchall()


@contextmanager
def _memory(_directory: Path) -> Iterator[Harness]:
    yield MemoryHarness()


@contextmanager
def _local(directory: Path) -> Iterator[Harness]:
    yield LocalHarness(directory)


@contextmanager
def _metered(_directory: Path) -> Iterator[Harness]:
    yield MeteredHarness()


MAKERS = [Maker("memory", _memory), Maker("metered", _metered), Maker("local", _local)]
