"""The last good state on disk: whole or not there, ours or not believed, and never in anybody's way."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from pyflannel.lease.model import Lease, Snapshot
from pyflannel.store.cache import LARGEST, PAUSE, RETRY, SOON, Cache, load, path, save
from pyflannel.store.lastknown import BadCache, LastKnown
from tests.support.builders import vxlan_lease
from tests.support.loops import run

NETWORK = "/coreos.com/network"
OWN = vxlan_lease("10.2.71.0/24", "172.16.41.131", created=7)
KNOWN = LastKnown(NETWORK, "etcd v3", OWN, Snapshot(41, (OWN, vxlan_lease()), (), '{"Network":"10.2.0.0/16"}'))
OTHER = replace(KNOWN, snapshot=replace(KNOWN.snapshot, leases=(OWN,)))
MANY = replace(KNOWN, snapshot=replace(KNOWN.snapshot, leases=tuple(vxlan_lease(f"10.2.{i}.0/24") for i in range(255))))
UNFINISHED = ".state0"
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
"""In which another interpreter finds all that this one does."""
T = TypeVar("T", float, LastKnown)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "flannel" / "state"


def refusal(file: Path) -> str:
    with pytest.raises(BadCache) as caught:
        load(file, NETWORK)
    return str(caught.value)


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file can be written beyond ``room`` bytes: the nearest thing to a full disk that needs no mount."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Stuck(tuple[Lease, ...]):
    """Leases that nobody gets to see before ``freed`` is set: saving them takes as long as a disk that hangs."""

    freed: threading.Event

    def __iter__(self) -> Iterator[Lease]:
        self.freed.wait()
        return super().__iter__()


def stuck(freed: threading.Event) -> LastKnown:
    leases = Stuck(KNOWN.snapshot.leases)
    leases.freed = freed
    return replace(KNOWN, snapshot=replace(KNOWN.snapshot, leases=leases))


# The file


def test_before_the_first_save_nothing_is_known(file: Path) -> None:
    assert load(file, NETWORK) is None


def test_what_was_saved_is_loaded(file: Path) -> None:
    save(file, OTHER)
    save(file, KNOWN)
    assert load(file, NETWORK) == KNOWN


def test_the_file_is_for_our_eyes_and_nothing_stands_beside_it(file: Path) -> None:
    save(file, KNOWN)
    assert file.stat().st_mode & 0o7777 == 0o600
    assert [other.name for other in file.parent.iterdir()] == ["state"]


def test_networks_that_share_a_directory_do_not_share_a_file(tmp_path: Path) -> None:
    prefixes = [
        "/coreos.com/network",
        "coreos.com/network",
        "/coreos.com-network",
        "/",
        "",
        "/é",
        "/\udcff",
        "/" + "x" * 400,
    ]
    files = {path(tmp_path, prefix) for prefix in prefixes}
    assert len(files) == len(prefixes)
    for file in files:
        assert file.parent == tmp_path
        save(file, KNOWN)


def test_one_network_in_two_spellings_has_one_file(tmp_path: Path) -> None:
    assert path(tmp_path, "/coreos.com//network/") == path(tmp_path, "/coreos.com/network")


def test_saving_what_was_saved_before_leaves_the_file_alone(file: Path) -> None:
    fingerprint = save(file, KNOWN)
    before = file.stat()
    later = replace(KNOWN, snapshot=replace(KNOWN.snapshot, revision=99))
    assert save(file, later, unless=fingerprint) == fingerprint
    assert file.stat().st_ino == before.st_ino
    assert [other.name for other in file.parent.iterdir()] == ["state"]
    assert save(file, OTHER, unless=fingerprint) != fingerprint
    assert load(file, NETWORK) == OTHER


def test_a_full_disk_leaves_the_file_as_it_was(file: Path) -> None:
    save(file, KNOWN)
    with full_disk(10_000), pytest.raises(OSError, match="File too large"):
        save(file, MANY)
    assert load(file, NETWORK) == KNOWN
    assert [other.name for other in file.parent.iterdir()] == ["state"]


def test_a_state_larger_than_will_be_read_is_not_written(file: Path) -> None:
    attrs = replace(OWN.attrs, backend_data='"' + "x" * 65_000 + '"')
    huge = replace(KNOWN, snapshot=Snapshot(1, (replace(OWN, attrs=attrs),) * (LARGEST // 65_000 + 1)))
    with pytest.raises(OSError, match=f"more than {LARGEST} bytes"):
        save(file, huge)
    assert list(file.parent.iterdir()) == []


def test_a_link_in_the_place_of_the_file_is_replaced_and_what_it_leads_to_stays(file: Path, tmp_path: Path) -> None:
    file.parent.mkdir()
    for name in ("state", UNFINISHED):
        target = tmp_path / f"victim{name}"
        target.write_text("precious")
        (file.parent / name).symlink_to(target)
    save(file, KNOWN)
    assert load(file, NETWORK) == KNOWN
    assert not file.is_symlink()
    assert {target.read_text() for target in tmp_path.glob("victim*")} == {"precious"}


def test_a_link_is_not_followed_to_load(file: Path, tmp_path: Path) -> None:
    save(tmp_path / "elsewhere", KNOWN)
    file.parent.mkdir()
    file.symlink_to(tmp_path / "elsewhere")
    assert refusal(file) == "it cannot be read: it is a symbolic link"


def test_what_is_no_file_is_not_believed(file: Path) -> None:
    file.mkdir(parents=True)
    assert refusal(file) == "it cannot be read: Is a directory"
    file.rmdir()
    os.mkfifo(file)
    assert refusal(file) == "it is no regular file"
    assert refusal(file / "below") == "it cannot be read: Not a directory"


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_may_write_is_not_believed(file: Path, mode: int) -> None:
    save(file, KNOWN)
    file.chmod(mode)
    assert refusal(file) == f"others may write it: its mode is {mode:04o}"


@pytest.mark.needs("root")
def test_a_file_of_somebody_else_is_not_believed(file: Path) -> None:
    save(file, KNOWN)
    os.chown(file, 65534, 65534)
    assert refusal(file) == "it belongs to user 65534: expected 0"


def test_a_file_beyond_all_bounds_is_not_read(file: Path) -> None:
    save(file, KNOWN)
    os.truncate(file, LARGEST + 1)
    assert refusal(file) == f"it has {LARGEST + 1} bytes: expected at most {LARGEST}"


KILLED_WHILE_SAVING = """
import sys
from pathlib import Path
from tests.unit.store.test_cache import KNOWN, MANY, save
while True:
    for each in (KNOWN, MANY):
        save(Path(sys.argv[1]), each)
        print(flush=True)
