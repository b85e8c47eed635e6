from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from pyflannel.store.api import Unavailable
from pyflannel.store.sqlitefile import HISTORY, SQLiteFile, boot_id, seconds_since_boot


@contextmanager
def opened(
    path: Path, *, now: float = 1000.0, boot: str = "this boot", clock: Callable[[], float] | None = None
) -> Iterator[SQLiteFile]:
    with closing(SQLiteFile(path, clock=clock or (lambda: now), boot=lambda: boot)) as file:
        yield file


def write(file: SQLiteFile, statement: str, *parameters: object) -> None:
    with file.transaction("writing", "IMMEDIATE") as db:
        db.execute(statement, parameters)


def read(file: SQLiteFile, statement: str) -> list[tuple[object, ...]]:
    with file.transaction("reading", "DEFERRED") as db:
        return db.execute(statement).fetchall()


def add(file: SQLiteFile, name: str, ttl: float | None = None, expires: float | None = None) -> None:
    write(
        file, "INSERT INTO lease (prefix, name, value, ttl, expires) VALUES ('/n', ?, '{}', ?, ?)", name, ttl, expires
    )


def test_clock_of_the_machine_counts_from_boot_and_the_boot_has_a_name() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= seconds_since_boot() <= time.clock_gettime(time.CLOCK_BOOTTIME)
    assert boot_id() == boot_id() != ""


def test_file_and_its_folders_are_made_at_first_use(tmp_path: Path) -> None:
    path = tmp_path / "some" / "where" / "leases.db"
    before = os.umask(0)
    try:
        with opened(path) as file:
            assert not path.parent.exists()
            file.pulse("looking")
            modes = {entry.name: entry.stat().st_mode & 0o777 for entry in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"leases.db": 0o600, "leases.db-wal": 0o600, "leases.db-shm": 0o600}
    assert path.parent.stat().st_mode & 0o777 == path.parent.parent.stat().st_mode & 0o777 == 0o755


def test_file_made_by_many_at_once_is_one_file(tmp_path: Path) -> None:
    path = tmp_path / "leases.db"
    together = threading.Barrier(8)

    def use(number: int) -> None:
        with opened(path) as file:
            together.wait(10)
            add(file, str(number))

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with opened(path) as file:
        assert read(file, "SELECT count(*) FROM lease") == [(8,)]
    assert [entry.name for entry in tmp_path.iterdir()] == ["leases.db"]


def test_failed_transaction_leaves_nothing_behind(tmp_path: Path) -> None:
    with opened(tmp_path / "leases.db") as file:
        with suppress(LookupError), file.transaction("writing", "IMMEDIATE") as db:
            db.execute("INSERT INTO config VALUES ('/n', '{}')")
            raise LookupError
        assert read(file, "SELECT * FROM config") == []


def test_writer_finds_expired_leases_gone_and_reservations_kept(tmp_path: Path) -> None:
    now = [1000.0]
    with opened(tmp_path / "leases.db", clock=lambda: now[0]) as file:
        add(file, "short", 60, 1060)
        add(file, "long", 61, 1061)
        add(file, "reserved")
        now[0] = 1060.0
        write(file, "SELECT 1")
        assert read(file, "SELECT name FROM lease ORDER BY name") == [("long",), ("reserved",)]
        assert read(file, "SELECT name FROM change WHERE value IS NULL") == [("short",)]


def test_every_change_is_numbered_and_renewals_are_none(tmp_path: Path) -> None:
    with opened(tmp_path / "leases.db") as file:
        add(file, "one", 60, 2000)
        add(file, "two")
        write(file, "UPDATE lease SET expires = 3000 WHERE name = 'one'")
        write(file, "UPDATE lease SET value = '[]' WHERE name = 'one'")
        assert read(file, "SELECT name, created, modified FROM lease ORDER BY name") == [("one", 1, 3), ("two", 2, 2)]
        write(file, "DELETE FROM lease WHERE name = 'two'")
        assert read(file, "SELECT revision, name, value, created, reservation FROM change") == [
            (1, "one", "{}", None, 0),
            (2, "two", "{}", None, 1),
            (3, "one", "[]", 1, 0),
            (4, "two", None, None, 0),
        ]


