"""Laws of everything between the store and the kernel: history does not matter, crashes and replays heal.

What is tried: the network, both lanes of the reconciler, and a kernel in memory that keeps the real one's contract.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pyflannel.diff import Cut, Op, device, diff, must_rebuild
from pyflannel.lease.model import Changes, Lease
from pyflannel.patience import BACKOFF, BRISK
from pyflannel.reconcile import SETTLE, Reconciler
from pyflannel.state import Item, Key, Link, Neighbour, State, Sysctl
from tests.support.fake_kernel import FakeKernel, holding, no_fault
from tests.support.kernel_plans import SCOPE, kernel_with, lacking, states, surplus
from tests.support.pipeline import (
    FORGIVEN,
    OURS,
    UNDERLAY,
    Pipeline,
    clusters,
    examples,
    in_virtual_time,
    lease,
    leftovers,
    paths,
    settled,
    view,
    wanted,
)

CODES = st.sampled_from((errno.ENOMEM, errno.EEXIST, errno.EINVAL, errno.EPERM, errno.ENODEV, errno.ENOBUFS))


class Once:
    """A fault of the operation in one place."""

    def __init__(self, place: int, code: int) -> None:
        self._left, self._code = place, code
        self.fired = False

    def __call__(self, _op: Op) -> int | None:
        self._left -= 1
        if self._left != -1:
            return None
        self.fired = True
        return self._code


class Killed(Exception):
    """The process is no more."""


class Watch:
    """Looks on before each operation, and may end the process there."""

    def __init__(self, look: Callable[[Op], None] = lambda _op: None, *, killed_at: int | None = None) -> None:
        self._look, self._killed_at = look, killed_at
        self.seen: list[Op] = []

    def __call__(self, op: Op) -> int | None:
        self._look(op)
        if len(self.seen) == self._killed_at:
            raise Killed
        self.seen.append(op)
        return None


def reconciler(kernel: FakeKernel, want: State) -> Reconciler:
    """One that wants this, and has listed the store."""
    made = Reconciler(kernel, jitter=lambda: 0.5, clock=asyncio.get_running_loop().time)
    made.want(want.values(), SCOPE)
    made.complete = True
    return made


def holds(kernel: FakeKernel, want: State) -> bool:
    return lacking(kernel, want) == [] and surplus(kernel, want) == set()


# A pass that does not come off.


@examples(20)
@given(states(), states(), CODES)
def test_a_pass_that_fails_in_any_one_place_is_finished_by_the_next(have: State, want: State, code: int) -> None:
    async def scenario() -> None:
        kernel = kernel_with(have)
        await reconciler(kernel, want).audit()
        for place in range(len(kernel.log)):
            kernel = kernel_with(have)
            kernel.fault = fault = Once(place, code)
            made = reconciler(kernel, want)
            await made.audit()
            assert fault.fired
            await asyncio.sleep(FORGIVEN)
            await made.audit()
            assert holds(kernel, want)

    in_virtual_time(scenario)


@examples(20)
@given(states(), states(), CODES, st.booleans())
def test_what_fails_for_ever_keeps_nothing_else_from_being_right(
    have: State, want: State, code: int, patient: bool
) -> None:
    async def stubborn(key: Key) -> None:
        kernel = kernel_with(have)
        kernel.fault = lambda op: code if op.item.key == key else None
        made = reconciler(kernel, want)
        for _ in range(3):
            await made.audit()
            await asyncio.sleep(FORGIVEN if patient else 0.0)
        bad = {key} | dependents(key, want, have)
        assert {item.key for item in lacking(kernel, want)} <= bad
        # A MAC that cannot be changed does not take the neighbours along that are not wanted.
        assert {left for left in surplus(kernel, want) if key[0] is not Link or left[0] is not Neighbour} <= bad
        kernel.fault = no_fault
        await asyncio.sleep(FORGIVEN)
        await made.audit()
        assert holds(kernel, want)

    async def scenario() -> None:
        kernel = kernel_with(have)
        kernel.fault = watch = Watch()
        await reconciler(kernel, want).audit()
        for op in watch.seen:
            await stubborn(op.item.key)

    in_virtual_time(scenario)


def dependents(key: Key, want: State, have: State) -> set[Key]:
    """What cannot be right as long as this is wrong: all that is on a device which cannot be made, or taken away."""
    link, old = want.get(key), have.get(key)
    if key[0] is not Link or (isinstance(link, Link) and old is not None and not must_rebuild(link, old)):
        return set()
    return {item.key for item in (*want.values(), *have.values()) if device(item) == key[1]}


# A pass that is repeated, late or in vain.


@examples(40)
@given(clusters(), clusters())
def test_a_second_audit_finds_nothing_to_do(before: tuple[Lease, ...], after: tuple[Lease, ...]) -> None:
    async def scenario() -> None:
        kernel = FakeKernel(UNDERLAY)
        pipeline = Pipeline(kernel, view())
        await pipeline.start(before)
        await pipeline.list(after)
        assert settled(kernel, pipeline)
        kernel.log.clear()
        await pipeline.reconciler.audit()
        assert kernel.log == []

    in_virtual_time(scenario)


@examples(60)
@given(clusters(), clusters(), st.integers(0, 80), st.integers(0, 80))
def test_a_twin_that_repeats_any_part_of_it_afterwards_does_no_lasting_harm(
    before: tuple[Lease, ...], after: tuple[Lease, ...], first: int, last: int
) -> None:
    async def scenario() -> None:
        kernel = FakeKernel(UNDERLAY)
        kernel.fault = watch = Watch()
        pipeline = Pipeline(kernel, view())
        await pipeline.start(before)
        await pipeline.list(after)
        kernel.apply(tuple(watch.seen[first:last]))
        await pipeline.reconciler.audit()
        assert settled(kernel, pipeline)

    in_virtual_time(scenario)


@examples(40)
@given(states(), states(), st.integers(1, 20))
def test_a_twin_that_lags_behind_does_no_lasting_harm(have: State, want: State, lag: int) -> None:
    async def scenario() -> None:
        kernel = kernel_with(have)
        ops = diff(want, kernel.observe(SCOPE))
        for place in range(len(ops) + lag):
            kernel.apply(ops[place : place + 1])
            kernel.apply(ops[place - lag : place - lag + 1] if place >= lag else ())
        await reconciler(kernel, want).audit()
        assert holds(kernel, want)

    in_virtual_time(scenario)


# Not among them is another VNI: that is another device, and while the former one is there its routes are in the way.
VIEWS = {
    "plain": view(),
    "a smaller underlay": view(mtu=1400),
    "an MTU of its own": view('{"Type":"vxlan","MTU":1380}'),
    "learning": view('{"Type":"vxlan","Learning":true}'),
    "another local address": view(host=132),
    "another port": view('{"Type":"vxlan","Port":4789}'),
    "group policy": view('{"Type":"vxlan","GBP":true}'),
}


@examples(40)
@given(clusters(), st.lists(st.sampled_from(sorted(VIEWS)), min_size=1, max_size=3))
def test_a_configuration_that_is_changed_back_leaves_no_trace(cluster: tuple[Lease, ...], via: list[str]) -> None:
    async def scenario() -> None:
        kernel = FakeKernel(UNDERLAY)
        await Pipeline(kernel, VIEWS["plain"]).start(cluster)
        before = set(kernel.items)
        for name in via:
            pipeline = Pipeline(kernel, VIEWS[name])
            await pipeline.start(cluster)
            assert settled(kernel, pipeline)
        await Pipeline(kernel, VIEWS["plain"]).start(cluster)
        assert set(kernel.items) == before

    in_virtual_time(scenario)


# An agent that is killed.


@st.composite
def starts(draw: st.DrawFn) -> tuple[tuple[Lease, ...], list[Item]]:
    """What the store lists, and what the kernel holds."""
    cluster = draw(clusters())
    return cluster, draw(st.just([]) | leftovers(wanted(view(), cluster)))


@examples(20)
@given(starts())
def test_a_start_can_be_cut_anywhere_and_costs_no_packet(start: tuple[tuple[Lease, ...], list[Item]]) -> None:
    cluster, have = start
    want = wanted(view(), cluster)

    async def run(killed_at: int | None) -> int:
        kernel = holding(have, UNDERLAY)
        look = continuity(kernel, want)
        kernel.fault = watch = Watch(look, killed_at=killed_at)
        try:
            await Pipeline(kernel, view()).start(cluster)
        except Killed:
            kernel.fault = Watch(look)
            pipeline = Pipeline(kernel, view())
            await pipeline.start(cluster)
            assert settled(kernel, pipeline)
        return len(watch.seen)

    async def scenario() -> None:
        for place in range(await run(None)):
            await run(place)

    in_virtual_time(scenario)


@examples(20)
@given(clusters(), clusters())
def test_a_change_can_be_cut_anywhere_and_costs_no_packet(before: tuple[Lease, ...], after: tuple[Lease, ...]) -> None:
    want = wanted(view(), after)

    async def run(killed_at: int | None) -> int:
        kernel = FakeKernel(UNDERLAY)
        pipeline = Pipeline(kernel, view())
        await pipeline.start(before)
        look = continuity(kernel, want)
        kernel.fault = watch = Watch(look, killed_at=killed_at)
        try:
            await pipeline.list(after)
        except Killed:
            kernel.fault = Watch(look)
            pipeline = Pipeline(kernel, view())
            await pipeline.start(after)
        assert settled(kernel, pipeline)
        return len(watch.seen)

    async def scenario() -> None:
        for place in range(await run(None)):
            await run(place)

    in_virtual_time(scenario)


def continuity(kernel: FakeKernel, want: State) -> Callable[[Op], None]:
    """Sees that packets which arrive now, by a path that is wanted, arrive all along, and no wanted slot gets empty."""
    have = kernel.observe(OURS)

    def stands(dev: str) -> bool:
        link, old = want[Link, dev], have.get((Link, dev))
        return isinstance(link, Link) and isinstance(old, Link) and not must_rebuild(link, old) and link.mac == old.mac

    kept = [path for path in paths(want) if stands(path.route.dev) and path.carries(have)]
    filled = {key for key in want.keys() & have.keys() if stands(device(want[key]))}

    def look(op: Op) -> None:
        now = kernel.observe(OURS)
        assert all(path.carries(now) for path in kept)
        assert filled <= now.keys()
        assert not (isinstance(op, Cut) and want.get(op.item.key) == op.item)

    return look


# A peer that cannot be served.

VICTIM, OTHER, NEWCOMER = lease(2, 140, 2), lease(3, 141, 3), lease(4, 142, 4)


@examples(20)
@given(st.integers(0, 5), CODES)
def test_a_bad_peer_delays_no_other(place: int, code: int) -> None:
    bad = tuple(wanted(view(), [VICTIM]).values())[-6:][place]
    attempts: list[float] = []

    async def scenario() -> None:
        kernel = FakeKernel(UNDERLAY)
        clock = asyncio.get_running_loop().time

        def fault(op: Op) -> int | None:
            if op.item.key != bad.key:
                return None
            attempts.append(clock())
            return code

        kernel.fault = fault
        pipeline = Pipeline(kernel, view())
        await pipeline.start([VICTIM, OTHER])
        async with asyncio.TaskGroup() as tasks:
            lane = tasks.create_task(pipeline.reconciler.run(), name="audits")
            # The fast lane: in the kernel by the time the call returns, which took no time at all.
            now = clock()
            await pipeline.hear(Changes(2, (NEWCOMER,)))
            assert (clock(), spoiled(kernel, pipeline)) == (now, {bad.key})
            # The audit lane, at the worst moment: just after the bad one was tried.
            await asyncio.sleep(100)
            for item in wanted(view(), [OTHER]).values():
                if not isinstance(item, Link | Sysctl):
                    kernel.remove(item)
            pipeline.reconciler.mark_dirty()
            await asyncio.sleep(2 * SETTLE)
            assert spoiled(kernel, pipeline) == {bad.key}
            await asyncio.sleep(300)
            kernel.fault = no_fault
            await asyncio.sleep(FORGIVEN)
            assert settled(kernel, pipeline)
            lane.cancel()

    in_virtual_time(scenario)
    # One attempt for the list, then ever more patience; and here, where to look takes no time, never more than BRISK.
    pauses = [after - before for before, after in pairwise(attempts)]
    steps = [min(step, BRISK) for step in BACKOFF]
    assert all(step <= pause <= step + 4 * SETTLE for step, pause in zip(steps, pauses, strict=False))
    assert all(BRISK <= pause <= BRISK + 4 * SETTLE for pause in pauses[len(BACKOFF) :])


def spoiled(kernel: FakeKernel, pipeline: Pipeline) -> set[Key]:
    """What is not as it should be."""
    want, have = pipeline.reconciler.wanted, kernel.observe(OURS)
    return {key for key in want.keys() | have.keys() if key not in want or have.get(key) != want[key]}
