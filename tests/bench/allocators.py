"""Two hundred hosts that ask for a subnet at the same moment, each with a process of its own; members fail or do not.

The hosts have no kernel (``tests.support.allocator``).  They share this machine's processors with each other and with
the store, and the network has not one subnet more than there are hosts: what takes seconds is waiting for each other.
The clock starts when all processes stand ready.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from ipaddress import IPv4Network
from itertools import combinations
from pathlib import Path
from statistics import median

from tests.bench.table import show
from tests.support.fleet import Fleet
from tests.support.fleet_stores import Opener, etcd2, etcd3, local

HOSTS = 200
NETWORK = '{"Network":"10.2.0.0/16","SubnetLen":24,"SubnetMin":"10.2.1.0","SubnetMax":"10.2.200.0"}'
PATIENCE_S = 300.0
RUNS: Sequence[tuple[str, Opener, bool]] = (
    ("etcd v3, three members", etcd3, False),
    ("etcd v3, three members", etcd3, True),
    ("etcd v2, three members", etcd2, False),
    ("etcd v2, three members", etcd2, True),
    ("SQLite file", local, False),
)
"""Name, store, and whether it is in trouble."""


def main(_huge: bool = False) -> None:
    """Print the table, which takes some minutes."""
    head = ["store", "hosts", "members killed", "half have a lease after, s", "the last, s"]
    head += ["duplicates", "exits", "lost races"]
    show("Hosts that ask for a subnet at the same moment", head, [row(*run) for run in RUNS])


def row(name: str, store: Opener, trouble: bool) -> list[str]:
    """One run."""
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        with store(directory, NETWORK) as shared, Fleet(directory / "hosts", shared.where, HOSTS, HOSTS) as fleet:
            killed = 0
            if trouble:
                killed = shared.begin_in_trouble(fleet)
            else:
                fleet.begin()
            fleet.until(lambda: len(fleet.subnets) == HOSTS or fleet.ended() > 0, "all have a lease", PATIENCE_S)
            taken = [*map(IPv4Network, fleet.subnets.values())]
            duplicates = sum(one.overlaps(other) for one, other in combinations(taken, 2))
            exits = sum(status != 0 for status in fleet.dismiss())
            after = list(fleet.after.values())
            figures = [f"{median(after):.1f}", f"{max(after):.1f}", str(duplicates), str(exits), str(fleet.races)]
    return [name, str(HOSTS), str(killed), *figures]
