"""What only a real etcd can tell of records: leases of its own, directories, and watches without news."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import TypeAlias

import pytest

from pyflannel.lease.model import Attrs, Lease
from pyflannel.lease.wire import encode_attrs
from pyflannel.store.api import Conflict, HistoryLost, Store
from pyflannel.store.etcd2 import Etcd2Store
from pyflannel.store.etcd3 import Etcd3Store
from tests.support.etcd import Etcd
from tests.support.etcd_stores import DAY, HOST2, HOST3, KEY, ONE, TWO, exhausted, until_event, used, watched
from tests.support.loops import run
from tests.support.stores import PREFIX

pytestmark = pytest.mark.needs("etcd")

Open: TypeAlias = Callable[..., Etcd3Store | Etcd2Store]
both_apis = pytest.mark.parametrize("open_store", [Etcd3Store, Etcd2Store])


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    with Etcd(tmp_path, v2=True) as etcd:
        yield etcd


def lease_ids(etcd: Etcd) -> list[int]:
    """The leases that etcd knows."""
    return [int(line, 16) for line in etcd.ctl("lease", "list").split("\n")[1:-1]]


# etcd leases


def test_renewal_writes_nothing(etcd: Etcd) -> None:
    async def story() -> None:
        async with used(Etcd3Store([etcd.url], PREFIX)) as store:
            made = await store.create(ONE, HOST2, DAY)
            before = etcd.revision()
            renewed = await store.renew(made, DAY)
            unchanged = await store.update(renewed, HOST2, DAY)
            assert etcd.revision() == before
            assert (unchanged, unchanged.lease_id, unchanged.modified) == (made, made.lease_id, made.modified)
            assert renewed.ttl == DAY

    run(story())


def test_changed_record_stays_on_its_etcd_lease(etcd: Etcd) -> None:
    async def story() -> None:
        async with used(Etcd3Store([etcd.url], PREFIX)) as store:
            made = await store.create(ONE, HOST2, DAY)
            updated = await store.update(made, HOST3, DAY)
            assert updated.lease_id == made.lease_id
            assert lease_ids(etcd) == [made.lease_id]

    run(story())


def test_record_made_for_a_short_life_gets_the_life_that_is_wanted(etcd: Etcd) -> None:
    async def story() -> None:
        async with used(Etcd3Store([etcd.url], PREFIX)) as store:
            made = await store.create(ONE, HOST2, 60)
            renewed = await store.renew(made, DAY)
            assert (renewed, renewed.ttl) == (made, DAY)
            assert renewed.lease_id != made.lease_id
            assert (await store.leases()).leases[0].lease_id == renewed.lease_id

    run(story())


def test_lost_race_and_released_subnet_leave_no_etcd_lease_behind(etcd: Etcd) -> None:
    async def story() -> None:
        etcd.ctl("put", KEY, encode_attrs(HOST3))
        async with used(Etcd3Store([etcd.url], PREFIX)) as store:
            with pytest.raises(Conflict):
                await store.create(ONE, HOST2, DAY)
            await store.release(await store.create(TWO, HOST2, DAY))
            assert lease_ids(etcd) == []

    run(story())


def test_release_spares_an_etcd_lease_of_another(etcd: Etcd) -> None:
    async def story() -> None:
        granted = etcd.ctl("lease", "grant", "3600").split()[1]
        etcd.ctl("put", KEY, encode_attrs(HOST2), f"--lease={granted}")
        etcd.ctl("put", "/other", "hangs on the same lease", f"--lease={granted}")
        async with used(Etcd3Store([etcd.url], PREFIX)) as store:
            (lease,) = (await store.leases()).leases
            await store.release(lease)
        assert etcd.ctl("get", "/other", "--keys-only").strip() == "/other"

    run(story())


def test_record_of_go_flannel_is_taken_over_with_its_etcd_lease(etcd: Etcd) -> None:
    async def story() -> None:
        granted = etcd.ctl("lease", "grant", str(DAY)).split()[1]
        etcd.ctl("put", KEY, encode_attrs(HOST2), f"--lease={granted}")
        async with used(Etcd3Store([etcd.url], PREFIX)) as store:
            (lease,) = (await store.leases()).leases
            updated = await store.update(lease, HOST3, DAY)
        assert lease_ids(etcd) == [updated.lease_id] == [int(granted, 16)]
        assert not updated.reservation

    run(story())


def test_what_nothing_but_another_program_understands_survives_a_v2_renewal(etcd: Etcd) -> None:
    text = '{"PublicIP":"172.16.41.131","Extra":[1, 2]}'
    etcd.v2("PUT", KEY, {"value": text, "ttl": "60"})

    async def story() -> None:
        async with used(Etcd2Store([etcd.url], PREFIX)) as store:
            (lease,) = (await store.leases()).leases
            renewed = await store.renew(lease, DAY)
            assert renewed.ttl == DAY
            assert lease.ttl is not None
            assert lease.ttl <= 60

    run(story())
    node = etcd.v2("GET", KEY)["node"]
    assert isinstance(node, dict)
    assert node["value"] == text


# Directories, prefixes


def test_v2_values_have_the_form_of_their_time(etcd: Etcd) -> None:
    run(with_store(Etcd2Store([etcd.url], PREFIX), lambda store: store.create(ONE, Attrs(IPv4Address("1.2.3.4")), DAY)))
    node = etcd.v2("GET", KEY)["node"]
    assert isinstance(node, dict)
    assert node["value"] == '{"PublicIP":"1.2.3.4"}'


def test_v3_values_are_what_flannel_writes(etcd: Etcd) -> None:
    run(with_store(Etcd3Store([etcd.url], PREFIX), lambda store: store.create(ONE, Attrs(IPv4Address("1.2.3.4")), DAY)))
    assert etcd.ctl("get", KEY).splitlines() == [KEY, '{"PublicIP":"1.2.3.4","PublicIPv6":null}']


async def with_store(store: Etcd3Store | Etcd2Store, story: Callable[[Store], object]) -> None:
    async with used(store) as opened:
        outcome = story(opened)
        assert asyncio.iscoroutine(outcome)
        await outcome


def test_keys_beside_the_subnets_are_not_read(etcd: Etcd) -> None:
    for key in ("subnets-old/10.1.1.0-24", "other", "subnets"):
        etcd.ctl("put", f"{PREFIX}/{key}", encode_attrs(HOST2))

    async def story() -> None:
        async with used(Etcd3Store([etcd.url], PREFIX)) as store:
            snapshot = await store.leases()
            assert (snapshot.leases, snapshot.unreadable) == ((), ())

    run(story())


def test_v2_directories_and_hidden_keys_are_not_read(etcd: Etcd) -> None:
    etcd.v2("PUT", f"{PREFIX}/subnets/deeper/10.1.1.0-24", {"value": encode_attrs(HOST2)})
    etcd.v2("PUT", f"{PREFIX}/subnets/_10.1.2.0-24", {"value": encode_attrs(HOST2)})

    async def story() -> None:
        async with used(Etcd2Store([etcd.url], PREFIX)) as store:
            snapshot = await store.leases()
            assert (snapshot.leases, snapshot.unreadable) == ((), ())

    run(story())


@pytest.mark.parametrize("gone", ["/subnets", ""])
def test_v2_directory_removed_as_a_whole_makes_us_list_again(etcd: Etcd, gone: str) -> None:
    async def story() -> None:
        async with used(Etcd2Store([etcd.url], PREFIX)) as store:
            made = await store.create(ONE, HOST2, DAY)
            etcd.v2("DELETE", PREFIX + gone, query="?recursive=true")
            async with watched(store, made.modified) as watch:
                with pytest.raises(HistoryLost):
                    await exhausted(watch)

    run(story())


@both_apis
@pytest.mark.parametrize("prefix", ["docker//network/", "/docker/network", "docker/network"])
def test_prefix_may_be_written_carelessly(etcd: Etcd, open_store: Open, prefix: str) -> None:
    leading = "/" if prefix.startswith("/") else ""
    etcd.ctl("put", f"{leading}docker/network/config", "{}")
    etcd.v2("PUT", "/docker/network/config", {"value": "{}"})

    async def story() -> None:
        async with used(open_store([etcd.url], prefix)) as store:
            assert (await store.network_config()).text == "{}"

    run(story())


# Watches


@both_apis
def test_quiet_watch_keeps_saying_that_the_store_is_alive(etcd: Etcd, open_store: Open) -> None:
    async def story() -> None:
        async with used(open_store([etcd.url], PREFIX, quiet_s=0.05)) as store:
            made = await store.create(ONE, HOST2, DAY)
            async with watched(store, made.modified) as watch:
                heard = [await anext(watch) for _ in range(5)]
                assert [changes.events for changes in heard] == [()] * 5
                made = await store.create(TWO, HOST2, DAY)
                async for changes in watch:
                    if changes.events:
                        break
                assert (changes.events, changes.revision) == ((made,), made.modified)

    run(story())


def test_v2_watch_survives_the_noise_of_a_thousand_other_changes(etcd: Etcd) -> None:
    async def story() -> None:
        async with used(Etcd2Store([etcd.url], PREFIX, quiet_s=0.05)) as store:
            made = await store.create(ONE, HOST2, DAY)
            async with watched(store, made.modified) as watch:
                for _ in range(4):
                    for _ in range(300):
                        etcd.v2("PUT", "/elsewhere", {"value": ""})
                    async for changes in watch:
                        if changes.revision > made.modified + 100:
                            break
                two = await store.create(TWO, HOST2, DAY)
                events = [changes.events async for changes in until_event(watch)]
                assert events[-1] == (two,)

    run(story())


@both_apis
def test_store_that_went_back_in_time_makes_us_list_again(etcd: Etcd, open_store: Open) -> None:
    async def story() -> None:
        async with used(open_store([etcd.url], PREFIX)) as store:
            revision = (await store.leases()).revision
            async with watched(store, revision + 1000) as watch:
                with pytest.raises(HistoryLost):
                    await anext(watch)

    run(story())


def test_watch_that_catches_up_a_long_way_never_jumps_ahead(etcd: Etcd) -> None:
    async def story() -> None:
        async with used(Etcd3Store([etcd.url], PREFIX)) as store:
            lease = await store.create(ONE, HOST2, DAY)
            first = lease.modified
            for step in range(1500):
                lease = await store.update(lease, HOST3 if step % 2 == 0 else HOST2, DAY)
            revision, told = first, 0
            async with watched(store, first) as watch:
                async for changes in watch:
                    written = [event.modified for event in changes.events if isinstance(event, Lease)]
                    assert written == list(range(revision + 1, changes.revision + 1))
                    revision, told = changes.revision, told + len(written)
                    if told == 1500:
                        break

    run(story())
