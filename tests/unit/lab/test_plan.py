"""What a lab consists of, as the commands that build it."""

from __future__ import annotations

import json
from ipaddress import IPv4Interface, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflannel.lab.plan import (
    GATEWAY,
    MOST_CONTAINERS,
    MOST_HOSTS,
    Bridge,
    Plan,
    agent_command,
    agent_environment,
    container_batch,
    docker_batch,
    etcd_command,
    etcd_put_command,
    host_batch,
    network_config,
    switch_batch,
)

PLAN = Plan("lab", 2, 2, "{}")
BRIDGE = Bridge(IPv4Interface("10.2.71.1/24"), 1450)


def test_hosts_have_the_addresses_of_the_walk_through() -> None:
    assert [(host.name, str(host.address), host.containers) for host in PLAN.hosts] == [
        ("host1", "172.16.41.131/24", ("host1-c1", "host1-c2")),
        ("host2", "172.16.41.132/24", ("host2-c1", "host2-c2")),
    ]


@given(st.integers(1, MOST_HOSTS), st.integers(0, MOST_CONTAINERS))
def test_no_two_places_share_a_name_or_an_address(hosts: int, containers: int) -> None:
    plan = Plan("lab", hosts, containers, "{}")
    names = [host.name for host in plan.hosts] + [name for host in plan.hosts for name in host.containers]
    assert len(set(names)) == len(names) == hosts * (1 + containers)
    addresses = {host.address for host in plan.hosts} | {GATEWAY}
    assert len(addresses) == hosts + 1
    assert all(address.network == GATEWAY.network for address in addresses)
    assert GATEWAY.network.broadcast_address not in {address.ip for address in addresses}


@pytest.mark.parametrize(
    ("name", "hosts", "containers", "complaint"),
    [
        ("", 1, 1, "lab name"),
        ("../etc", 1, 1, "lab name"),
        ("-x", 1, 1, "lab name"),
        ("x" * 32, 1, 1, "lab name"),
        ("x", 0, 1, "0 hosts"),
        ("x", MOST_HOSTS + 1, 1, "hosts"),
        ("x", 1, -1, "-1 containers"),
        ("x", 1, MOST_CONTAINERS + 1, "containers"),
    ],
)
def test_what_cannot_be_built_is_refused(name: str, hosts: int, containers: int, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Plan(name, hosts, containers, "{}")


def test_configuration_names_network_and_backend() -> None:
    text = network_config(IPv4Network("10.2.0.0/16"), "vxlan")
    assert json.loads(text) == {"Network": "10.2.0.0/16", "Backend": {"Type": "vxlan"}}


def test_network_that_holds_the_hosts_is_refused() -> None:
    with pytest.raises(ValueError, match=r"172\.16\.0\.0/12 overlaps 172\.16\.41\.0/24"):
        network_config(IPv4Network("172.16.0.0/12"), "vxlan")


def test_switch_is_a_bridge_with_a_cable_to_each_host() -> None:
    assert switch_batch(PLAN, {"host1": 71, "host2": 72}) == [
        "link set lo up",
        "link add name switch0 type bridge",
        "addr add 172.16.41.1/24 brd + dev switch0",
        "link set switch0 up",
        "link add name host1 type veth peer name ens33 netns 71",
        "link set host1 master switch0 up",
        "link add name host2 type veth peer name ens33 netns 72",
        "link set host2 master switch0 up",
    ]


def test_host_has_its_default_route_through_the_switch() -> None:
    assert host_batch(PLAN.hosts[1]) == [
        "link set lo up",
        "addr add 172.16.41.132/24 brd + dev ens33",
        "link set ens33 up",
        "route add default via 172.16.41.1 dev ens33",
    ]


def test_docker_holds_the_first_address_of_the_lease_and_its_mtu() -> None:
    bridge = Bridge.of({"FLANNEL_SUBNET": "10.2.71.1/24", "FLANNEL_MTU": "1450", "FLANNEL_IPMASQ": "false"})
    assert bridge == BRIDGE
    assert docker_batch(PLAN.hosts[0], bridge, {"host1-c1": 81, "host1-c2": 82}) == [
        "link add name docker0 type bridge",
        "link set docker0 mtu 1450",
        "addr add 10.2.71.1/24 brd + dev docker0",
        "link set docker0 up",
        "link add name veth1 mtu 1450 type veth peer name eth0 mtu 1450 netns 81",
        "link set veth1 master docker0 up",
        "link add name veth2 mtu 1450 type veth peer name eth0 mtu 1450 netns 82",
        "link set veth2 master docker0 up",
    ]


def test_containers_follow_their_bridge() -> None:
    assert container_batch(BRIDGE, 1) == [
        "link set lo up",
        "addr add 10.2.71.2/24 brd + dev eth0",
        "link set eth0 up",
        "route add default via 10.2.71.1 dev eth0",
    ]
    assert str(BRIDGE.container(2)) == "10.2.71.3/24"


@pytest.mark.parametrize("env", [{}, {"FLANNEL_SUBNET": "10.2.71.1/24"}, {"FLANNEL_MTU": "1450"}])
def test_subnet_env_without_subnet_or_mtu_is_refused(env: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"subnet\.env has no FLANNEL_(SUBNET|MTU)"):
        Bridge.of(env)


def test_subnet_too_small_for_the_containers_is_refused() -> None:
    bridge = Bridge(IPv4Interface("10.2.71.1/29"), 1450)
    assert str(bridge.container(5)) == "10.2.71.6/29"
    for number in (6, 7, 300):
        with pytest.raises(ValueError, match=f"10.2.71.0/29 has no room for {number} containers"):
            bridge.container(number)


def test_agent_uses_the_embedded_store() -> None:
    assert agent_command(PLAN, ["flanneld"], "/x/store.db") == [
        "flanneld",
        "-iface=ens33",
        "-etcd-prefix=/coreos.com/network",
        "-store=local:/x/store.db",
    ]


def test_agent_is_told_of_etcd_in_words_every_flanneld_knows() -> None:
    assert agent_command(Plan("lab", 1, 0, "{}", etcd=True), ["flanneld"], "/x/store.db") == [
        "flanneld",
        "-iface=ens33",
        "-etcd-prefix=/coreos.com/network",
        "-etcd-endpoints=http://172.16.41.1:2379",
    ]


def test_a_look_at_the_agent_is_told_what_the_agent_is_told() -> None:
    assert agent_environment(PLAN, "/x/store.db") == {
        "FLANNELD_IFACE": "ens33",
        "FLANNELD_ETCD_PREFIX": "/coreos.com/network",
        "FLANNELD_STORE": "local:/x/store.db",
    }


def test_etcd_listens_where_agents_and_etcdctl_look() -> None:
    assert "--listen-client-urls=http://172.16.41.1:2379" in etcd_command("/x/etcd")
    assert "--endpoints=http://172.16.41.1:2379" in etcd_put_command()
    assert etcd_put_command()[-2:] == ["put", "/coreos.com/network/config"]
