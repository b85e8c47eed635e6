"""Counting what a store is asked.  That it remains the store it is, the contract suite says as well."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from ipaddress import IPv4Address

import pytest

from pyflannel.lease.model import Attrs
from pyflannel.store.api import Conflict, Unavailable
from pyflannel.store.endpoints import NotOffered
from pyflannel.store.metered import Meter, Metered
from tests.support.builders import subnet
from tests.support.loops import run_jumping
from tests.support.memory_store import HEARTBEAT_S, MemoryData, MemoryStore

ATTRS = Attrs(IPv4Address("172.16.41.131"))
OWN = subnet("10.2.71.0/24")


def metered(fault: Callable[[str], Exception | None] = lambda _: None) -> tuple[Metered, Meter]:
    clock = asyncio.get_running_loop().time
    meter = Meter(now=clock, clock=clock)
    return Metered(MemoryStore(MemoryData(), fault=fault), meter), meter


def test_each_operation_is_counted_by_its_name_and_answered_as_by_the_store() -> None:
    async def scenario() -> None:
        store, meter = metered()
        lease = await store.create(OWN, ATTRS, 100)
        lease = await store.renew(await store.update(lease, ATTRS, 100), 100)
        lease = await store.set_ttl(lease, None)
        assert (await store.leases()).leases == (lease,)
        assert await store.inspect(OWN) is not None
        assert (await store.network_config()).text is None
        await store.release(lease)
        await store.close()
        names = {"create", "update", "renew", "set_ttl", "leases", "inspect", "network_config", "release"}
        assert {name: took.count for name, took in meter.requests.items()} == dict.fromkeys(names, 1)
        assert (meter.answers, meter.since) == (True, 0.0)
        assert not meter.errors

    run_jumping(scenario())


def test_how_long_a_request_takes_is_noted_though_it_fails() -> None:
    async def slow() -> None:
        await asyncio.sleep(2)
        raise Unavailable("no answer")

    async def scenario() -> None:
        _, meter = metered()
        with pytest.raises(Unavailable):
            await meter.time("leases", slow())
        assert meter.requests["leases"].total == 2.0
        assert meter.errors == {"leases": 1}
        assert (meter.answers, meter.since) == (False, 2.0)

    run_jumping(scenario())


def test_since_tells_when_it_began_to_answer_or_not() -> None:
    async def scenario() -> None:
        faults: list[Exception] = []
        store, meter = metered(lambda _: faults.pop() if faults else None)
        await store.leases()
        await asyncio.sleep(5)
        await store.leases()
        assert (meter.answers, meter.since) == (True, 0.0)
        faults.append(Unavailable("no answer"))
        with pytest.raises(Unavailable):
            await store.leases()
        assert (meter.answers, meter.since) == (False, 5.0)

    run_jumping(scenario())


def test_a_conflict_is_an_answer_and_so_is_an_api_that_is_switched_off() -> None:
    async def scenario() -> None:
        faults: list[Exception] = [NotOffered("v2 is off")]
        store, meter = metered(lambda _: faults.pop() if faults else None)
        with pytest.raises(NotOffered):
            await store.network_config()
        await store.create(OWN, ATTRS, 100)
        with pytest.raises(Conflict):
            await store.create(OWN, ATTRS, 100)
        assert not meter.errors
        assert meter.requests["create"].count == 2

    run_jumping(scenario())


def test_a_watch_tells_when_it_last_delivered_and_when_it_breaks() -> None:
    async def scenario() -> None:
        faults: list[Exception] = []
        store, meter = metered(lambda _: faults.pop() if faults else None)
        async with aclosing(store.watch(1)) as watch:
            await anext(watch)
            assert meter.heard == HEARTBEAT_S
            faults.append(Unavailable("connection lost"))
            with pytest.raises(Unavailable):
                await anext(watch)
        assert meter.errors == {"watch": 1}
        assert meter.answers is False

    run_jumping(scenario())


def test_a_watch_that_is_closed_closes_the_one_below() -> None:
    async def scenario() -> None:
        data = MemoryData()
        async with aclosing(Metered(MemoryStore(data), Meter()).watch(1)) as watch:
            await anext(watch)
            assert len(data.watchers) == 1
        assert not data.watchers

    run_jumping(scenario())
