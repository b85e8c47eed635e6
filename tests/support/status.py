"""Status documents, and an agent's parts, with everything filled in that a test does not care about."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pyflannel.backends.api import Backend
from pyflannel.durations import Durations
from pyflannel.guard import Guard, Policy
from pyflannel.health import Health
from pyflannel.keeper import Keeper
from pyflannel.lease.model import LEASE_TTL, Lease, Snapshot
from pyflannel.lease.network import NetworkConfig
from pyflannel.network import Network
from pyflannel.outputs import SubnetEnv
from pyflannel.publisher import Publisher
from pyflannel.reconcile import Reason, Reconciler, Tally
from pyflannel.settings import Settings
from pyflannel.store.metered import Meter
from pyflannel.telemetry.desk import Desk, Parts
from pyflannel.telemetry.document import (
    AgentPart,
    ConditionPart,
    DevicePart,
    Document,
    FirewallPart,
    HostPart,
    KernelPart,
    LeasePart,
    NetworkPart,
    OutputsPart,
    PeerPart,
    StorePart,
)
from pyflannel.telemetry.metrics import Measured
from pyflannel.telemetry.roster import Roster
from pyflannel.telemetry.usage import Usage
from pyflannel.tenancy import Tenant
from tests.support.builders import OWN_MAC, backend, config, underlay, view
from tests.support.fake_kernel import FakeKernel, Hardware
from tests.support.memory_store import MemoryData, MemoryStore

NOW = 1_800_000_000.0
TROUBLE = ConditionPart(
    "store-unreachable", "error", "", "the store does not answer: refused", "No member answers.", "Look.", NOW - 90
)
USAGE = Usage(12.5, 30_000_000, 21)
PEER = PeerPart(
    subnet="10.2.41.0/24",
    public_ip="172.16.41.132",
    backend="vxlan",
    state="reachable",
    rtt=0.0012,
    loss=0.0,
    mtu=1450,
    heard=NOW - 5,
    changed=NOW - 7200,
)


def document(*conditions: ConditionPart, peers: Iterable[PeerPart] = (PEER,)) -> Document:
    """That of an agent which runs well, but for these conditions."""
    return Document(
        agent=AgentPart("0.1.0", 812, NOW - 3 * 86400, "running"),
        host=HostPart("host2", "ens33", "172.16.41.131", None, 1500),
        network=NetworkPart("/coreos.com/network", "10.2.0.0/16", None, "vxlan", "flannel.1", 1450, 8472, 1),
        devices=(DevicePart("flannel.1", 1000, 2000, 10, 20),),
        lease=LeasePart("10.2.71.0/24", None, NOW + 16 * 3600, False, NOW - 8 * 3600),
        store=StorePart("etcd v3", ("http://172.16.41.130:2379",), True, NOW - 3 * 86400, 2, NOW - 4),
        kernel=KernelPart({"Link": 1, "Route": 1}, {}, {"start": 2}, {}, True),
        firewall=FirewallPart(True, True),
        outputs=OutputsPart("/run/flannel/subnet.env", True),
        peers=tuple(peers),
        conditions=conditions,
    )


def watched(said: Document) -> Measured:
    """All that metrics are taken from, with something in each of them."""
    tally, took = Tally(), Durations()
    tally.audits[Reason.START] = 2
    tally.repairs[Reason.EVENT, "Route"] = 3
    tally.writes.note(0.004)
    took.note(0.02)
    meter = Meter(requests={"leases": took}, answers=True, heard=NOW - 3)
    meter.errors["renew"] = 4
    return Measured(said, meter, USAGE, True, tally, 1)


class Bench:
    """The parts of an agent over a fake kernel and a store in memory, and the desk they are seen at."""

    def __init__(self, directory: Path, network: NetworkConfig | None = None, *, kind: Backend | None = None) -> None:
        self.health = Health(now=lambda: NOW)
        config_ = network or config()
        self.view = view(config_)
        self.network = Network(kind or backend(config_), self.view)
        self.kernel = FakeKernel(Hardware("ens33"))
        clock = asyncio.get_running_loop().time
        self.reconciler = Reconciler(self.kernel, lambda: 0.5, clock, self.health)
        attrs = self.network.backend.attrs(underlay(), {"flannel.1": OWN_MAC})
        lease = Lease(self.view.own, attrs, ttl=LEASE_TTL)
        keeper = Keeper(MemoryStore(MemoryData()), Tenant(config_, attrs, None, 3600.0), lease, random.Random(1), clock)
        guard = Guard(config_, self.view.own, Policy(masquerade=False, forward=False, random_fully=False))
        env = SubnetEnv(None, None, None, None, 1450, False)
        self.publisher = Publisher(directory / "subnet.env", env, self.health)
        self.roster = Roster(lambda: NOW)
        self.parts = Parts(
            *("etcd v3", self.network, keeper, self.reconciler, guard, self.publisher, self.roster),
        )
        settings = replace(Settings(), subnet_file=str(directory / "subnet.env"))
        self.desk = Desk(settings, self.health, Meter(now=lambda: NOW), self.parts, started=NOW)

    async def learn(self, *leases: Lease) -> None:
        """All leases there are."""
        replan = self.network.fold(Snapshot(1, leases))
        self.roster.learn(replan)
        self.reconciler.want(self.network.items(), self.network.scope())
        await self.reconciler.audit()
        self.reconciler.complete = True
