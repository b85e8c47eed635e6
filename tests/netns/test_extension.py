"""The extension backend with commands like those of flannel's manual, on a real kernel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machines import eventually
from tests.support.pair import CONFIG, Host, Pair

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge", "iptables")

GATEWAYS = {
    "PreStartupCommand": "set -- $(ip -br link show dev ens33); echo $3",
    "PostStartupCommand": "ip link add hook0 type bridge && ip addr add ${SUBNET%/*}/32 dev hook0",
    "ShutdownCommand": "ip link del hook0",
    "SubnetAddCommand": "read MAC; ip neigh replace $PUBLIC_IP lladdr $MAC dev ens33; "
    "ip route add $SUBNET via $PUBLIC_IP",
    "SubnetRemoveCommand": "ip route del $SUBNET via $PUBLIC_IP; ip neigh del $PUBLIC_IP dev ens33",
}
"""Hosts are gateways, as with host-gw, and know one another's MAC addresses."""
CHECK = {"SubnetCheckCommand": "ip route show $SUBNET via $PUBLIC_IP | grep -q ."}
TUNNEL = {
    "PreStartupCommand": "export N=ext0; ip link del $N 2>/dev/null; "
    "ip link add $N type vxlan id 7 dstport 8472 nolearning && ip link set $N mtu 1450 && "
    "set -- $(ip -br link show dev $N) && echo $3",
    "PostStartupCommand": "ip addr add ${SUBNET%/*}/32 dev ext0 && ip link set ext0 up",
    "ShutdownCommand": "ip link del ext0",
    "SubnetAddCommand": "export IP=${SUBNET%/*}; read VTEP; ip route add $SUBNET nexthop via $IP dev ext0 onlink && "
    "ip neigh replace $IP dev ext0 lladdr $VTEP && bridge fdb add $VTEP dev ext0 self dst $PUBLIC_IP",
    "SubnetRemoveCommand": "read VTEP; ip route del $SUBNET dev ext0; bridge fdb del $VTEP dev ext0 dst $PUBLIC_IP",
}
"""A tunnel, made anew at each start with another MAC address, as in flannel's example; but that one removes nothing, so
that no host gets over the restart of another."""


def configuration(commands: dict[str, str]) -> str:
    return json.dumps(json.loads(CONFIG) | {"Backend": {"Type": "extension", **commands}})


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Pair]:
    with Pair(tmp_path) as made:
        yield made


@pytest.fixture
def pair(bare: Pair) -> Pair:
    bare.store.configure(configuration(GATEWAYS | CHECK))
    bare.start()
    return bare


def route(host: Host, subnet: object) -> str:
    return host.space.run(f"ip route show {subnet}").strip()


def await_route(host: Host, told: str) -> None:
    eventually(lambda: route(host, told.split()[0]) == told, told, 30.0)


def await_end_of(host: Host, device: str) -> None:
    eventually(lambda: not has(host, device), f"the end of {device}", 30.0)


def has(host: Host, device: str) -> bool:
    return any(each["ifname"] == device for each in host.space.objects("ip -j link show"))


def test_commands_connect_the_hosts_and_tell_each_other_what_they_need(pair: Pair) -> None:
    for host, peer in ((pair.one, pair.two), (pair.two, pair.one)):
        assert route(host, peer.subnet) == f"{peer.subnet} via {peer.address} dev ens33"
        (mac,) = {each["address"] for each in peer.space.objects("ip -j link show dev ens33")}
        assert f"{peer.address} dev ens33 lladdr {mac} PERMANENT" in host.space.run("ip neigh show nud permanent")
        assert pair.store.leases()[str(peer.subnet)].attrs.backend_data == f'"{mac}"'
        assert f"inet {host.subnet[0]}/32" in host.space.run("ip addr show dev hook0")
    assert "FLANNEL_MTU=1500" in pair.one.subnet_file.read_text()


