"""History must not matter: whatever happened to leases, kernel and agent, it all ends as if nothing ever had."""

from __future__ import annotations

import asyncio

from hypothesis import given

from tests.support.fake_kernel import FakeKernel
from tests.support.host_history import Host, Step, happen, histories
from tests.support.memory_store import MemoryStore
from tests.support.pipeline import OURS, UNDERLAY, Pipeline, examples, in_virtual_time, view


@examples(150)
@given(histories())
def test_all_ends_as_after_a_fresh_start(steps: list[Step]) -> None:
    async def scenario() -> None:
        async with asyncio.TaskGroup() as tasks:
            host = Host(tasks)
            await happen(host, steps)
            await host.come_to_rest()
            host.stop()
        fresh = FakeKernel(UNDERLAY)
        await Pipeline(fresh, view()).start((await MemoryStore(host.data).leases()).leases)
        assert dict(host.kernel.observe(OURS)) == dict(fresh.observe(OURS))

    in_virtual_time(scenario)
