"""vxlan with DirectRouting on a real kernel: peers on the link without a tunnel, the others through it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machines import eventually
from tests.support.pair import CONFIG, Host
from tests.support.trio import ROUTER, Trio, await_route, reaches, route

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge", "iptables")

DIRECT = CONFIG.replace('{"Type":"vxlan"}', '{"Type":"vxlan","DirectRouting":true}')


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[Trio]:
    with Trio(tmp_path, DIRECT) as made:
        made.start()
        yield made


def direct(peer: Host) -> str:
    return f"{peer.subnet} via {peer.address} dev ens33 proto 70"


def tunnelled(peer: Host) -> str:
    return f"{peer.subnet} via {peer.subnet[0]} dev flannel.1 onlink"


def entries(host: Host) -> tuple[set[object], set[object]]:
    """The addresses with a neighbour on the device, and the hosts with a forwarding entry."""
    neighbours = host.space.objects("ip -j neigh show dev flannel.1 nud permanent")
    fdb = host.space.objects("bridge -j fdb show dev flannel.1")
    return {entry["dst"] for entry in neighbours}, {entry["dst"] for entry in fdb}


def test_hosts_on_the_link_are_gateways_and_the_others_are_reached_through_the_tunnel(trio: Trio) -> None:
    one, two, three = trio.one, trio.two, trio.three
    assert (route(one, two), route(two, one)) == (direct(two), direct(one))
    assert (route(one, three), route(three, one)) == (tunnelled(three), tunnelled(one))
    assert entries(one) == ({str(three.subnet[0])}, {three.address})
    assert entries(three) == ({str(one.subnet[0]), str(two.subnet[0])}, {one.address, two.address})
    assert "FLANNEL_MTU=1450" in one.subnet_file.read_text()


@pytest.mark.parametrize(
    "deed",
    [
        "ip route del {subnet}",
        "ip route replace {subnet} via 172.16.41.200 dev ens33 proto 70",
        "ip link set ens33 down && ip link set ens33 up && ip route add 172.16.42.0/24 via 172.16.41.1",
        "ip link del flannel.1",
    ],
    ids=["deleted", "led elsewhere", "interface down and up", "device deleted"],
)
def test_what_somebody_does_is_undone(trio: Trio, deed: str) -> None:
    one, two, three = trio.one, trio.two, trio.three
    before = entries(one)
    one.space.shell(deed.format(subnet=two.subnet))
    await_route(one, two, direct(two))
    await_route(one, three, tunnelled(three))
    eventually(lambda: entries(one) == before, f"{before}, not {entries(one)}")
    trio.await_reach(one, two)
    trio.await_reach(one, three)


def test_a_peer_that_leaves_the_link_or_comes_back_to_it_loses_no_packet(trio: Trio) -> None:
    one, two, three = trio.one, trio.two, trio.three
    gateway = str(two.subnet[0])
    for _ in range(3):
        with trio.losing_nothing():
            one.space.run(f"ip route add {two.address} via {ROUTER}")
            await_route(one, two, tunnelled(two))
            assert entries(one)[0] == {gateway, str(three.subnet[0])}
            assert route(two, one) == direct(one), "each host decides for itself"
        with trio.losing_nothing():
            one.space.run(f"ip route del {two.address}")
            await_route(one, two, direct(two))
    eventually(lambda: entries(one) == ({str(three.subnet[0])}, {three.address}), "one peer in the tunnel")


def test_a_host_that_a_router_stood_before_comes_onto_the_link(trio: Trio) -> None:
    one, three = trio.one, trio.three
    # Both networks are on one wire from now on, and host3 is told so too late.
    trio.switch.run("ip link add trunk type veth peer name trunk netns " + trio.far.name)
    trio.switch.run("ip link set trunk master br0 up")
    trio.far.run("ip link set trunk master br0 up")
    one.space.run(f"ip route add {three.address} dev ens33")
    three.space.run(f"ip route add {one.address} dev ens33")
    await_route(one, three, direct(three))
    await_route(three, one, direct(one))
    trio.await_reach(one, three)


def test_direct_routes_that_go_flanneld_left_are_taken_over_without_loss(trio: Trio) -> None:
    one, two = trio.one, trio.two
    with trio.losing_nothing():
        one.stop()
        one.space.run(f"ip route append {two.subnet} via {two.address} dev ens33")
        one.space.run(f"ip route del {two.subnet} proto 70")
        one.started()
        await_route(one, two, direct(two))


def test_an_agent_that_ends_dies_or_starts_loses_nothing(trio: Trio) -> None:
    with trio.losing_nothing():
        trio.one.stop()
        trio.one.started()
        trio.one.kill()
        trio.one.started()


def test_a_network_turns_to_direct_routing_and_back_while_it_runs(trio: Trio) -> None:
    one, two, three = trio.one, trio.two, trio.three
    for text, wanted in ((CONFIG, tunnelled), (DIRECT, direct)):
        trio.store.configure(text)
        await_route(one, two, wanted(two))
        await_route(two, one, wanted(one))
    assert route(one, three) == tunnelled(three)
    trio.await_contact()
    assert reaches(one, three)
