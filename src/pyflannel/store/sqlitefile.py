"""The SQLite file behind ``local``: its tables, how it is made, opened and kept whole.

Rules of this file
  1. The file keeps its own history: triggers number and log every change of a lease or a configuration, so a record
     edited with sqlite3(1) reaches the watchers like any other.
  2. Leases live on the clock that counts from boot, which neither steps nor disagrees between processes.  What was
     left of a lease when a boot ended counts on from the start of the next: the time between the two, which no clock
     tells, is nobody's loss.  Every writer notes the time, so that a boot's end is known well enough.
  3. Whoever writes deletes what has expired first.
  4. The name of the file stands for one set of tables at a time.  A file that was replaced is opened anew; one that
     was removed is not made again by those who had it open: an emptied disk must not look like an emptied network.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeAlias
from urllib.parse import quote

from pyflannel.store.api import Unavailable

BUSY_S: Final = 1.0
"""The longest wait for another process to finish its write."""
HISTORY: Final = 10_000
"""How many changes the file remembers."""

Pulse: TypeAlias = tuple[object, int, int]

_FORMAT: Final = 2
_SCHEMA: Final = f"""
PRAGMA journal_mode = WAL;
CREATE TABLE boot (
    id TEXT NOT NULL,
    clock REAL NOT NULL -- the latest time after that boot which a writer noted
);
INSERT INTO boot VALUES ('', 0);
CREATE TABLE config (
    prefix TEXT PRIMARY KEY,
    text TEXT NOT NULL,
    CHECK (typeof(text) = 'text')
) WITHOUT ROWID;
CREATE TABLE lease (
    prefix TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    ttl REAL,     -- seconds; NULL: a reservation
    expires REAL, -- seconds after boot; NULL: a reservation
    created INTEGER NOT NULL DEFAULT 0,
    modified INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (prefix, name),
    CHECK (typeof(name) = 'text' AND typeof(value) = 'text'),
    CHECK (typeof(expires) IN ('real', 'null') AND typeof(ttl) = typeof(expires))
) WITHOUT ROWID;
CREATE INDEX lease_expires ON lease (expires) WHERE expires IS NOT NULL;
CREATE TABLE change (
    revision INTEGER PRIMARY KEY AUTOINCREMENT,
    prefix TEXT NOT NULL,
    name TEXT,       -- NULL: the configuration
    value TEXT,      -- NULL: removed
    created INTEGER, -- NULL: by this very change
    reservation INTEGER NOT NULL DEFAULT 0
);
CREATE TRIGGER config_created AFTER INSERT ON config BEGIN
    INSERT INTO change (prefix, value) VALUES (NEW.prefix, NEW.text);
END;
CREATE TRIGGER config_updated AFTER UPDATE OF text ON config BEGIN
    INSERT INTO change (prefix, value) VALUES (NEW.prefix, NEW.text);
END;
CREATE TRIGGER config_removed AFTER DELETE ON config BEGIN
    INSERT INTO change (prefix) VALUES (OLD.prefix);
END;
CREATE TRIGGER lease_created AFTER INSERT ON lease BEGIN
    INSERT INTO change (prefix, name, value, reservation)
        VALUES (NEW.prefix, NEW.name, NEW.value, NEW.expires IS NULL);
    UPDATE lease SET created = last_insert_rowid(), modified = last_insert_rowid()
        WHERE prefix = NEW.prefix AND name = NEW.name;
END;
CREATE TRIGGER lease_updated AFTER UPDATE OF value ON lease BEGIN
    INSERT INTO change (prefix, name, value, created, reservation)
        VALUES (NEW.prefix, NEW.name, NEW.value, NEW.created, NEW.expires IS NULL);
    UPDATE lease SET modified = last_insert_rowid() WHERE prefix = NEW.prefix AND name = NEW.name;
END;
CREATE TRIGGER lease_removed AFTER DELETE ON lease BEGIN
    INSERT INTO change (prefix, name) VALUES (OLD.prefix, OLD.name);
END;
CREATE TRIGGER change_forgotten AFTER INSERT ON change BEGIN
    DELETE FROM change WHERE revision <= NEW.revision - {HISTORY};
