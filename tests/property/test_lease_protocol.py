"""The lease protocol as a whole: hosts, a store, and every misfortune we know of, in any order.

Never do two running hosts go on believing in overlapping subnets once both can reach the store; no host touches a
record that is not its own; and when all is quiet, every host holds exactly the record the store has of it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import wraps
from ipaddress import IPv4Address
from itertools import combinations
from typing import TypeAlias, TypeVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pyflannel.lease.alloc import OutOfSubnets, choose
from pyflannel.lease.model import LEASE_TTL, Attrs, Lease, Subnet
from pyflannel.lease.network import NetworkConfig, parse_network_config
from pyflannel.lease.wire import BadRecord, decode_attrs, encode_attrs, subnet_name
from tests.support.lease_world import PROMPT, Fate, Host, World, attrs_of
from tests.support.loops import jumping_runner
from tests.support.memory_store import MemoryData, MemoryStore, Record

T = TypeVar("T")
NETWORKS = [
    parse_network_config(f'{{"Network":"10.2.0.0/27","SubnetLen":30,{more}"Backend":{{"Type":"vxlan"}}}}')
    for more in ("", '"EnableIPv6":true,"IPv6Network":"fd00:2::/61","IPv6SubnetLen":64,')
]
LATENCIES = [0.2, 0.5, 1.0]
"""Seconds for which a request, and its answer, are on their way."""
TIMES = [0.0, 0.1, 0.3, 0.6, 1.0, 2.5, 10.0, 60.0, 400.0]
FATES = [PROMPT, Fate(lost=True), Fate(mute=True), Fate(0.4), Fate(3.0), Fate(7.0), Fate(40.0)]
GRACE = 90.0
"""Seconds after a disturbance in which a host may not have learnt yet that its subnet is another's."""
CALM = 700.0
"""Seconds after which nothing is left to be done once nothing happens any more."""
ADDRESSES = [IPv4Address(0xAC102980 + number) for number in range(1, 9)]
STRANGERS = [attrs_of(IPv4Address("172.16.99.1"), 0x71), attrs_of(IPv4Address("172.16.99.2"), 0x72)]

which = st.integers(0, 7)


Act: TypeAlias = Callable[..., None]
any_rule: Callable[..., Callable[[Act], Act]] = rule


def happening(**drawn: st.SearchStrategy[object]) -> Callable[[Act], Act]:
    """A rule after which some time passes: often less than a request takes."""

    def decorate(act: Act) -> Act:
        @any_rule(then=st.sampled_from(TIMES), **drawn)
        @wraps(act)
        def happens(self: LeaseProtocol, then: float, **given: object) -> None:
            act(self, **given)
            self.run(asyncio.sleep(then))

        return happens

    return decorate


