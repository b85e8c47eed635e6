"""What is particular to the local store; what every store promises is in tests/contract/test_store.py."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections.abc import AsyncGenerator
from contextlib import closing
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from pyflannel.lease.model import Attrs, Changes, Lease, Removed, Subnet, Unreadable
from pyflannel.lease.wire import encode_attrs
from pyflannel.store.api import HistoryLost, Unavailable
from pyflannel.store.local import HEARTBEAT_S, LocalStore, open_url
from tests.support.loops import run, run_jumping
from tests.support.memory_store import StoodClock

DAY = 24 * 60 * 60
ONE = Subnet(IPv4Network("10.2.71.0/24"))
HOST = Attrs(IPv4Address("172.16.41.131"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "leases.db"


def local(path: Path, prefix: str = "/docker/network", now: float = 1000.0, boot: str = "this boot") -> LocalStore:
    return LocalStore(path, prefix, clock=StoodClock(now), boot=lambda: boot)


def watch(store: LocalStore, revision: int) -> AsyncGenerator[Changes, None]:
    watching = store.watch(revision)
    assert isinstance(watching, AsyncGenerator)
    return watching


def test_url_names_the_file(path: Path) -> None:
    assert open_url(f"local:{path}", "/docker/network").name == f"local store {path}"


@pytest.mark.parametrize("url", ["local:", "local:leases.db", "leases.db", "/leases.db", "file:/leases.db"])
def test_url_of_another_form_is_refused_with_the_expected_one(url: str) -> None:
    with pytest.raises(ValueError, match=r"expected local:/path/to/file\.db"):
        open_url(url, "/docker/network")


def test_config_once_written_is_there_for_all_and_can_be_replaced(path: Path) -> None:
    async def scenario() -> None:
        store, other = local(path), local(path)
        await store.write_config('{"Network":"10.2.0.0/16"}')
        await store.write_config('{"Network":"10.3.0.0/16"}\n')
        record = await other.network_config()
        assert record.text == '{"Network":"10.3.0.0/16"}\n'
        assert record.where == f"/docker/network/config in local store {path}"
        await store.close()
        await other.close()

    run(scenario())


def test_networks_in_one_file_do_not_see_each_other(path: Path) -> None:
    async def scenario() -> None:
        blue, red = local(path, "/blue"), local(path, "/red")
        await blue.write_config("{}")
        await blue.create(ONE, HOST, DAY)
        assert (await red.network_config()).text is None
        assert (await red.leases()).leases == ()
        theirs = await red.create(ONE, HOST, DAY)
        await red.release(theirs)
        assert (await blue.leases()).leases == (Lease(ONE, HOST),)
        assert (await anext(blue.watch(0))).events == (Lease(ONE, HOST),)
        await blue.close()
        await red.close()

    run(scenario())


@pytest.mark.parametrize("spelling", ["/docker/network/", "//docker//network"])
def test_slashes_too_many_in_the_prefix_do_not_matter(path: Path, spelling: str) -> None:
    async def scenario() -> None:
        store, other = local(path), local(path, spelling)
        await store.write_config("{}")
        assert (await other.network_config()).text == "{}"
        await store.close()
        await other.close()

    run(scenario())


def test_reboot_frees_no_subnet_and_keeps_none_for_ever(path: Path) -> None:
    async def scenario() -> None:
        before = local(path, now=900_000, boot="earlier")
        made = await before.create(ONE, HOST, DAY)
        await before.close()
        after = local(path, now=60)
        (lease,) = (await after.leases()).leases
        assert (lease, lease.modified, lease.ttl) == (made, made.modified, DAY - 60)
        await after.close()
        late = local(path, now=DAY)
        assert (await late.leases()).leases == ()
        await late.close()

    run(scenario())


def test_watcher_sees_to_it_that_the_time_is_noted(path: Path) -> None:
    """Each boot lasts eight hours, in which a watcher looks on and nobody renews: a lease of a day sees three."""

    async def live_through(boot: int) -> float | None:
        clock = StoodClock(0)
        store = LocalStore(path, "/docker/network", clock=clock, boot=lambda: f"boot {boot}")
        if boot == 0:
            await store.create(ONE, HOST, DAY)
        await store.write_config("{}")
        snapshot = await store.leases()
        watching = watch(store, snapshot.revision - 1)
        assert (await anext(watching)).config == "{}"
        clock.now += DAY / 3
        await anext(watching)
        await watching.aclose()
        await store.close()
        return next((lease.ttl for lease in snapshot.leases), None)

    async def scenario() -> None:
        assert [await live_through(boot) for boot in range(4)] == [DAY, DAY * 2 / 3, DAY / 3, None]

    run_jumping(scenario())


def test_config_reaches_a_watcher_with_the_leases_in_one_piece_of_news(path: Path) -> None:
    async def scenario() -> None:
        store, red = local(path), local(path, "/red")
        await store.write_config("{}")
        made = await store.create(ONE, HOST, DAY)
        await red.write_config("[]")
        assert await anext(watch(store, 0)) == Changes(3, (made,), "{}")
        assert await anext(watch(red, 0)) == Changes(3, (), "[]")
        assert (await store.leases()).config == "{}"
        await store.close()
        await red.close()

    run(scenario())


def test_watch_across_a_reboot_has_to_list_again(path: Path) -> None:
    async def scenario() -> None:
        before = local(path, boot="earlier")
        await before.create(ONE, HOST, DAY)
        await before.close()
        after = local(path)
        with pytest.raises(HistoryLost):
            await anext(after.watch(0))
        await after.close()

    run(scenario())


def test_lease_that_expires_under_a_watch_is_removed_by_the_watcher(path: Path) -> None:
    async def scenario() -> None:
        clock = StoodClock()
        store = LocalStore(path, "/docker/network", clock=clock, boot=lambda: "this boot")
        made = await store.create(ONE, HOST, 60)
        watching = watch(store, made.created - 1)
        assert (await anext(watching)).events == (made,)
        clock.now += 60
        assert (await anext(watching)).events == (Removed(ONE),)
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("SELECT count(*) FROM lease").fetchone() == (0,)
        await watching.aclose()
        await store.close()

    run_jumping(scenario())


def test_quiet_watch_says_that_it_is_alive(path: Path) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        store = LocalStore(path, "/docker/network", clock=loop.time, boot=lambda: "this boot")
        watching = watch(store, 0)
        assert [await anext(watching) for _ in range(3)] == [Changes(0)] * 3
        assert loop.time() == pytest.approx(3 * HEARTBEAT_S, abs=1)
        await watching.aclose()
        await store.close()

    run_jumping(scenario())


def test_revision_from_the_future_means_another_history(path: Path) -> None:
    async def scenario() -> None:
        store = local(path)
        made = await store.create(ONE, HOST, DAY)
        with pytest.raises(HistoryLost):
            await anext(store.watch(made.modified + 1))
        await store.close()

    run(scenario())


def test_watch_of_a_file_that_was_replaced_has_to_list_again(path: Path) -> None:
    async def scenario() -> None:
        store = local(path)
        made = await store.create(ONE, HOST, DAY)
        watching = watch(store, 0)
        assert (await anext(watching)).events == (made,)
        for part in path.parent.iterdir():
            part.unlink()
        other = local(path)
        await other.create(ONE, HOST, DAY)
        with pytest.raises(HistoryLost, match="another file"):
            await anext(watching)
        await store.close()
        await other.close()

    run(scenario())


def test_watch_ends_when_its_store_is_closed(path: Path) -> None:
    async def scenario() -> None:
        store = local(path)
        watching = watch(store, 0)
        made = await store.create(ONE, HOST, DAY)
        assert (await anext(watching)).events == (made,)
        await store.close()
        with pytest.raises(Unavailable, match="closed"):
            await anext(watching)

    run(scenario())


def test_bytes_that_are_no_text_spoil_only_their_own_record(path: Path) -> None:
    async def scenario() -> None:
        store = local(path)
        made = await store.create(ONE, HOST, DAY)
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute(
                "INSERT INTO lease (prefix, name, value) VALUES ('/docker/network', '10.2.9.0-24', CAST(? AS TEXT))",
                (b"\xff",),
            )
        snapshot = await store.leases()
        assert snapshot.leases == (made,)
        assert [record.key for record in snapshot.unreadable] == ["/docker/network/subnets/10.2.9.0-24"]
        await store.close()

    run(scenario())


def test_emptied_record_is_unreadable_and_not_removed(path: Path) -> None:
    async def scenario() -> None:
        store = local(path)
        made = await store.create(ONE, HOST, DAY)
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("UPDATE lease SET value = ''")
        (event,) = (await anext(store.watch(made.modified))).events
        assert isinstance(event, Unreadable)
        await store.close()

    run(scenario())


ALLOCATOR = """
import asyncio, sys
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from pyflannel.lease.model import Attrs, Subnet
from pyflannel.store.api import Conflict
from pyflannel.store.local import LocalStore

