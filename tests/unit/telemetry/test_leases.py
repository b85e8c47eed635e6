from __future__ import annotations

import logging

import pytest

from pyflannel.health import Health
from pyflannel.lease.model import Changes, Lease, Removed, Snapshot, Unreadable
from pyflannel.network import Network
from pyflannel.telemetry.leases import MANY, announce
from tests.support.builders import OWN_MAC, backend, view, vxlan_lease

PEER = vxlan_lease("10.2.41.0/24", "172.16.41.132")


def heard(*news: Snapshot | Changes) -> Health:
    network, health = Network(backend(), view()), Health()
    for each in news:
        announce(health, network, network.fold(each))
    return health


def test_peers_are_announced_when_they_come_and_go(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pyflannel")
    heard(Snapshot(1, (PEER,)), Changes(2, (Removed(PEER.subnet),)))
    assert caplog.messages == [
        "Subnet added: 10.2.41.0/24 via 172.16.41.132",
        "Subnet removed: 10.2.41.0/24 via 172.16.41.132",
    ]


def test_many_at_once_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    def lease(number: int) -> Lease:
        return vxlan_lease(f"10.2.{number}.0/24", f"172.16.42.{number}", type(OWN_MAC)(bytes([2, 0, 0, 0, 1, number])))

    caplog.set_level(logging.INFO, "pyflannel")
    heard(Snapshot(1, tuple(lease(number) for number in range(100, 100 + MANY))))
    assert caplog.messages == [f"Subnets added: {MANY}"]


def test_records_of_no_use_are_conditions_for_as_long_as_they_are_there() -> None:
    ours = vxlan_lease("10.2.43.0/24", "172.16.41.133", OWN_MAC)
    bad = Unreadable("/coreos.com/network/subnets/10.2.44.0-24", "not JSON")
    health = heard(Snapshot(1, (PEER, ours), (bad,)))
    assert {each.subject for each in health.present()} == {"10.2.43.0/24", bad.key}
    assert all(each.text.startswith(f"Ignoring lease {each.subject}: ") for each in health.present())
    assert heard(Snapshot(1, (PEER, ours), (bad,)), Snapshot(2, (PEER,))).present() == ()
