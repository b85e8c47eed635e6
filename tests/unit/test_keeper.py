"""Keeping a lease and giving it back, through every trouble that a store or another host can make."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from pyflannel.conditions import LEASE_CONFLICT, LEASE_MISSING, LEASE_NOT_RENEWED, LEASE_UNREADABLE
from pyflannel.keeper import ATTEMPTS, CLOCK_EVERY, CONFLICT_PAUSES, LOOK_EVERY, PEACE, RELEASE_S, Keeper, LeaseLost
from pyflannel.lease.model import LEASE_TTL, Attrs, Lease, Snapshot, Subnet, Unreadable
from pyflannel.lease.network import NetworkConfig
from pyflannel.lease.table import LeaseTable
from pyflannel.lease.wire import encode_attrs, subnet_name
from pyflannel.store.api import Conflict, Unavailable
from pyflannel.tenancy import Tenant
from tests.support.builders import config, subnet
from tests.support.loops import run_jumping
from tests.support.memory_store import MemoryData, MemoryStore

ATTRS = Attrs(IPv4Address("172.16.41.131"), None, "vxlan", '{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}')
OTHERS = Attrs(IPv4Address("172.16.41.132"), None, "vxlan", '{"VNI":1,"VtepMAC":"02:00:00:00:00:02"}')
TWIN = replace(OTHERS, public_ip=ATTRS.public_ip)
MOVED = replace(ATTRS, public_ip=IPv4Address("172.16.41.200"))
DUAL = config(ipv6_network="fd00:2::/48")
X, Y = subnet("10.2.71.0/24"), subnet("10.2.72.0/24")


def no_fault(_operation: str) -> None:
    """Nothing goes wrong."""


@dataclass
class Scene:
    """A store, and a keeper at work in it, in a time that passes when the test sleeps."""

    data: MemoryData
    store: MemoryStore
    keeper: Keeper
    calls: list[str]
    """Every request that was made."""
    naps: list[float]

    def suspend(self, seconds: float) -> None:
        """This machine sleeps, and its timers with it; the store does not notice."""
        self.naps.append(seconds)

    @property
    def says(self) -> str | None:
        """What the store holds under our key."""
        record = self.data.records.get(subnet_name(self.keeper.lease.subnet))
        return None if record is None else record.value

    @property
    def conflict(self) -> str:
        """What the keeper says of another host with our address; empty if there is none."""
        return next((each.text for each in self.keeper.health.present() if each.kind is LEASE_CONFLICT), "")

    def overwrite(self, attrs: Attrs, ttl: float | None = LEASE_TTL) -> None:
        """Somebody writes our key, as Go flannel does, and the keeper hears of it."""
        self.data.put(subnet_name(self.keeper.lease.subnet), encode_attrs(attrs), ttl)
        self.keeper.look_again()

    def vanish(self) -> None:
        """Our key goes, and the keeper hears of it."""
        self.data.delete(subnet_name(self.keeper.lease.subnet))
        self.keeper.look_again()


@asynccontextmanager
async def keeping(
    own: Subnet = X,
    attrs: Attrs = ATTRS,
    *,
    network: NetworkConfig | None = None,
    reserved: bool = False,
    fault: Callable[[str], Exception | None] = no_fault,
    runs: bool = True,
) -> AsyncIterator[Scene]:
    """A lease of ``own``, being kept."""
    now = asyncio.get_running_loop().time
    data = MemoryData(clock=now)
    lease = await MemoryStore(data).create(own, attrs, None if reserved else LEASE_TTL)
    calls: list[str] = []

    def meet(operation: str) -> Exception | None:
        calls.append(operation)
        return fault(operation)

    store = MemoryStore(data, fault=meet)
    tenant = Tenant(network or config(), attrs, None, margin=3600.0)
    naps: list[float] = []
    keeper = Keeper(store, tenant, lease, random.Random(1), lambda: now() + sum(naps))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(keeper.run(), name="keeper") if runs else None
        yield Scene(data, store, keeper, calls, naps)
        if running is not None:
            running.cancel()


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.ERROR) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= level]


# Renewal, and the clock


def test_a_lease_is_renewed_for_as_long_as_the_agent_runs() -> None:
    async def scenario() -> None:
        async with keeping() as scene:
            written = scene.data.revision
            await asyncio.sleep(7 * LEASE_TTL)
            scene.data.expire()
            assert scene.says == encode_attrs(ATTRS)
            assert scene.data.revision == written, "renewing writes nothing"
            assert set(scene.calls) == {"renew", "renew answered"}
            assert len(scene.calls) < 2 * 7 * 5

    run_jumping(scenario())


def test_a_store_that_is_down_for_an_hour_costs_nothing() -> None:
    async def scenario() -> None:
        now = asyncio.get_running_loop().time
        until = now() + LEASE_TTL / 3 + 3600
        async with keeping(fault=lambda _: Unavailable("down") if now() < until else None) as scene:
            await asyncio.sleep(2 * LEASE_TTL)
            scene.data.expire()
            assert scene.says == encode_attrs(ATTRS)

    run_jumping(scenario())


def test_a_store_that_takes_no_renewal_is_told_until_it_does() -> None:
    full = Unavailable("database space exceeded")

    async def scenario() -> None:
        troubles: list[Exception | None] = [full]
        async with keeping(fault=lambda what: troubles[0] if what == "renew" else None) as scene:
            await asyncio.sleep(LEASE_TTL)
            (told,) = scene.keeper.health.present()
            assert told.kind is LEASE_NOT_RENEWED
            assert told.text == "Couldn't renew our lease, and go on trying: database space exceeded"
            troubles[0] = None
            await asyncio.sleep(1.2 * ATTEMPTS[-1])
            assert scene.keeper.health.present() == ()

    run_jumping(scenario())


def test_a_lease_that_vanished_and_cannot_be_written_again_is_missing_until_it_can(
    caplog: pytest.LogCaptureFixture,
) -> None:
    full = Unavailable("database space exceeded")

    async def scenario() -> None:
        troubles: list[Exception | None] = [full]
        async with keeping(fault=lambda what: troubles[0] if what == "create" else None) as scene:
            scene.vanish()
            await asyncio.sleep(60)
            (told,) = scene.keeper.health.present()
            assert told.kind is LEASE_MISSING
            assert told.text.endswith("database space exceeded")
            troubles[0] = None
            await asyncio.sleep(1.2 * ATTEMPTS[-1])
            assert scene.keeper.health.present() == ()
            assert scene.says == encode_attrs(ATTRS)

    run_jumping(scenario())
    assert [line for line in lines(caplog, logging.WARNING) if "vanished" in line] == [
        f"Our lease {X} has vanished from the store; writing it again"
    ]


def test_after_a_long_sleep_a_lease_that_still_lives_is_renewed_soon() -> None:
    async def scenario() -> None:
        async with keeping() as scene:
            scene.suspend(20 * 3600)
            await asyncio.sleep(CLOCK_EVERY + 1)
            assert scene.calls == ["renew", "renew answered"]

    run_jumping(scenario())


def test_after_a_sleep_longer_than_the_lease_it_is_written_again() -> None:
    async def scenario() -> None:
        async with keeping() as scene:
            scene.suspend(2 * LEASE_TTL)
            scene.data.delete(subnet_name(X))
            await asyncio.sleep(CLOCK_EVERY + 1)
            assert scene.says == encode_attrs(ATTRS)

    run_jumping(scenario())


def test_after_a_sleep_in_which_another_host_got_the_subnet_it_is_lost() -> None:
    async def scenario() -> None:
        async with keeping() as scene:
            scene.suspend(2 * LEASE_TTL)
            scene.data.put(subnet_name(X), encode_attrs(OTHERS), LEASE_TTL)
            await asyncio.sleep(CLOCK_EVERY + 1)

    with pytest.RaisesGroup(LeaseLost):
        run_jumping(scenario())


def test_a_reservation_is_looked_after_and_stays_one() -> None:
    async def scenario() -> None:
        async with keeping(reserved=True) as scene:
            await asyncio.sleep(2 * LEASE_TTL)
            scene.overwrite(replace(ATTRS, backend_data="{}"), None)
            await asyncio.sleep(1)
            assert scene.data.records[subnet_name(X)].expires is None
            assert scene.keeper.lease.reservation

    run_jumping(scenario())


# Our record goes, or changes


def test_a_lease_that_vanished_is_written_again_on_the_same_key() -> None:
    async def scenario() -> None:
        async with keeping() as scene:
            scene.vanish()
            await asyncio.sleep(1)
            assert scene.says == encode_attrs(ATTRS)

    run_jumping(scenario())


def test_a_lease_that_nobody_told_us_has_vanished_is_written_again_when_it_is_due() -> None:
    async def scenario() -> None:
        async with keeping() as scene:
            scene.data.delete(subnet_name(X))
            await asyncio.sleep(LEASE_TTL / 3 + CLOCK_EVERY)
            assert scene.says == encode_attrs(ATTRS)

    run_jumping(scenario())


def test_a_record_somebody_spoilt_is_corrected() -> None:
    async def scenario() -> None:
        async with keeping() as scene:
            scene.overwrite(replace(ATTRS, backend_data="{}"))
            await asyncio.sleep(1)
            assert scene.says == encode_attrs(ATTRS)
            assert not scene.conflict

    run_jumping(scenario())


def test_a_record_that_nobody_can_read_is_spoken_of_once_and_written_again_once_it_is_removed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        async with keeping() as scene:
            scene.data.put(subnet_name(X), "not JSON", None)
            for _ in range(100):
                scene.keeper.look_again()
                await asyncio.sleep(6)
            assert scene.calls.count("leases") <= 600 / LOOK_EVERY + 1
            (line,) = lines(caplog)
            assert "10.2.71.0-24: value is not a JSON object" in line
            assert "remove the key" in line
            scene.vanish()
            await asyncio.sleep(LOOK_EVERY + 1)
            assert scene.says == encode_attrs(ATTRS)

    run_jumping(scenario())


def test_a_record_that_nobody_could_read_is_written_the_moment_it_is_heard_to_be_gone() -> None:
    async def scenario() -> None:
        async with keeping() as scene:
            key = f"/coreos.com/network/subnets/{subnet_name(X)}"
            scene.data.put(subnet_name(X), "not JSON", None)
            scene.keeper.heard(told({key: "not JSON"}))
            await asyncio.sleep(1)
            assert [each.kind for each in scene.keeper.health.present()] == [LEASE_UNREADABLE]
            scene.data.delete(subnet_name(X))
            scene.keeper.heard(told({}))
            await asyncio.sleep(1)
            assert scene.says == encode_attrs(ATTRS)
            assert scene.keeper.health.present() == ()

    run_jumping(scenario())


def told(unreadable: dict[str, str]) -> LeaseTable:
    """What all are told of the store while there is nothing else in it."""
    table = LeaseTable()
    table.apply_snapshot(Snapshot(1, (), tuple(Unreadable(key, why) for key, why in unreadable.items())))
    return table


def test_another_host_on_our_subnet_ends_the_tenancy_and_its_record_stays() -> None:
    data: list[MemoryData] = []

    async def scenario() -> None:
        async with keeping() as scene:
            data.append(scene.data)
            scene.overwrite(OTHERS)
            await asyncio.sleep(60)

    with pytest.RaisesGroup(pytest.RaisesExc(LeaseLost, match=r"now belongs to 172\.16\.41\.132.* Docker must")):
        run_jumping(scenario())
    assert data[0].records[subnet_name(X)].value == encode_attrs(OTHERS)


def test_a_loss_says_which_subnet_and_to_whom() -> None:
    lost = LeaseLost(X, Lease(X, OTHERS))
    assert (lost.subnet, lost.winner.attrs.public_ip) == (X, OTHERS.public_ip)


def test_when_our_lease_is_gone_and_another_host_has_a_part_of_the_subnet_it_is_lost() -> None:
    # A longer prefix: another key, which a comparison on our own key would not see.
    data: list[MemoryData] = []

    async def scenario() -> None:
        async with keeping() as scene:
            data.append(scene.data)
            scene.data.put("10.2.71.64-26", encode_attrs(OTHERS), LEASE_TTL)
            scene.vanish()
            await asyncio.sleep(60)

    with pytest.RaisesGroup(pytest.RaisesExc(LeaseLost, match=r"overlaps 10\.2\.71\.64/26, which belongs to 172")):
        run_jumping(scenario())
    assert set(data[0].records) == {"10.2.71.64-26"}


def test_when_another_host_takes_a_part_while_we_write_ours_again_we_give_way() -> None:
    data: list[MemoryData] = []

    def fault(operation: str) -> None:
        if operation == "create" and data and not data[0].records:
            data[0].put("10.2.71.64-26", encode_attrs(OTHERS), LEASE_TTL)

    async def scenario() -> None:
        async with keeping(fault=fault) as scene:
            data.append(scene.data)
            scene.vanish()
            await asyncio.sleep(60)

    with pytest.RaisesGroup(LeaseLost):
        run_jumping(scenario())
    assert set(data[0].records) == {"10.2.71.64-26"}


@pytest.mark.parametrize("attrs", [OTHERS, Attrs(IPv4Address("127.0.0.1"))], ids=["younger", "never counts"])
def test_an_overlapping_record_that_all_others_leave_out_as_well_takes_nothing_from_us(attrs: Attrs) -> None:
    async def scenario() -> None:
        async with keeping() as scene:
            scene.data.put("10.2.71.64-26", encode_attrs(attrs), LEASE_TTL)
            scene.keeper.look_again()
            await asyncio.sleep(60)
            if attrs != OTHERS:
                scene.vanish()
                await asyncio.sleep(60)
            assert scene.says == encode_attrs(ATTRS)

    run_jumping(scenario())


def test_a_race_lost_over_and_over_is_run_with_pauses() -> None:
    async def scenario() -> None:
        async with keeping(fault=lambda what: Conflict("again") if what == "create" else None) as scene:
            scene.vanish()
            await asyncio.sleep(600)
            assert 50 < scene.calls.count("create") < 100

    run_jumping(scenario())


def test_a_second_lease_of_ours_that_turns_up_is_given_back() -> None:
    async def scenario() -> None:
        async with keeping() as scene:
            scene.data.put(subnet_name(Y), encode_attrs(ATTRS), LEASE_TTL)
            scene.data.put("10.2.73.0-24", encode_attrs(ATTRS), None)
            scene.keeper.look_again()
            await asyncio.sleep(1)
            assert set(scene.data.records) == {subnet_name(X), "10.2.73.0-24"}, "a reservation stays"

    run_jumping(scenario())


# Our address changes


def test_another_address_is_published_on_the_same_key() -> None:
    async def scenario() -> None:
        async with keeping() as scene:
            scene.keeper.publish(MOVED)
            await asyncio.sleep(1)
            assert scene.says == encode_attrs(MOVED)

    run_jumping(scenario())


def test_a_change_of_address_whose_answer_got_lost_is_known_as_ours_after_the_next_one() -> None:
    async def scenario() -> None:
        down: list[str] = []

        def fault(operation: str) -> Exception | None:
            if operation == "update answered":
                down.append(operation)
            return Unavailable("connection reset") if down else None

        async with keeping(fault=fault) as scene:
            scene.keeper.publish(MOVED)
            await asyncio.sleep(10)
            assert scene.says == encode_attrs(MOVED)
            further = replace(ATTRS, public_ip=IPv4Address("172.16.41.201"))
            scene.keeper.publish(further)
            down.clear()
            fault_once = scene.calls.count("update answered")
            await asyncio.sleep(60)
            assert scene.calls.count("update answered") > fault_once
            assert scene.says == encode_attrs(further)

    run_jumping(scenario())


def test_a_store_restored_to_when_we_had_another_address_is_corrected() -> None:
    async def scenario() -> None:
        async with keeping() as scene:
            scene.keeper.publish(MOVED)
            await asyncio.sleep(1)
            scene.overwrite(ATTRS)
            await asyncio.sleep(1)
            assert scene.says == encode_attrs(MOVED)

    run_jumping(scenario())


def test_whoever_has_our_former_address_and_writes_our_key_is_another_host() -> None:
    async def scenario() -> None:
        async with keeping() as scene:
            scene.keeper.publish(MOVED)
            await asyncio.sleep(1)
            scene.overwrite(TWIN)
            await asyncio.sleep(60)

    with pytest.RaisesGroup(LeaseLost):
        run_jumping(scenario())


def test_in_a_network_with_ipv4_the_ipv6_address_makes_nobody_another_host() -> None:
    async def scenario() -> None:
        own, attrs = subnet("10.2.71.0/24", "fd00:2:0:71::/64"), replace(ATTRS, public_ipv6=IPv6Address("fd00:41::1"))
        async with keeping(own, attrs, network=DUAL) as scene:
            scene.overwrite(replace(attrs, public_ipv6=IPv6Address("fd00:41::2")))
            await asyncio.sleep(1)
            assert scene.says == encode_attrs(attrs)

    run_jumping(scenario())


# Two hosts with one address


def test_one_take_over_of_our_record_is_no_conflict(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with keeping() as scene:
            for _ in range(3):
                scene.overwrite(TWIN)
                await asyncio.sleep(PEACE)
                assert scene.says == encode_attrs(ATTRS)
                assert not scene.conflict

    run_jumping(scenario())
    assert lines(caplog) == []


def test_a_host_that_shares_our_address_is_named_once_and_not_fought(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with keeping() as scene:
            day, written = 24 * 3600, 0
            for _ in range(day // 5):
                if scene.says == encode_attrs(ATTRS):
                    written += 1
                    scene.overwrite(TWIN)
                await asyncio.sleep(5)
            assert written <= len(CONFLICT_PAUSES) + 1 + day / CONFLICT_PAUSES[-1]
            assert scene.calls.count("leases") <= 1.1 * day / LOOK_EVERY
            (line,) = lines(caplog)
            for part in ("172.16.41.131", "10.2.71.0/24", "02:00:00:00:00:02", "-public-ip", "/run/flannel/subnet.env"):
                assert part in line
            assert scene.conflict
            assert scene.conflict.casefold() == line.casefold()

    run_jumping(scenario())


def test_a_conflict_is_over_when_our_record_stands(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with keeping() as scene:
            for _ in range(2):
                scene.overwrite(TWIN)
                await asyncio.sleep(1)
            conflicts = [scene.conflict]
            await asyncio.sleep(PEACE + 2 * CLOCK_EVERY)
            assert scene.says == encode_attrs(ATTRS)
            conflicts.append(scene.conflict)
            scene.overwrite(TWIN)
            await asyncio.sleep(60)
            conflicts.append(scene.conflict)
            assert [bool(each) for each in conflicts] == [True, False, False]

    run_jumping(scenario())


def test_a_subnet_that_goes_to_another_host_amid_a_conflict_is_lost_within_a_minute() -> None:
    async def scenario() -> None:
        async with keeping() as scene:
            while not scene.conflict or scene.says == encode_attrs(ATTRS):
                scene.overwrite(TWIN)
                await asyncio.sleep(5)
            scene.overwrite(OTHERS)
            await asyncio.sleep(60)

    with pytest.RaisesGroup(LeaseLost):
        run_jumping(scenario())


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ('{"vtepmac" : "02-00-00-00-00-02"}', "VTEP MAC 02-00-00-00-00-02"),
        ('{"VtepMAC":7}', "the backend data '{\"VtepMAC\":7}'"),
        ('[[{"VtepMAC":"\\u001b"}]]', "the backend data"),
        ('"' + "x" * 5000 + '"', "the backend data '\"xxx"),
        (None, "a host without backend data"),
    ],
)
def test_the_other_host_is_described_whatever_it_published(
    data: str | None, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with keeping() as scene:
            for _ in range(2):
                scene.overwrite(replace(TWIN, backend_data=data))
                await asyncio.sleep(1)
            assert scene.conflict
            assert shown in scene.conflict
            assert len(scene.conflict) < 700

    run_jumping(scenario())


# Giving it back


def released(reserved: bool = False, before: Callable[[Scene], None] = lambda _: None) -> tuple[set[str], float]:
    """What is left in the store after a release, and how long that took."""

    async def scenario() -> tuple[set[str], float]:
        now = asyncio.get_running_loop().time
        async with keeping(reserved=reserved, runs=False) as scene:
            before(scene)
            begun = now()
            await scene.keeper.release()
            return set(scene.data.records), now() - begun

    return run_jumping(scenario())


def test_a_lease_is_given_back_on_request(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pyflannel"):
        assert released() == (set(), 0)
    assert "Released our lease 10.2.71.0/24" in lines(caplog, logging.INFO)


def test_a_lease_that_was_renewed_by_others_is_given_back_all_the_same() -> None:
    assert released(before=lambda scene: scene.overwrite(ATTRS)) == (set(), 0)


def test_a_reservation_is_not_given_back(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pyflannel"):
        assert released(reserved=True)[0] == {subnet_name(X)}
    assert "Keeping 10.2.71.0/24, which is reserved for us" in lines(caplog, logging.INFO)


def test_a_lease_that_became_a_reservation_meanwhile_is_not_given_back() -> None:
    assert released(before=lambda scene: scene.overwrite(ATTRS, None))[0] == {subnet_name(X)}


@pytest.mark.parametrize("attrs", [OTHERS, TWIN], ids=["another address", "another MAC"])
def test_a_record_that_another_host_wrote_is_not_given_back(attrs: Attrs) -> None:
    assert released(before=lambda scene: scene.overwrite(attrs))[0] == {subnet_name(X)}


def test_a_lease_that_is_gone_already_is_no_trouble(caplog: pytest.LogCaptureFixture) -> None:
    assert released(before=Scene.vanish) == (set(), 0)
    assert lines(caplog, logging.WARNING) == []


@pytest.mark.parametrize("silent", [True, False])
def test_a_store_that_does_not_answer_holds_up_the_end_for_three_seconds_at_most(
    silent: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Silent(MemoryStore):
        async def leases(self) -> Snapshot:
            if silent:
                await asyncio.sleep(3600)
            raise Unavailable("connection refused")

    async def scenario() -> float:
        now = asyncio.get_running_loop().time
        async with keeping(runs=False) as scene:
            lease, data = scene.keeper.lease, scene.data
            keeper = Keeper(Silent(data), Tenant(config(), ATTRS, None, 3600.0), lease, random.Random(1), now)
            begun = now()
            await keeper.release()
            return now() - begun

    assert run_jumping(scenario()) <= RELEASE_S
    (line,) = lines(caplog, logging.WARNING)
    assert "will expire by itself" in line


# What the agent sees


def test_our_record_is_recognised_only_as_we_wrote_it() -> None:
    lease = Lease(X, ATTRS)
    keeper = Keeper(MemoryStore(MemoryData()), Tenant(config(), ATTRS, None, 3600.0), lease, random.Random(1))
    table = LeaseTable()
    assert not keeper.recognises(table)
    table.apply_snapshot(Snapshot(1, (lease,)))
    assert keeper.recognises(table)
    table.apply_snapshot(Snapshot(2, (Lease(X, OTHERS),)))
    assert not keeper.recognises(table)
    # Whoever could read our record still goes by it; whoever comes anew cannot.
    table.apply_snapshot(Snapshot(3, (lease,)))
    table.apply_snapshot(Snapshot(4, (), (Unreadable("/coreos.com/network/subnets/10.2.71.0-24", "not JSON"),)))
    assert not keeper.recognises(table)


def test_age_and_end_of_the_lease_are_known_and_a_reservation_has_no_end() -> None:
    async def scenario() -> None:
        async with keeping() as scene:
            await asyncio.sleep(600)
            assert scene.keeper.age == pytest.approx(600, abs=1)
            assert scene.keeper.left == pytest.approx(LEASE_TTL - 600, abs=1)
            await asyncio.sleep(LEASE_TTL / 3)
            assert scene.keeper.age < 600 + LEASE_TTL / 30
        async with keeping(reserved=True) as scene:
            assert scene.keeper.left is None

    run_jumping(scenario())
