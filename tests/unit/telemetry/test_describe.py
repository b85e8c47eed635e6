"""The status document of an agent, over a fake kernel."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from pyflannel import __version__
from pyflannel.conditions import STORE_DOWN
from pyflannel.health import Health
from pyflannel.lease.model import Subnet
from pyflannel.linux import counters
from pyflannel.probes.sight import Reach, Sight
from pyflannel.settings import Settings
from pyflannel.state import Mac, Route
from pyflannel.telemetry.describe import PORTION, describe
from pyflannel.telemetry.desk import Desk
from pyflannel.telemetry.document import PeerPart
from tests.support.builders import config, vxlan_lease
from tests.support.loops import run, run_jumping
from tests.support.status import NOW, Bench

ONE = vxlan_lease("10.2.41.0/24", "172.16.41.132")
OTHER = vxlan_lease("10.2.42.0/24", "172.16.41.133", Mac.parse("02:00:00:00:00:03"))


@pytest.fixture(autouse=True)
def _no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine has is none of our business."""
    monkeypatch.setattr(counters, "through", lambda _dev: counters.Traffic(10, 20, 1, 2))


def with_bench(directory: Path, scenario: Callable[[Bench], Awaitable[None]]) -> None:
    async def whole() -> None:
        await scenario(Bench(directory))

    run_jumping(whole())


def by_subnet(peers: tuple[PeerPart, ...]) -> dict[str | None, PeerPart]:
    return {peer.subnet: peer for peer in peers}


def test_a_process_that_waits_says_for_what() -> None:
    desk = Desk(Settings(), Health(now=lambda: NOW), started=NOW)
    desk.health.set(STORE_DOWN, "no answer")
    said = run(describe(desk))
    assert (said.agent.version, said.agent.pid, said.agent.phase) == (__version__, os.getpid(), "waiting")
    assert said.host.name == os.uname().nodename
    assert said.network.prefix == "/coreos.com/network"
    assert said.network.backend is None
    (condition,) = said.conditions
    assert (condition.code, condition.severity, condition.text) == ("store-unreachable", "error", "no answer")
    assert (condition.means, condition.remedy, condition.since) == (STORE_DOWN.means, STORE_DOWN.remedy, NOW)


