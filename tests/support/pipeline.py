"""The way from leases to a kernel in memory, as an agent goes it, and leases for hypothesis to combine.

The world: a dual-stack network of which this host holds 10.2.71.0/24, and peers with few subnets, hosts and MACs, so
that their claims clash now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeAlias

from hypothesis import settings
from hypothesis import strategies as st

from pyflannel.backends.api import View
from pyflannel.diff import Cut, Put, device, satisfies
from pyflannel.lease.model import Attrs, Changes, Lease, Snapshot
from pyflannel.linux.kernel import Kernel, Report
from pyflannel.network import Network
from pyflannel.reconcile import Reconciler
from pyflannel.state import FdbEntry, IPNetwork, Item, Key, Link, Mac, Neighbour, Route, State, Sysctl
from tests.support import builders
from tests.support.fake_kernel import FakeKernel, Hardware
from tests.support.kernel_items import vxlan_of
from tests.support.loops import run_jumping

UNDERLAY = Hardware("ens33")
FORGIVEN = 35.0
"""Seconds after which whatever failed is tried again: the longest patience, and some."""


def examples(number: int) -> settings:
    """So many examples of a law; in a profile that tries laws more often, as many times more."""
    return settings(max_examples=number * settings().max_examples // 100)


def in_virtual_time(scenario: Callable[[], Coroutine[object, object, None]]) -> None:
    """Run ``scenario``, in which no wait takes any time."""
    run_jumping(scenario())


# What the store may say.


def view(backend: str = '{"Type":"vxlan"}', *, mtu: int = 1500, host: int = 131) -> View:
    """This host's, in a network with these options."""
    address = IPv4Address(f"172.16.41.{host}")
    under = replace(builders.underlay(mtu, f"2001:db8::{host}"), ipv4=address, public_ip=address)
    config = builders.config(backend, ipv6_network="fd00:2::/48")
    own = builders.subnet("10.2.71.0/24", "fd00:2:0:71::/64")
    macs = dict.fromkeys(builders.backend(config).devices, builders.OWN_MAC)
    return View(config, under, own, macs)


OURS = builders.backend(view().config).scope(view())
"""What belongs to this host's network."""


def lease(number: int, host: int, mac: int, *, created: int = 10) -> Lease:
    """Of a peer with subnet, host and MAC of these numbers."""
    attrs = Attrs(
        IPv4Address(f"172.16.41.{host}"),
        IPv6Address(f"2001:db8::{host}"),
        "vxlan",
        f'{{"VNI":1,"VtepMAC":"02:00:00:00:04:{mac:02x}"}}',
        f'{{"VNI":1,"VtepMAC":"02:00:00:00:06:{mac:02x}"}}',
    )
    return Lease(builders.subnet(f"10.2.{number}.0/24", f"fd00:2:0:{number}::/64"), attrs, created, created)


def leases() -> st.SearchStrategy[Lease]:
    """One of a few."""
    return st.builds(lease, st.integers(2, 6), st.integers(140, 143), st.integers(2, 7))


def clusters() -> st.SearchStrategy[tuple[Lease, ...]]:
    """What a store may list.  From four peers on metrics are spread."""
    return st.lists(leases(), max_size=5, unique_by=lambda each: each.subnet).map(tuple)


# The agent.


def network(seen: View) -> Network:
    """One whose metrics are spread from four peers on, so that they are at all; and no bit of history is in that."""
    return Network(builders.backend(seen.config), seen, spread_above=3, spread_below=4)


def wanted(seen: View, leases: Iterable[Lease]) -> State:
    """What should be there once these were listed."""
    made = network(seen)
    made.fold(Snapshot(1, tuple(leases)))
    return State(made.items())


class Pipeline:
    """What an agent does between the store and the kernel, in the order in which it does it."""

    def __init__(self, kernel: Kernel, seen: View) -> None:
        """Nothing is done yet."""
        self.network = network(seen)
        self.reconciler = Reconciler(kernel, jitter=lambda: 0.5, clock=asyncio.get_running_loop().time)
        self._kernel = kernel

    async def program_ourselves(self) -> bool:
        """Our own device, whole or not at all, before anything is known of others; False if not at all."""
        self.reconciler.want(self.network.self_items(), self.network.backend.scope(self.network.view))
        report = await self.reconciler.audit()
        if report.failed:
            made = [op.item for op in report.done if isinstance(op, Put) and op.old is None]
            self._kernel.apply([Cut(item) for item in reversed(made)])
        return not report.failed

    async def hear(self, news: Snapshot | Changes) -> Report:
        """What the store says: by the audit the first time, and by the fast lane from then on."""
        replan = self.network.fold(news)
        if self.reconciler.complete:
            return await self.reconciler.replan(replan.old, replan.new)
        self.reconciler.want(self.network.items(), self.network.backend.scope(self.network.view))
        self.reconciler.complete = True
        return await self.reconciler.audit()

    async def list(self, leases: Iterable[Lease]) -> Report:
        """The store lists these, and no others."""
        return await self.hear(Snapshot(1, tuple(leases)))

    async def start(self, leases: Iterable[Lease]) -> None:
        """All that happens until the network is up."""
        await self.program_ourselves()
        await self.list(leases)


