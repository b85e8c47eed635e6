"""Ownership: whatever happens, and whatever the agent does about it, what others have put there stays as it is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface, IPv6Network

from hypothesis import given
from hypothesis import strategies as st

from pyflannel.state import (
    PROTO_KERNEL,
    Address,
    FdbEntry,
    Item,
    Link,
    Mac,
    Neighbour,
    Route,
    Sysctl,
    Vxlan,
)
from tests.support.fake_kernel import FakeKernel
from tests.support.host_history import DEEDS, Host, Step, happen, histories
from tests.support.kernel_items import vxlan_of
from tests.support.pipeline import OURS, Pipeline, examples, in_virtual_time, lease, view

THEIR_MAC = Mac.parse("02:aa:00:00:00:01")


def devices() -> st.SearchStrategy[Link]:
    """Other vxlan devices: some with a name like ours, some of our VNI."""
    spec = st.builds(Vxlan, st.sampled_from((1, 2, 9)), st.just("eth9"), st.none(), st.sampled_from((4789, 8473)))
    names = st.sampled_from(("vxlan9", "flannel.2", "flannel-v6.2", "flannel.10"))
    return st.builds(Link, names, spec, st.just(1400), st.just(THEIR_MAC))


def things(devices: st.SearchStrategy[str]) -> st.SearchStrategy[Item]:
    """What may be on devices of others, some of it just like ours."""
    nets = st.sampled_from(("10.2.2.0/24", "10.2.71.0/24", "10.2.0.0/16", "0.0.0.0/0", "192.0.2.0/24")).map(IPv4Network)
    nets6 = st.sampled_from(("fd00:2:0:2::/64", "fd00:2::/48", "::/0")).map(IPv6Network)
    addresses = st.sampled_from(("10.2.71.1/24", "10.2.2.0/32", "192.0.2.1/24")).map(IPv4Interface)
    addresses6 = st.sampled_from(("fd00:2:0:71::/128", "fe80::9/64")).map(IPv6Interface)
    near = st.sampled_from(("10.2.2.0", "192.0.2.9")).map(IPv4Address)
    macs = st.sampled_from(("02:00:00:00:04:02", "02:00:00:00:04:03", "00:00:00:00:00:00")).map(Mac.parse)
    return st.one_of(
        st.builds(Address, devices, addresses | addresses6),
        st.builds(Neighbour, devices, near, macs),
        st.builds(FdbEntry, devices, macs, near),
        st.builds(
            Route,
            nets | nets6,
            devices,
            metric=st.sampled_from((0, 7, 515, 1024)),
            protocol=st.sampled_from((PROTO_KERNEL, 3, 4, 80)),
        ),
        st.builds(Sysctl, devices, st.sampled_from(("ipv4", "ipv6")), st.just("forwarding"), st.just("1")),
    )


@st.composite
def elsewhere(draw: st.DrawFn) -> list[Item]:
    """Things of others, on devices of others."""
    links = draw(st.lists(devices(), max_size=2, unique_by=(lambda link: link.name, lambda link: vxlan_of(link).vni)))
    names = st.sampled_from(("eth9", *(link.name for link in links)))
    return [*links, *draw(st.lists(things(names), max_size=8, unique_by=lambda item: item.key))]


ON_OURS: tuple[Item, ...] = (
    Address("flannel.1", IPv4Interface("198.51.100.1/24")),
    Address("flannel.1", IPv4Interface("10.3.0.1/32")),
    Address("flannel-v6.1", IPv6Interface("fe80::9/64")),
    Route(IPv4Network("198.51.100.0/24"), "flannel.1", protocol=PROTO_KERNEL),
    Route(IPv4Network("10.2.9.0/24"), "flannel.1", protocol=PROTO_KERNEL),
    Route(IPv6Network("fd00:2:0:9::/64"), "flannel-v6.1", protocol=PROTO_KERNEL),
    Sysctl("flannel.1", "ipv4", "rp_filter", "2"),
    Sysctl("flannel-v6.1", "ipv6", "forwarding", "1"),
)
"""What others may have on devices of ours; the first of it keeps the routes there, whatever becomes of our address."""
GENTLE = DEEDS.keys() - {"delete", "remake", "rename", "take_down", "unplug"}
"""Deeds that leave our devices where they are, and up."""


@examples(100)
@given(elsewhere(), histories())
def test_what_others_have_elsewhere_stays(others: list[Item], steps: list[Step]) -> None:
    async def scenario() -> None:
        async with asyncio.TaskGroup() as tasks:
            host = Host(tasks, *others)
            await happen(host, steps)
            await host.come_to_rest()
            host.stop()
        assert missing(host.kernel, others) == []
        await change_the_network(host.kernel)
        assert missing(host.kernel, others) == []
        await remove_everything(host.kernel)
        assert set(host.kernel.items) == set(others)

    in_virtual_time(scenario)


@examples(100)
@given(st.sets(st.sampled_from(ON_OURS)), histories(GENTLE))
def test_what_others_have_on_our_devices_stays_as_long_as_those_do(others: set[Item], steps: list[Step]) -> None:
    there = [ON_OURS[0], *others]

    async def scenario() -> None:
        async with asyncio.TaskGroup() as tasks:
            host = Host(tasks)
            await host.come_to_rest()
            host.kernel.intrude(*(item for item in there if not isinstance(item, Route)))
            host.kernel.intrude(*{item for item in there if isinstance(item, Route)})
            await happen(host, steps)
            await host.come_to_rest()
            host.stop()
        assert missing(host.kernel, there) == []
        await change_the_network(host.kernel)
        assert missing(host.kernel, there) == []
        await remove_everything(host.kernel)
        assert host.kernel.items == ()

    in_virtual_time(scenario)


def missing(kernel: FakeKernel, items: Iterable[Item]) -> list[Item]:
    return [item for item in items if item not in kernel.items]


async def change_the_network(kernel: FakeKernel) -> None:
    """Everything about a network that a device can live through."""
    for seen in (view(mtu=1400), view('{"Type":"vxlan","Learning":true}'), view(host=132)):
        await Pipeline(kernel, seen).start([lease(2, 140, 2), lease(3, 141, 3)])


async def remove_everything(kernel: FakeKernel) -> None:
    pipeline = Pipeline(kernel, view())
    pipeline.reconciler.want((), OURS)
    pipeline.reconciler.complete = True
    await pipeline.reconciler.audit()