def test_network_host_lease_and_kernel_are_told(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.learn(ONE)
        said = await describe(bench.desk)
        network, host = said.network, said.host
        assert (network.ipv4, network.backend, network.device) == ("10.2.0.0/16", "vxlan", "flannel.1")
        assert (network.mtu, network.port, network.vni) == (1450, 8472, 1)
        assert (host.interface, host.ipv4, host.mtu) == ("ens33", "172.16.41.131", 1500)
        assert said.lease.subnet == "10.2.71.0/24"
        assert not said.lease.reserved
        assert said.lease.expires is not None
        assert said.lease.renewed is not None
        assert said.lease.expires - said.lease.renewed == pytest.approx(86400)
        assert said.store.kind == "etcd v3"
        assert said.kernel.wanted["Route"] == said.kernel.wanted["FdbEntry"] == 1
        assert (said.kernel.failed, said.kernel.audits, said.kernel.complete) == ({}, {"start": 1}, True)
        assert (said.firewall.wanted, said.outputs.written) == (False, False)
        assert said.outputs.subnet_file == str(tmp_path / "subnet.env")
        (device,) = said.devices
        assert (device.name, device.tx_bytes, device.rx_packets) == ("flannel.1", 10, 2)

    with_bench(tmp_path, scenario)


def test_a_peer_is_told_with_what_is_seen_of_it(tmp_path: Path) -> None:
    sights: Mapping[Subnet, Sight] = {ONE.subnet: Sight(Reach.LOSSY, "3 of 10 lost", 0.002, 0.3, 1450, NOW)}

    async def scenario(bench: Bench) -> None:
        await bench.learn(ONE, OTHER)
        bench.desk.parts = replace(bench.parts, sights=lambda of: {each: sights[each] for each in of if each in sights})
        peers = by_subnet((await describe(bench.desk)).peers)
        assert peers["10.2.41.0/24"] == PeerPart(
            *("10.2.41.0/24", None, "172.16.41.132", None, "vxlan", "lossy", "3 of 10 lost"),
            *(0.002, 0.3, 1450, NOW, NOW),
        )
        assert (peers["10.2.42.0/24"].state, peers["10.2.42.0/24"].reason) == ("unknown", "")

    with_bench(tmp_path, scenario)


def test_our_own_lease_is_no_peer(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.learn(ONE, vxlan_lease("10.2.71.0/24", "172.16.41.131", Mac.parse("02:00:00:00:00:01")))
        assert len((await describe(bench.desk)).peers) == 1

    with_bench(tmp_path, scenario)


def test_a_record_of_no_use_is_told_with_the_reason(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.learn(ONE, vxlan_lease("10.9.42.0/24", "172.16.41.133"))
        peer = by_subnet((await describe(bench.desk)).peers)["10.9.42.0/24"]
        assert peer.state == "ignored"
        assert "10.9.42.0/24" in peer.reason or "network" in peer.reason

    with_bench(tmp_path, scenario)


def test_a_peer_that_the_kernel_refuses_is_told_with_what_it_said(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        bench.kernel.fault = lambda op: (
            errno.ENOMEM if isinstance(op.item, Route) and op.item.dst == ONE.subnet.ipv4 else None
        )
        await bench.learn(ONE, OTHER)
        said = await describe(bench.desk)
        peers = by_subnet(said.peers)
        assert peers["10.2.41.0/24"].state == "failed"
        assert "Cannot allocate memory" in peers["10.2.41.0/24"].reason
        assert peers["10.2.42.0/24"].state == "unknown"
        assert said.kernel.failed == {"Route": 1}

    with_bench(tmp_path, scenario)


def test_repairs_are_told_by_kind(tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.learn(ONE)
        bench.kernel.remove(next(item for item in bench.network.items() if isinstance(item, Route)))
        async with asyncio.TaskGroup() as tasks:
            lane = tasks.create_task(bench.reconciler.run(), name="audits")
            bench.reconciler.mark_dirty()
            await asyncio.sleep(1)
            lane.cancel()
        assert (await describe(bench.desk)).kernel.repairs == {"Route": 1}

    with_bench(tmp_path, scenario)


def test_no_secret_of_the_store_is_told() -> None:
    settings = replace(Settings(), etcd_endpoints=("http://root:hunter2@127.0.0.1:2379", "https://10.0.0.1:2379"))
    said = run(describe(Desk(settings, Health())))
    assert said.store.endpoints == ("http://127.0.0.1:2379", "https://10.0.0.1:2379")
    local = replace(Settings(), store="local:/var/lib/flannel/leases.db")
    assert run(describe(Desk(local, Health()))).store.endpoints == ("local:/var/lib/flannel/leases.db",)


def test_a_port_is_told_where_a_backend_has_one_and_no_device_where_it_has_none(tmp_path: Path) -> None:
    async def scenario() -> None:
        udp = (await describe(Bench(tmp_path, config('{"Type":"udp"}')).desk)).network
        assert (udp.backend, udp.port, udp.vni) == ("udp", 8285, None)
        hostgw = (await describe(Bench(tmp_path, config('{"Type":"host-gw"}')).desk)).network
        assert (hostgw.device, hostgw.port) == (None, None)

    run(scenario())


def test_thousands_of_peers_do_not_hold_up_the_loop(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path, config(network="10.0.0.0/8"))
        macs = (Mac((0x02_00_00_01_00_00 + number).to_bytes(6)) for number in range(20 * PORTION))
        leases = [
            vxlan_lease(f"10.{number >> 8}.{number & 255}.0/24", f"172.17.{number >> 8}.{number & 255}", mac)
            for number, mac in enumerate(macs, 256 * 100)
        ]
        await bench.learn(*leases)
        breaths = 0

        async def breathe() -> None:
            nonlocal breaths
            while True:
                breaths += 1
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as tasks:
            other = tasks.create_task(breathe(), name="somebody else")
            assert len((await describe(bench.desk)).peers) == 20 * PORTION
            other.cancel()
        assert breaths >= 20

    run(scenario())
