from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflannel.lease.model import Attrs, Changes, Lease, Removed, Snapshot, Subnet
from pyflannel.lease.wire import encode_attrs
from pyflannel.store.api import HistoryLost, Store, Unavailable
from pyflannel.store.feed import LAST_DELAY_S, SILENCE_S, News, Outage, follow
from tests.support.loops import run_jumping
from tests.support.memory_store import MemoryData, MemoryStore

HOST = Attrs(IPv4Address("172.16.41.131"))
VALUE = encode_attrs(HOST)
ONE = Lease(Subnet(IPv4Network("10.2.1.0/24")), HOST)
TWO = Lease(Subnet(IPv4Network("10.2.2.0/24")), HOST)

Watch = Callable[[int], AsyncGenerator[Changes, None]]


class OddStore(MemoryStore):
    """A store whose watches are the given ones, one after the other."""

    def __init__(self, data: MemoryData, *watches: Watch) -> None:
        super().__init__(data)
        self._watches: Iterator[Watch] = iter(watches)

    def watch(self, revision: int) -> AsyncGenerator[Changes, None]:
        return next(self._watches)(revision)


class Sleeps:
    """``asyncio.sleep`` that remembers."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(seconds)


def following(
    store: Store,
    sleep: Sleeps | None = None,
    jitter: Callable[[float], float] = lambda seconds: seconds,
    relist_every: float = 300.0,
    first: Snapshot | None = None,
) -> AsyncGenerator[News, None]:
    loop = asyncio.get_running_loop()
    return follow(
        store, clock=loop.time, sleep=sleep or Sleeps(), jitter=jitter, relist_every=relist_every, first=first
    )


async def take(feed: AsyncGenerator[News, None], count: int) -> list[News]:
    """The next ``count`` items which are not mere signs of life."""
    taken: list[News] = []
    async for item in feed:
        if not (isinstance(item, Changes) and not item.events):
            taken.append(item)
        if len(taken) == count:
            break
    return taken


def with_one() -> MemoryData:
    data = MemoryData()
    data.put("10.2.1.0-24", VALUE)
    return data


def down(reason: str = "no route to host") -> Callable[[str], Exception]:
    return lambda _operation: Unavailable(reason)


def test_list_comes_first_and_then_what_happens_after_it() -> None:
    async def scenario() -> None:
        data = with_one()
        async with aclosing(following(MemoryStore(data))) as feed:
            assert await take(feed, 1) == [Snapshot(2, (ONE,))]
            data.put("10.2.2.0-24", VALUE)
            assert await take(feed, 1) == [Changes(3, (TWO,))]
            data.delete("10.2.1.0-24")
            assert await take(feed, 1) == [Changes(4, (Removed(ONE.subnet),))]

    run_jumping(scenario())


def test_a_list_the_caller_has_already_is_not_asked_for_again() -> None:
    async def scenario() -> None:
        data = with_one()
        store = MemoryStore(data)
        first = await store.leases()
        data.put("10.2.2.0-24", VALUE)
        async with aclosing(following(store, first=first)) as feed:
            assert await take(feed, 2) == [first, Changes(3, (TWO,))]

    run_jumping(scenario())


def test_a_list_too_old_to_watch_from_is_replaced_by_a_new_one() -> None:
    async def scenario() -> None:
        data = with_one()
        store = MemoryStore(data)
        first = await store.leases()
        data.put("10.2.2.0-24", VALUE)
        data.compact()
        async with aclosing(following(store, first=first)) as feed:
            assert await take(feed, 2) == [first, Snapshot(3, (ONE, TWO))]

    run_jumping(scenario())


def test_empty_changes_are_passed_on_as_a_sign_of_life() -> None:
    async def scenario() -> None:
        async with aclosing(following(MemoryStore(with_one()))) as feed:
            assert await anext(feed) == Snapshot(2, (ONE,))
            assert await anext(feed) == Changes(2)

    run_jumping(scenario())


def test_lost_history_is_made_up_for_by_a_new_list() -> None:
    async def scenario() -> None:
        data = with_one()
        async with aclosing(following(MemoryStore(data))) as feed:
            await take(feed, 1)
            data.put("10.2.2.0-24", VALUE)
            data.compact()
            assert await take(feed, 1) == [Snapshot(3, (ONE, TWO))]
            data.delete("10.2.1.0-24")
            assert await take(feed, 1) == [Changes(4, (Removed(ONE.subnet),))]

    run_jumping(scenario())


def test_outage_is_told_once_for_each_reason_and_ended_by_a_list() -> None:
    async def scenario() -> None:
        reasons = ["no route to host", "timed out", "no route to host", "timed out"]
        faults = iter([Unavailable(reason) for reason in reasons])
        store = MemoryStore(with_one(), fault=lambda _operation: next(faults, None))
        async with aclosing(following(store)) as feed:
            expected = [Outage("no route to host"), Outage("timed out"), Snapshot(2, (ONE,))]
            assert await take(feed, 3) == expected

    run_jumping(scenario())


def test_lost_watch_is_an_outage_too_and_each_outage_is_told() -> None:
    async def scenario() -> None:
        data = with_one()
        store = MemoryStore(data)
        async with aclosing(following(store)) as feed:
            await take(feed, 1)
            for reason in ("connection reset", "timed out"):
                faults = iter([Unavailable(reason)] * 3)
                store.fault = lambda _operation, faults=faults: next(faults, None)  # type: ignore[misc]
                data.wake()
                assert await take(feed, 2) == [Outage(reason), Snapshot(2, (ONE,))]

    run_jumping(scenario())


def test_waits_grow_to_their_limit_while_the_store_is_down() -> None:
    async def scenario() -> None:
        sleeps = Sleeps()
        store = MemoryStore(with_one(), fault=lambda _operation: None if len(sleeps.seconds) == 8 else down()(""))
        async with aclosing(following(store, sleeps)) as feed:
            await take(feed, 2)
        assert sleeps.seconds == [0.1, 0.2, 0.4, 0.8, *[LAST_DELAY_S] * 4]

    run_jumping(scenario())


def test_every_wait_is_jittered() -> None:
    async def scenario() -> None:
        sleeps = Sleeps()
        store = MemoryStore(with_one(), fault=lambda _operation: None if len(sleeps.seconds) == 2 else down()(""))
        async with aclosing(following(store, sleeps, jitter=lambda seconds: 3 * seconds)) as feed:
            await take(feed, 2)
            assert sleeps.seconds == pytest.approx([0.3, 0.6])
            await take(feed, 1)
            assert asyncio.get_running_loop().time() >= 3 * 300

    run_jumping(scenario())


@pytest.mark.parametrize(("hosts", "seconds"), [(1000, 300), (5000, 1500)])
def test_thousands_of_hosts_list_more_rarely(hosts: int, seconds: int) -> None:
    async def scenario() -> None:
        data = MemoryData()
        store = MemoryStore(data)
        first = Snapshot(0, tuple(Lease(Subnet(IPv4Network((number << 8, 24))), HOST) for number in range(hosts)))
        async with aclosing(following(store, first=first)) as feed:
            assert await anext(feed) is first
            while not isinstance(await anext(feed), Snapshot):
                assert asyncio.get_running_loop().time() < seconds + 2 * SILENCE_S
        assert asyncio.get_running_loop().time() >= seconds

    run_jumping(scenario())


def test_watch_that_delivered_makes_the_next_wait_short_again() -> None:
    async def scenario() -> None:
        data = with_one()
        sleeps = Sleeps()
        store = MemoryStore(data, fault=lambda _operation: None if len(sleeps.seconds) == 4 else down()(""))
        async with aclosing(following(store, sleeps)) as feed:
            await take(feed, 2)
            data.put("10.2.2.0-24", VALUE)
            await take(feed, 1)
            store.fault = lambda _operation: None if len(sleeps.seconds) == 5 else Unavailable("down again")
            data.wake()
            await take(feed, 2)
        assert sleeps.seconds[3:] == [0.8, 0.1]

    run_jumping(scenario())


def test_watch_that_never_delivers_does_not_make_us_list_all_the_time() -> None:
    async def forgetful(revision: int) -> AsyncGenerator[Changes, None]:
        if revision:
            raise HistoryLost(str(revision))
        yield Changes(0)

    async def scenario() -> None:
        sleeps = Sleeps()
        async with aclosing(following(OddStore(with_one(), *[forgetful] * 4), sleeps)) as feed:
            assert await take(feed, 4) == [Snapshot(2, (ONE,))] * 4
        assert sleeps.seconds == [0.1, 0.2, 0.4]

    run_jumping(scenario())


def test_silent_watch_is_given_up() -> None:
    async def silent(_revision: int) -> AsyncGenerator[Changes, None]:
        await asyncio.Event().wait()
        yield Changes(0)

    async def scenario() -> None:
        async with aclosing(following(OddStore(with_one(), silent, silent))) as feed:
            assert await take(feed, 2) == [Snapshot(2, (ONE,))] * 2
            assert asyncio.get_running_loop().time() == pytest.approx(SILENCE_S + 0.1)

    run_jumping(scenario())


def test_revision_that_goes_backwards_means_a_restored_store() -> None:
    async def restored(revision: int) -> AsyncGenerator[Changes, None]:
        yield Changes(revision + 5, (TWO,))
        yield Changes(revision + 3, (Removed(ONE.subnet),))

    async def scenario() -> None:
        data = with_one()
        async with aclosing(following(OddStore(data, restored, MemoryStore(data).watch))) as feed:
            assert await take(feed, 3) == [Snapshot(2, (ONE,)), Changes(7, (TWO,)), Snapshot(2, (ONE,))]

    run_jumping(scenario())


def test_watch_that_just_ends_is_replaced() -> None:
    async def brief(revision: int) -> AsyncGenerator[Changes, None]:
        yield Changes(revision + 1, (TWO,))

    async def scenario() -> None:
        data = with_one()
        async with aclosing(following(OddStore(data, brief, MemoryStore(data).watch))) as feed:
            assert await take(feed, 3) == [Snapshot(2, (ONE,)), Changes(3, (TWO,)), Snapshot(2, (ONE,))]

    run_jumping(scenario())


def test_everything_is_listed_again_from_time_to_time() -> None:
    async def scenario() -> None:
        sleeps = Sleeps()
        async with aclosing(following(MemoryStore(with_one()), sleeps)) as feed:
            assert await take(feed, 3) == [Snapshot(2, (ONE,))] * 3
            assert 600 <= asyncio.get_running_loop().time() <= 660
        assert sleeps.seconds == []

    run_jumping(scenario())


def test_leaving_early_closes_the_watch() -> None:
    async def scenario() -> None:
        data = with_one()
        async with aclosing(following(MemoryStore(data))) as feed:
            await take(feed, 1)
            data.put("10.2.2.0-24", VALUE)
            await take(feed, 1)
            assert len(data.watchers) == 1
        assert not data.watchers

    run_jumping(scenario())


@pytest.mark.parametrize("fault", [lambda _operation: None, down()], ids=["watching", "backing off"])
def test_it_can_be_cancelled_while_it_waits(fault: Callable[[str], Exception | None]) -> None:
    async def scenario() -> None:
        data = with_one()

        async def consume() -> None:
            async with aclosing(following(MemoryStore(data, fault=fault))) as feed:
                async for _ in feed:
                    pass

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1000):
                await consume()
        assert not data.watchers

    run_jumping(scenario())


def test_other_errors_are_not_hidden() -> None:
    async def scenario() -> None:
        store = MemoryStore(with_one(), fault=lambda _operation: ZeroDivisionError())
        async with aclosing(following(store)) as feed:
            with pytest.raises(ZeroDivisionError):
                await anext(feed)

    run_jumping(scenario())


names = st.integers(1, 4).map(lambda third: f"10.2.{third}.0-24")
hosts = st.integers(1, 9).map(lambda last: Attrs(IPv4Address(f"172.16.41.{last}")))
Deed = Callable[[MemoryStore], None]
deeds: st.SearchStrategy[Deed | None] = st.one_of(
    st.builds(lambda name, host: lambda store: store.data.put(name, encode_attrs(host)), names, hosts),
    st.builds(lambda name: lambda store: store.data.delete(name), names),
    st.sampled_from([lambda store: store.data.compact(), lambda store: cut(store), lambda store: mend(store), None]),
)
"""What may befall a store; None is a pause in which others get to act."""


def cut(store: MemoryStore) -> None:
    store.fault = down()
    store.data.wake()


def mend(store: MemoryStore) -> None:
    store.fault = lambda _operation: None


def fold(known: dict[Subnet, Lease], news: News) -> None:
    """What a reader of the feed who believes every word knows after ``news``."""
    if isinstance(news, Snapshot):
        known.clear()
        known.update({lease.subnet: lease for lease in news.leases})
    elif isinstance(news, Changes):
        for event in news.events:
            if isinstance(event, Lease):
                known[event.subnet] = event
            elif isinstance(event, Removed):
                known.pop(event.subnet, None)


@given(st.lists(deeds, max_size=25))
def test_whatever_befalls_the_store_the_news_add_up_to_its_records(story: list[Deed | None]) -> None:
    async def scenario() -> None:
        store = MemoryStore(with_one())
        known: dict[Subnet, Lease] = {}

        async def consume() -> None:
            async with aclosing(following(store)) as feed:
                async for news in feed:
                    fold(known, news)

        async with asyncio.TaskGroup() as group:
            consuming = group.create_task(consume())
            for deed in story:
                if deed is None:
                    await asyncio.sleep(0.25)
                else:
                    deed(store)
            mend(store)
            await asyncio.sleep(2 * LAST_DELAY_S)
            consuming.cancel()
        assert known == {lease.subnet: lease for lease in (await store.leases()).leases}

    run_jumping(scenario())
