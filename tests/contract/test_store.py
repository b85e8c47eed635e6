"""What every store promises (pyflannel/store/api.py), asked of each of them, the fake included.

The foreign writer in these tests is an administrator or another flannel: it goes through the harness's back door.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import TypeVar

import pytest

from pyflannel.lease.model import Attrs, Changes, Event, Lease, Removed, Subnet, Unreadable
from pyflannel.lease.wire import decode_attrs, encode_attrs, subnet_name
from pyflannel.store.api import Conflict, HistoryLost, Record, Store, Unavailable
from tests.support import embedded_stores, etcd_stores
from tests.support.etcd_stores import Etcd2Harness, Etcd3Harness
from tests.support.loops import run
from tests.support.stores import PREFIX, Harness, Maker

MAKERS: list[Maker] = [*embedded_stores.MAKERS, *etcd_stores.MAKERS]

DAY = 24 * 60 * 60
ONE = Subnet(IPv4Network("10.2.71.0/24"))
TWO = Subnet(IPv4Network("10.2.41.0/24"))
LAST = Subnet(IPv4Network("10.2.255.0/24"))
"""Taken at the end of a story, so that a watcher knows it has heard everything."""
HOST2 = Attrs(IPv4Address("172.16.41.131"), None, "vxlan", '{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}')
HOST3 = Attrs(IPv4Address("172.16.41.132"), None, "vxlan", '{"VNI":1,"VtepMAC":"1a:5f:9b:00:c3:07"}')

T = TypeVar("T")


def rows(makers: list[Maker]) -> list[object]:
    return [pytest.param(maker, id=maker.name, marks=pytest.mark.needs(*maker.needs)) for maker in makers]


@pytest.fixture(params=rows(MAKERS))
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    maker: Maker = request.param
    with maker.make(tmp_path) as made:
        yield made


@pytest.fixture(params=rows(etcd_stores.MAKERS))
def distant(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Etcd2Harness | Etcd3Harness]:
    """A store behind a wire, on which an answer can get lost."""
    maker: Maker = request.param
    with maker.make(tmp_path) as made:
        assert isinstance(made, Etcd2Harness | Etcd3Harness)
        yield made


@asynccontextmanager
async def opened(harness: Harness) -> AsyncIterator[Store]:
    store = harness.open()
    try:
        yield store
    finally:
        await store.close()


def tell(harness: Harness, story: Callable[[Store], Awaitable[T]]) -> T:
    """Run ``story`` with one client."""

    async def scenario() -> T:
        async with opened(harness) as store:
            return await story(store)

    return run(scenario())


@asynccontextmanager
async def hearing(store: Store, revision: int) -> AsyncIterator[AsyncIterator[Changes]]:
    """What the watch from ``revision`` says, signs of life aside."""
    watch = store.watch(revision)
    try:
        yield (changes async for changes in watch if changes.events or changes.config is not None)
    finally:
        if isinstance(watch, AsyncGenerator):
            await watch.aclose()


@asynccontextmanager
async def watching(store: Store, revision: int) -> AsyncIterator[AsyncIterator[Event]]:
    """What the watch from ``revision`` says of leases, event by event."""
    async with hearing(store, revision) as heard:
        yield (event async for changes in heard for event in changes.events)


async def first_event(store: Store, revision: int) -> Event:
    async with watching(store, revision) as events:
        return await anext(events)


async def events_until_last(store: Store, revision: int) -> list[Event]:
    """Everything the watch from ``revision`` says before somebody takes ``LAST``."""
    told: list[Event] = []
    async with watching(store, revision) as events:
        async for event in events:
            if isinstance(event, Lease) and event.subnet == LAST:
                break
            told.append(event)
    return told


async def listed(store: Store) -> dict[Subnet, Lease]:
    return {lease.subnet: lease for lease in (await store.leases()).leases}


# The network configuration


def test_missing_config_is_told_with_the_key_that_was_asked(harness: Harness) -> None:
    record = tell(harness, lambda store: store.network_config())
    assert record.text is None
    assert f"{PREFIX}/config" in record.where


@pytest.mark.parametrize(
    "text",
    ['{"Network":"10.2.0.0/16"}', '{ "Network": "10.2.0.0/16",\n  "Backend": {"Type": "vxlan"} }\n', "<ü> & %41"],
)
def test_config_is_handed_on_as_it_was_written(harness: Harness, text: str) -> None:
    harness.write_config("{}")
    harness.write_config(text)
    assert tell(harness, lambda store: store.network_config()).text == text


def test_config_is_no_lease(harness: Harness) -> None:
    harness.write_config("{}")
    snapshot = tell(harness, lambda store: store.leases())
    assert (snapshot.leases, snapshot.unreadable) == ((), ())


def test_list_holds_the_config_as_it_is_now(harness: Harness) -> None:
    async def story(store: Store) -> None:
        assert (await store.leases()).config == ""
        for text in ('{ "Network": "10.2.0.0/16" }\n', "<ü> & %41"):
            harness.write_config(text)
            assert (await store.leases()).config == text
        made = await store.create(ONE, HOST2, DAY)
        snapshot = await store.leases()
        assert (snapshot.leases, snapshot.config) == ((made,), text)
        harness.delete_config()
        snapshot = await store.leases()
        assert (snapshot.leases, snapshot.config) == ((made,), "")

    tell(harness, story)


def test_watch_tells_what_becomes_of_the_config_in_order_with_the_leases(harness: Harness) -> None:
    async def story(store: Store) -> None:
        harness.write_config("before")
        snapshot = await store.leases()
        async with hearing(store, snapshot.revision) as heard:
            harness.write_config("one")
            changes = await anext(heard)
            assert (changes.events, changes.config) == ((), "one")
            one = await store.create(ONE, HOST2, DAY)
            changes = await anext(heard)
            assert (changes.events, changes.config) == ((one,), None)
            harness.delete_config()
            assert (await anext(heard)).config == ""
            harness.write_config("two")
            assert (await anext(heard)).config == "two"
            revision = (await store.leases()).revision
            await store.release(one)
            assert (await anext(heard)).events == (Removed(ONE),)
        # From the middle on, a watch does not say again what was said before.
        async with hearing(store, revision) as heard:
            changes = await anext(heard)
            assert (changes.events, changes.config) == ((Removed(ONE),), None)

    tell(harness, story)


def test_watch_that_comes_late_ends_with_the_config_as_it_is(harness: Harness) -> None:
    async def story(store: Store) -> None:
        start = (await store.leases()).revision
        harness.write_config("one")
        made = await store.create(ONE, HOST2, DAY)
        harness.delete_config()
        harness.write_config("two")
        await store.create(LAST, HOST2, DAY)
        configs: list[str] = []
        events: list[Event] = []
        async with hearing(store, start) as heard:
            async for changes in heard:
                configs += [] if changes.config is None else [changes.config]
                events += changes.events
                if any(isinstance(event, Lease) and event.subnet == LAST for event in events):
                    break
        assert configs[-1] == "two"
        assert events[:-1] == [made]

    tell(harness, story)


BESIDE = ["other", "configuration", "subnets-old/10.2.41.0-24", "subnets/junk/10.2.41.0-24", "subnets/junk/x"]


@pytest.mark.parametrize("key", BESIDE)
def test_key_beside_ours_is_neither_lease_nor_config(harness: Harness, key: str) -> None:
    async def story(store: Store) -> None:
        made = await store.create(ONE, HOST2, DAY)
        start = (await store.leases()).revision
        harness.write_beside(key)
        snapshot = await store.leases()
        assert (snapshot.leases, snapshot.config) == ((made,), "")
        assert [record.key for record in snapshot.unreadable] in ([], [f"{PREFIX}/{key}"])
        harness.write_config("{}")
        await store.create(TWO, HOST3, DAY)
        async with hearing(store, start) as heard:
            told = await anext(heard)
            while not (found := [event for event in told.events if isinstance(event, Lease | Removed)]):
                assert told.config in (None, "{}")
                told = await anext(heard)
        assert found == [Lease(TWO, HOST3)]

    tell(harness, story)


# Create and list


def test_fresh_store_has_no_leases(harness: Harness) -> None:
    snapshot = tell(harness, lambda store: store.leases())
    assert (snapshot.leases, snapshot.unreadable) == ((), ())


def test_created_lease_is_listed_by_every_client(harness: Harness) -> None:
    async def story(store: Store) -> None:
        mine = await store.create(ONE, HOST2, DAY)
        assert (mine.subnet, mine.attrs, mine.reservation) == (ONE, HOST2, False)
        async with opened(harness) as other:
            (theirs,) = (await other.leases()).leases
        assert theirs == mine
        assert (theirs.created, theirs.modified) == (mine.created, mine.modified)
        assert not theirs.reservation
        assert theirs.ttl is None or 0 < theirs.ttl <= DAY

    tell(harness, story)


def test_created_record_is_what_flannel_would_write(harness: Harness) -> None:
    tell(harness, lambda store: store.create(ONE, HOST2, DAY))
    value = harness.read_raw("10.2.71.0-24")
    assert value is not None
    assert decode_attrs(value) == HOST2


def test_dual_stack_lease_makes_the_round_trip(harness: Harness) -> None:
    subnet = Subnet(IPv4Network("10.2.71.0/24"), IPv6Network("fd00:2:0:71::/64"))
    attrs = replace(HOST2, public_ipv6=IPv6Address("fd00::83"), backend_v6_data=HOST2.backend_data)

    async def story(store: Store) -> None:
        made = await store.create(subnet, attrs, DAY)
        assert (await listed(store)) == {subnet: made}
        updated = await store.update(made, replace(attrs, backend_data='{"VNI":2}'), DAY)
        assert (await listed(store)) == {subnet: updated}
        assert harness.read_raw("10.2.71.0-24&fd00:2:0:71::-64") is not None
        await store.release(updated)
        assert (await listed(store)) == {}
        await store.create(LAST, HOST2, DAY)
        events = await events_until_last(store, made.created - 1)
        assert events == [made, updated, Removed(subnet)]

    tell(harness, story)


def test_taken_subnet_cannot_be_taken_again(harness: Harness) -> None:
    async def story(store: Store) -> None:
        made = await store.create(ONE, HOST2, DAY)
        with pytest.raises(Conflict):
            await store.create(ONE, HOST3, DAY)
        assert (await listed(store)) == {ONE: made}

    tell(harness, story)


def test_reserved_subnet_cannot_be_taken(harness: Harness) -> None:
    harness.write_raw(subnet_name(ONE), encode_attrs(HOST3))

    async def story(store: Store) -> None:
        with pytest.raises(Conflict):
            await store.create(ONE, HOST2, DAY)

    tell(harness, story)


def test_of_two_clients_racing_for_a_subnet_one_wins(harness: Harness) -> None:
    async def story(store: Store) -> None:
        async with opened(harness) as other:
            done = await asyncio.gather(
                store.create(ONE, HOST2, DAY), other.create(ONE, HOST3, DAY), return_exceptions=True
            )
        (won,) = [outcome for outcome in done if isinstance(outcome, Lease)]
        (lost,) = [outcome for outcome in done if not isinstance(outcome, Lease)]
        assert isinstance(lost, Conflict)
        assert (await listed(store)) == {ONE: won}

    tell(harness, story)


def test_twenty_allocators_at_once_never_share_a_subnet(harness: Harness) -> None:
    pool = [Subnet(IPv4Network(f"10.2.{third}.0/24")) for third in range(1, 40)]

    async def allocate(store: Store, attrs: Attrs) -> Lease:
        while True:
            taken = await listed(store)
            await asyncio.sleep(0)
            try:
                return await store.create(next(subnet for subnet in pool if subnet not in taken), attrs, DAY)
            except Conflict:
                continue

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            stores = [await stack.enter_async_context(opened(harness)) for _ in range(20)]
            attrs = [Attrs(IPv4Address(f"172.16.41.{host}")) for host in range(1, 21)]
            won = await asyncio.gather(*map(allocate, stores, attrs))
            assert {lease.subnet for lease in won} == set(pool[:20])
            assert (await listed(stores[0])) == {lease.subnet: lease for lease in won}

    run(scenario())


# Update


def test_update_replaces_what_the_lease_says(harness: Harness) -> None:
    async def story(store: Store) -> None:
        made = await store.create(ONE, HOST2, DAY)
        updated = await store.update(made, HOST3, DAY)
        assert (updated.subnet, updated.attrs, updated.created) == (ONE, HOST3, made.created)
        (seen,) = (await store.leases()).leases
        assert seen == updated
        assert (seen.created, seen.modified) == (updated.created, updated.modified)
        assert await store.update(updated, HOST2, DAY) == made

    tell(harness, story)


def test_update_of_a_record_changed_by_another_is_refused(harness: Harness) -> None:
    async def story(store: Store) -> None:
        made = await store.create(ONE, HOST2, DAY)
        harness.write_raw(subnet_name(ONE), encode_attrs(HOST3))
        with pytest.raises(Conflict):
            await store.update(made, HOST2, DAY)
        assert (await listed(store))[ONE].attrs == HOST3

    tell(harness, story)


def test_update_of_a_record_taken_anew_by_another_is_refused(harness: Harness) -> None:
    async def story(store: Store) -> None:
        made = await store.create(ONE, HOST2, DAY)
        async with opened(harness) as other:
            await other.release(made)
            theirs = await other.create(ONE, HOST2, DAY)
        with pytest.raises(Conflict):
            await store.update(made, HOST3, DAY)
        assert (await listed(store)) == {ONE: theirs}

    tell(harness, story)


def test_update_of_a_removed_record_is_refused(harness: Harness) -> None:
    async def story(store: Store) -> None:
        made = await store.create(ONE, HOST2, DAY)
        harness.delete_raw(subnet_name(ONE))
        with pytest.raises(Conflict):
            await store.update(made, HOST3, DAY)
        assert (await listed(store)) == {}

    tell(harness, story)


# Reservations


def test_record_written_by_hand_is_listed_as_a_reservation(harness: Harness) -> None:
    harness.write_raw(subnet_name(ONE), encode_attrs(HOST2))
    (lease,) = tell(harness, lambda store: store.leases()).leases
    assert lease == Lease(ONE, HOST2)
    assert (lease.reservation, lease.ttl) == (True, None)


def test_reservation_stays_one_when_its_host_updates_or_renews_it(harness: Harness) -> None:
    harness.write_raw(subnet_name(ONE), encode_attrs(HOST2))

    async def story(store: Store) -> None:
        (lease,) = (await store.leases()).leases
        updated = await store.update(lease, HOST3, DAY)
        renewed = await store.renew(updated, DAY)
        (seen,) = (await store.leases()).leases
        assert seen == Lease(ONE, HOST3)
        assert [(each.reservation, each.ttl) for each in (updated, renewed, seen)] == [(True, None)] * 3

    tell(harness, story)


def test_watch_tells_a_reservation_from_a_lease(harness: Harness) -> None:
    async def story(store: Store) -> None:
        start = (await store.leases()).revision
        harness.write_raw(subnet_name(ONE), encode_attrs(HOST2))
        await store.create(TWO, HOST3, DAY)
        await store.create(LAST, HOST3, DAY)
        events = await events_until_last(store, start)
        assert [(event.subnet, event.reservation) for event in events if isinstance(event, Lease)] == [
            (ONE, True),
            (TWO, False),
        ]

    tell(harness, story)


def test_reserved_subnet_is_listed_and_watched_as_a_reservation(harness: Harness) -> None:
    async def story(store: Store) -> None:
        start = (await store.leases()).revision
        made = await store.create(ONE, HOST2, None)
        assert (made.subnet, made.attrs, made.reservation, made.ttl) == (ONE, HOST2, True, None)
        (seen,) = (await store.leases()).leases
        assert (seen, seen.reservation, seen.ttl, seen.modified) == (made, True, None, made.modified)
        told = await first_event(store, start)
        assert isinstance(told, Lease)
        assert (told, told.reservation) == (made, True)
        with pytest.raises(Conflict):
            await store.create(ONE, HOST3, None)
        assert (await store.update(made, HOST3, DAY)).reservation

    tell(harness, story)


def test_reservation_outlives_every_ttl(harness: Harness) -> None:
    async def story(store: Store) -> None:
        ttl = harness.shortest_ttl
        await store.create(ONE, HOST2, None)
        lease = await store.create(TWO, HOST3, ttl)
        assert (await store.set_ttl(lease, None)).reservation
        await harness.pass_time(2 * ttl)
        assert set(await listed(store)) == {ONE, TWO}

    tell(harness, story)


@pytest.mark.parametrize(
    "value",
    [
        '{"PublicIP":"172.16.41.131"}',
        '{ "publicip": "172.16.41.131",\n  "Backend\\u0054ype": "vxlan", "BackendData": {"VtepMAC" : ""}, "Age": 7}',
    ],
    ids=["short", "odd"],
)
def test_lease_becomes_a_reservation_and_a_lease_again_and_says_what_it_said(harness: Harness, value: str) -> None:
    async def story(store: Store) -> None:
        harness.write_raw(subnet_name(ONE), value)
        (found,) = (await store.leases()).leases
        start = (await store.leases()).revision
        for ttl in (DAY, None, DAY):
            given = await store.set_ttl(found, ttl)
            (found,) = (await store.leases()).leases
            assert given == found
            assert (given.created, given.modified) == (found.created, found.modified)
            assert given.reservation == found.reservation == (ttl is None)
            assert found.ttl is None or (ttl is not None and 0 < found.ttl <= ttl)
            assert harness.read_raw(subnet_name(ONE)) == value
        await store.create(LAST, HOST2, DAY)
        told = await events_until_last(store, start)
        assert [(event.subnet, event.reservation) for event in told if isinstance(event, Lease)] == [
            (ONE, False),
            (ONE, True),
            (ONE, False),
        ]
        # What was given back is good for the next write.
        renewed = await store.renew(found, DAY)
        await store.release(renewed)
        assert set(await listed(store)) == {LAST}

    tell(harness, story)


def test_reservation_that_becomes_a_lease_expires(harness: Harness) -> None:
    async def story(store: Store) -> None:
        ttl = harness.shortest_ttl
        lease = await store.set_ttl(await store.create(ONE, HOST2, None), ttl)
        assert not lease.reservation
        async with watching(store, lease.modified) as events:
            await harness.pass_time(ttl)
            assert await anext(events) == Removed(ONE)

    tell(harness, story)


@pytest.mark.parametrize("ttl", [None, DAY], ids=["reserve", "unreserve"])
def test_life_of_a_record_changed_or_removed_meanwhile_is_not_touched(harness: Harness, ttl: int | None) -> None:
    async def story(store: Store) -> None:
        made = await store.create(ONE, HOST2, None if ttl else DAY)
        harness.write_raw(subnet_name(ONE), encode_attrs(HOST3))
        with pytest.raises(Conflict):
            await store.set_ttl(made, ttl)
        (found,) = (await store.leases()).leases
        assert (found.attrs, found.reservation) == (HOST3, True)
        harness.delete_raw(subnet_name(ONE))
        with pytest.raises(Conflict):
            await store.set_ttl(found, ttl)
        assert (await listed(store)) == {}

    tell(harness, story)


# Answers that get lost


Deed = Callable[[Store, Lease], Awaitable[Lease | None]]
DEEDS: dict[str, Deed] = {
    "create": lambda store, _: store.create(TWO, HOST3, DAY),
    "reserve": lambda store, _: store.create(TWO, HOST3, None),
    "update": lambda store, lease: store.update(lease, HOST3, DAY),
    "set_ttl": lambda store, lease: store.set_ttl(lease, None),
    "release": lambda store, lease: store.release(lease),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_write_whose_answer_got_lost_is_no_conflict_with_itself(
    distant: Etcd2Harness | Etcd3Harness, deed: str
) -> None:
    async def story(store: Store) -> None:
        lease = await store.create(ONE, HOST2, DAY)
        unheard = distant.open_unheard(subnet_name(TWO if deed in ("create", "reserve") else ONE))
        try:
            done = await DEEDS[deed](unheard, lease)
        finally:
            await unheard.close()
        after = await listed(store)
        if done is None:
            assert after == {}
        else:
            assert after[done.subnet] == done
            assert after[done.subnet].reservation == done.reservation == (deed in ("reserve", "set_ttl"))
            assert (after[done.subnet].created, after[done.subnet].modified) == (done.created, done.modified)

    tell(distant, story)


# Renew and expiry


def test_renewed_lease_says_what_it_said(harness: Harness) -> None:
    async def story(store: Store) -> None:
        made = await store.create(ONE, HOST2, DAY)
        renewed = await store.renew(made, DAY)
        assert renewed == made
        assert (await listed(store)) == {ONE: made}
        await store.create(LAST, HOST2, DAY)
        assert all(event == made for event in await events_until_last(store, made.modified))

    tell(harness, story)


def test_renewed_lease_can_be_renewed_updated_and_released(harness: Harness) -> None:
    async def story(store: Store) -> None:
        lease = await store.create(ONE, HOST2, DAY)
        lease = await store.renew(await store.renew(lease, DAY), DAY)
        lease = await store.renew(await store.update(lease, HOST3, DAY), DAY)
        await store.release(lease)
        assert (await listed(store)) == {}

    tell(harness, story)


def test_renewal_of_a_record_changed_by_another_is_refused(harness: Harness) -> None:
    async def story(store: Store) -> None:
        made = await store.create(ONE, HOST2, DAY)
        harness.write_raw(subnet_name(ONE), encode_attrs(HOST3))
        with pytest.raises(Conflict):
            await store.renew(made, DAY)

    tell(harness, story)


def test_renewal_of_a_removed_record_is_refused(harness: Harness) -> None:
    async def story(store: Store) -> None:
        made = await store.create(ONE, HOST2, DAY)
        harness.delete_raw(subnet_name(ONE))
        with pytest.raises(Conflict):
            await store.renew(made, DAY)
        assert (await listed(store)) == {}

    tell(harness, story)


def test_lease_that_is_not_renewed_expires_and_frees_its_subnet(harness: Harness) -> None:
    async def story(store: Store) -> None:
        made = await store.create(ONE, HOST2, harness.shortest_ttl)
        await harness.pass_time(harness.shortest_ttl)
        assert await first_event(store, made.modified) == Removed(ONE)
        assert (await listed(store)) == {}
        with pytest.raises(Conflict):
            await store.renew(made, DAY)
        await store.create(ONE, HOST3, DAY)

    tell(harness, story)


def test_lease_lives_as_long_as_it_is_renewed(harness: Harness) -> None:
    async def story(store: Store) -> None:
        ttl = harness.shortest_ttl
        lease = await store.create(ONE, HOST2, ttl)
        for _ in range(5):
            await harness.pass_time(ttl / 4)
            lease = await store.renew(lease, ttl)
        assert (await listed(store)) == {ONE: lease}

    tell(harness, story)


# Release


def test_released_subnet_is_free_again(harness: Harness) -> None:
    async def story(store: Store) -> None:
        made = await store.create(ONE, HOST2, DAY)
        await store.release(made)
        assert (await listed(store)) == {}
        assert harness.read_raw(subnet_name(ONE)) is None
        retaken = await store.create(ONE, HOST3, DAY)
        assert retaken.created > made.created

    tell(harness, story)


def test_releasing_twice_is_success(harness: Harness) -> None:
    async def story(store: Store) -> None:
        made = await store.create(ONE, HOST2, DAY)
        await store.release(made)
        await store.release(made)

    tell(harness, story)


def test_subnet_retaken_by_another_cannot_be_released(harness: Harness) -> None:
    async def story(store: Store) -> None:
        made = await store.create(ONE, HOST2, DAY)
        await store.release(made)
        async with opened(harness) as other:
            theirs = await other.create(ONE, HOST3, DAY)
        with pytest.raises(Conflict):
            await store.release(made)
        assert (await listed(store)) == {ONE: theirs}

    tell(harness, story)


# Watch


def test_watch_tells_every_change_once_and_in_order(harness: Harness) -> None:
    async def story(store: Store) -> None:
        start = (await store.leases()).revision
        async with asyncio.TaskGroup() as group, opened(harness) as other:
            live = group.create_task(events_until_last(other, start))
            one = await store.create(ONE, HOST2, DAY)
            two = await store.create(TWO, HOST3, DAY)
            changed = await store.update(one, replace(HOST2, public_ip=IPv4Address("172.16.41.231")), DAY)
            await store.release(two)
            harness.write_raw(subnet_name(TWO), encode_attrs(HOST2))
            harness.delete_raw(subnet_name(ONE))
            await store.create(LAST, HOST2, DAY)
            expected = [one, two, changed, Removed(TWO), Lease(TWO, HOST2), Removed(ONE)]
            assert await live == expected
        # Every store keeps a stretch of history, so a watch from back then says the same again ...
        assert await events_until_last(store, start) == expected
        # ... and one from the middle says the rest.
        assert await events_until_last(store, two.modified) == expected[2:]

    tell(harness, story)


def test_watch_from_the_listed_revision_loses_and_doubles_nothing(harness: Harness) -> None:
    async def story(store: Store) -> None:
        seen = asyncio.Event()

        async def take_many() -> None:
            for third in range(40, 80):
                await store.create(Subnet(IPv4Network(f"10.2.{third}.0/24")), HOST2, DAY)
                await asyncio.sleep(0)
            await seen.wait()
            await store.create(LAST, HOST2, DAY)

        async with opened(harness) as other, asyncio.TaskGroup() as group:
            group.create_task(take_many())
            await first_event(other, (await other.leases()).revision)
            snapshot = await other.leases()
            seen.set()
            events = await events_until_last(other, snapshot.revision)
        told = [lease.subnet for lease in snapshot.leases]
        told += [event.subnet for event in events if isinstance(event, Lease)]
        assert sorted(map(str, told)) == sorted(f"10.2.{third}.0/24" for third in range(40, 80))

    tell(harness, story)


def test_events_carry_the_revisions_an_update_needs(harness: Harness) -> None:
    async def story(store: Store) -> None:
        start = (await store.leases()).revision
        await store.update(await store.create(ONE, HOST2, DAY), HOST3, DAY)
        await store.create(LAST, HOST2, DAY)
        first, second = await events_until_last(store, start)
        assert isinstance(first, Lease)
        assert isinstance(second, Lease)
        assert start < first.created == first.modified == second.created < second.modified
        with pytest.raises(Conflict):
            await store.update(first, HOST2, DAY)
        await store.update(second, HOST2, DAY)

    tell(harness, story)


def test_watch_from_a_forgotten_revision_says_so(harness: Harness) -> None:
    if not harness.can_forget:
        pytest.skip("this store cannot be made to forget")

    async def story(store: Store) -> None:
        made = await store.create(ONE, HOST2, DAY)
        await store.create(TWO, HOST2, DAY)
        harness.forget_history()
        with pytest.raises(HistoryLost):
            await first_event(store, made.modified)
        snapshot = await store.leases()
        assert {lease.subnet for lease in snapshot.leases} == {ONE, TWO}
        last = await store.create(LAST, HOST2, DAY)
        assert await first_event(store, snapshot.revision) == last

    tell(harness, story)


def test_cancelled_watch_leaves_the_store_usable(harness: Harness) -> None:
    async def story(store: Store) -> None:
        start = (await store.leases()).revision
        heard = asyncio.Event()

        async def listen() -> None:
            async for changes in store.watch(start):
                if changes.events:
                    heard.set()

        async with asyncio.TaskGroup() as group:
            listening = group.create_task(listen())
            one = await store.create(ONE, HOST2, DAY)
            await heard.wait()
            listening.cancel()
        two = await store.create(TWO, HOST3, DAY)
        assert (await listed(store)) == {ONE: one, TWO: two}
        assert await first_event(store, one.modified) == two

    tell(harness, story)


def test_two_watches_of_one_client_do_not_disturb_each_other(harness: Harness) -> None:
    async def story(store: Store) -> None:
        start = (await store.leases()).revision
        async with asyncio.TaskGroup() as group:
            watching = [group.create_task(events_until_last(store, start)) for _ in range(2)]
            one = await store.create(ONE, HOST2, DAY)
            await store.create(LAST, HOST2, DAY)
        assert [task.result() for task in watching] == [[one], [one]]

    tell(harness, story)


# Records nobody can read


FOREIGN = {
    "not-a-subnet": "{}",
    "10.2.300.0-24": encode_attrs(HOST3),
    "10.2.9.0-24": "not JSON",
    "10.2.10.0-24": '{"PublicIP":"nowhere"}',
    "10.2.11.0-24": "[]",
}


def test_unreadable_records_are_listed_by_key_beside_the_good_ones(harness: Harness) -> None:
    for name, value in FOREIGN.items():
        harness.write_raw(name, value)

    async def story(store: Store) -> None:
        made = await store.create(ONE, HOST2, DAY)
        snapshot = await store.leases()
        assert snapshot.leases == (made,)
        assert {record.key for record in snapshot.unreadable} == {f"{PREFIX}/subnets/{name}" for name in FOREIGN}
        assert all(record.reason for record in snapshot.unreadable)

    tell(harness, story)


def test_unreadable_records_do_not_end_a_watch(harness: Harness) -> None:
    async def story(store: Store) -> None:
        start = (await store.leases()).revision
        for name, value in FOREIGN.items():
            harness.write_raw(name, value)
        made = await store.create(ONE, HOST2, DAY)
        await store.create(LAST, HOST2, DAY)
        *bad, good = await events_until_last(store, start)
        assert [event.key for event in bad if isinstance(event, Unreadable)] == [
            f"{PREFIX}/subnets/{name}" for name in FOREIGN
        ]
        assert good == made

    tell(harness, story)


def test_end_of_an_unreadable_record_is_no_event_unless_its_key_names_a_subnet(harness: Harness) -> None:
    harness.write_raw("not-a-subnet", "{}")
    harness.write_raw("10.2.9.0-24", "not JSON")

    async def story(store: Store) -> None:
        start = (await store.leases()).revision
        harness.delete_raw("not-a-subnet")
        harness.delete_raw("10.2.9.0-24")
        await store.create(LAST, HOST2, DAY)
        assert await events_until_last(store, start) == [Removed(Subnet(IPv4Network("10.2.9.0/24")))]

    tell(harness, story)


# A record in the raw


def test_single_record_is_shown_as_its_writer_spelled_it(harness: Harness) -> None:
    spelled = '{ "publicip": "172.16.41.132" , "Odd": [1, 2] }'
    harness.write_raw(subnet_name(TWO), spelled)

    async def story(store: Store) -> None:
        assert await store.inspect(ONE) is None
        assert await store.inspect(TWO) == Record(spelled, None)
        await store.create(ONE, HOST2, DAY)
        shown = await store.inspect(ONE)
        assert shown is not None
        assert shown.value == harness.read_raw(subnet_name(ONE))
        assert shown.ttl is not None
        assert 0 < shown.ttl <= DAY

    tell(harness, story)


# The client


def test_closing_twice_is_fine_and_records_stay(harness: Harness) -> None:
    async def scenario() -> None:
        store = harness.open()
        made = await store.create(ONE, HOST2, DAY)
        await store.close()
        await store.close()
        async with opened(harness) as other:
            assert (await listed(other)) == {ONE: made}

    run(scenario())


def test_client_that_was_never_used_can_be_closed(harness: Harness) -> None:
    run(harness.open().close())


def test_store_that_is_down_is_unavailable_and_comes_back(harness: Harness) -> None:
    if not harness.can_stop:
        pytest.skip("this store cannot be stopped")

    async def story(store: Store) -> None:
        lease = await store.create(ONE, HOST2, DAY)
        requests: list[Callable[[], Awaitable[object]]] = [
            store.network_config,
            store.leases,
            lambda: first_event(store, lease.modified),
            lambda: store.create(TWO, HOST3, DAY),
            lambda: store.update(lease, HOST3, DAY),
            lambda: store.renew(lease, DAY),
            lambda: store.set_ttl(lease, None),
            lambda: store.release(lease),
        ]
        async with watching(store, lease.created - 1) as events:
            assert await anext(events) == lease
            harness.stop()
            for request in [lambda: anext(events), *requests]:
                with pytest.raises(Unavailable) as caught:
                    await request()
                assert str(caught.value)
                assert not any(secret in str(caught.value) for secret in harness.secrets)
        harness.start()
        assert (await recovered(store)) == {ONE: lease}
        assert await store.update(lease, HOST3, DAY) == Lease(ONE, HOST3)

    async def recovered(store: Store) -> dict[Subnet, Lease]:
        while True:
            try:
                return await listed(store)
            except Unavailable:
                await asyncio.sleep(0.05)

    tell(harness, story)


def test_name_is_one_line_without_secrets(harness: Harness) -> None:
    async def story(store: Store) -> None:
        told = [store.name, (await store.network_config()).where]
        assert all(text.strip() and text.isprintable() for text in told)
        assert not any(secret in text for text in told for secret in harness.secrets)

    tell(harness, story)
