"""Ownership on a real kernel: what others have put there is found unchanged, whatever the agent does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from random import Random
from typing import TypeVar

import pytest

from pyflannel.diff import Cut
from pyflannel.lease.model import Lease
from pyflannel.linux.kernel import LinuxKernel
from pyflannel.state import Link, Sysctl
from tests.support.machines import eventually
from tests.support.namespaces import Namespace, bridge
from tests.support.pipeline import OURS, Pipeline, lease, view

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge")

T = TypeVar("T")
LISTINGS = (
    "ip -j -d link",
    "ip -j -d -4 route show table all",
    "ip -j -d -6 route show table all",
    "ip -j -4 rule",
    "ip -j -6 rule",
    "ip -j neigh",
    "bridge -j fdb",
)
OTHER_DEVICES = (
    "ip link add vxlan9 up type vxlan id 9 dstport 4789 dev eth9",
    "ip link add flannel.2 up type vxlan id 2 dstport 8472 dev ens33 local 172.16.41.131 nolearning",
    "ip link add samevni up type vxlan id 1 dstport 4789 dev ens33",
)
ELSEWHERE = (
    "ip address add 10.2.71.1/24 dev docker0",
    "ip address add fd00:2:0:71::1/64 dev docker0",
    "ip route add 10.2.2.0/24 dev docker0",
    "ip route add 10.2.3.0/24 dev eth9 metric 516",
    "ip route add 10.2.4.0/24 nexthop dev eth9 nexthop dev docker0",
    "ip route add 10.2.5.0/24 dev eth9 proto boot table 100",
    "ip route add blackhole 10.2.6.0/24 metric 5",
    "ip route add 10.2.0.0/16 dev docker0 proto static",
    "ip route add default dev eth9",
    "ip route add fd00:2:0:2::/64 dev docker0",
    "ip route add fd00:2:0:3::/64 dev eth9 metric 7",
    "ip rule add from 10.2.0.0/16 lookup 100",
    "ip neigh add 10.2.2.0 lladdr 02:00:00:00:04:02 dev docker0 nud permanent",
    "ip neigh add fd00:2:0:2:: lladdr 02:00:00:00:06:02 dev eth9 nud permanent",
    "bridge fdb add 02:00:00:00:04:02 dev samevni dst 172.16.41.149 self permanent",
    "bridge fdb append 00:00:00:00:00:00 dev samevni dst 172.16.41.149 self permanent",
    "bridge fdb add 02:00:00:00:04:03 dev eth9 self permanent",
    "sysctl -qw net.ipv4.conf.docker0.rp_filter=2",
    "sysctl -qw net.ipv6.conf.docker0.accept_ra=2",
)
ADDRESS = "ip address add 198.51.100.1/24 dev flannel.1"
"""Keeps what is IPv4 on our device there, whatever becomes of our own address."""
ON_OURS = (
    "ip address add fe80::99/64 dev flannel-v6.1",
    "ip route add 10.2.200.0/24 dev flannel.1 proto kernel",
    "ip route add 10.2.201.0/24 dev flannel.1 table 100",
    "ip route add 10.2.202.0/24 dev flannel.1 tos 0x10",
    "ip route add 10.2.2.0/24 dev flannel.1 tos 0x08",
    "ip route add 10.2.203.0/24 nexthop dev flannel.1 nexthop dev docker0",
    "ip route add fd00:2:0:200::/64 dev flannel-v6.1 proto kernel",
    "ip neigh add 10.2.71.50 lladdr 02:bb:00:00:00:01 dev flannel.1 nud stale",
    "bridge fdb add 02:bb:00:00:00:01 dev flannel.1 dst 172.16.41.150 self dynamic",
    "bridge fdb add 02:bb:00:00:00:02 dev flannel.1 dst 172.16.41.150 port 4790 self permanent",
    "sysctl -qw net.ipv4.conf.flannel/1.rp_filter=2",
    "sysctl -qw net.ipv6.conf.flannel-v6/1.forwarding=1",
)
INTRUSIONS = (
    "ip route append 10.2.99.0/24 dev flannel.1",
    "ip route append 10.2.2.0/24 via 10.2.98.0 dev flannel.1 onlink proto static metric 9",
    "ip neigh replace 10.2.2.0 lladdr 02:00:00:00:00:bb dev flannel.1 nud permanent",
    "bridge fdb replace 02:00:00:00:04:02 dev flannel.1 dst 172.16.41.199 self permanent",
    "ip address replace 10.2.99.1/24 dev flannel.1",
    "ip link set flannel.1 mtu 1300",
)
VIEWS = (view(), view(mtu=1400), view('{"Type":"vxlan","Learning":true}'), view(host=132))


@pytest.mark.parametrize("seed", range(20))
def test_what_others_put_there_is_found_unchanged(seed: int) -> None:
    rng = Random(seed)
    with Namespace("owner") as space, LinuxKernel(space.name) as kernel:
        prepare(space)
        for command in some(rng, ELSEWHERE):
            space.run(command)
        before = dump(space)

        async def live() -> None:
            pipeline = Pipeline(kernel, view())
            await pipeline.start(peers(rng))
            assert elsewhere(space) == before
            bare = dump(space)
            for command in (ADDRESS, *some(rng, ON_OURS)):
                space.run(command)
            theirs = dump(space) - bare
            assert theirs
            for _ in range(8):
                pipeline = await something(rng, space, kernel, pipeline)
            await pipeline.reconciler.audit()
            assert theirs <= dump(space)
            again = await pipeline.reconciler.audit()
            assert [op for op in again.done if isinstance(op, Cut)] == []
            pipeline.reconciler.want((), OURS)
            await pipeline.reconciler.audit()
            assert not kernel.observe(OURS)
            assert dump(space) == before

        asyncio.run(live())


async def something(rng: Random, space: Namespace, kernel: LinuxKernel, pipeline: Pipeline) -> Pipeline:
    """One thing that happens, as chance has it."""
    match rng.choice(("list", "list", "audit", "remove", "intrude", "restart")):
        case "list":
            await pipeline.list(peers(rng))
        case "audit":
            await pipeline.reconciler.audit()
        case "remove":
            held = [item for item in kernel.observe(OURS).values() if not isinstance(item, Link | Sysctl)]
            kernel.apply([Cut(item) for item in rng.sample(held, min(3, len(held)))])
        case "intrude":
            space.run(rng.choice(INTRUSIONS))
        case "restart":
            pipeline = Pipeline(kernel, rng.choice(VIEWS))
            await pipeline.start(peers(rng))
    return pipeline


def peers(rng: Random) -> list[Lease]:
    """Some, with MACs of which two may have the same."""
    return [lease(number, rng.randrange(140, 144), rng.randrange(2, 8)) for number in some(rng, range(2, 7))]


def some(rng: Random, things: Sequence[T]) -> list[T]:
    """A part of them, in their order: it may be none, or all."""
    share = rng.random()
    return [each for each in things if rng.random() < share]


def prepare(space: Namespace) -> None:
    """An underlay, and devices of others."""
    # Addresses which devices give themselves, in their own time, would look like changes.
    space.run("sysctl -qw net.ipv6.conf.default.addr_gen_mode=1 net.ipv6.conf.default.accept_dad=0")
    for name in ("ens33", "eth9"):
        space.run(f"ip link add {name} up type veth peer name {name}-far")
        space.run(f"ip link set {name}-far up")
    space.run("ip address add 172.16.41.131/24 dev ens33")
    bridge(space, "docker0")
    for command in OTHER_DEVICES:
        space.run(command)
    cables = {"ens33", "ens33-far", "eth9", "eth9-far"}
    eventually(lambda: cables <= {each["ifname"] for each in space.objects("ip -j link") if up(each)}, "the cables")


def up(link: Mapping[str, object]) -> bool:
    return link["operstate"] == "UP"


def dump(space: Namespace) -> frozenset[str]:
    """Everything there is, a line each."""
    lines = space.shell("grep -rs . /proc/sys/net/ipv4/conf /proc/sys/net/ipv6/conf || true").splitlines()
    for listing in LISTINGS:
        lines += (f"{listing}: {json.dumps(steady(each), sort_keys=True)}" for each in space.objects(listing))
    for device in space.objects("ip -j address"):
        held = device["addr_info"]
        assert isinstance(held, list)
        lines += (f"address on {device['ifname']}: {json.dumps(each, sort_keys=True)}" for each in held)
    return frozenset(lines)


def steady(value: object) -> object:
    """``value`` without the clocks in it."""
    if isinstance(value, dict):
        return {key: steady(each) for key, each in value.items() if not key.endswith("timer")}
    return value


def elsewhere(space: Namespace) -> frozenset[str]:
    """What of it is not about our devices."""
    return frozenset(line for line in dump(space) if not any(name in line for name in OURS.devices))