END;
PRAGMA user_version = {_FORMAT};
"""


def seconds_since_boot() -> float:
    """The clock leases live on: never steps, goes on while the machine sleeps, the same for all processes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """What tells this boot from any other (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


class SQLiteFile:
    """One process's connection to the file at ``path``; made at first use, readable by its owner alone.

    Whatever SQLite or the file system has to say against a request becomes ``Unavailable``, with what was tried.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float], boot: Callable[[], str]) -> None:
        """``clock`` says how many seconds ago the boot named by ``boot`` was.  No file is touched yet."""
        self.name = f"local store {path}"
        self._path = path
        self._clock = clock
        self._boot = boot
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._closed = False

    @contextmanager
    def transaction(self, doing: str, mode: Literal["DEFERRED", "IMMEDIATE"]) -> Iterator[sqlite3.Connection]:
        """All or nothing, DEFERRED to read and IMMEDIATE to write; a writer finds what has expired already gone."""
        with self._connected(doing) as db:
            db.execute(f"BEGIN {mode}")
            with db:
                if mode == "IMMEDIATE":
                    now = self._clock()
                    db.execute("UPDATE boot SET clock = ?", (now,))
                    db.execute("DELETE FROM lease WHERE expires <= ?", (now,))
                yield db

    def pulse(self, doing: str) -> Pulse:
        """Differs from the last one if anybody, this process included, may have written since.

        Its first part says which file it was: another one has another history.
        """
        with self._connected(doing) as db:
            (version,) = db.execute("PRAGMA data_version").fetchone()
            return self._inode, version, db.total_changes

    def close(self) -> None:
        """Let go of the file; every later request is ``Unavailable``."""
        self._closed = True
        self._disconnect()

    @contextmanager
    def _connected(self, doing: str) -> Iterator[sqlite3.Connection]:
        if self._closed:
            raise Unavailable(f"{doing}: {self.name} was closed")
        try:
            yield self._connect()
        except sqlite3.ProgrammingError:
            raise
        except (sqlite3.DatabaseError, OSError) as exc:
            raise Unavailable(f"{doing}: {self.name}: {exc}") from exc

    def _connect(self) -> sqlite3.Connection:
        if self._inode is None and not self._path.exists():
            _make(self._path)
        found = self._path.stat()
        inode = (found.st_dev, found.st_ino)
        if self._connection is None or inode != self._inode:
            self._disconnect()
            self._connection = _open(self._path, self._boot())
            self._inode = inode
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _make(path: Path) -> None:
    """Make an empty file that appears complete or not at all, however many processes try at once."""
    if path.with_name(f"{path.name}-wal").exists() and not path.exists():
        # SQLite would replay it into the new file.
        raise FileNotFoundError(f"no such file, but its journal {path.name}-wal is there: put it back or remove both")
    for folder in reversed(path.parents):
        folder.mkdir(mode=0o755, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    draft.touch(mode=0o600, exist_ok=False)
    try:
        db = sqlite3.connect(draft)
        try:
            db.executescript(_SCHEMA)
        finally:
            db.close()
        with suppress(FileExistsError):  # another process was faster, and its file is as good
            path.hardlink_to(draft)
    finally:
        draft.unlink()


def _open(path: Path, boot: str) -> sqlite3.Connection:
    """A connection to a file of our format whose leases are on the clock of ``boot``."""
    db = sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=BUSY_S, isolation_level=None)
    try:
        # A foreign hand may have put any bytes into a text: that makes one record unreadable, not the whole list.
        db.text_factory = partial(str, encoding="utf-8", errors="replace")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version != _FORMAT:
            raise sqlite3.DatabaseError(f"is no lease file of ours: its format is {version}, expected {_FORMAT}")
        # Losing the last writes in a power cut loses nothing: all who wrote them went down with the machine.
        db.execute("PRAGMA synchronous = NORMAL")
        if db.execute("SELECT id FROM boot").fetchone() != (boot,):
            _adopt(db, boot)
    except sqlite3.Error:
        db.close()
        raise
    return db


def _adopt(db: sqlite3.Connection, boot: str) -> None:
    """Move the leases of an earlier boot onto this boot's clock.  Nobody watches across a boot: history can go."""
    db.execute("BEGIN IMMEDIATE")
    with db:
        (before, ended) = db.execute("SELECT id, clock FROM boot").fetchone()
        if before != boot:  # else another process was faster
            db.execute("UPDATE lease SET expires = min(ttl, max(0.0, expires - ?)) WHERE expires IS NOT NULL", (ended,))
            db.execute("DELETE FROM change")
            db.execute("UPDATE boot SET id = ?, clock = 0", (boot,))
