"""News of leases in a kernel in memory: what comes at once, what goes only when, and what is said of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network

from pyflannel.conditions import FROM_MEMORY
from pyflannel.diff import Put
from pyflannel.ears import Ears
from pyflannel.health import Health
from pyflannel.intake import Intake
from pyflannel.lease.model import Attrs, Changes, Removed, Snapshot
from pyflannel.network import LINGER, Network, Replan
from pyflannel.peerfilter import PeerFilter
from pyflannel.reconcile import Reconciler
from pyflannel.state import Address, IPNetwork, Link, Route, Vxlan
from tests.support.builders import backend, config, underlay, view, vxlan_lease
from tests.support.fake_kernel import FakeKernel, Hardware
from tests.support.loops import run_jumping
from tests.support.told_events import Told

PEER = vxlan_lease()
HOST_GW = config('{"Type":"host-gw"}')
GONE_OVER = replace(PEER, attrs=Attrs(PEER.attrs.public_ip, None, "host-gw"))
PEERS = IPv4Network("10.2.41.0/24")
LATER = 60.0


class Stage:
    """An intake with a kernel in memory, of which our own device is up."""

    def __init__(self, network: Network, former: Collection[str] = ()) -> None:
        self.kernel, self.health = FakeKernel(Hardware("ens33"), Hardware("ens34")), Health()
        on_link = IPv4Interface("172.16.41.131/24")
        self.kernel.apply([Put(Address(dev, on_link)) for dev in ("ens33", "ens34")])
        self.heard: list[Replan] = []
        self.pruned = 0
        self.network = network
        self.reconciler = Reconciler(self.kernel, lambda: 0.5, asyncio.get_running_loop().time, self.health)
        self.reconciler.want(network.self_items(), network.scope())
        self.intake = Intake(
            *(network, self.reconciler, PeerFilter(False, ()), Ears(Told(), self.reconciler, self.health)),
            self.health,
            former=former,
            heard=self.heard.append,
            pruned=self._prune,
        )

    def _prune(self) -> None:
        self.pruned += 1

    def leave_behind(self, name: str) -> None:
        """An earlier run had a device of this name."""
        (link,) = (item for item in self.network.self_items() if isinstance(item, Link))
        assert isinstance(link.spec, Vxlan)
        report = self.kernel.apply([Put(replace(link, name=name, spec=replace(link.spec, vni=7)))])
        assert not report.failed

    def routes(self) -> set[IPNetwork]:
        """Where the kernel would send packets to."""
        scope = self.network.scope()
        everywhere = replace(scope, borrowed=scope.borrowed | {"ens33", "ens34"})
        return {item.dst for item in self.kernel.observe(everywhere).values() if isinstance(item, Route)}


def acted(
    play: Callable[[Stage], Awaitable[object]],
    network: Callable[[], Network] = lambda: Network(backend(), view()),
    former: Collection[str] = (),
) -> Stage:
    """What is left when ``play`` is over, on a stage of its own."""

    async def scenario() -> Stage:
        stage = Stage(network(), former)
        await stage.reconciler.audit()
        await play(stage)
        return stage

    return run_jumping(scenario())


def test_the_first_news_is_all_there_is_and_what_an_earlier_run_left_goes() -> None:
    async def play(stage: Stage) -> None:
        stage.leave_behind("flannel.7")
        await stage.intake.fold(Snapshot(1, (PEER,)))

    stage = acted(play, former=["flannel.7"])
    assert stage.intake.complete
    assert (stage.routes(), stage.pruned) == ({PEERS}, 1)
    assert any("link del flannel.7" in line for line in stage.kernel.log)
    assert [replan.added for replan in stage.heard] == [(PEER,)]


def test_where_an_earlier_run_left_nothing_nothing_is_pruned() -> None:
    async def play(stage: Stage) -> None:
        await stage.intake.fold(Snapshot(1, (PEER,)))

    assert acted(play).pruned == 0


def test_what_was_last_known_stands_in_and_takes_nothing_away() -> None:
    async def play(stage: Stage) -> None:
        stage.leave_behind("flannel.7")
        await stage.intake.stand_in(Snapshot(1, (PEER,)))

    stage = acted(play, former=["flannel.7"])
    assert not stage.intake.complete
    assert (stage.routes(), stage.pruned) == ({PEERS}, 0)
    assert not any("link del" in line for line in stage.kernel.log)
    assert [each.kind for each in stage.health.present()] == [FROM_MEMORY]


def test_a_lease_that_vanishes_goes_once_it_has_lingered() -> None:
    seen: list[set[IPNetwork]] = []

    async def play(stage: Stage) -> None:
        await stage.intake.fold(Snapshot(1, (PEER,)))
        leaving = asyncio.ensure_future(stage.intake.see_off())
        await stage.intake.fold(Changes(2, (Removed(PEER.subnet),)))
        await asyncio.sleep(LINGER / 2)
        seen.append(stage.routes())
        await asyncio.sleep(LINGER)
        seen.append(stage.routes())
        leaving.cancel()

    stage = acted(play)
    assert seen == [{PEERS}, set()]
    assert stage.heard[-1].removed == (PEER,)


def test_another_interface_is_taken_by_the_next_audit() -> None:
    async def play(stage: Stage) -> None:
        await stage.intake.fold(Snapshot(1, (GONE_OVER,)))
        stage.intake.move(stage.network.move(replace(underlay(), name="ens34")))
        await stage.reconciler.catch_up()

    stage = acted(play, lambda: Network(backend(HOST_GW), view(HOST_GW)))
    assert stage.routes() == {PEERS}
    assert any("dev ens34" in line for line in stage.kernel.log)


def test_the_former_way_goes_with_the_last_peer_that_takes_it() -> None:
    async def play(stage: Stage) -> None:
        await stage.intake.fold(Snapshot(1, (PEER,)))
        going = asyncio.ensure_future(stage.intake.go_over())
        await asyncio.sleep(LATER)
        assert not going.done()
        await stage.intake.fold(Changes(2, (GONE_OVER,)))
        former = await going
        assert former is not None
        assert former.backend.type == "vxlan"

    def just_gone_over() -> Network:
        known = Network(backend(), view())
        known.fold(Snapshot(1, (PEER,)))
        return Network(backend(HOST_GW), view(HOST_GW), known.way())

    stage = acted(play, just_gone_over)
    assert (stage.routes(), stage.network.former, stage.pruned) == ({PEERS}, None, 1)
    assert any("link del flannel.1" in line for line in stage.kernel.log)


def test_who_has_no_former_way_has_none_to_leave() -> None:
    async def play(stage: Stage) -> None:
        assert await stage.intake.go_over() is None

    acted(play)
