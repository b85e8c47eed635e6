"""Two hundred hosts look for a subnet at the same moment, in a store that has troubles of its own meanwhile.

The hosts are those of ``tests.support.allocator``: all of an agent that deals with the store.  Some share a process,
because two hundred processes are too many for the machines tests run on; ``python -m tests.bench allocators`` has one
for each.
"""

from __future__ import annotations

from ipaddress import IPv4Network
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.allocator import public_ip
from tests.support.fleet import Fleet
from tests.support.fleet_stores import PATIENCE_S, Opener, Shared, etcd2, etcd3, local

HOSTS = 200
PROCESSES = 4
AS_MANY = '{"Network":"10.2.0.0/16","SubnetLen":24,"SubnetMin":"10.2.1.0","SubnetMax":"10.2.200.0"}'
FIVE_TIMES = '{"Network":"10.2.0.0/16","SubnetLen":26,"SubnetMin":"10.2.1.0","SubnetMax":"10.2.250.192"}'


@pytest.mark.parametrize(
    "network",
    [pytest.param(AS_MANY, id="as many subnets as hosts"), pytest.param(FIVE_TIMES, id="five times as many")],
)
@pytest.mark.parametrize(
    "store",
    [
        pytest.param(etcd3, id="etcd3", marks=pytest.mark.needs("etcd")),
        pytest.param(etcd2, id="etcd2", marks=pytest.mark.needs("etcd")),
        pytest.param(local, id="local"),
    ],
)
def test_each_host_gets_one_subnet_of_its_own_and_none_ends(tmp_path: Path, store: Opener, network: str) -> None:
    with store(tmp_path, network) as shared, Fleet(tmp_path / "hosts", shared.where, HOSTS, PROCESSES) as fleet:
        shared.begin_in_trouble(fleet)
        fleet.until(lambda: len(fleet.subnets) == HOSTS, "all have a lease", PATIENCE_S)
        fleet.until(lambda: all_know(fleet, shared), "all know of each other", PATIENCE_S)
        held = {subnet: str(public_ip(host)) for host, subnet in fleet.subnets.items()}
        assert sorted(held.values()) == sorted(str(public_ip(host)) for host in range(HOSTS))
        assert not any(lower.overlaps(upper) for lower, upper in pairwise(sorted(map(IPv4Network, held))))
        assert shared.leases() == held
        assert fleet.lost == []
        assert set(fleet.dismiss()) == {0}
        assert fleet.final == fleet.subnets
        assert shared.leases() == held


def all_know(fleet: Fleet, shared: Shared) -> bool:
    """Whether every host knows exactly what stands in the store."""
    fleet.ask(PATIENCE_S)
    leases = shared.leases()
    return all(known == leases for known in fleet.knows.values())
