"""Thousands of peers on a real kernel: while metrics are spread, or no longer, no route is missing for a moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network

import pytest

from pyflannel.diff import Op, diff
from pyflannel.lease.model import Changes as News
from pyflannel.lease.model import Lease, Removed, Snapshot
from pyflannel.linux.kernel import LinuxKernel
from pyflannel.linux.netlink import messages, open_socket
from pyflannel.linux.routes import RTM_DELROUTE, RTM_NEWROUTE, RTMSG, read
from pyflannel.network import Network
from pyflannel.state import Mac, Route, State
from tests.support.builders import backend, view, vxlan_lease
from tests.support.namespaces import Namespace

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth")

BOUND = 300
"""Of the network under test; how many there are changes nothing about what is tested here."""
RTMGRP_IPV4_ROUTE = 0x40


class Watcher:
    """Follows every route the kernel gains or loses, in order."""

    def __init__(self, space: Namespace, index: int, present: Sequence[Route]) -> None:
        self._socket = open_socket(str(space.path), 64 << 20)
        self._socket.bind((0, RTMGRP_IPV4_ROUTE))
        self._index = index
        self._standing = Counter(route.dst for route in present)

    def missed(self) -> list[IPv4Network]:
        """The destinations that had no route at some moment since the last look; something must have happened."""
        gaps, changes = [], 0
        for kind, route in self._events():
            assert isinstance(route.dst, IPv4Network)
            changes += 1
            self._standing[route.dst] += 1 if kind == RTM_NEWROUTE else -1
            if not self._standing[route.dst]:
                gaps.append(route.dst)
        assert changes
        return gaps

    def close(self) -> None:
        self._socket.close()

    def _events(self) -> Iterator[tuple[int, Route]]:
        while True:
            try:
                datagram = self._socket.recv(64 << 10)
            except BlockingIOError:
                return  # the kernel tells of a change before the call returns that made it
            for message in messages(datagram):
                if message.type in (RTM_NEWROUTE, RTM_DELROUTE) and len(message.body) >= RTMSG.size:
                    for route in read(message.body, self._index, "flannel.1"):
                        yield message.type, route


class Host:
    """A kernel, and the network it is to carry."""

    def __init__(self, space: Namespace) -> None:
        space.run("ip link add ens33 type veth peer name far0")
        space.run("ip addr add 172.16.41.131/24 dev ens33")
        space.run("ip link set ens33 up")
        space.run("ip link set far0 up")
        self.space = space
        self.kernel = LinuxKernel(str(space.path))

    def audit(self, network: Network) -> tuple[Op, ...]:
        scope = network.backend.scope(network.view)
        ops = diff(State(network.items()), self.kernel.observe(scope))
        assert self.kernel.apply(ops).failed == ()
        return ops

    def routes(self) -> list[Route]:
        scope = backend().scope(view())
        return [item for item in self.kernel.observe(scope).items_of(Route) if isinstance(item, Route)]

    def watcher(self) -> Watcher:
        index = int(str(self.space.objects("ip -j link show flannel.1")[0]["ifindex"]))
        return Watcher(self.space, index, self.routes())


@pytest.fixture
def host() -> Iterator[Host]:
    with Namespace("scale") as space:
        made = Host(space)
        yield made
        made.kernel.close()


def crowd(size: int) -> tuple[Lease, ...]:
    nets = IPv4Network("10.2.80.0/20").subnets(new_prefix=30)
    return tuple(
        vxlan_lease(str(net), "172.16.41.140", Mac(b"\x02\0\0\1" + number.to_bytes(2)))
        for number, net in zip(range(size), nets, strict=False)
    )


def network(size: int, bound: int = BOUND) -> Network:
    made = Network(backend(), view(), spread_above=bound, spread_below=bound)
    made.fold(Snapshot(1, crowd(size)))
    return made


def test_a_peer_that_comes_or_goes_at_the_bound_costs_no_other_a_packet(host: Host) -> None:
    followed = network(BOUND)
    host.audit(followed)
    assert {route.metric for route in host.routes()} == {0}
    watcher = host.watcher()
    *_, last = crowd(BOUND + 1)
    for spread, news in (
        (True, News(2, (last,))),
        (False, News(3, (Removed(last.subnet), Removed(crowd(1)[0].subnet)))),
    ):
        replan = followed.fold(news)
        assert host.kernel.apply(diff(State(replan.new), State(replan.old))).failed == ()
        assert all((route.metric > 0) == spread for route in host.routes())
        gone = set() if spread else {last.subnet.ipv4, crowd(1)[0].subnet.ipv4}
        assert set(watcher.missed()) == gone
        assert host.audit(followed) == ()
    watcher.close()


@pytest.mark.parametrize("bounds", [(BOUND, 1), (1, BOUND)], ids=["from spread to plain", "from plain to spread"])
def test_routes_of_an_earlier_run_are_replaced_without_a_gap(host: Host, bounds: tuple[int, int]) -> None:
    size = 100
    # A bound of one spreads the metrics of a hundred peers, a high one does not.
    later, earlier = bounds
    host.audit(network(size, earlier))
    before = host.routes()
    watcher = host.watcher()
    host.audit(network(size, later))
    after = host.routes()
    assert watcher.missed() == []
    assert len(after) == size
    assert {route.dst for route in before} == {route.dst for route in after}
    assert not {route.key for route in before} & {route.key for route in after}
    watcher.close()