class LeaseProtocol(RuleBasedStateMachine):
    """Nothing is drawn while time passes: what the rules do is all the chance there is."""

    compares = True

    def __init__(self) -> None:
        super().__init__()
        self.runner = jumping_runner()
        self.now = self.runner.get_loop().time
        self.data = MemoryData(clock=self.now)
        self.hosts: list[Host] = []
        self.overlap_since: dict[tuple[Host, Host], float] = {}
        self.backups: list[tuple[int, dict[str, Record]]] = []
        self.failed = False

    def run(self, part: Coroutine[object, object, T]) -> T:
        return self.runner.run(part)

    @initialize(
        network=st.sampled_from(NETWORKS),
        latencies=st.lists(st.sampled_from(LATENCIES), min_size=2, max_size=6),
        up=st.booleans(),
    )
    def begin(self, network: NetworkConfig, latencies: list[float], up: bool) -> None:
        self.world = World(self.data, network, compares=self.compares)
        for number, latency in enumerate(latencies, start=1):
            self.hosts.append(Host(self.world, number, ADDRESSES[number - 1], latency))
        if up:
            for host in self.hosts:
                self.start(host)
            self.run(asyncio.sleep(20))

    # What the hosts do

    def host(self, number: int) -> Host:
        return self.hosts[number % len(self.hosts)]

    def free_address(self, number: int, besides: Host) -> IPv4Address:
        used = {host.addresses[-1] for host in self.hosts if host is not besides}
        left = [address for address in ADDRESSES if address not in used]
        return left[number % len(left)]

    def start(self, host: Host) -> None:
        async def begin() -> None:
            host.start()

        self.run(begin())

    @happening(number=which)
    def host_starts(self, number: int) -> None:
        if self.host(number).task is None:
            self.start(self.host(number))

    @happening()
    def all_hosts_start(self) -> None:
        for host in self.hosts:
            if host.task is None:
                self.start(host)

    @happening(number=which, forgets=st.sampled_from(["nothing", "subnet.env", "cache", "both"]))
    def host_crashes(self, number: int, forgets: str) -> None:
        host = self.host(number)
        self.run(host.crash())
        if forgets in ("subnet.env", "both"):
            host.previous = None
        if forgets in ("cache", "both"):
            host.written = None

    @happening(number=which)
    def host_stops(self, number: int) -> None:
        self.run(self.host(number).stop())

    @happening(number=which, address=which)
    def host_moves(self, number: int, address: int) -> None:
        host = self.host(number)
        host.move(self.free_address(address, host))

    @happening(number=which)
    def host_is_suspended(self, number: int) -> None:
        self.host(number).slept += 9 * 3600.0

    # What happens to requests

    @happening(number=which, fates=st.lists(st.sampled_from(FATES), min_size=1, max_size=4))
    def requests_go_astray(self, number: int, fates: list[Fate]) -> None:
        self.host(number).line.fates.extend(fates)

    @happening(number=which)
    def line_is_cut(self, number: int) -> None:
        self.host(number).line.cut = True

    @happening(number=which)
    def line_is_mended(self, number: int) -> None:
        line = self.host(number).line
        line.disturbed_at, line.cut = max(line.disturbed_at, self.now()) if line.cut else line.disturbed_at, False

    # What happens to the store

    def name(self, number: int) -> str | None:
        names = sorted(self.data.records)
        return names[number % len(names)] if names else None

    @happening(number=which)
    def record_goes(self, number: int) -> None:
        """It expires, is revoked, or somebody deletes it."""
        if (name := self.name(number)) is not None:
            self.data.delete(name)

    @happening(number=which, attrs=st.sampled_from(STRANGERS), reserved=st.booleans())
    def stranger_overwrites(self, number: int, attrs: Attrs, reserved: bool) -> None:
        """As Go flannel of old does with a copied subnet.env."""
        if (name := self.name(number)) is not None:
            self.data.put(name, encode_attrs(attrs), None if reserved else LEASE_TTL)

    @happening(number=which, mac=st.integers(0x61, 0x63))
    def another_agent_takes_over(self, number: int, mac: int) -> None:
        """Go flanneld, started where ours runs already."""
        name = self.name(number)
        attrs = None if name is None else self.understood(name)
        if name is not None and attrs is not None and attrs.public_ip is not None:
            self.data.put(name, encode_attrs(attrs_of(attrs.public_ip, mac)), LEASE_TTL)

    @happening(block=st.integers(0, 31), length=st.sampled_from([29, 31]), attrs=st.sampled_from(STRANGERS))
    def stranger_blunders_in(self, block: int, length: int, attrs: Attrs) -> None:
        """Another length of subnet, as while the configuration is being changed, on top of whatever is there."""
        number = 0x0A020000 + (block >> (32 - length) << (32 - length))
        self.data.put(f"{IPv4Address(number)}-{length}", encode_attrs(attrs), LEASE_TTL)

    @happening(number=which, reserved=st.booleans())
    def operator_reserves(self, number: int, reserved: bool) -> None:
        if (name := self.name(number)) is not None:
            self.data.put(name, self.data.records[name].value, None if reserved else LEASE_TTL)

    @happening(number=which)
    def operator_mistypes(self, number: int) -> None:
        if (name := self.name(number)) is not None:
            self.data.put(name, "not JSON", None)

    @happening()
    def backup_is_made(self) -> None:
        self.backups.append((self.data.revision, dict(self.data.records)))

    @precondition(lambda self: self.backups)
    @happening(number=which)
    def backup_is_restored(self, number: int) -> None:
        self.data.revision, records = self.backups[number % len(self.backups)]
        self.data.records = dict(records)
        self.data.compact()
        self.world.restarts += 1
        self.world.back_at = self.now() + 1.0

    # What must hold

    @invariant()
    def nothing_forbidden_happened(self) -> None:
        flaws = [*self.world.flaws, *(self.death(host) for host in self.hosts), *self.double_owners()]
        self.fail_with([flaw for flaw in flaws if flaw])

    def teardown(self) -> None:
        try:
            if not self.failed and self.hosts:
                self.calm_down()
                self.nothing_forbidden_happened()
                both = [f"{one.name} and {other.name} both hold {one.holds}" for one, other in self.overlapping()]
                self.fail_with(both + [flaw for host in self.hosts for flaw in self.unfinished(host)])
        finally:
            self.runner.close()

    def fail_with(self, flaws: list[str]) -> None:
        self.failed = bool(flaws)
        assert not flaws, flaws

    def death(self, host: Host) -> str:
        if host.task is None or not host.task.done():
            return ""
        return f"{host.name} ended: {host.task.exception()!r}"

    def overlapping(self) -> list[tuple[Host, Host]]:
        return [
            (one, other)
            for one, other in combinations(self.hosts, 2)
            if one.holds is not None and other.holds is not None and one.holds.overlaps(other.holds)
            # While nobody can read a record, nobody can tell that it is a host's.
            if self.is_readable(one.holds) and self.is_readable(other.holds)
        ]

    def is_readable(self, subnet: Subnet) -> bool:
        name = subnet_name(subnet)
        return name not in self.data.records or self.understood(name) is not None

    def double_owners(self) -> list[str]:
        """Who has believed for too long to hold what another host believes to hold as well."""
        now, pairs = self.now(), self.overlapping()
        self.overlap_since = {pair: self.overlap_since.get(pair, now) for pair in pairs}
        flaws = []
        for one, other in pairs:
            excuses = [now if host.line.cut else host.line.disturbed_at for host in (one, other)]
            since = max(self.overlap_since[one, other], *excuses, self.world.back_at)
            if now - since > GRACE:
                flaws.append(f"{one.name} and {other.name} have both held {one.holds} for {now - since:.0f} s")
        return flaws

    def calm_down(self) -> None:
        """All that is broken is mended, and there is time; in the end, for a renewal as well."""
        for host in self.hosts:
            host.line.cut = False
            host.line.fates.clear()
        for name in list(self.data.records):
            if self.understood(name) is None:
                self.data.delete(name)
        self.run(asyncio.sleep(CALM))
        for host in self.hosts:
            host.slept += 9 * 3600.0
        self.run(asyncio.sleep(60))

    def unfinished(self, host: Host) -> list[str]:
        """What is wrong with a host after all that time."""
        if host.task is None:
            return []
        if host.keeper is None:
            return [] if self.is_full() else [f"{host.name} has no lease, though there are free subnets"]
        lease = host.keeper.lease
        record = self.data.records.get(subnet_name(lease.subnet))
        if record is None or record.value != encode_attrs(host.attrs) or lease.attrs != host.attrs:
            return [f"{host.name} holds {lease}, and the store says {record}"]
        if lease.modified != record.modified:
            return [f"{host.name} holds {lease.subnet} as of revision {lease.modified}, and the store says {record}"]
        older = [
            other
            for other in self.run(MemoryStore(self.data).leases()).leases
            if other.created < record.created and not other.reservation and self.cuts_off(other, host)
        ]
        return [f"{host.name} holds {lease.subnet}, but peers go by {each}" for each in older]

    def cuts_off(self, other: Lease, host: Host) -> bool:
        """Whether an older record has the MAC address of ``host``, and should have been given back."""
        if self.world.restarts:
            # A backup may bring back what the host said at another address before it lost that subnet.
            return other.attrs == host.attrs
        return other.attrs.backend_data == host.attrs.backend_data

    def is_full(self) -> bool:
        snapshot = self.run(MemoryStore(self.data).leases())
        with suppress(OutOfSubnets):
            choose(self.world.config, snapshot.leases, None, None, None, random.Random(1))
            return False
        return True

    def understood(self, name: str) -> Attrs | None:
        with suppress(BadRecord):
            return decode_attrs(self.data.records[name].value)
        return None


class BlindProtocol(LeaseProtocol):
    """The same with a store that does not compare, the fault Go flannel's updates have."""

    compares = False


TestLeaseProtocol = LeaseProtocol.TestCase
TestLeaseProtocol.settings = settings(max_examples=settings().max_examples // 2, stateful_step_count=30)


def test_a_store_that_does_not_compare_is_found_out() -> None:
    one_go = settings(
        stateful_step_count=30, max_examples=300, phases=[Phase.generate], derandomize=True, database=None
    )
    with pytest.raises(AssertionError, match="changed or removed"):
        run_state_machine_as_test(BlindProtocol, settings=one_go)
