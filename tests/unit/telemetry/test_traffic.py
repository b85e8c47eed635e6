"""Who counts what, put together with the peers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from pyflannel.backends.wireguard import Wireguard
from pyflannel.lease.model import Attrs, Lease, Snapshot
from pyflannel.linux import counters
from pyflannel.linux.counters import Traffic
from pyflannel.linux.kernel import KernelError
from pyflannel.network import Network
from pyflannel.state import Forwarding
from pyflannel.telemetry import traffic
from pyflannel.tunnel import control
from pyflannel.tunnel.counters import Counters
from pyflannel.tunnel.messages import Statistics
from pyflannel.tunnel.packet import Drop
from pyflannel.tunnel.peers import Endpoint
from pyflannel.wireguard import PublicKey, WireguardPeer
from tests.support.builders import backend, config, subnet, view, vxlan_lease
from tests.support.wireguard_items import OWN, key


def network(kind: str, *leases: Lease) -> Network:
    """One of this type, where these are known."""
    configured = config(f'{{"Type":"{kind}"}}')
    ours = backend(configured)
    made = Network(replace(ours, keys=OWN) if isinstance(ours, Wireguard) else ours, view(configured))
    made.fold(Snapshot(1, leases))
    return made


def lease(net: str, ip: str, data: str | None = None, kind: str = "") -> Lease:
    return Lease(subnet(net), Attrs(IPv4Address(ip), None, kind, data), created=3)


def test_every_device_that_is_there_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "through", lambda dev: Traffic(1, 2, 3, 4) if dev == "flannel.1" else None)
    assert traffic.of_devices(network("vxlan")) == {"flannel.1": Traffic(1, 2, 3, 4)}
    assert traffic.of_devices(network("host-gw")) == {}


def test_a_kernel_that_does_not_tell_is_no_reason_to_tell_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_dev: str) -> Traffic:
        raise KernelError("looking up device", 1)

    monkeypatch.setattr(counters, "through", refuse)
    assert traffic.of_devices(network("vxlan")) == {}


def test_nobody_counts_the_peers_of_vxlan(tmp_path: Path) -> None:
    assert asyncio.run(traffic.of_peers(network("vxlan", vxlan_lease()), tmp_path)) == {}


def test_octets_to_a_wireguard_peer_are_found_by_its_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    counted = {key(2): Traffic(10, 20), key(9): Traffic(1, 1)}
    monkeypatch.setattr(counters, "by_peer", lambda _dev: counted)
    one = lease("10.2.41.0/24", "172.16.41.132", f'{{"PublicKey":"{key(2)}"}}', "wireguard")
    other = lease("10.2.42.0/24", "172.16.41.133", f'{{"PublicKey":"{key(3)}"}}', "wireguard")
    known = network("wireguard", one, other)
    assert any(isinstance(item, WireguardPeer) for item in known.items_of(one.subnet))
    assert asyncio.run(traffic.of_peers(known, tmp_path)) == {one.subnet: Traffic(10, 20)}


def test_a_wireguard_device_that_cannot_be_asked_counts_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(_dev: str) -> dict[PublicKey, Traffic]:
        raise KernelError("listing the peers", 1)

    monkeypatch.setattr(counters, "by_peer", refuse)
    assert asyncio.run(traffic.of_peers(network("wireguard"), tmp_path)) == {}


class Forwarder:
    """What a forwarder says of its peers."""

    def __enter__(self) -> Forwarder:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def statistics(self) -> Statistics:
        counted = Counters(packets_out=1, bytes_out=100, packets_in=2, bytes_in=200, drops={Drop.TTL: 3})
        return Statistics(((Endpoint(IPv4Address("172.16.41.132"), 8285), counted),), False, Counters())


def test_the_forwarder_counts_by_host_and_of_several_subnets_there_the_first_has_it_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Path] = []

    def connect(path: Path, _patience_s: float) -> Forwarder:
        asked.append(path)
        return Forwarder()

    monkeypatch.setattr(control.Remote, "connect", connect)
    one, twin = lease("10.2.41.0/24", "172.16.41.132"), lease("10.2.43.0/24", "172.16.41.132")
    known = network("udp", one, twin, lease("10.2.42.0/24", "172.16.41.133"))
    assert any(isinstance(item, Forwarding) for item in known.items_of(one.subnet))
    assert asyncio.run(traffic.of_peers(known, tmp_path)) == {one.subnet: Traffic(100, 200, 1, 2, {"ttl": 3})}
    assert asked == [tmp_path / "flannel0.sock"]


def test_where_no_forwarder_runs_nothing_is_counted(tmp_path: Path) -> None:
    known = network("udp", lease("10.2.41.0/24", "172.16.41.132"))
    assert asyncio.run(traffic.of_peers(known, tmp_path)) == {}
