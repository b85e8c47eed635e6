"""What a real kernel tells of our devices, and that it tells nothing else."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import HealthCheck, assume, given, settings

from pyflannel.diff import Op, Put, diff, must_rebuild
from pyflannel.linux.events import KernelEvents
from pyflannel.linux.kernel import LinuxKernel
from pyflannel.linux.spelling import spell
from pyflannel.sighting import Changed, Gone, Lost, Replaced, Seen, Sighting, contradicts
from pyflannel.state import Address, Item, Key, Link, Mac, Misfit, Route, Scope, State
from tests.support import loops
from tests.support.kernel_items import DEV, DEV6, LINK, LINK6, SCOPE, SPEC, SPEC6, WANT, peer, peer6
from tests.support.kernel_plans import SCOPE as PLANS
from tests.support.kernel_plans import states
from tests.support.kernel_worlds import LinuxWorld
from tests.support.namespaces import Namespace

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge")

QUIET = 0.03
"""Seconds.  The kernel tells of a change before the call that makes it returns; of some of IPv6 right after."""
NEIGHBOUR, FDB, ROUTE = peer(2)
NEIGHBOUR6, FDB6, ROUTE6 = peer6(2)
OTHER_MAC = Mac.parse("02:00:00:00:09:09")


@dataclass(frozen=True)
class Stage:
    """A namespace, our hand in it and our ear."""

    space: Namespace
    kernel: LinuxKernel
    events: KernelEvents

    def bring_about(self, want: State, scope: Scope = SCOPE) -> tuple[Op, ...]:
        """One pass; returns what it took."""
        ops = diff(want, self.kernel.observe(scope))
        assert self.kernel.apply(ops).failed == ()
        return ops

    def listen(self) -> tuple[Sighting, ...]:
        """All there is to hear by now."""
        return loops.run(self._listen())

    async def _listen(self) -> tuple[Sighting, ...]:
        sightings: list[Sighting] = []
        try:
            while True:
                async with asyncio.timeout(QUIET):
                    sightings += await self.events.wait()
        except TimeoutError:
            return tuple(sightings)

    def is_woken(self) -> bool:
        """Whether anything waits to be read at all, be it of interest or not."""
        ready, _, _ = select.select([self.events], [], [], QUIET)
        return bool(ready)

    def settled(self) -> None:
        """Hear out what goes on by itself in a namespace that was just made."""
        while self.is_woken():
            self.listen()


@pytest.fixture
def bare() -> Iterator[Stage]:
    """Nothing of ours yet, and nobody listening."""
    with Namespace("events") as space, LinuxKernel(space.name) as kernel, closing(KernelEvents(space.name)) as events:
        # An address that is checked for duplicates first is told of a second later.
        space.shell("for which in all default; do echo 0 >/proc/sys/net/ipv6/conf/$which/accept_dad; done")
        LinuxWorld(space, kernel)
        yield Stage(space, kernel, events)


@pytest.fixture
def stage(bare: Stage) -> Stage:
    """All of ours is there, and watched."""
    bare.bring_about(WANT)
    bare.events.watch(SCOPE, ["eth0"])
    bare.settled()
    return bare


def test_what_was_heard_so_far_can_be_had_without_waiting(stage: Stage) -> None:
    assert stage.events.heard() == ()
    stage.space.run(f"ip link set {DEV} mtu 1400")
    assert Seen(replace(LINK, mtu=1400)) in stage.events.heard()
    assert stage.events.heard() == ()


DEEDS: list[tuple[str, Sighting]] = [
    (f"ip link delete {DEV}", Gone(LINK.key)),
    (f"ip link set {DEV} down", Seen(replace(LINK, up=False))),
    (f"ip link set {DEV} name foo", Gone(LINK.key)),
    (f"ip link set {DEV} mtu 1400", Seen(replace(LINK, mtu=1400))),
    (f"ip link set {DEV} address {OTHER_MAC}", Seen(replace(LINK, mac=OTHER_MAC))),
    (f"ip link set {DEV} type vxlan learning", Seen(replace(LINK, spec=replace(SPEC, learning=True)))),
    (f"ip link set {DEV} type vxlan dev eth1", Seen(replace(LINK, spec=replace(SPEC, underlay="eth1")))),
    (
        f"ip link set {DEV6} type vxlan local 2001:db8::9",
        Seen(replace(LINK6, spec=replace(SPEC6, local=ip_address("2001:db8::9")))),
    ),
    (f"ip address del 10.2.1.0/32 dev {DEV}", Gone(Address(DEV, ip_interface("10.2.1.0/32")).key)),
    (f"ip address add 10.2.200.1/24 dev {DEV}", Seen(Address(DEV, ip_interface("10.2.200.1/24")))),
    (f"ip address del fd00:2:1::/128 dev {DEV6}", Gone(Address(DEV6, ip_interface("fd00:2:1::/128")).key)),
    (f"ip address add fd00:77::1/64 dev {DEV6} nodad", Seen(Address(DEV6, ip_interface("fd00:77::1/64")))),
    ("ip route del 10.2.2.0/24", Gone(ROUTE)),
    ("ip route del fd00:2:2::/64", Gone(ROUTE6)),
    (f"ip route append 10.2.2.0/24 dev {DEV}", Seen(replace(ROUTE, via=None, onlink=False))),
    (f"ip route add 10.2.9.0/24 dev {DEV}", Seen(Route(ip_network("10.2.9.0/24"), DEV))),
    (f"ip route replace 10.2.2.0/24 dev {DEV}", Replaced(ROUTE.dst, 0)),
    ("ip route replace 10.2.2.0/24 dev docker0", Replaced(ROUTE.dst, 0)),
    ("ip route replace fd00:2:2::/64 dev docker0", Replaced(ROUTE6.dst, 1024)),
    (f"ip neigh del 10.2.2.0 dev {DEV}", Gone(NEIGHBOUR.key)),
    (f"ip neigh del fd00:2:2:: dev {DEV6}", Gone(NEIGHBOUR6.key)),
    (f"ip neigh replace 10.2.2.0 lladdr {OTHER_MAC} dev {DEV}", Seen(replace(NEIGHBOUR, mac=OTHER_MAC))),
    (f"ip neigh replace 10.2.2.0 lladdr {NEIGHBOUR.mac} dev {DEV} nud reachable", Gone(NEIGHBOUR.key)),
    (f"bridge fdb del {FDB.mac} dev {DEV}", Gone(FDB.key)),
    (f"bridge fdb del {FDB6.mac} dev {DEV6}", Gone(FDB6.key)),
    (f"bridge fdb replace {FDB.mac} dev {DEV} dst 192.0.2.9", Seen(replace(FDB, dst=ip_address("192.0.2.9")))),
    (f"bridge fdb replace {FDB.mac} dev {DEV} dst {FDB.dst} dynamic", Gone(FDB.key)),
    (
        f"bridge fdb append 00:00:00:00:00:00 dev {DEV} dst 192.0.2.9",
        Seen(replace(FDB, mac=Mac(bytes(6)), dst=ip_address("192.0.2.9"))),
    ),
]
MENDABLE = [(command, expected) for command, expected in DEEDS if "docker0" not in command]
"""All but those after which the slot is filled by somebody else, whom we do not touch."""


@pytest.mark.parametrize(("command", "expected"), DEEDS, ids=[command for command, _ in DEEDS])
def test_what_somebody_does_to_us_is_heard_and_news(stage: Stage, command: str, expected: Sighting) -> None:
    stage.space.run(command)
    sightings = stage.listen()
    assert expected in sightings
    assert contradicts(sightings, WANT, SCOPE)


@pytest.mark.parametrize(("command", "expected"), MENDABLE, ids=[command for command, _ in MENDABLE])
def test_putting_it_right_is_no_news_for_long(stage: Stage, command: str, expected: Sighting) -> None:
    stage.space.run(command)
    assert expected in stage.listen()
    ops = stage.bring_about(WANT)
    anew = makes_device(ops)
    assert anew or not contradicts(stage.listen(), WANT, SCOPE)
    stage.listen()
    assert stage.bring_about(WANT) == ()
    assert stage.listen() == ()


def makes_device(ops: tuple[Op, ...]) -> bool:
    """Whether one of ``ops`` makes a device: nobody listens on that one until its index is known."""
    return any(
        isinstance(op, Put) and isinstance(op.item, Link) and must_rebuild(op.item, op.old or Misfit("", ""))
        for op in ops
    )


def test_a_device_that_was_down_for_a_moment_is_news(stage: Stage) -> None:
    stage.space.run(f"ip link set {DEV} down")
    stage.space.run(f"ip link set {DEV} up")
    assert contradicts(stage.listen(), WANT, SCOPE)
    assert ROUTE in {op.item for op in stage.bring_about(WANT)}


def test_a_device_made_anew_by_somebody_is_looked_at_and_listened_to(stage: Stage) -> None:
    stage.space.run(f"ip link delete {DEV}")
    stage.space.run(spell(Put(LINK)))
    assert Changed(DEV) in stage.listen()
    assert stage.bring_about(WANT)
    stage.listen()
    stage.space.run("ip route del 10.2.2.0/24")
    assert stage.listen() == (Gone(ROUTE),)


def test_a_device_of_another_kind_under_our_name_is_news(stage: Stage) -> None:
    stage.space.run(f"ip link delete {DEV}")
    stage.listen()
    stage.space.run(f"ip link add {DEV} type bridge")
    assert contradicts(stage.listen(), WANT, SCOPE)


def test_a_renamed_device_is_listened_to_under_any_name(stage: Stage) -> None:
    stage.space.run(f"ip link set {DEV} name foo")
    stage.listen()
    stage.space.run("ip route del 10.2.2.0/24")
    assert stage.listen() == (Gone(ROUTE),)
    stage.events.watch(SCOPE)
    stage.space.run("ip route del 10.2.3.0/24")
    assert stage.listen() == (Gone(peer(3)[2]),)


@pytest.mark.parametrize(
    "command",
    [
        "ip link set eth0 down",
        "ip link set eth0 mtu 1400",
        "ip link set eth0 name eth7",
        "ip link delete eth0",
        "ip address add 198.51.100.1/24 dev eth0",
        "ip address del 192.0.2.1/24 dev eth0",
    ],
)
def test_a_change_of_the_underlay_is_heard(stage: Stage, command: str) -> None:
    stage.space.run(command)
    assert Changed("eth0") in stage.listen()


def test_an_underlay_made_anew_is_heard_and_listened_to(stage: Stage) -> None:
    stage.space.run("ip link delete eth0")
    stage.listen()
    stage.space.run("ip link add eth0 type veth peer name eth0-far")
    assert Changed("eth0") in stage.listen()
    stage.space.run("ip address add 192.0.2.1/24 dev eth0")
    assert stage.listen() == (Changed("eth0"),)


def test_what_is_repeated_of_the_underlay_is_no_news(stage: Stage) -> None:
    lifetimes = "valid_lft forever preferred_lft forever"
    stage.space.run(f"ip address change 192.0.2.1/24 dev eth0 {lifetimes}")
    stage.listen()
    stage.space.run(f"ip address change 192.0.2.1/24 dev eth0 {lifetimes}")
    stage.space.run("ip link set eth0 alias wan")
    assert stage.listen() == ()


def test_what_others_do_elsewhere_wakes_nobody(stage: Stage) -> None:
    for command in (
        "ip address add 10.2.0.1/16 dev docker0",
        "ip route add 10.2.4.0/24 dev docker0",
        "ip route add 10.2.5.0/24 dev eth0",
        f"ip route add 10.2.6.0/24 dev {DEV} table 77",
        "ip neigh add 192.0.2.7 lladdr 02:00:00:00:00:07 dev eth0",
        "ip neigh add 10.2.2.0 lladdr 02:00:00:00:00:07 dev docker0",
        "bridge fdb add 02:00:00:00:00:08 dev eth1 self",
        "ip link add flannel.10 type vxlan id 10 dstport 8472",
        "ip link set flannel.10 up",
        "ip address add 10.2.9.1/32 dev flannel.10",
        "ip link delete flannel.10",
    ):
        stage.space.run(command)
        assert not stage.is_woken(), command


def test_a_thousand_containers_coming_and_going_wake_nobody(stage: Stage) -> None:
    pairs = [f"link add veth{number} up group 7 type veth peer name c{number} group 7" for number in range(1000)]
    stage.space.run("ip -batch -", stdin="\n".join(pairs))
    assert not stage.is_woken()
    stage.space.run("ip link delete group 7")
    assert not stage.is_woken()
    stage.space.run("ip route del 10.2.2.0/24")
    assert stage.listen() == (Gone(ROUTE),)


def test_our_own_doings_wake_nobody_but_for_devices_and_forwarding_entries(stage: Stage) -> None:
    with closing(KernelEvents(stage.space.name, muted=[stage.kernel.port])) as events:
        muted = replace(stage, events=events)
        events.watch(SCOPE)
        kinds = {type(item) for item in (NEIGHBOUR, ROUTE)}
        left: dict[Key, Item] = {key: item for key, item in WANT.items() if type(item) not in kinds}
        for want in (State(left.values()), WANT):
            stage.bring_about(want)
            assert [item for item in muted.listen() if not isinstance(item, Gone)] == []
        stage.space.run("ip route del 10.2.2.0/24")
        assert muted.listen() == (Gone(ROUTE),)


def test_an_overrun_is_said_and_listening_goes_on(bare: Stage) -> None:
    with closing(KernelEvents(bare.space.name, receive_buffer=1)) as events:
        deaf = replace(bare, events=events)
        events.watch(SCOPE)
        bare.bring_about(WANT)
        assert Lost() in deaf.listen()
        assert deaf.listen() == ()
        bare.space.run("ip route del 10.2.2.0/24")
        assert deaf.listen() == (Gone(ROUTE),)


def test_giving_up_waiting_loses_nothing(stage: Stage) -> None:
    async def scenario() -> tuple[Sighting, ...]:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(QUIET):
                await stage.events.wait()
        stage.space.run("ip route del 10.2.2.0/24")
        return await stage.events.wait()

    assert loops.run(scenario()) == (Gone(ROUTE),)


def test_where_the_interface_below_leads_is_told_where_that_is_asked_for(stage: Stage) -> None:
    outside = "ip route {} 203.0.113.0/24 dev eth0"
    stage.space.run(outside.format("add"))
    assert not stage.is_woken()
    stage.events.watch(SCOPE, ["eth0"], ["eth0"])
    for command in (
        outside.format("del"),
        "ip route add 203.0.113.7 via 192.0.2.9",
        "ip route replace 203.0.113.7 via 192.0.2.8",
        "ip route del 203.0.113.7",
        "ip -6 route add 2001:db8:7::/64 dev eth0",
    ):
        stage.space.run(command)
        assert Changed("eth0") in stage.listen(), command


def test_routes_of_others_and_our_own_are_not_among_them(stage: Stage) -> None:
    stage.events.watch(SCOPE, ["eth0"], ["eth0"])
    for command in (
        "ip route add 203.0.113.0/24 dev docker0",
        "ip route del 203.0.113.0/24 dev docker0",
        "ip route add 203.0.113.0/24 dev eth0 proto 70",
        "ip route del 203.0.113.0/24 dev eth0 proto 70",
        "ip route add 203.0.113.0/24 dev eth0 table 100",
        "ip route add 203.0.113.0/24 dev eth1",
    ):
        stage.space.run(command)
        assert not stage.is_woken(), command


def test_whatever_we_bring_about_is_followed_by_silence(bare: Stage) -> None:
    bare.events.watch(PLANS)
    bare.settled()

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(states())
    def law(want: State) -> None:
        ops = diff(want, bare.kernel.observe(PLANS))
        failed = bare.kernel.apply(ops).failed
        sightings = bare.listen()
        # Such as a gateway that is an address of ours on another device.
        assume(not failed)
        assert makes_device(ops) or not contradicts(sightings, want, PLANS)
        assert bare.bring_about(want, PLANS) == ()
        assert not contradicts(bare.listen(), want, PLANS)

    law()
