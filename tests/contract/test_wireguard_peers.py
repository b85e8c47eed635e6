"""What every kernel does about wireguard devices: the one in memory, the one of this machine, and wireguard-go."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network

import pytest

from pyflannel.diff import Cut, Op, Put, diff
from pyflannel.linux.kernel import Kernel, LinuxKernel
from pyflannel.state import Item, Scope, State
from pyflannel.wireguard import Endpoint, SecretKey, WireguardPeer
from tests.support import wireguard_items
from tests.support.fake_kernel import FakeKernel
from tests.support.namespaces import Namespace
from tests.support.wireguard_items import DEVICE, LINK, OURS, PSK, moved, peer

MANY = 1000


@dataclass(frozen=True)
class World:
    """A kernel, and a device in it whose name nobody else has: programs share a directory by names."""

    kernel: Kernel
    dev: str

    def on(self, *items: Item) -> State:
        """``items`` on that device."""
        return State(moved(item, self.dev) for item in items)

    @property
    def scope(self) -> Scope:
        """The device, and what is on it."""
        return replace(wireguard_items.SCOPE, devices=frozenset((self.dev,)), identities=())

    def bring_about(self, want: State) -> tuple[Op, ...]:
        """Make it so, and see that it is; returns what that took."""
        ops = diff(want, self.kernel.observe(self.scope))
        assert self.kernel.apply(ops).failed == ()
        assert diff(want, self.kernel.observe(self.scope)) == ()
        return ops


@pytest.fixture(
    params=[
        "fake",
        pytest.param("kernel", marks=pytest.mark.needs("root", "netns", "wireguard")),
        pytest.param("wireguard-go", marks=pytest.mark.needs("root", "netns", "wireguard-go")),
    ]
)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    dev = f"wg{secrets.token_hex(4)}"
    if request.param == "fake":
        yield World(FakeKernel(), dev)
        return
    with Namespace("wireguard") as space, LinuxKernel(space.name) as kernel:
        made = World(kernel, dev)
        yield made
        kernel.apply([Cut(replace(LINK, name=dev))])


def test_what_was_put_is_what_is_observed(world: World) -> None:
    want = world.on(*OURS)
    world.bring_about(want)
    assert world.kernel.observe(world.scope) == want
    assert world.kernel.compare(world.scope, want) == want


def test_putting_again_what_is_there_succeeds_and_changes_nothing(world: World) -> None:
    want = world.on(*OURS)
    ops = world.bring_about(want)
    assert world.kernel.apply(ops).done == ops
    assert world.kernel.observe(world.scope) == want


def test_cutting_what_is_gone_succeeds(world: World) -> None:
    want = world.on(*OURS)
    world.bring_about(want)
    cuts = tuple(Cut(item) for item in reversed(tuple(want.values())))
    assert world.kernel.apply(cuts).done == cuts
    assert world.kernel.observe(world.scope) == State()
    assert world.kernel.apply(cuts).done == cuts


@pytest.mark.parametrize(
    "other",
    [
        replace(peer(2), endpoint=Endpoint(ip_address("198.51.100.7"), 4000)),
        replace(peer(2), endpoint=Endpoint(ip_address("2001:db8::7"), 4000)),
        replace(peer(2), keepalive=0),
        peer(2, "10.2.2.0/24", "10.2.77.0/24"),
        peer(2, "10.2.77.0/24"),
        peer(2, "10.2.2.0/24", psk=PSK),
        replace(DEVICE, listen_port=4000),
        replace(DEVICE, private_key=SecretKey(bytes(range(9, 41))).clamped()),
    ],
    ids=["address", "address of IPv6", "keepalive", "one more", "another", "shared key", "port", "private key"],
)
def test_every_setting_can_be_changed_there_and_back(world: World, other: Item) -> None:
    want = world.on(*OURS)
    changed = State({**want, **world.on(other)}.values())
    world.bring_about(want)
    assert len(world.bring_about(changed)) == 1
    assert len(world.bring_about(want)) == 1


def test_a_shared_key_can_be_taken_away(world: World) -> None:
    world.bring_about(world.on(LINK, DEVICE, peer(3, psk=PSK)))
    world.bring_about(world.on(LINK, DEVICE, peer(3)))


def test_a_network_that_another_peer_gets_leaves_the_first(world: World) -> None:
    world.bring_about(world.on(LINK, DEVICE, peer(2), peer(3)))
    taker = replace(peer(9), allowed=peer(2).allowed)
    assert world.kernel.apply([Put(item) for item in world.on(taker).values()]).failed == ()
    held = {item.public_key: item.allowed for item in peers(world)}
    assert held == {
        peer(2).public_key: frozenset(),
        peer(3).public_key: peer(3).allowed,
        taker.public_key: peer(2).allowed,
    }


def test_peers_can_change_their_networks_about(world: World) -> None:
    world.bring_about(world.on(LINK, DEVICE, peer(2), peer(3)))
    swapped = (replace(peer(2), allowed=peer(3).allowed), replace(peer(3), allowed=peer(2).allowed))
    world.bring_about(world.on(LINK, DEVICE, *swapped))


def test_a_peer_that_comes_with_a_new_key_takes_over(world: World) -> None:
    world.bring_about(world.on(LINK, DEVICE, peer(2)))
    successor = replace(peer(9), allowed=peer(2).allowed)
    world.bring_about(world.on(LINK, DEVICE, successor))
    assert [item.public_key for item in peers(world)] == [successor.public_key]


def test_a_peer_may_have_more_networks_than_fit_a_message(world: World) -> None:
    networks = [f"10.{first}.{second}.0/24" for first in range(3, 7) for second in range(250)]
    world.bring_about(world.on(LINK, DEVICE, peer(2), peer(5, *networks), peer(6)))


def test_a_thousand_peers_come_and_go(world: World) -> None:
    many = [peer(number, f"10.{3 + (number >> 8)}.{number & 255}.0/24", host="192.0.2.9") for number in range(1, MANY)]
    world.bring_about(world.on(LINK, DEVICE, *many))
    assert len(peers(world)) == len(many)
    world.bring_about(world.on(LINK, DEVICE, many[0]))


def test_on_a_device_that_is_not_there_every_operation_fails_by_itself(world: World) -> None:
    ops = [Put(item) for item in world.on(DEVICE, peer(2), peer(3)).values()]
    assert [op for op, _ in world.kernel.apply(ops).failed] == ops


def test_networks_of_both_families_are_told_apart(world: World) -> None:
    both = peer(2, "10.2.0.0/32", "fd00::/16", "fd00:2:2::/64")
    world.bring_about(world.on(LINK, DEVICE, both))
    assert peers(world)[0].allowed == frozenset(map(ip_network, ("10.2.0.0/32", "fd00::/16", "fd00:2:2::/64")))


def peers(world: World) -> list[WireguardPeer]:
    return [item for item in world.kernel.observe(world.scope).values() if isinstance(item, WireguardPeer)]
