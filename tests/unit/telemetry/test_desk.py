"""Phases and readiness."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from pathlib import Path

from pyflannel.conditions import RECORD_IGNORED, UNDERLAY_DOWN
from pyflannel.health import Health
from pyflannel.settings import Settings
from pyflannel.state import Link, Route
from pyflannel.telemetry.desk import Desk, Phase
from tests.support.builders import vxlan_lease
from tests.support.loops import run_jumping
from tests.support.status import Bench


def with_bench(directory: Path, scenario: Callable[[Bench], Awaitable[None]]) -> None:
    async def whole() -> None:
        await scenario(Bench(directory))

    run_jumping(whole())


def test_phases_follow_what_there_is(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        desk, parts = bench.desk, bench.desk.parts
        desk.parts = None
        seen = [desk.phase]
        desk.parts = parts
        seen.append(desk.phase)
        bench.publisher.ready = True
        seen.append(desk.phase)
        desk.stopping = True
        assert [*seen, desk.phase] == [Phase.WAITING, Phase.STARTING, Phase.RUNNING, Phase.STOPPING]

    with_bench(tmp_path, scenario)


def test_a_process_without_a_network_is_not_ready() -> None:
    assert not Desk(Settings(), Health()).ready


def test_ready_is_when_containers_may_start_and_until_something_blocks_that(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.learn()
        seen = [bench.desk.ready]
        bench.publisher.ready = True
        seen.append(bench.desk.ready)
        bench.health.set(RECORD_IGNORED, "a stranger's lease")
        seen.append(bench.desk.ready)
        bench.health.set(UNDERLAY_DOWN, "ens33 is down")
        seen.append(bench.desk.ready)
        bench.health.clear(UNDERLAY_DOWN)
        seen.append(bench.desk.ready)
        bench.desk.stopping = True
        assert [*seen, bench.desk.ready] == [False, True, True, False, True, False]

    with_bench(tmp_path, scenario)


def test_a_peer_that_the_kernel_refuses_leaves_us_ready_and_our_own_device_does_not(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        bench.publisher.ready = True
        bench.kernel.fault = lambda op: errno.ENOMEM if isinstance(op.item, Route) else None
        await bench.learn(vxlan_lease())
        assert bench.reconciler.failing
        assert bench.desk.ready
        bench.kernel.remove(next(item for item in bench.network.self_items() if isinstance(item, Link)))
        bench.kernel.fault = lambda op: errno.ENOMEM if isinstance(op.item, Link) else None
        await bench.reconciler.audit()
        assert not bench.desk.ready

    with_bench(tmp_path, scenario)