@pytest.mark.parametrize(
    "values",
    ["X'7b7d', 60, 2000", "NULL, NULL, NULL", "'{}', 60, NULL", "'{}', NULL, 2000", "'{}', 60, 'tomorrow'"],
)
def test_hand_that_edits_the_file_cannot_put_nonsense_into_it(tmp_path: Path, values: str) -> None:
    path = tmp_path / "leases.db"
    with opened(path) as file:
        file.pulse("making it")
    with closing(sqlite3.connect(path)) as db, pytest.raises(sqlite3.IntegrityError):
        db.execute(f"INSERT INTO lease (prefix, name, value, ttl, expires) VALUES ('/n', '10.2.9.0-24', {values})")


def test_hand_that_edits_the_file_cannot_make_bytes_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "leases.db"
    with opened(path) as file:
        file.pulse("making it")
    with closing(sqlite3.connect(path)) as db, pytest.raises(sqlite3.IntegrityError):
        db.execute("INSERT INTO config VALUES ('/n', X'7b7d')")


def test_history_is_bounded(tmp_path: Path) -> None:
    with opened(tmp_path / "leases.db") as file:
        with file.transaction("writing much", "IMMEDIATE") as db:
            db.executemany(
                "INSERT INTO lease (prefix, name, value) VALUES ('/n', ?, '{}')",
                [(str(number),) for number in range(HISTORY + 7)],
            )
        assert read(file, "SELECT min(revision), max(revision) FROM change") == [(8, HISTORY + 7)]


def test_what_was_left_of_a_lease_when_the_boot_ended_counts_on_from_the_next(tmp_path: Path) -> None:
    path = tmp_path / "leases.db"
    with opened(path, now=900_000, boot="earlier") as file:
        add(file, "old", 86_400, 900_010)
        add(file, "new", 86_400, 986_400)
        add(file, "reserved")
    with opened(path, now=5) as file:
        assert read(file, "SELECT name, expires FROM lease ORDER BY name") == [
            ("new", 86_400),
            ("old", 10),
            ("reserved", None),
        ]
        assert read(file, "SELECT * FROM change") == []
        add(file, "newer", 60, 65)
    with opened(path, now=6) as file:
        assert read(file, "SELECT expires FROM lease WHERE name = 'newer'") == [(65,)]
        assert read(file, "SELECT revision FROM change") == [(4,)]


def test_every_writer_notes_the_time_and_every_boot_takes_its_share_of_a_lease(tmp_path: Path) -> None:
    path = tmp_path / "leases.db"
    with opened(path, now=1000, boot="1") as file:
        add(file, "lease", 100, 1100)
    with opened(path, now=1030, boot="1") as file:
        write(file, "SELECT 1")
    for boot, left in (("2", 70), ("3", 40), ("4", 10)):
        with opened(path, now=30, boot=boot) as file:
            assert read(file, "SELECT expires FROM lease") == [(left,)]
            write(file, "SELECT 1")
    with opened(path, now=0, boot="5") as file:
        write(file, "SELECT 1")
        assert read(file, "SELECT * FROM lease") == []


@pytest.mark.parametrize(("expires", "left"), [(1e9, 60), (-1e9, 0)])
def test_lease_of_an_earlier_boot_lives_neither_longer_than_its_ttl_nor_less_than_not_at_all(
    tmp_path: Path, expires: float, left: float
) -> None:
    path = tmp_path / "leases.db"
    with opened(path, now=1000, boot="earlier") as file:
        add(file, "lease", 60, expires)
    with opened(path, now=0) as file:
        assert read(file, "SELECT expires FROM lease") == [(left,)]


def test_leases_live_by_the_clock_of_the_boot_and_by_no_other(tmp_path: Path) -> None:
    now = [1000.0]
    with opened(tmp_path / "leases.db", clock=lambda: now[0]) as file:
        add(file, "lease", 0.01, 1000.01)
        # Every other clock of the machine goes on meanwhile; this one stands still.
        time.sleep(0.05)
        write(file, "SELECT 1")
        assert read(file, "SELECT name FROM lease") == [("lease",)]
        # The machine was suspended for a day: this one goes on, hardly any other does.
        now[0] += 86_400
        write(file, "SELECT 1")
        assert read(file, "SELECT name FROM lease") == []


