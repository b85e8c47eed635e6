"""Getting a lease, through every trouble a store can make."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from pyflannel.conditions import LEASE_MISSING
from pyflannel.health import Health
from pyflannel.lease.model import LEASE_TTL, Attrs, Lease, Snapshot, Subnet
from pyflannel.lease.network import NetworkConfig, parse_network_config
from pyflannel.lease.wire import encode_attrs, subnet_name
from pyflannel.store.api import Conflict, Unavailable
from pyflannel.tenancy import FULL_PAUSE, ConfigChanged, Tenant, acquire
from tests.support.builders import config, subnet
from tests.support.loops import run_jumping
from tests.support.memory_store import MemoryData, MemoryStore

ATTRS = Attrs(IPv4Address("172.16.41.131"), None, "vxlan", '{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}')
OTHERS = Attrs(IPv4Address("172.16.41.132"), None, "vxlan", '{"VNI":1,"VtepMAC":"02:00:00:00:00:02"}')
MOVED = replace(ATTRS, public_ip=IPv4Address("172.16.41.200"))
HOST_GW = Attrs(IPv4Address("172.16.41.131"), None, "host-gw")
DUAL = config(ipv6_network="fd00:2::/48")
TINY = parse_network_config(
    '{"Network":"10.2.0.0/28","SubnetLen":30,"SubnetMin":"10.2.0.4","SubnetMax":"10.2.0.4","Backend":{"Type":"vxlan"}}'
)
X, Y = subnet("10.2.71.0/24"), subnet("10.2.72.0/24")


def tenant(
    network: NetworkConfig | None = None,
    previous: Subnet | None = None,
    attrs: Attrs = ATTRS,
    written: Lease | None = None,
) -> Tenant:
    return Tenant(network or config(), attrs, previous, margin=3600.0, written=written)


def get(store: MemoryStore, who: Tenant | None = None, listed: Snapshot | None = None) -> Lease:
    return run_jumping(acquire(store, who or tenant(), random.Random(1), listed))


def holding(*records: tuple[Subnet, Attrs], ttl: float | None = LEASE_TTL) -> MemoryData:
    data = MemoryData()
    for net, attrs in records:
        data.put(subnet_name(net), encode_attrs(attrs), ttl)
    return data


def says(data: MemoryData) -> dict[str, str]:
    return {name: record.value for name, record in data.records.items()}


def once(what: str, answer: Exception | Callable[[], None]) -> Callable[[str], Exception | None]:
    """A fault of one operation, or something that happens just before it; the first time only."""
    left = [answer]

    def fault(operation: str) -> Exception | None:
        if operation != what or not left:
            return None
        happens = left.pop()
        return happens if isinstance(happens, Exception) else happens()

    return fault


def test_a_new_host_gets_a_free_subnet_of_the_network() -> None:
    data = MemoryData()
    lease = get(MemoryStore(data))
    assert lease.attrs == ATTRS
    assert says(data) == {subnet_name(lease.subnet): encode_attrs(ATTRS)}
    assert lease.ttl == LEASE_TTL


def test_a_restart_finds_the_lease_it_had() -> None:
    store = MemoryStore(MemoryData())
    assert get(store).subnet == get(store).subnet
    assert len(store.data.records) == 1


def test_the_previous_subnet_is_taken_again_if_it_is_free() -> None:
    assert get(MemoryStore(MemoryData()), tenant(previous=X)).subnet == X
    assert get(MemoryStore(MemoryData()), tenant(written=Lease(X, ATTRS))).subnet == X


def test_a_previous_subnet_that_another_host_has_is_left_to_it() -> None:
    data = holding((X, OTHERS))
    assert get(MemoryStore(data), tenant(previous=X, written=Lease(X, ATTRS))).subnet != X
    assert says(data)[subnet_name(X)] == encode_attrs(OTHERS)


def test_a_lease_outside_the_network_is_given_back() -> None:
    data = MemoryData()
    old = get(MemoryStore(data), tenant(config(network="10.9.0.0/16")))
    new = get(MemoryStore(data))
    assert str(new.subnet).startswith("10.2.")
    assert subnet_name(old.subnet) not in data.records


def test_a_reservation_stays_one() -> None:
    data = holding((X, ATTRS), ttl=None)
    lease = get(MemoryStore(data), tenant(attrs=replace(ATTRS, backend_data='{"VNI":2}')))
    assert (lease.subnet, lease.reservation) == (X, True)
    assert data.records[subnet_name(X)].expires is None


def test_a_subnet_reserved_for_us_is_moved_to_and_the_old_one_given_back() -> None:
    data = holding((X, ATTRS))
    data.put(subnet_name(Y), encode_attrs(Attrs(ATTRS.public_ip)))
    assert get(MemoryStore(data), tenant(previous=X)).subnet == Y
    assert says(data) == {subnet_name(Y): encode_attrs(ATTRS)}


def test_a_lost_race_is_run_again() -> None:
    losses = iter([Conflict("taken"), Conflict("taken"), None])
    store = MemoryStore(MemoryData(), fault=lambda what: next(losses, None) if what == "create" else None)
    assert get(store).attrs == ATTRS
    assert len(store.data.records) == 1


@pytest.mark.parametrize("listed", [None, Snapshot(1)], ids=["list of its own", "list it was given"])
def test_an_answer_that_got_lost_leaves_one_lease(listed: Snapshot | None) -> None:
    data = MemoryData()
    store = MemoryStore(data, fault=once("create answered", Unavailable("connection reset")))
    assert list(data.records) == []
    lease = get(store, listed=listed)
    assert list(data.records) == [subnet_name(lease.subnet)]


def test_a_request_that_seemed_lost_is_made_again_for_the_same_subnet() -> None:
    # It may be done yet; for another subnet, there would be two of them then.
    asked: list[Subnet] = []

    class Deaf(MemoryStore):
        async def create(self, subnet: Subnet, attrs: Attrs, ttl: int | None) -> Lease:
            asked.append(subnet)
            return await super().create(subnet, attrs, ttl)

    get(Deaf(MemoryData(), fault=once("create", Unavailable("timed out"))))
    assert len(asked) == 2
    assert asked[0] == asked[1]


def test_a_second_lease_of_ours_is_given_back() -> None:
    data = holding((X, ATTRS), (Y, ATTRS))
    assert get(MemoryStore(data), tenant(previous=Y)).subnet == Y
    assert list(data.records) == [subnet_name(Y)]


def test_a_record_that_only_bears_the_address_we_had_is_anothers_by_now() -> None:
    data = holding((X, HOST_GW), (Y, HOST_GW))
    moved = replace(HOST_GW, public_ip=MOVED.public_ip)
    lease = get(MemoryStore(data), tenant(attrs=moved, written=Lease(X, HOST_GW)))
    assert lease.subnet == X
    assert says(data) == {subnet_name(X): encode_attrs(moved), subnet_name(Y): encode_attrs(HOST_GW)}


def test_a_lease_is_known_again_by_what_we_wrote_though_our_address_changed() -> None:
    data = holding((X, ATTRS))
    lease = get(MemoryStore(data), tenant(attrs=MOVED, written=Lease(X, ATTRS)))
    assert lease.subnet == X
    assert says(data) == {subnet_name(X): encode_attrs(MOVED)}


def test_a_lease_is_known_again_by_its_mac_address_though_our_address_changed() -> None:
    data = holding((X, ATTRS))
    assert get(MemoryStore(data), tenant(attrs=MOVED, previous=X)).subnet == X
    assert says(data) == {subnet_name(X): encode_attrs(MOVED)}


def test_of_two_hosts_whose_choices_overlap_the_younger_chooses_again() -> None:
    # Both writes succeed, for the IPv6 halves and so the keys differ.
    data = MemoryData()
    rival = subnet("10.2.71.0/24", "fd00:2:0:99::/64")

    def another_is_faster() -> None:
        data.put(subnet_name(rival), encode_attrs(replace(OTHERS, public_ipv6=IPv6Address("fd00:41::2"))), LEASE_TTL)

    store = MemoryStore(data, fault=once("create", another_is_faster))
    lease = get(store, tenant(DUAL, previous=X))
    assert not lease.subnet.overlaps(rival)
    assert set(data.records) == {subnet_name(rival), subnet_name(lease.subnet)}


def test_a_new_record_that_is_deleted_before_it_was_seen_is_written_again() -> None:
    data = MemoryData()
    lists: list[None] = []

    def fault(what: str) -> None:
        if what == "leases":
            lists.append(None)
            if len(lists) == 2:
                data.delete(subnet_name(X))

    assert get(MemoryStore(data, fault=fault), tenant(previous=X)).subnet == X
    assert list(data.records) == [subnet_name(X)]


def test_a_store_that_is_down_is_waited_for_and_spoken_of_once(caplog: pytest.LogCaptureFixture) -> None:
    tries = iter([Unavailable("connection refused")] * 20)
    store = MemoryStore(MemoryData(), fault=lambda what: next(tries, None) if what == "leases" else None)
    with caplog.at_level(logging.INFO, "pyflannel"):
        get(store)
    assert [record.message for record in caplog.records if "connection refused" in record.message] == [
        "Couldn't acquire a lease, and go on trying: connection refused"
    ]


def test_a_full_network_is_waited_out_and_spoken_of_once(caplog: pytest.LogCaptureFixture) -> None:
    health = Health()

    async def scenario() -> float:
        data = MemoryData(clock=asyncio.get_running_loop().time)
        taken = await acquire(MemoryStore(data), tenant(TINY, attrs=OTHERS), random.Random(1))
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(acquire(MemoryStore(data), tenant(TINY), random.Random(2), health=health))
            await asyncio.sleep(3600)
            assert not waiting.done()
            assert [each.kind for each in health.present()] == [LEASE_MISSING]
            await MemoryStore(data).release(taken)
            freed = asyncio.get_running_loop().time()
        assert waiting.result().subnet == taken.subnet
        assert health.present() == ()
        return asyncio.get_running_loop().time() - freed

    assert run_jumping(scenario()) <= 1.2 * FULL_PAUSE
    (line,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "wait for a free subnet or a larger network: out of subnets" in line.message


def test_a_full_network_that_becomes_another_one_is_not_waited_for() -> None:
    async def scenario() -> None:
        data = MemoryData(clock=asyncio.get_running_loop().time)
        data.write_config('{"Network":"10.2.0.0/28"}')
        await acquire(MemoryStore(data), tenant(TINY, attrs=OTHERS), random.Random(1))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(acquire(MemoryStore(data), tenant(TINY), random.Random(2)))
            await asyncio.sleep(600)
            data.write_config('{"Network":"10.2.0.0/16"}')

    with pytest.RaisesGroup(ConfigChanged):
        run_jumping(scenario())
