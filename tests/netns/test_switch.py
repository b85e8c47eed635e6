"""A cluster goes over from one backend to another, host by host, while its containers talk to each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.machines import eventually
from tests.support.pair import CONFIG, Host, Pair
from tests.support.private_run import private_run

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "tun", "veth", "bridge", "iptables")

CONFIGS = {
    "vxlan": CONFIG,
    "vxlan of another number": CONFIG.replace('"Type":"vxlan"', '"Type":"vxlan","VNI":7'),
    "host-gw": CONFIG.replace("vxlan", "host-gw"),
    "udp": CONFIG.replace("vxlan", "udp"),
    "wireguard": CONFIG.replace("vxlan", "wireguard"),
}
DEVICES = {"vxlan": ["flannel.1"], "vxlan of another number": ["flannel.7"], "host-gw": [], "udp": [], "wireguard": []}
WAYS = {
    "vxlan": "via {gateway} dev flannel.1 onlink",
    "vxlan of another number": "via {gateway} dev flannel.7 onlink",
    "host-gw": "via {host} dev ens33 proto 70",
    # One route for all.
    "udp": "",
    "wireguard": "",
}


@contextmanager
def configured(tmp_path: Path, name: str) -> Iterator[Pair]:
    with Pair(tmp_path) as pair:
        pair.store.configure(CONFIGS[name])
        yield pair


def await_way(host: Host, peer: Host, name: str) -> None:
    way = WAYS[name].format(gateway=peer.subnet[0], host=peer.address)
    told = f"{peer.subnet} {way}" if way else ""
    eventually(lambda: host.space.run(f"ip route show {peer.subnet}").strip() == told, told, 20.0)


def await_devices(host: Host, name: str) -> None:
    def there() -> list[object]:
        return [link["ifname"] for link in host.space.objects("ip -j link show type vxlan")]

    eventually(lambda: there() == DEVICES[name], f"no devices but {DEVICES[name]}", 20.0)


def await_device(host: Host, name: str, *, there: bool) -> None:
    eventually(lambda: (f" {name}: " in host.space.run("ip link")) == there, f"{name} there, or gone", 20.0)


@pytest.mark.parametrize(
    ("former", "present"),
    [
        ("vxlan", "host-gw"),
        ("host-gw", "vxlan"),
        ("vxlan", "vxlan of another number"),
        ("vxlan", "udp"),
        ("udp", "vxlan"),
    ],
)
def test_no_packet_is_lost_when_all_hosts_go_over(tmp_path: Path, former: str, present: str) -> None:
    with configured(tmp_path, former) as pair:
        pair.start()
        with pair.losing_nothing():
            pair.store.configure(CONFIGS[present])
            await_way(pair.one, pair.two, present)
            await_way(pair.two, pair.one, present)
            for host in pair.hosts:
                await_devices(host, present)
                await_device(host, "flannel0", there=present == "udp")
        pair.await_contact()


@pytest.mark.parametrize(
    ("former", "present"), [("vxlan", "host-gw"), ("host-gw", "vxlan"), ("vxlan", "udp"), ("udp", "host-gw")]
)
def test_no_packet_is_lost_while_one_host_has_gone_over_and_the_other_has_not(
    tmp_path: Path, former: str, present: str
) -> None:
    with configured(tmp_path, former) as pair:
        pair.start()
        with pair.losing_nothing():
            with pair.two.asleep():
                pair.store.configure(CONFIGS[present])
                pair.one.await_line("it is reached as before")
                await_way(pair.one, pair.two, former)
                await_way(pair.two, pair.one, former)
            await_way(pair.one, pair.two, present)
            await_way(pair.two, pair.one, present)
            for host in pair.hosts:
                await_devices(host, present)
                await_device(host, "flannel0", there=present == "udp")
        pair.await_contact()


@pytest.fixture(
    params=[
        pytest.param("kernel", marks=pytest.mark.needs("wg", "wireguard")),
        pytest.param("wireguard-go", marks=pytest.mark.needs("wg", "wireguard-go")),
    ]
)
def private_pair(tmp_path: Path) -> Iterator[Pair]:
    with Pair(tmp_path) as made, ExitStack() as stack:
        for host in made.hosts:
            stack.enter_context(private_run(host))
        yield made


@pytest.mark.parametrize(
    ("former", "present"),
    [("vxlan", "wireguard"), ("wireguard", "vxlan"), ("host-gw", "wireguard"), ("wireguard", "host-gw")],
)
def test_no_packet_is_lost_on_the_way_to_wireguard_and_back(private_pair: Pair, former: str, present: str) -> None:
    pair = private_pair
    pair.store.configure(CONFIGS[former])
    pair.start()
    with pair.losing_nothing():
        pair.store.configure(CONFIGS[present])
        for host in pair.hosts:
            await_device(host, "flannel-wg", there=present == "wireguard")
            await_devices(host, present)
        await_way(pair.one, pair.two, present)
        await_way(pair.two, pair.one, present)
    pair.await_contact()
