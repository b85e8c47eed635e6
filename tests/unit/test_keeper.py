"""Getting a lease and keeping it, through every trouble a store can make."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from dataclasses import replace
from ipaddress import IPv4Address
from typing import TypeVar

import pytest

from pyflannel.keeper import Keeper, LeaseLost, Tenant, acquire
from pyflannel.lease.alloc import OutOfSubnets
from pyflannel.lease.model import LEASE_TTL, Attrs, Lease, Snapshot, Subnet
from pyflannel.lease.network import NetworkConfig, parse_network_config
from pyflannel.lease.table import LeaseTable
from pyflannel.lease.wire import encode_attrs, subnet_name
from pyflannel.store.api import Conflict, Unavailable
from tests.support.builders import config, subnet
from tests.support.loops import run_jumping
from tests.support.memory_store import MemoryData, MemoryStore

T = TypeVar("T")
ATTRS = Attrs(IPv4Address("172.16.41.131"), None, "vxlan", '{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}')
OTHERS = Attrs(IPv4Address("172.16.41.132"), None, "vxlan", '{"VNI":1,"VtepMAC":"02:00:00:00:00:02"}')
TINY = parse_network_config(
    '{"Network":"10.2.0.0/28","SubnetLen":30,"SubnetMin":"10.2.0.4","SubnetMax":"10.2.0.4","Backend":{"Type":"vxlan"}}'
)


def tenant(network: NetworkConfig | None = None, previous: Subnet | None = None, attrs: Attrs = ATTRS) -> Tenant:
    return Tenant(network or config(), attrs, previous, margin=3600.0)


def get(store: MemoryStore, who: Tenant | None = None) -> Lease:
    return run_jumping(acquire(store, who or tenant(), random.Random(1)))


def living_data() -> MemoryData:
    """A store whose clock is that of the running loop."""
    return MemoryData(clock=lambda: asyncio.get_running_loop().time())


def test_a_new_host_gets_a_free_subnet_of_the_network() -> None:
    data = MemoryData()
    lease = get(MemoryStore(data))
    assert lease.attrs == ATTRS
    assert data.records[subnet_name(lease.subnet)].value == encode_attrs(ATTRS)
    assert lease.ttl == LEASE_TTL


def test_a_restart_finds_the_lease_it_had() -> None:
    store = MemoryStore(MemoryData())
    assert get(store).subnet == get(store).subnet
    assert len(store.data.records) == 1


def test_the_previous_subnet_is_taken_again_if_it_is_free() -> None:
    wanted = subnet("10.2.9.0/24")
    assert get(MemoryStore(MemoryData()), tenant(previous=wanted)).subnet == wanted


def test_a_lease_outside_the_network_is_given_back() -> None:
    data = MemoryData()
    old = get(MemoryStore(data), tenant(config(network="10.9.0.0/16")))
    new = get(MemoryStore(data))
    assert str(new.subnet).startswith("10.2.")
    assert subnet_name(old.subnet) not in data.records


def test_a_lost_race_is_run_again() -> None:
    data = MemoryData()
    losses = iter([Conflict("taken"), Conflict("taken"), None])
    store = MemoryStore(data, fault=lambda what: next(losses) if what == "create" else None)
    assert get(store).subnet is not None
    assert len(data.records) == 1


def test_an_answer_that_got_lost_leaves_one_lease() -> None:
    data = MemoryData()
    losses = iter([Unavailable("connection reset"), None])
    store = MemoryStore(data, fault=lambda what: next(losses, None) if what == "create answered" else None)
    lease = get(store)
    assert list(data.records) == [subnet_name(lease.subnet)]


def test_a_store_that_is_down_is_waited_for_and_spoken_of_once(caplog: pytest.LogCaptureFixture) -> None:
    tries = iter([Unavailable("connection refused")] * 20)
    store = MemoryStore(MemoryData(), fault=lambda what: next(tries, None) if what == "leases" else None)
    with caplog.at_level(logging.INFO, "pyflannel"):
        get(store)
    assert [record.message for record in caplog.records if "connection refused" in record.message] == [
        "Couldn't acquire a lease, and go on trying: connection refused"
    ]


def test_a_full_network_says_so() -> None:
    data = MemoryData()
    get(MemoryStore(data), tenant(TINY, attrs=OTHERS))
    with pytest.raises(OutOfSubnets):
        get(MemoryStore(data), tenant(TINY))


async def kept(data: MemoryData, lease: Lease, meanwhile: Callable[[Keeper], Coroutine[object, object, T]]) -> T:
    """Keep ``lease`` while something happens."""
    keeper = Keeper(MemoryStore(data), tenant(), lease, random.Random(1))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(keeper.run(), name="keeper")
        result = await meanwhile(keeper)
        running.cancel()
    return result


def test_a_lease_is_renewed_for_as_long_as_the_agent_runs() -> None:
    async def scenario() -> None:
        data = living_data()
        lease = await acquire(MemoryStore(data), tenant(), random.Random(1))

        async def a_week(_keeper: Keeper) -> None:
            await asyncio.sleep(7 * LEASE_TTL)

        await kept(data, lease, a_week)
        data.expire()
        assert subnet_name(lease.subnet) in data.records
        assert data.records[subnet_name(lease.subnet)].modified == lease.modified

    run_jumping(scenario())


def test_a_lease_that_vanished_is_written_again_on_the_same_key() -> None:
    async def scenario() -> None:
        data = living_data()
        lease = await acquire(MemoryStore(data), tenant(), random.Random(1))

        async def deleted(keeper: Keeper) -> None:
            data.delete(subnet_name(lease.subnet))
            keeper.look_again()
            await asyncio.sleep(1)

        await kept(data, lease, deleted)
        assert data.records[subnet_name(lease.subnet)].value == encode_attrs(ATTRS)

    run_jumping(scenario())


def test_a_record_somebody_spoilt_is_corrected() -> None:
    async def scenario() -> None:
        data = living_data()
        lease = await acquire(MemoryStore(data), tenant(), random.Random(1))

        async def spoilt(keeper: Keeper) -> None:
            data.put(subnet_name(lease.subnet), encode_attrs(Attrs(ATTRS.public_ip, None, "vxlan", "{}")), LEASE_TTL)
            keeper.look_again()
            await asyncio.sleep(1)

        await kept(data, lease, spoilt)
        assert data.records[subnet_name(lease.subnet)].value == encode_attrs(ATTRS)

    run_jumping(scenario())


def test_another_host_on_our_subnet_ends_the_tenancy_and_its_record_stays() -> None:
    async def scenario() -> None:
        data = living_data()
        lease = await acquire(MemoryStore(data), tenant(), random.Random(1))

        async def taken(keeper: Keeper) -> None:
            data.put(subnet_name(lease.subnet), encode_attrs(OTHERS), LEASE_TTL)
            keeper.look_again()
            await asyncio.sleep(60)

        with pytest.RaisesGroup(pytest.RaisesExc(LeaseLost, match=r"now belongs to 172\.16\.41\.132")):
            await kept(data, lease, taken)
        assert data.records[subnet_name(lease.subnet)].value == encode_attrs(OTHERS)

    run_jumping(scenario())


def test_another_address_is_published_on_the_same_key() -> None:
    async def scenario() -> None:
        data = living_data()
        lease = await acquire(MemoryStore(data), tenant(), random.Random(1))
        moved = replace(ATTRS, public_ip=IPv4Address("172.16.41.200"))

        async def moves(keeper: Keeper) -> None:
            keeper.publish(moved)
            await asyncio.sleep(1)

        await kept(data, lease, moves)
        assert data.records[subnet_name(lease.subnet)].value == encode_attrs(moved)

    run_jumping(scenario())


def test_a_store_that_is_down_for_an_hour_costs_nothing() -> None:
    async def scenario() -> None:
        data = living_data()
        lease = await acquire(MemoryStore(data), tenant(), random.Random(1))
        loop = asyncio.get_running_loop()
        until = loop.time() + LEASE_TTL / 3 + 3600
        store = MemoryStore(data, fault=lambda _: Unavailable("down") if loop.time() < until else None)
        keeper = Keeper(store, tenant(), lease, random.Random(1))
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(keeper.run(), name="keeper")
            await asyncio.sleep(2 * LEASE_TTL)
            running.cancel()
        data.expire()
        assert subnet_name(lease.subnet) in data.records

    run_jumping(scenario())


def test_our_record_is_recognised_only_as_we_wrote_it() -> None:
    lease = Lease(subnet("10.2.71.0/24"), ATTRS)
    keeper = Keeper(MemoryStore(MemoryData()), tenant(), lease, random.Random(1))
    table = LeaseTable()
    assert not keeper.recognises(table)
    table.apply_snapshot(Snapshot(1, (lease,)))
    assert keeper.recognises(table)
    table.apply_snapshot(Snapshot(2, (Lease(lease.subnet, OTHERS),)))
    assert not keeper.recognises(table)