"""


def test_whoever_kills_us_while_we_save_leaves_a_whole_file_and_at_most_one_beside_it(file: Path) -> None:
    for saves in range(1, 5):
        command = [sys.executable, "-c", KILLED_WHILE_SAVING, str(file)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT) as process:
            assert process.stdout is not None
            for _ in range(saves):
                assert process.stdout.readline() == b"\n"
            process.kill()
        assert process.returncode == -signal.SIGKILL
        assert load(file, NETWORK) in (KNOWN, MANY)
        assert {other.name for other in file.parent.iterdir()} <= {"state", UNFINISHED}


# When it is written


class Diary:
    """A cache for which no time passes, and in their order the seconds it waited and the states it saved."""

    def __init__(self, file: Path, *states: LastKnown) -> None:
        self.entries: list[float | LastKnown] = []
        self._written = asyncio.Event()
        self._states = iter(states)
        self.cache = Cache(file, self._known, self._wait)

    async def has(self, count: int) -> None:
        """Wait until there are so many entries."""
        while len(self.entries) < count:
            self._written.clear()
            await self._written.wait()

    def _known(self) -> LastKnown:
        return self._enter(next(self._states))

    def _wait(self, delay: float) -> float:
        self._enter(delay)
        return 0.0

    def _enter(self, entry: T) -> T:
        self.entries.append(entry)
        self._written.set()
        return entry


def test_changes_are_saved_soon_together_and_with_pauses(file: Path) -> None:
    diary = Diary(file, KNOWN, OTHER)

    async def scenario() -> None:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(diary.cache.run())
            for count in (3, 6):
                diary.cache.note()
                diary.cache.note()
                await diary.has(count)
            running.cancel()

    run(scenario())
    assert diary.entries == [SOON, KNOWN, PAUSE, SOON, OTHER, PAUSE]
    assert load(file, NETWORK) == OTHER


def test_a_disk_that_refuses_is_tried_again_soon_without_another_change(file: Path) -> None:
    diary = Diary(file, *[KNOWN] * 2)
    file.parent.write_text("a file where a directory should be")

    async def scenario() -> None:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(diary.cache.run())
            diary.cache.note()
            await diary.has(3)
            file.parent.unlink()
            await diary.has(6)
            running.cancel()

    run(scenario())
    assert diary.entries == [SOON, KNOWN, RETRY, SOON, KNOWN, PAUSE]
    assert load(file, NETWORK) == KNOWN


def test_nothing_is_saved_before_something_is_noted(file: Path) -> None:
    diary = Diary(file)
    run(diary.cache.flush())
    assert diary.entries == []
    assert not file.parent.exists()


def test_what_says_the_same_is_not_written_again(file: Path) -> None:
    diary = Diary(file, KNOWN, KNOWN, OTHER)

    async def scenario() -> list[int]:
        seen = []
        for _ in range(3):
            diary.cache.note()
            await diary.cache.flush()
            seen.append(file.stat().st_ino)
        return seen

    first, second, third = run(scenario())
    assert first == second != third


def test_a_disk_that_refuses_is_tried_until_it_gives_in_and_costs_a_line_a_reason(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    diary = Diary(file, *[KNOWN] * 5)
    file.parent.write_text("a file where a directory should be")

    async def scenario() -> None:
        diary.cache.note()
        await diary.cache.flush()
        await diary.cache.flush()
        file.parent.unlink()
        (file.parent / UNFINISHED).mkdir(parents=True)
        await diary.cache.flush()
        (file.parent / UNFINISHED).rmdir()
        await diary.cache.flush()
        await diary.cache.flush()

    with caplog.at_level(logging.INFO, "pyflannel"):
        run(scenario())
    assert load(file, NETWORK) == KNOWN
    where = "Could not save the last known state, which a start without the store would need, to"
    assert [record.getMessage() for record in caplog.records] == [
        f"{where} {file}: File exists",
        f"{where} {file}: Is a directory",
        f"Can save the last known state to {file} again",
    ]


def test_a_save_in_progress_is_seen_to_its_end_and_followed_by_what_came_since(file: Path) -> None:
    freed = threading.Event()
    diary = Diary(file, stuck(freed), OTHER)

    async def scenario() -> None:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(diary.cache.run())
            diary.cache.note()
            await diary.has(2)
            diary.cache.note()
            running.cancel()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(diary.cache.flush())
            await asyncio.sleep(0)
            assert len(diary.entries) == 2
            freed.set()

    run(scenario())
    assert len(diary.entries) == 3
    assert load(file, NETWORK) == OTHER


STUCK = """
import asyncio, logging, sys, threading
from pathlib import Path
from tests.unit.store.test_cache import Cache, stuck
async def main():
    cache = Cache(Path(sys.argv[1]), lambda: stuck(threading.Event()), lambda delay: delay)
    cache.note()
    await cache.flush(0.01)
logging.basicConfig(format="%(message)s")
asyncio.run(main())
"""


def test_neither_the_agent_nor_its_process_waits_for_a_disk_that_hangs(file: Path) -> None:
    command = [sys.executable, "-c", STUCK, str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, env=ENVIRONMENT)
    assert ended.returncode == 0
    assert ended.stderr.endswith(f"{file}: the disk needs more than 0.01 s\n")


def test_a_mistake_of_ours_is_no_trouble_with_the_disk(file: Path) -> None:
    diary = Diary(file, replace(KNOWN, own="nobody"))  # type: ignore[arg-type]
    diary.cache.note()
    with pytest.raises(AttributeError):
        run(diary.cache.flush())