def settled(kernel: FakeKernel, pipeline: Pipeline) -> bool:
    """Whether of what is ours the kernel holds all that is wanted, and nothing else."""
    want = State(pipeline.network.items())
    have = kernel.observe(pipeline.reconciler.scope)
    return have.keys() == want.keys() and all(satisfies(have[key], item) for key, item in want.items())


# Where packets go.


@dataclass(frozen=True, slots=True)
class Path:
    """What packets to one subnet need."""

    neighbour: Neighbour
    fdb: FdbEntry
    route: Route

    def carries(self, have: State) -> bool:
        """Whether packets arrive.

        The metric of a route does not matter.  A route to more than the subnet serves as well, if somebody answers for
        each container's address: that is how flannel did it up to v0.8 (compat §5.2).
        """
        routes = [item for item in have.values() if isinstance(item, Route) and item.dev == self.route.dev]
        direct = any(replace(route, metric=self.route.metric) == self.route for route in routes)
        if not direct:
            return have.get(self.fdb.key) == self.fdb and any(_surrounds(route, self.route) for route in routes)
        return all(have.get(item.key) == item for item in (self.neighbour, self.fdb))


Paths: TypeAlias = frozenset[Path]


def paths(want: State) -> Paths:
    """To everywhere this plan leads."""
    found = set[Path]()
    for route in want.items_of(Route):
        assert isinstance(route, Route)
        neighbour = want[Neighbour, route.dev, route.via]
        assert isinstance(neighbour, Neighbour)
        fdb = want[FdbEntry, route.dev, neighbour.mac]
        assert isinstance(fdb, FdbEntry)
        found.add(Path(neighbour, fdb, route))
    return frozenset(found)


def _surrounds(outer: Route, inner: Route) -> bool:
    return (
        outer.via is None
        and outer.dst != inner.dst
        and outer.dst.version == inner.dst.version
        and outer.dst.prefixlen < inner.dst.prefixlen
        and inner.dst.network_address in outer.dst
    )


# What may be there when an agent starts.

WHOLE: dict[str, IPNetwork] = {"flannel.1": IPv4Network("10.2.0.0/16"), "flannel-v6.1": IPv6Network("fd00:2::/48")}


@st.composite
def leftovers(draw: st.DrawFn, want: State) -> list[Item]:
    """Some of what is wanted, some of that altered, and what an agent of this flannel or another once left besides."""
    found: dict[Key, Item] = {}
    for item in want.values():
        kept = draw(st.sampled_from(("as it is", "as it is", "as it is", "altered", "missing")))
        if kept != "missing" and not isinstance(item, Sysctl):
            some = draw(_altered(item)) if kept == "altered" else item
            found[some.key] = some
    stale = wanted(view(), [draw(leases()) for _ in range(draw(st.integers(0, 2)))])
    for item in stale.values():
        if not isinstance(item, Link | Sysctl) and draw(st.booleans()):
            found.setdefault(item.key, item)
    for dev, dst in WHOLE.items():
        if draw(st.booleans()):
            whole = Route(dst, dev)
            found[whole.key] = whole
    links = {item.name for item in found.values() if isinstance(item, Link)}
    return [item for item in State(found.values()).values() if device(item) in links]


@st.composite
def _altered(draw: st.DrawFn, item: Item) -> Item:
    match item:
        case Link():
            spec = vxlan_of(item)
            changes = (
                replace(item, mtu=1300),
                replace(item, spec=replace(spec, learning=not spec.learning)),
                replace(item, spec=replace(spec, local=spec.local + 1 if spec.local else None)),
                replace(item, spec=replace(spec, port=4789)),
                replace(item, mac=Mac.parse("02:00:00:00:00:aa")),
            )
            return draw(st.sampled_from(changes))
        case Neighbour():
            return replace(item, mac=Mac.parse("02:00:00:00:00:aa"))
        case FdbEntry():
            return replace(item, dst=item.dst + 1)
        case Route():
            other = None if item.via is None else item.via + 1
            return draw(
                st.sampled_from((replace(item, metric=99), replace(item, via=other), replace(item, protocol=80)))
            )
        case _:
            return item