async def main(path, host):
    store = LocalStore(Path(path), "/docker/network")
    pool = [Subnet(IPv4Network(f"10.2.{third}.0/24")) for third in range(1, 60)]
    made = 0
    while made < 10:
        taken = {lease.subnet for lease in (await store.leases()).leases}
        try:
            await store.create(next(each for each in pool if each not in taken), Attrs(IPv4Address(host)), 3600)
        except Conflict:
            continue
        made += 1
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""


def test_four_processes_allocate_at_once_and_a_watcher_sees_it_all(path: Path) -> None:
    async def allocate(last: int) -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", ALLOCATOR, path, f"172.16.41.{last}", env={"PYTHONPATH": os.pathsep.join(sys.path)}
        )
        return await process.wait()

    async def scenario() -> None:
        store = LocalStore(path, "/docker/network")
        seen: list[Lease] = []
        watching = watch(store, 0)
        async with asyncio.TaskGroup() as group:
            allocators = [group.create_task(allocate(last)) for last in range(1, 5)]
            async for changes in watching:
                seen += [event for event in changes.events if isinstance(event, Lease)]
                if len(seen) >= 40:
                    break
        assert [task.result() for task in allocators] == [0] * 4
        assert {str(lease.subnet) for lease in seen} == {f"10.2.{third}.0/24" for third in range(1, 41)}
        by_host = [
            sum(lease.attrs == Attrs(IPv4Address(f"172.16.41.{last}")) for lease in seen) for last in range(1, 5)
        ]
        assert by_host == [10] * 4
        assert (await store.leases()).leases == tuple(seen)
        await watching.aclose()
        await store.close()

    run(scenario())


def test_record_put_there_by_hand_reaches_a_watcher_in_order(path: Path) -> None:
    async def scenario() -> None:
        store = local(path)
        made = await store.create(ONE, HOST, DAY)
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute(
                "INSERT OR REPLACE INTO lease (prefix, name, value) VALUES ('/docker/network', '10.2.71.0-24', ?)",
                (encode_attrs(Attrs(IPv4Address("172.16.41.9"))),),
            )
        (event,) = (await anext(store.watch(made.modified))).events
        assert isinstance(event, Lease)
        assert (event.attrs.public_ip, event.reservation) == (IPv4Address("172.16.41.9"), True)
        await store.close()

    run(scenario())
