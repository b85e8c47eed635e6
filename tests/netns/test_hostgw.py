"""The host-gw backend on a real kernel: what it programs, that it heals, and that nothing is lost meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machines import eventually
from tests.support.pair import CONFIG, Host, Pair

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge", "iptables")

HOST_GATEWAY = CONFIG.replace("vxlan", "host-gw")


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Pair]:
    with Pair(tmp_path) as made:
        made.store.configure(HOST_GATEWAY)
        yield made


@pytest.fixture
def pair(bare: Pair) -> Pair:
    bare.start()
    return bare


def route(host: Host, peer: Host) -> str:
    return host.space.run(f"ip route show {peer.subnet}").strip()


def wanted(peer: Host) -> str:
    return f"{peer.subnet} via {peer.address} dev ens33 proto 70"


def test_hosts_are_gateways_to_each_others_containers(pair: Pair) -> None:
    assert route(pair.one, pair.two) == wanted(pair.two)
    assert route(pair.two, pair.one) == wanted(pair.one)
    assert "FLANNEL_MTU=1500" in pair.one.subnet_file.read_text()
    assert pair.one.space.objects("ip -j link show type vxlan") == []


@pytest.mark.parametrize(
    "deed",
    [
        "ip route del {subnet}",
        "ip route replace {subnet} via 172.16.41.200 dev ens33 proto 70",
        "ip route replace {subnet} via {address} dev ens33 proto static",
        "ip link set ens33 down && ip link set ens33 up",
    ],
    ids=["deleted", "led elsewhere", "of another protocol", "interface down and up"],
)
def test_what_somebody_does_to_a_route_is_undone(pair: Pair, deed: str) -> None:
    pair.one.space.shell(deed.format(subnet=pair.two.subnet, address=pair.two.address))
    if "static" in deed:
        # That one is somebody's now, and stays.  Once it goes, ours is back.
        pair.one.await_line("The kernel refused: ip route add")
        pair.one.space.run(f"ip route del {pair.two.subnet} proto static")
    eventually(lambda: route(pair.one, pair.two) == wanted(pair.two), "the route", 10.0)
    pair.await_contact()


def test_routes_of_others_stay_whatever_happens(pair: Pair) -> None:
    theirs = [
        "10.9.0.0/16 via 172.16.41.200 dev ens33 proto static",
        "10.2.230.0/24 via 172.16.41.200 dev ens33",
    ]
    for each in theirs:
        pair.one.space.run(f"ip route add {each}")
    pair.one.stop()
    pair.one.started()
    pair.store.write({str(pair.two.subnet).replace("/", "-"): None})
    pair.one.stop()
    pair.one.started()
    held = pair.one.space.run("ip route show dev ens33")
    for each in theirs:
        assert each.replace(" dev ens33", "") in held


def test_an_agent_that_ends_dies_or_starts_loses_nothing(pair: Pair) -> None:
    with pair.losing_nothing():
        pair.one.stop()
        pair.one.started()
        pair.one.kill()
        pair.one.started()


def test_routes_that_go_flanneld_left_are_taken_over_without_loss(pair: Pair) -> None:
    stale = "10.2.98.0/24"
    with pair.losing_nothing():
        pair.one.stop()
        pair.one.space.run(f"ip route append {pair.two.subnet} via {pair.two.address} dev ens33")
        pair.one.space.run(f"ip route del {pair.two.subnet} proto 70")
        pair.one.space.run(f"ip route add {stale} via 172.16.41.199 dev ens33 proto 70")
        pair.one.started()
        eventually(lambda: route(pair.one, pair.two) == wanted(pair.two), "the route", 10.0)
    assert stale not in pair.one.space.run("ip route")


def test_a_host_behind_a_router_is_named_and_harms_nobody(pair: Pair) -> None:
    far = '{"PublicIP":"198.51.100.7","PublicIPv6":null,"BackendType":"host-gw"}'
    pair.store.write({"10.2.97.0-24": far})
    pair.one.await_line("The kernel refused: ip route add 10.2.97.0/24 via 198.51.100.7 dev ens33")
    pair.await_contact()
