"""How the writer copes with a world that changes between two of its steps."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from pyflannel.diff import Cut, Op, Put, diff
from pyflannel.linux import links
from pyflannel.linux.devices import Devices
from pyflannel.linux.kernel import LinuxKernel
from pyflannel.linux.netlink import Ack, Conversation, Request, open_socket
from pyflannel.linux.spelling import spell
from pyflannel.linux.writer import Writer
from pyflannel.state import Route, State
from tests.support.kernel_items import DEV, LINK, SCOPE, WANT, peer
from tests.support.kernel_worlds import LinuxWorld
from tests.support.namespaces import Namespace

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge")

NEIGHBOUR, FDB, ROUTE = peer(2)
SIX = Route(ip_network("fd00:2:60::/64"), "flannel-v6.1", ip_address("fd00:2:2::"), onlink=True)


@pytest.fixture
def space() -> Iterator[Namespace]:
    with Namespace("writer") as made, LinuxKernel(made.name) as kernel:
        LinuxWorld(made, kernel)
        assert kernel.apply(diff(WANT, State())).failed == ()
        yield made


class Meddled(Conversation):
    """A conversation during which somebody does something, just before the first batch."""

    def __init__(self, space: Namespace, meddle: Callable[[], object] = lambda: None) -> None:
        super().__init__(open_socket(space.name))
        self.batches: list[int] = []
        self._meddle = [meddle]

    def batch(self, requests: Sequence[Request]) -> list[Ack]:
        if self._meddle:
            self._meddle.pop()()
        if requests:
            self.batches.append(len(requests))
        return super().batch(requests)


def carry_out(space: Namespace, ops: Sequence[Op], meddle: Callable[[], object] = lambda: None) -> list[Ack]:
    """What becomes of ``ops`` while somebody meddles."""
    conversation = Meddled(space, meddle)
    try:
        outcome = Writer(conversation, space.name).carry_out(ops)
    finally:
        conversation.close()
    assert [op for op, _ in outcome] == list(ops)
    return [ack for _, ack in outcome]


def observed(space: Namespace) -> State:
    with LinuxKernel(space.name) as kernel:
        return kernel.observe(SCOPE)


def test_a_device_replaced_by_another_of_its_name_is_found_again(space: Namespace) -> None:
    def replace_device() -> None:
        space.run(f"ip link delete {DEV}")
        space.run(spell(Put(LINK)))
        space.run(f"ip address add 10.2.1.0/32 dev {DEV}")

    assert carry_out(space, [Put(item) for item in peer(2)], replace_device) == [Ack(0)] * 3
    assert {item.key for item in peer(2)} <= observed(space).keys()


def test_a_device_that_is_gone_is_said_to_be(space: Namespace) -> None:
    ops: list[Op] = [Put(NEIGHBOUR), Cut(FDB), Put(ROUTE, ROUTE)]
    first, second, third = carry_out(space, ops, lambda: space.run(f"ip link delete {DEV}"))
    assert (first.code, second.code, third.code) == (errno.ENODEV, 0, errno.ENODEV)


def test_operations_of_a_kind_share_a_call(space: Namespace) -> None:
    conversation = Meddled(space)
    peers = [peer(number) for number in range(10, 60)]
    ops = diff(State([item for items in peers for item in items]), State())
    try:
        Writer(conversation, space.name).carry_out(ops)
    finally:
        conversation.close()
    assert conversation.batches == [50, 50, 50]


@pytest.mark.parametrize("route", [ROUTE, SIX], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize(
    "change",
    [{"protocol": 80}, {"via": None, "onlink": False}, {"metric": 2048}],
    ids=["protocol", "gateway", "metric"],
)
def test_a_route_that_changes_is_never_missing(space: Namespace, route: Route, change: dict[str, object]) -> None:
    new = replace(route, **change)  # type: ignore[arg-type]
    space.run(spell(Put(route)).replace(" add ", " replace "))
    moved = new.key != route.key
    ops: list[Op] = [Put(new), Cut(route)] if moved else [Put(new, route)]
    assert carry_out(space, ops) == [Ack(0)] * len(ops)
    assert observed(space)[new.key] == new
    assert not [item for item in observed(space).values() if isinstance(item, Route) and item.stray]


@pytest.mark.parametrize("route", [ROUTE, SIX], ids=["IPv4", "IPv6"])
def test_an_old_route_that_is_gone_already_is_no_trouble(space: Namespace, route: Route) -> None:
    new, old = replace(route, protocol=80), replace(route, protocol=81)
    space.run(spell(Cut(route)) if route == ROUTE else "ip link set lo up")
    assert carry_out(space, [Put(new, old)]) == [Ack(0)]
    assert observed(space)[new.key] == new


@pytest.mark.parametrize("route", [ROUTE, SIX], ids=["IPv4", "IPv6"])
def test_a_new_route_that_somebody_made_meanwhile_is_success(space: Namespace, route: Route) -> None:
    new = replace(route, protocol=80)
    space.run(spell(Put(route)).replace(" add ", " replace "))

    def make_it() -> None:
        space.run(spell(Cut(route)))
        space.run(spell(Put(new)))

    assert carry_out(space, [Put(new, route)], make_it) == [Ack(0)]
    assert observed(space)[new.key] == new


def test_an_ipv4_route_is_replaced_without_a_gap(space: Namespace) -> None:
    # What the kernel reports is what packets met: the new route comes before the old one goes.
    new = replace(ROUTE, via=ip_address("10.2.3.0"))
    assert carry_out(space, [Put(new, ROUTE)]) == [Ack(0)]
    conversation = Meddled(space)
    try:
        Writer(conversation, space.name).carry_out([Put(ROUTE, new)])
    finally:
        conversation.close()
    assert conversation.batches == [1, 1]


def test_something_that_is_not_on_a_device_is_a_mistake_of_ours(space: Namespace) -> None:
    setting = next(item for item in WANT.values() if type(item).__name__ == "Sysctl")
    assert carry_out(space, [Cut(setting)]) == [Ack(0)]


class Elder(Conversation):
    """A kernel before 6.2, which renames a device only while that is down."""

    def __init__(self, space: Namespace) -> None:
        super().__init__(open_socket(space.name))
        self._device = Devices(self).look("foo")
        self._up = True

    def batch(self, requests: Sequence[Request]) -> list[Ack]:
        assert self._device is not None
        if self._up and list(requests) == [links.rename(self._device.index, DEV)]:
            return [Ack(errno.EBUSY)]
        self._up = self._up and links.set_down(self._device.index) not in requests
        return super().batch(requests)


def test_a_device_is_renamed_even_where_that_takes_it_down(space: Namespace) -> None:
    space.run(f"ip link set {DEV} name foo")
    conversation = Elder(space)
    op = Put(LINK, replace(LINK, misnamed="foo"))
    try:
        ((_, ack),) = Writer(conversation, space.name).carry_out([op])
    finally:
        conversation.close()
    assert ack.code == 0
    assert observed(space)[LINK.key] == LINK
    assert ROUTE.key not in observed(space)


def test_a_renamed_device_that_is_gone_is_said_to_be(space: Namespace) -> None:
    (ack,) = carry_out(space, [Put(LINK, replace(LINK, misnamed="foo"))])
    assert ack.code == errno.ENODEV


def test_a_stray_of_a_scope_we_never_make_goes_whether_or_not_another_route_is_there(space: Namespace) -> None:
    space.run(f"ip route add 10.2.70.0/24 dev {DEV} scope site")
    space.run(f"ip route prepend 10.2.2.0/24 dev {DEV} scope site")
    strays = [item for item in observed(space).values() if isinstance(item, Route) and item.stray]
    assert len(strays) == 2
    assert carry_out(space, [Cut(item) for item in strays]) == [Ack(0)] * 2
    assert observed(space) == WANT


def test_a_route_of_the_widest_scope_is_told_from_ours_to_the_same_place_and_goes(space: Namespace) -> None:
    space.run(f"ip route prepend {ROUTE.dst} dev {DEV} scope global")
    intruder = Route(ROUTE.dst, DEV, universe=True)
    assert set(observed(space).values()) == {*WANT.values(), intruder}
    assert carry_out(space, [Cut(intruder)]) == [Ack(0)]
    assert observed(space) == WANT


def test_a_route_of_the_widest_scope_can_be_made(space: Namespace) -> None:
    item = Route(ip_network("10.2.0.0/16"), DEV, universe=True)
    assert carry_out(space, [Put(item), Put(item)]) == [Ack(0)] * 2
    assert f"10.2.0.0/16 dev {DEV}" in [line.strip() for line in space.run("ip route").splitlines()]
    assert carry_out(space, [Cut(item)]) == [Ack(0)]
    assert observed(space) == WANT