def test_every_change_of_a_configuration_is_numbered_too(tmp_path: Path) -> None:
    with opened(tmp_path / "leases.db") as file:
        add(file, "one")
        write(file, "INSERT INTO config VALUES ('/n', '{}')")
        write(file, "UPDATE config SET text = '[]'")
        write(file, "INSERT OR REPLACE INTO config VALUES ('/n', '()')")
        write(file, "DELETE FROM config")
        assert read(file, "SELECT revision, prefix, name, value FROM change WHERE revision > 1") == [
            (2, "/n", None, "{}"),
            (3, "/n", None, "[]"),
            (4, "/n", None, "()"),
            (5, "/n", None, None),
        ]


def test_pulse_changes_with_anybody_s_write_and_only_then(tmp_path: Path) -> None:
    with opened(tmp_path / "leases.db") as file, opened(tmp_path / "leases.db") as other:
        pulses = [file.pulse("looking")]
        assert file.pulse("looking") == pulses[-1]
        add(file, "mine")
        pulses.append(file.pulse("looking"))
        add(other, "theirs")
        pulses.append(file.pulse("looking"))
        assert file.pulse("looking") == pulses[-1]
        assert len(set(pulses)) == 3


def test_replaced_file_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "leases.db"
    with opened(path) as file:
        add(file, "old")
        before = file.pulse("looking")
        with opened(tmp_path / "new.db") as new:
            add(new, "new")
        for part in ("leases.db", "leases.db-wal", "leases.db-shm"):
            (tmp_path / part).unlink()
        (tmp_path / "new.db").rename(path)
        assert file.pulse("looking")[0] != before[0]
        assert read(file, "SELECT name FROM lease") == [("new",)]


def test_removed_file_is_not_made_again_by_those_who_had_it_open(tmp_path: Path) -> None:
    path = tmp_path / "leases.db"
    with opened(path) as file:
        file.pulse("looking")
        path.rename(tmp_path / "away.db")
        with pytest.raises(Unavailable, match=r"reading: local store .*leases\.db: .*No such file"):
            read(file, "SELECT 1")
        assert not path.exists()


def test_journal_of_a_removed_file_is_not_replayed_into_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "leases.db"
    with opened(path) as file:
        add(file, "old")
        path.unlink()
        with opened(path) as other:
            with pytest.raises(Unavailable, match=r"leases\.db-wal"):
                other.pulse("looking")
            assert not path.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no lease file of ours: its format is 0"),
        (b"Sehr geehrte Damen und Herren, " * 100, "file is not a database"),
    ],
)
def test_file_of_another_kind_is_left_alone(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "leases.db"
    path.write_bytes(content)
    with opened(path) as file, pytest.raises(Unavailable, match=reason):
        file.pulse("looking")
    assert path.read_bytes() == content


def test_file_of_a_newer_format_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "leases.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 3")
    with opened(path) as file, pytest.raises(Unavailable, match="its format is 3, expected 2"):
        file.pulse("looking")


def test_damaged_file_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "leases.db"
    with opened(path) as file:
        add(file, "one")
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with opened(path) as file, pytest.raises(Unavailable, match="malformed"):
        read(file, "SELECT * FROM lease")


def test_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with opened(tmp_path / "file" / "leases.db") as file, pytest.raises(Unavailable, match="file'"):
        file.pulse("looking")


def test_writer_gives_up_on_a_lock_that_is_not_released(tmp_path: Path) -> None:
    path = tmp_path / "leases.db"
    with opened(path) as file:
        add(file, "one")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unavailable, match=r"writing: .*database is locked"):
                add(file, "two")
            assert read(file, "SELECT name FROM lease") == [("one",)]
        add(file, "two")


def test_our_own_mistakes_are_not_called_an_outage(tmp_path: Path) -> None:
    with opened(tmp_path / "leases.db") as file, pytest.raises(sqlite3.ProgrammingError):
        write(file, "INSERT INTO config VALUES (?, ?)", "too few")


def test_closed_file_is_unavailable(tmp_path: Path) -> None:
    with opened(tmp_path / "leases.db") as file:
        file.pulse("looking")
        file.close()
        with pytest.raises(Unavailable, match=r"looking: .* was closed"):
            file.pulse("looking")