def test_what_is_lost_is_noticed_and_made_again(pair: Pair) -> None:
    pair.one.space.run(f"ip route del {pair.two.subnet}")
    pair.one.await_line(f"What SubnetAddCommand has made for {pair.two.subnet} is not there any more")
    eventually(lambda: route(pair.one, pair.two.subnet), "the route")
    pair.await_contact()


def test_a_peer_that_leaves_is_removed_and_one_that_moves_goes_another_way(pair: Pair) -> None:
    record = '{"PublicIP":"172.16.41.%d","PublicIPv6":null,"BackendType":"extension","BackendData":"02:00:00:00:00:09"}'
    for address in (199, 198):
        pair.store.write({"10.2.97.0-24": record % address})
        await_route(pair.one, f"10.2.97.0/24 via 172.16.41.{address} dev ens33")
    pair.store.write({"10.2.97.0-24": None})
    eventually(lambda: not route(pair.one, "10.2.97.0/24"), "the removal")


def test_an_agent_that_ends_dies_or_starts_loses_nothing_where_it_can_check(pair: Pair) -> None:
    with pair.losing_nothing():
        pair.one.stop()
        assert not has(pair.one, "hook0")
        pair.one.started()
        assert has(pair.one, "hook0")
        pair.one.kill()
        pair.one.space.run("ip link del hook0")
        pair.one.started()


def test_who_left_while_no_agent_ran_is_removed_at_the_next_start(pair: Pair) -> None:
    peer = '{"PublicIP":"172.16.41.199","PublicIPv6":null,"BackendType":"extension","BackendData":"02:00:00:00:00:09"}'
    pair.store.write({"10.2.97.0-24": peer})
    eventually(lambda: route(pair.one, "10.2.97.0/24"), "the route")
    pair.one.stop()
    pair.store.write({"10.2.97.0-24": None})
    pair.one.started()
    eventually(lambda: not route(pair.one, "10.2.97.0/24"), "the removal")


def test_no_record_makes_a_command(pair: Pair, tmp_path: Path) -> None:
    mark = tmp_path / "pwned"
    for data in (f"$(touch {mark})", f"`touch {mark}`", f"02:00:00:00:00:09\ntouch {mark}\n", f"; touch {mark} #"):
        peer = {"PublicIP": "172.16.41.199", "BackendType": "extension", "BackendData": data}
        pair.store.write({"10.2.97.0-24": json.dumps(peer)})
        eventually(lambda: route(pair.one, "10.2.97.0/24"), "the route")
        pair.store.write({"10.2.97.0-24": None})
        eventually(lambda: not route(pair.one, "10.2.97.0/24"), "the removal")
    pair.store.write({"10.2.97.0-24": json.dumps({**peer, "BackendData": "a\0b"})})
    pair.one.await_line("Ignoring lease 10.2.97.0/24: BackendData has a NUL character in it")
    assert not mark.exists()
    pair.await_contact()


def test_a_first_command_that_fails_ends_the_start(bare: Pair) -> None:
    bare.store.configure(configuration({"PreStartupCommand": "echo no such key >&2; exit 3"}))
    agent = bare.one.start()
    assert agent.wait(20) == 1
    assert "PreStartupCommand: no such key" in bare.one.said()
    assert "PreStartupCommand: exit status 3" in bare.one.said()
    assert bare.store.leases() == {}


def test_a_tunnel_that_is_made_anew_at_each_start_is_filled_again(bare: Pair) -> None:
    bare.store.configure(configuration(TUNNEL))
    bare.start()
    for _ in range(2):
        bare.one.kill()
        bare.one.started()
        bare.await_contact()
    bare.one.stop()
    assert not has(bare.one, "ext0")


def test_a_cluster_goes_over_to_commands_and_back_without_a_restart(bare: Pair) -> None:
    bare.start()
    bare.store.configure(configuration(GATEWAYS | CHECK))
    for host, peer in ((bare.one, bare.two), (bare.two, bare.one)):
        await_route(host, f"{peer.subnet} via {peer.address} dev ens33")
    bare.await_contact()
    bare.store.configure(CONFIG)
    for host in bare.hosts:
        await_end_of(host, "hook0")
    bare.await_contact()
