"""Keeping the kernel at what we want: the fast lane, the audit, and what happens when writing fails."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from pyflannel.diff import Cut, Op, Put
from pyflannel.lease.model import Lease
from pyflannel.linux.kernel import KernelError
from pyflannel.patience import BACKOFF, BRISK
from pyflannel.reconcile import AUDIT_EVERY, RECLAIM_EVERY, RECLAIMED, Reason, Reconciler
from pyflannel.state import FdbEntry, Item, Key, Likeness, Link, Mac, Route, Scope, State, Sysctl
from tests.support.builders import OTHER_MAC, backend, underlay, view, vxlan_lease
from tests.support.fake_kernel import FakeKernel, Hardware
from tests.support.loops import run_jumping

SCOPE = backend().scope(view())
SELF = backend().self_items(view())
(DEVICE,) = SCOPE.devices
PEER = vxlan_lease("10.2.41.0/24", "172.16.41.132", OTHER_MAC)
OTHER = vxlan_lease("10.2.42.0/24", "172.16.41.133", Mac.parse("02:00:00:00:00:03"))


def peer_items(*leases: Lease) -> tuple[Item, ...]:
    return tuple(item for lease in leases for item in backend().peer_items(view(), lease))


class Bench:
    """A reconciler over a fake kernel, with our own device wanted and the store listed."""

    def __init__(self) -> None:
        self.kernel = FakeKernel(Hardware("ens33"))
        self.repairs: list[float] = []
        """When something was put right."""
        clock = asyncio.get_running_loop().time
        self.reconciler = Reconciler(
            self.kernel, jitter=lambda: 0.5, clock=clock, repaired=lambda: self.repairs.append(clock())
        )
        self.reconciler.want(SELF, SCOPE)
        self.reconciler.complete = True

    def holds(self, *items: Item) -> bool:
        """Whether the kernel holds our own items and these, and nothing else of ours."""
        return self.kernel.observe(SCOPE) == State([*SELF, *items])


def with_bench(scenario: Callable[[Bench], Coroutine[object, object, None]]) -> None:
    async def run() -> None:
        await scenario(Bench())

    run_jumping(run())


def test_an_audit_builds_what_is_wanted_and_a_second_one_does_nothing() -> None:
    async def scenario(bench: Bench) -> None:
        assert not (await bench.reconciler.audit()).failed
        assert bench.holds()
        written = len(bench.kernel.log)
        await bench.reconciler.audit()
        assert bench.kernel.log[written:] == []

    with_bench(scenario)


def test_the_fast_lane_writes_one_peers_items_and_no_others() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.reconciler.audit()
        written = len(bench.kernel.log)
        await bench.reconciler.replan((), peer_items(PEER))
        assert bench.holds(*peer_items(PEER))
        assert len(bench.kernel.log) == written + 3

    with_bench(scenario)


def test_a_peer_that_moves_to_another_host_keeps_its_route() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.reconciler.audit()
        await bench.reconciler.replan((), peer_items(PEER))
        moved = vxlan_lease("10.2.41.0/24", "172.16.41.140", OTHER_MAC)
        written = len(bench.kernel.log)
        await bench.reconciler.replan(peer_items(PEER), peer_items(moved))
        assert bench.holds(*peer_items(moved))
        assert len(bench.kernel.log) == written + 1

    with_bench(scenario)


def test_what_somebody_deletes_comes_back_at_the_next_audit() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.reconciler.audit()
        await bench.reconciler.replan((), peer_items(PEER))
        bench.kernel.apply([Cut(item) for item in reversed(peer_items(PEER))])
        await bench.reconciler.audit()
        assert bench.holds(*peer_items(PEER))

    with_bench(scenario)


def test_nothing_unknown_is_deleted_until_the_store_was_listed() -> None:
    async def scenario(bench: Bench) -> None:
        bench.reconciler.complete = False
        await bench.reconciler.audit()
        bench.kernel.apply([Put(item) for item in peer_items(PEER)])
        await bench.reconciler.audit()
        assert bench.holds(*peer_items(PEER))
        bench.reconciler.complete = True
        await bench.reconciler.audit()
        assert bench.holds()

    with_bench(scenario)


def test_one_bad_peer_delays_no_other_and_is_tried_again() -> None:
    async def scenario(bench: Bench) -> None:
        def refuse(op: Op) -> int | None:
            return errno.ENOMEM if isinstance(op.item, FdbEntry) and op.item.mac == OTHER_MAC else None

        await bench.reconciler.audit()
        bench.kernel.fault = refuse
        report = await bench.reconciler.replan((), peer_items(PEER, OTHER))
        assert [type(op.item) for op, _ in report.failed] == [FdbEntry]
        assert set(peer_items(OTHER)) <= set(bench.kernel.observe(SCOPE).values())
        async with asyncio.TaskGroup() as tasks:
            lane = tasks.create_task(bench.reconciler.run(), name="audits")
            await asyncio.sleep(60)
            bench.kernel.fault = lambda _op: None
            await asyncio.sleep(60)
            lane.cancel()
        assert bench.holds(*peer_items(PEER, OTHER))

    with_bench(scenario)


def test_what_failed_in_an_audit_somebody_else_made_is_tried_again_in_its_turn() -> None:
    async def scenario(bench: Bench) -> None:
        async with asyncio.TaskGroup() as tasks:
            lane = tasks.create_task(bench.reconciler.run(), name="audits")
            await asyncio.sleep(1)
            bench.kernel.fault = lambda op: errno.EINVAL if isinstance(op.item, Route) else None
            bench.reconciler.want([*SELF, *peer_items(PEER)], SCOPE)
            await bench.reconciler.catch_up()
            bench.kernel.fault = lambda _op: None
            await asyncio.sleep(2 * BACKOFF[0])
            lane.cancel()
        assert bench.holds(*peer_items(PEER))

    with_bench(scenario)


def test_a_device_that_cannot_be_changed_holds_up_nothing_on_it() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.reconciler.audit()
        bench.kernel.fault = lambda op: errno.EINVAL if isinstance(op.item, Link) else None
        longer = backend().self_items(view(under=underlay(mtu=1400)))
        bench.reconciler.want([*longer, *peer_items(PEER)], SCOPE)
        await bench.reconciler.audit()
        assert bench.holds(*peer_items(PEER))

    with_bench(scenario)


def test_what_is_on_a_device_waits_for_it_and_is_put_the_moment_it_is_made() -> None:
    async def scenario(bench: Bench) -> None:
        bench.reconciler.want([*SELF, *peer_items(PEER)], SCOPE)
        bench.kernel.unplug("ens33")
        for _ in range(5):
            await bench.reconciler.audit()
            await asyncio.sleep(0.05)
        assert {line.split(" add ")[0] for line in bench.kernel.log} == {"ip link"}
        bench.kernel.plug(Hardware("ens33"))
        await asyncio.sleep(BACKOFF[-1])
        await bench.reconciler.audit()
        assert bench.holds(*peer_items(PEER))

    with_bench(scenario)


def test_a_new_desired_state_is_tried_at_once_whatever_failed_before() -> None:
    async def scenario(bench: Bench) -> None:
        bench.kernel.unplug("ens33")
        for _ in BACKOFF:
            await bench.reconciler.audit()
            await asyncio.sleep(BACKOFF[-1])
        await bench.reconciler.audit()
        bench.kernel.plug(Hardware("ens33"))
        bench.reconciler.want(SELF, SCOPE)
        await bench.reconciler.audit()
        assert bench.holds()

    with_bench(scenario)


def test_what_goes_on_failing_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(bench: Bench) -> None:
        bench.kernel.fault = lambda op: errno.ENOMEM if isinstance(op.item, Route) else None
        await bench.reconciler.audit()
        await bench.reconciler.replan((), peer_items(PEER))
        for _ in range(5):
            await bench.reconciler.audit()

    with caplog.at_level(logging.ERROR, "pyflannel"):
        with_bench(scenario)
    assert len([record for record in caplog.records if "10.2.41.0/24" in record.getMessage()]) == 1


def test_an_audit_comes_by_itself_every_few_minutes() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.reconciler.audit()
        bench.kernel.apply([Cut(SELF[-1])])
        async with asyncio.TaskGroup() as tasks:
            lane = tasks.create_task(bench.reconciler.run(), name="audits")
            await asyncio.sleep(AUDIT_EVERY * 1.2)
            lane.cancel()
        assert bench.holds()

    with_bench(scenario)


def test_marking_dirty_brings_an_audit_at_once() -> None:
    async def scenario(bench: Bench) -> None:
        async with asyncio.TaskGroup() as tasks:
            lane = tasks.create_task(bench.reconciler.run(), name="audits")
            bench.reconciler.mark_dirty()
            await asyncio.sleep(0.1)
            lane.cancel()
        assert bench.holds()

    with_bench(scenario)


def patrolled(scenario: Callable[[Bench], Coroutine[object, object, None]]) -> None:
    """Run ``scenario`` while all lanes are open, over a kernel that holds all it should."""

    async def run(bench: Bench) -> None:
        await bench.reconciler.audit()
        async with asyncio.TaskGroup() as tasks:
            lanes = [bench.reconciler.run(), bench.reconciler.patrol(), bench.reconciler.reclaim()]
            running = [tasks.create_task(lane, name="lane") for lane in lanes]
            await scenario(bench)
            for lane in running:
                lane.cancel()

    with_bench(run)


def test_a_setting_that_changes_without_a_word_is_found_out_each_time() -> None:
    async def scenario(bench: Bench) -> None:
        for _ in range(3):
            bench.kernel.intrude(Sysctl("flannel.1", "ipv6", "accept_ra", "2"))
            await asyncio.sleep(5)
            assert bench.holds()

    patrolled(scenario)


def test_a_route_takes_its_slot_as_soon_as_somebody_elses_route_has_left_it() -> None:
    route = next(item for item in peer_items(PEER) if isinstance(item, Route))
    theirs = replace(route, dev="ens33", via=None, onlink=False)

    async def scenario(bench: Bench) -> None:
        await bench.reconciler.replan((), peer_items(PEER))
        for length in (1, 70, 200):
            bench.kernel.remove(route)
            bench.kernel.intrude(theirs)
            bench.reconciler.mark_dirty()
            await asyncio.sleep(length)
            assert theirs in bench.kernel.items
            assert route not in bench.kernel.items
            bench.kernel.remove(theirs)
            await asyncio.sleep(RECLAIM_EVERY + 0.1)
            assert bench.holds(*peer_items(PEER))

    patrolled(scenario)


def test_nothing_is_put_on_somebody_elses_device_that_has_the_name_of_ours() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.reconciler.replan((), peer_items(PEER))
        await asyncio.sleep(1)
        bench.kernel.delete_device(DEVICE)
        bench.kernel.plug(Hardware(DEVICE))
        bench.reconciler.mark_dirty()
        await asyncio.sleep(1)
        await bench.reconciler.replan((), peer_items(OTHER))
        await asyncio.sleep(70)
        assert [item for item in bench.kernel.items if getattr(item, "dev", "") == DEVICE] == []
        assert list(bench.reconciler.failing) == [(Link, DEVICE)]
        bench.kernel.unplug(DEVICE)
        bench.reconciler.mark_dirty()
        await asyncio.sleep(RECLAIM_EVERY + 0.1)
        assert bench.holds(*peer_items(PEER, OTHER))

    patrolled(scenario)


def test_of_thousands_of_slots_that_are_taken_a_few_are_asked_for_at_a_time_and_each_in_its_turn() -> None:
    route = next(item for item in peer_items(PEER) if isinstance(item, Route))
    routes = [replace(route, metric=number) for number in range(2 * RECLAIMED)]

    async def scenario(bench: Bench) -> None:
        bench.kernel.fault = lambda op: errno.EEXIST if isinstance(op.item, Route) else None
        await bench.reconciler.replan((), routes)
        asked = len(bench.kernel.log)
        lane = asyncio.ensure_future(bench.reconciler.reclaim())
        await asyncio.sleep(2 * RECLAIM_EVERY + 0.1)
        lane.cancel()
        tried = bench.kernel.log[asked:]
        assert len(tried) == len(set(tried)) == len(routes)

    with_bench(scenario)


def test_what_is_put_right_is_told_and_what_a_lease_has_asked_for_is_not() -> None:
    async def scenario(bench: Bench) -> None:
        told = len(bench.repairs)
        await bench.reconciler.replan((), peer_items(PEER))
        assert len(bench.repairs) == told
        bench.kernel.apply([Cut(item) for item in peer_items(PEER) if isinstance(item, Route)])
        bench.reconciler.mark_dirty()
        await asyncio.sleep(1)
        assert len(bench.repairs) == told + 1

    patrolled(scenario)


def test_a_peer_that_left_while_its_slot_was_taken_is_not_brought_back() -> None:
    route = next(item for item in peer_items(PEER) if isinstance(item, Route))
    theirs = replace(route, dev="ens33", via=None, onlink=False)

    async def scenario(bench: Bench) -> None:
        bench.kernel.intrude(theirs)
        await bench.reconciler.replan((), peer_items(PEER))
        await asyncio.sleep(60)
        await bench.reconciler.replan(peer_items(PEER), ())
        bench.kernel.remove(theirs)
        await asyncio.sleep(60)
        assert bench.holds()

    patrolled(scenario)


def test_what_the_kernel_takes_again_is_put_soon_however_long_it_was_refused() -> None:
    async def scenario(bench: Bench) -> None:
        bench.kernel.fault = lambda op: errno.EINVAL if isinstance(op.item, Route) else None
        await bench.reconciler.replan((), peer_items(PEER))
        await asyncio.sleep(120)
        assert bench.reconciler.failing
        bench.kernel.fault = lambda _op: None
        await asyncio.sleep(BRISK + 0.1)
        assert bench.holds(*peer_items(PEER))

    patrolled(scenario)


def test_a_setting_that_cannot_be_written_is_left_to_its_turn() -> None:
    async def scenario(bench: Bench) -> None:
        bench.kernel.fault = lambda op: errno.EROFS if isinstance(op.item, Sysctl) else None
        bench.kernel.intrude(Sysctl("flannel.1", "ipv6", "accept_ra", "2"))
        await asyncio.sleep(120)
        written = len(bench.kernel.log)
        await asyncio.sleep(120)
        assert len(bench.kernel.log) - written <= 120 / BRISK + 1

    patrolled(scenario)


def test_a_kernel_that_cannot_be_read_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    class Moody(FakeKernel):
        deaf = 3

        def compare(self, scope: Scope, known: Mapping[Key, Item]) -> Likeness:
            if self.deaf:
                self.deaf -= 1
                raise KernelError("list links", errno.EINTR)
            return super().compare(scope, known)

    async def scenario() -> None:
        kernel = Moody(Hardware("ens33"))
        reconciler = Reconciler(kernel, jitter=lambda: 0.5, clock=asyncio.get_running_loop().time)
        reconciler.want(SELF, SCOPE)
        reconciler.mark_dirty()
        async with asyncio.TaskGroup() as tasks:
            lane = tasks.create_task(reconciler.run(), name="audits")
            await asyncio.sleep(30)
            lane.cancel()
        assert kernel.observe(SCOPE) == State(SELF)

    with caplog.at_level(logging.ERROR, "pyflannel"):
        run_jumping(scenario())
    assert "list links" in caplog.text


def test_a_kernel_that_cannot_be_read_is_not_asked_without_pause_because_something_failed_before() -> None:
    class Mute(FakeKernel):
        asked = 0

        def compare(self, scope: Scope, known: Mapping[Key, Item]) -> Likeness:
            self.asked += 1
            if self.asked > 1:
                raise KernelError("list links", errno.EINTR)
            return super().compare(scope, known)

    async def scenario() -> None:
        kernel = Mute(Hardware("ens33"))
        kernel.fault = lambda op: errno.ENOMEM if isinstance(op.item, Link) else None
        reconciler = Reconciler(kernel, jitter=lambda: 0.5, clock=asyncio.get_running_loop().time)
        reconciler.want(SELF, SCOPE)
        await reconciler.audit()
        async with asyncio.TaskGroup() as tasks:
            lane = tasks.create_task(reconciler.run(), name="audits")
            await asyncio.sleep(30)
            lane.cancel()
        assert 5 <= kernel.asked <= 32

    run_jumping(scenario())


def test_thousands_of_peers_do_not_hold_up_the_loop() -> None:
    async def scenario(bench: Bench) -> None:
        many = tuple(
            FdbEntry("flannel.1", Mac((0x02_00_00_00_00_00 + number).to_bytes(6)), IPv4Address("172.16.0.1") + number)
            for number in range(2000)
        )
        breaths = 0

        async def breathe() -> None:
            nonlocal breaths
            while True:
                breaths += 1
                await asyncio.sleep(0)

        await bench.reconciler.audit()
        async with asyncio.TaskGroup() as tasks:
            other = tasks.create_task(breathe(), name="somebody else")
            await bench.reconciler.replan((), many)
            other.cancel()
        assert breaths > 3

    with_bench(scenario)


def test_audits_are_counted_by_what_made_them_due() -> None:
    async def scenario(bench: Bench) -> None:
        bench.reconciler.mark_dirty()
        bench.reconciler.mark_dirty(Reason.PATROL)
        await asyncio.sleep(1)
        bench.kernel.intrude(Sysctl("flannel.1", "ipv6", "accept_ra", "2"))
        await asyncio.sleep(5)
        failures = [errno.ENOMEM]
        bench.kernel.fault = lambda _: failures.pop() if failures else None
        await bench.reconciler.replan((), peer_items(PEER))
        await asyncio.sleep(5)
        await asyncio.sleep(AUDIT_EVERY * 1.2)
        counted = bench.reconciler.tally
        assert counted.audits == {
            Reason.START: 1,
            Reason.EVENT: 1,
            Reason.PATROL: 1,
            Reason.RETRY: 2,
            Reason.INTERVAL: 1,
        }
        assert counted.looks.count == counted.audits.total()

    patrolled(scenario)


def test_what_is_put_right_is_counted_by_kind_and_what_is_newly_wanted_is_not() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.reconciler.replan((), peer_items(PEER))
        assert not bench.reconciler.tally.repairs
        bench.kernel.apply([Cut(item) for item in peer_items(PEER) if isinstance(item, Route)])
        bench.reconciler.mark_dirty()
        await asyncio.sleep(1)
        assert bench.reconciler.tally.repairs == {(Reason.EVENT, "Route"): 1}
        assert bench.reconciler.tally.writes.count >= 2

    patrolled(scenario)


def test_what_the_kernel_refuses_can_be_asked_for_until_it_is_done() -> None:
    route = next(item for item in peer_items(PEER) if isinstance(item, Route))

    async def scenario(bench: Bench) -> None:
        bench.kernel.fault = lambda op: errno.ENOMEM if op.item == route else None
        await bench.reconciler.replan((), peer_items(PEER))
        assert list(bench.reconciler.failing) == [route.key]
        assert "Cannot allocate memory" in bench.reconciler.failing[route.key]
        bench.kernel.fault = lambda _: None
        await asyncio.sleep(BACKOFF[-1])
        assert not bench.reconciler.failing

    patrolled(scenario)
