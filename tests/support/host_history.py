"""What happens to a host over time, for hypothesis to combine: leases come and go, people interfere, agents are killed.

    async with asyncio.TaskGroup() as tasks:
        host = Host(tasks)
        await happen(host, steps)
        await host.come_to_rest()
        host.stop()

Time is virtual: run it with ``in_virtual_time``.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterable
from contextlib import aclosing
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface
from typing import TypeAlias

from hypothesis import strategies as st

from pyflannel.diff import Op
from pyflannel.lease.model import Lease
from pyflannel.lease.wire import encode_attrs, subnet_name
from pyflannel.state import ORDER, Address, FdbEntry, Item, Link, Mac, Neighbour, Route, Sysctl
from pyflannel.store.feed import Outage, follow
from tests.support.builders import OWN_MAC
from tests.support.fake_kernel import FakeKernel, Hardware, no_fault
from tests.support.kernel_items import vxlan_of
from tests.support.memory_store import MemoryData, MemoryStore
from tests.support.pipeline import FORGIVEN, OURS, UNDERLAY, Pipeline, leases, view

INTRUDERS: tuple[Address | Neighbour | FdbEntry | Route, ...] = (
    Address("", IPv4Interface("10.2.200.1/24")),
    Address("", IPv6Interface("fd00:77::1/64")),
    Neighbour("", IPv4Address("10.2.2.0"), Mac.parse("02:00:00:00:00:bb")),
    FdbEntry("", Mac.parse("02:00:00:00:04:02"), IPv4Address("192.0.2.9")),
    FdbEntry("", Mac(bytes(6)), IPv4Address("192.0.2.9")),
    Route(IPv4Network("10.2.2.0/24"), "", IPv4Address("10.2.99.0"), onlink=True),
    Route(IPv4Network("10.2.3.0/24"), "", protocol=4, metric=3),
    Route(IPv4Network("10.2.128.0/17"), ""),
)
DEVICES = ("flannel.1", "flannel-v6.1")
WAITS = (0.01, 0.3, 2.0, 40.0, 400.0)


class Host:
    """A host with an agent that a supervisor starts whenever it ends, its store, and people who interfere."""

    def __init__(self, tasks: asyncio.TaskGroup, *others: Item) -> None:
        """With an underlay, an ``eth9``, things of others, and an agent that has just been started."""
        self.data = MemoryData(clock=asyncio.get_running_loop().time)
        self.kernel = FakeKernel(UNDERLAY, Hardware("eth9"))
        self.kernel.intrude(*others)
        self.look: Callable[[], None] = lambda: None
        """Tell the agent that something is not as it should be."""
        self.plugged = True
        self._tasks = tasks
        self._life = tasks.create_task(self._live(), name="agent")

    def stop(self) -> None:
        """Kill the agent."""
        self._life.cancel()

    def restart(self) -> None:
        """Kill it, and start another."""
        self.stop()
        self._life = self._tasks.create_task(self._live(), name="agent")

    async def come_to_rest(self) -> None:
        """Nothing gets in the way any more, and time enough passes for all that is to be done."""
        self.kernel.fault = no_fault
        plug(self)
        for _ in range(2):
            await asyncio.sleep(FORGIVEN)
            self.look()
        await asyncio.sleep(FORGIVEN)

    def held(self, which: int) -> Link | None:
        """One of our two devices, if it is there."""
        found = self.kernel.observe(OURS).get((Link, DEVICES[which % 2]))
        return found if isinstance(found, Link) and not found.misnamed else None

    def goes_by(self, name: str) -> str:
        """What a device of ours is called at the moment."""
        found = self.kernel.observe(OURS).get((Link, name))
        return found.misnamed or name if isinstance(found, Link) else name

    async def _live(self) -> None:
        while True:
            pipeline = Pipeline(self.kernel, view())
            self.look = pipeline.reconciler.mark_dirty
            if await pipeline.program_ourselves():
                await self._run(pipeline)
            await asyncio.sleep(1)

    async def _run(self, pipeline: Pipeline) -> None:
        clock = asyncio.get_running_loop().time
        feed = follow(MemoryStore(self.data), clock=clock, sleep=asyncio.sleep, jitter=lambda delay: delay)
        async with asyncio.TaskGroup() as tasks, aclosing(feed):
            tasks.create_task(pipeline.reconciler.run(), name="audits")
            async for news in feed:
                if not isinstance(news, Outage):
                    await pipeline.hear(news)


# What may happen.  The number says where, or how.


def drop(host: Host, which: int) -> None:
    names = sorted(host.data.records)
    if names:
        host.data.delete(names[which % len(names)])


def forget(host: Host, _which: int) -> None:
    """The store forgets its history, so that it has to be listed."""
    host.data.compact()


def restart(host: Host, _which: int) -> None:
    host.restart()


def look(host: Host, _which: int) -> None:
    host.look()


def remove(host: Host, which: int) -> None:
    ours = [item for item in host.kernel.observe(OURS).values() if not isinstance(item, Link)]
    if ours:
        host.kernel.remove(ours[which % len(ours)])


def intrude(host: Host, which: int) -> None:
    link = host.held(which)
    if link is not None and link.up:
        item = replace(INTRUDERS[which // 2 % len(INTRUDERS)], dev=link.name)
        if item not in host.kernel.items:
            host.kernel.intrude(item)


def double(host: Host, which: int) -> None:
    """Somebody puts a route beside one of ours, in the same slot."""
    routes = [item for item in host.kernel.observe(OURS).values() if isinstance(item, Route) and not item.stray]
    if routes:
        route = routes[which % len(routes)]
        other = replace(route, protocol=99) if route.via is None or which % 2 else replace(route, via=route.via + 7)
        if other not in host.kernel.items:
            host.kernel.intrude(replace(other, dev=host.goes_by(route.dev)))


def distort(host: Host, which: int) -> None:
    """Somebody changes one of ours."""
    ours = [item for item in host.kernel.observe(OURS).values() if isinstance(item, Neighbour | FdbEntry | Sysctl)]
    if ours:
        match ours[which % len(ours)]:
            case Neighbour() as item:
                host.kernel.intrude(replace(item, dev=host.goes_by(item.dev), mac=Mac.parse("02:00:00:00:00:dd")))
            case FdbEntry() as item:
                host.kernel.intrude(replace(item, dev=host.goes_by(item.dev), dst=item.dst + 1))
            case Sysctl() as item:
                host.kernel.intrude(replace(item, value="2"))


def alter(host: Host, which: int) -> None:
    link = host.held(which)
    if link is not None:
        spec = vxlan_of(link)
        changes = (
            replace(link, mtu=1300),
            replace(link, mac=Mac.parse("02:00:00:00:00:cc")),
            replace(link, spec=replace(spec, learning=not spec.learning)),
            replace(link, spec=replace(spec, local=spec.local + 1 if spec.local else None)),
        )
        host.kernel.alter(changes[which // 2 % len(changes)])


def remake(host: Host, which: int) -> None:
    """Somebody's device takes the place of ours, for another VNI or port."""
    link = host.held(which)
    if link is not None:
        host.kernel.delete_device(link.name)
        spec = replace(vxlan_of(link), vni=99) if which // 2 % 2 else replace(vxlan_of(link), port=4789)
        host.kernel.intrude(replace(link, spec=spec))


