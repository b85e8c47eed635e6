"""The ipip backend on a real kernel: what it programs, that it heals, and that nothing is lost meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machines import eventually
from tests.support.pair import CONFIG, Host
from tests.support.trio import ROUTER, Trio, await_route, route

pytestmark = pytest.mark.needs("root", "netns", "ipip", "veth", "bridge", "iptables")

IPIP = CONFIG.replace('{"Type":"vxlan"}', '{"Type":"ipip"}')
DIRECT = CONFIG.replace('{"Type":"vxlan"}', '{"Type":"ipip","DirectRouting":true}')


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Trio]:
    with Trio(tmp_path, IPIP) as made:
        yield made


@pytest.fixture
def trio(bare: Trio) -> Trio:
    bare.start()
    return bare


def tunnelled(peer: Host) -> str:
    return f"{peer.subnet} via {peer.address} dev flannel.ipip onlink"


def direct(peer: Host) -> str:
    return f"{peer.subnet} via {peer.address} dev ens33 proto 70 onlink"


def device(host: Host, name: str = "flannel.ipip") -> str:
    """How the device is set up, as ``ip -d link`` says, without its index."""
    listed = host.space.run(f"ip -d link show dev {name}")
    return " ".join(listed.split(": ", 1)[1].split())


def test_hosts_reach_each_others_containers_through_one_route_each(trio: Trio) -> None:
    for host in trio.hosts:
        for peer in trio.hosts:
            if peer is not host:
                assert route(host, peer) == tunnelled(peer)
        said = device(host)
        assert f"ipip remote any local {host.address} ttl inherit nopmtudisc" in said.replace("ipip any ", "ipip ")
        assert "mtu 1480" in said
        addresses = host.space.run("ip -4 -br address show dev flannel.ipip").split()
        assert addresses[2:] == [f"{host.subnet[0]}/32"]
        assert "FLANNEL_MTU=1480" in host.subnet_file.read_text()
        attrs = host.store.leases()[str(host.subnet)].attrs
        assert (str(attrs.public_ip), attrs.backend_type, attrs.backend_data) == (host.address, "ipip", None)


@pytest.mark.parametrize(
    "deed",
    [
        "ip route del {subnet}",
        "ip route replace {subnet} via 172.16.41.200 dev flannel.ipip onlink",
        "ip address flush dev flannel.ipip",
        "ip link set flannel.ipip down",
        "ip link set flannel.ipip mtu 1300",
        "ip link set flannel.ipip type ipip local 172.16.41.99",
        # Before Linux 6.2 only a device that is down can be renamed; and the agent is quick.
        "until ip link set flannel.ipip down && ip link set flannel.ipip name astray; do :; done",
        "ip link del flannel.ipip",
        "until ip link del flannel.ipip && ip link add flannel.ipip type ipip remote 172.16.41.9; do :; done",
        "until ip link del flannel.ipip && ip link add flannel.ipip type bridge; do :; done",
    ],
    ids=[
        "route deleted",
        "route led elsewhere",
        "address flushed",
        "down",
        "another MTU",
        "another end",
        "renamed",
        "deleted",
        "given a remote",
        "made a bridge",
    ],
)
def test_what_somebody_does_is_undone(trio: Trio, deed: str) -> None:
    one, two, three = trio.one, trio.two, trio.three
    before, tunl0 = device(one), device(one, "tunl0")
    one.space.shell(deed.format(subnet=two.subnet))
    await_route(one, two, tunnelled(two))
    await_route(one, three, tunnelled(three))
    eventually(lambda: is_as(one, before), f"{before}\n{one.said()[-3000:]}")
    assert device(one, "tunl0") == tunl0
    trio.await_reach(one, two)
    trio.await_reach(one, three)


def is_as(host: Host, wanted: str) -> bool:
    """Whether the device is there again; who tells of a permanent address tells of a change of it."""
    listed = host.space.run("ip -br link")
    return (
        "flannel.ipip" in listed
        and device(host).split(" permaddr ")[0].split(" promiscuity ")[0] == (wanted.split(" promiscuity ")[0])
    )


def test_an_agent_that_ends_dies_or_starts_loses_nothing(trio: Trio) -> None:
    with trio.losing_nothing():
        trio.one.stop()
        trio.one.started()
        trio.one.kill()
        trio.one.started()


def test_what_go_flanneld_left_is_taken_over_without_loss(trio: Trio) -> None:
    one, stale = trio.one, "10.2.98.0/24"
    before = device(one)
    with trio.losing_nothing():
        one.stop()
        one.space.run(f"ip route add {stale} via 172.16.41.199 dev flannel.ipip onlink")
        one.started()
        eventually(lambda: stale not in one.space.run("ip route"), "the stale route")
    assert device(one) == before


def test_the_interface_below_changes_its_address_and_mtu(trio: Trio) -> None:
    one, two = trio.one, trio.two
    one.space.run("ip link set ens33 mtu 1400")
    eventually(lambda: "mtu 1380" in device(one), "the device")
    one.space.run("ip address add 172.16.41.151/24 dev ens33")
    one.space.run("ip address delete 172.16.41.131/24 dev ens33")
    one.space.run("ip address replace 172.16.41.151/24 dev ens33")
    one.space.run(f"ip route replace 172.16.42.0/24 via {ROUTER}")
    eventually(lambda: "local 172.16.41.151" in device(one), f"the device\n{one.said()[-3000:]}")
    await_route(two, one, f"{one.subnet} via 172.16.41.151 dev flannel.ipip onlink")
    trio.await_reach(one, two)


def test_with_direct_routing_hosts_on_the_link_are_gateways(bare: Trio) -> None:
    bare.store.configure(DIRECT)
    bare.start()
    one, two, three = bare.one, bare.two, bare.three
    assert (route(one, two), route(two, one)) == (direct(two), direct(one))
    assert (route(one, three), route(three, one)) == (tunnelled(three), tunnelled(one))
    assert "FLANNEL_MTU=1480" in one.subnet_file.read_text()
    with bare.losing_nothing():
        one.space.run(f"ip route add {two.address} via {ROUTER}")
        await_route(one, two, tunnelled(two))
        one.space.run(f"ip route del {two.address}")
        await_route(one, two, direct(two))


def test_a_cluster_changes_from_vxlan_to_ipip_and_back(trio: Trio) -> None:
    one, two = trio.one, trio.two
    for text, wanted in ((CONFIG, f"{two.subnet} via {two.subnet[0]} dev flannel.1 onlink"), (IPIP, tunnelled(two))):
        trio.store.configure(text)
        await_route(one, two, wanted)
        trio.await_reach(one, two)
        trio.await_reach(two, one)
    eventually(lambda: "flannel.1" not in one.space.run("ip -br link"), "flannel.1 to go")
