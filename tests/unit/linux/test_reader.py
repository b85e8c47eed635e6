"""How the reader copes with what only a kernel at work, or an old one, does to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest

from pyflannel.diff import Put, device, diff
from pyflannel.linux import addresses, neighbours, routes
from pyflannel.linux.kernel import LinuxKernel
from pyflannel.linux.netlink import NETLINK_GET_STRICT_CHK, SOL_NETLINK, Conversation, Request, open_socket
from pyflannel.linux.reader import Reader
from pyflannel.state import Address, Neighbour, Route, State
from tests.support.kernel_items import DEV, DEV6, LINK, OURS, SCOPE, WANT, peer
from tests.support.kernel_worlds import LinuxWorld
from tests.support.namespaces import Namespace

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge")

RTM_GETLINK = 18


@pytest.fixture
def space() -> Iterator[Namespace]:
    with Namespace("reader") as made, LinuxKernel(made.name) as kernel:
        LinuxWorld(made, kernel)
        assert kernel.apply(diff(WANT, State())).failed == ()
        yield made


class Meddled(Conversation):
    """A conversation during which somebody does something, just before the first listing of a kind."""

    def __init__(self, space: Namespace, kind: int, meddle: Callable[[], object]) -> None:
        super().__init__(open_socket(space.name))
        self._kind, self._meddle = kind, [meddle]

    def dump(self, what: str, request: Request) -> list[bytes]:
        if request.type == self._kind and self._meddle:
            self._meddle.pop()()
        return super().dump(what, request)


def test_a_kernel_that_does_not_filter_is_filtered(space: Namespace) -> None:
    # Without the strict check, as before Linux 4.20, a listing is of all devices.
    channel = open_socket(space.name)
    channel.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 0)
    space.run("ip neigh add 192.0.2.7 lladdr 02:00:00:00:00:77 dev eth0 nud permanent")
    with LinuxKernel(space.name) as kernel:
        index = kernel.observe(SCOPE)
    conversation = Conversation(channel)
    try:
        everything = conversation.dump("listing routes", routes.query(2, 1))
        assert len(everything) > len([item for item in OURS if isinstance(item, Route)])
        assert Reader(conversation, space.name).observe(SCOPE) == index == WANT
    finally:
        conversation.close()


@pytest.mark.parametrize("kind", [addresses.RTM_GETADDR, neighbours.RTM_GETNEIGH, routes.RTM_GETROUTE])
def test_a_device_that_goes_while_we_look_was_never_there(space: Namespace, kind: int) -> None:
    conversation = Meddled(space, kind, lambda: space.run(f"ip link delete {DEV6}"))
    try:
        seen = Reader(conversation, space.name).observe(SCOPE)
    finally:
        conversation.close()
    assert DEV6 not in str(seen)
    assert seen == State(item for item in OURS if device(item) == DEV)


def test_what_the_kernel_puts_on_every_device_is_not_ours(space: Namespace) -> None:
    space.run("ip address add 198.51.100.1/24 dev flannel.1")
    space.run("ip neigh add 10.2.200.1 lladdr 02:00:00:00:00:77 dev flannel.1 nud reachable")
    space.run("bridge fdb add 02:00:00:00:00:77 dev flannel.1 dst 192.0.2.7 self dynamic")
    with LinuxKernel(space.name) as kernel:
        assert kernel.observe(SCOPE) == WANT


def test_addresses_count_by_network_for_ipv4_and_all_for_ipv6(space: Namespace) -> None:
    extra = [Address(DEV, ip_interface(text)) for text in ("10.2.255.1/32", "2001:db8:9::1/64")]
    with LinuxKernel(space.name) as kernel:
        kernel.apply([Put(item) for item in extra])
        assert kernel.observe(SCOPE).keys() - WANT.keys() == {item.key for item in extra}
        elsewhere = kernel.observe(replace(SCOPE, networks=()))
        assert [item for item in elsewhere.values() if isinstance(item, Address) and item.address.version == 4] == []


def test_an_item_per_slot_even_where_the_kernel_has_more(space: Namespace) -> None:
    gateway = ip_address("10.2.3.0")
    for number in (1, 2, 3):
        space.run(f"ip route append 10.2.2.0/24 via 10.2.3.0 dev flannel.1 onlink proto {90 + number}")
    with LinuxKernel(space.name) as kernel:
        seen = kernel.observe(SCOPE)
    strays = [item for item in seen.values() if isinstance(item, Route) and item.stray]
    assert strays == [Route(peer(2)[2].dst, DEV, gateway, True, 0, 90 + number, True) for number in (1, 2, 3)]
    assert seen[peer(2)[2].key] == peer(2)[2]


def test_a_device_renamed_to_ours_is_ours(space: Namespace) -> None:
    space.run("ip link set flannel.1 down name other")
    space.run("ip link set other name flannel.1 up")
    with LinuxKernel(space.name) as kernel:
        assert kernel.observe(SCOPE)[LINK.key] == LINK
        assert not any(isinstance(item, Neighbour) and item.dev == DEV for item in kernel.observe(SCOPE).values())