def rename(host: Host, which: int) -> None:
    link = host.held(which)
    # Of another VNI or MAC it would be nobody's device once it has another name.
    if link is not None and (vxlan_of(link).vni, link.mac) == (1, OWN_MAC):
        host.kernel.rename_device(link.name, f"lost{which % 2}")


def delete(host: Host, which: int) -> None:
    host.kernel.delete_device(DEVICES[which % 2])


def take_down(host: Host, which: int) -> None:
    link = host.held(which)
    if link is not None:
        host.kernel.take_down(link.name)


def unplug(host: Host, _which: int = 0) -> None:
    if host.plugged:
        host.plugged = False
        host.kernel.unplug(UNDERLAY.name)


def plug(host: Host, _which: int = 0) -> None:
    host.plugged = True
    host.kernel.plug(UNDERLAY)


def refuse(host: Host, which: int) -> None:
    """The kernel takes no items of one kind, or only some of them."""
    kind, every = ORDER[which % len(ORDER)], 1 + which // len(ORDER) % 3
    asked = 0

    def fault(op: Op) -> int | None:
        nonlocal asked
        asked += isinstance(op.item, kind)
        return errno.ENOMEM if isinstance(op.item, kind) and asked % every == 0 else None

    host.kernel.fault = fault


def relent(host: Host, _which: int) -> None:
    host.kernel.fault = no_fault


Step: TypeAlias = tuple[str, object]
"""What is done, and a number that says where or how, a lease or seconds."""
DEEDS = {
    deed.__name__: deed
    for deed in (
        *(
            drop,
            forget,
            restart,
            look,
            remove,
            intrude,
            double,
            distort,
            alter,
            remake,
            rename,
            delete,
            take_down,
            unplug,
            plug,
        ),
        *(refuse, relent),
    )
}


def histories(deeds: Iterable[str] = DEEDS) -> st.SearchStrategy[list[Step]]:
    """What happens, one thing after the other, with no other deeds than these."""
    step: st.SearchStrategy[Step] = st.one_of(
        st.tuples(st.just("publish"), leases()),
        st.tuples(st.just("publish"), leases()),
        st.tuples(st.just("wait"), st.sampled_from(WAITS)),
        st.tuples(st.just("breathe"), st.integers(1, 6)),
        st.tuples(st.sampled_from(sorted(deeds)), st.integers(0, 30)),
    )
    # Left to itself hypothesis makes lists of five.
    return st.lists(step, max_size=20) | st.lists(step, min_size=15, max_size=40)


async def happen(host: Host, steps: Iterable[Step]) -> None:
    """Let it happen."""
    for step in steps:
        match step:
            case "publish", Lease() as record:
                host.data.put(subnet_name(record.subnet), encode_attrs(record.attrs))
            case "wait", float() as seconds:
                await asyncio.sleep(seconds)
            case "breathe", int() as times:
                for _ in range(times):
                    await asyncio.sleep(0)
            case str() as name, int() as which:
                DEEDS[name](host, which)
