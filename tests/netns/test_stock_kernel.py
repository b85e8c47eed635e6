"""The parts of a kernel for whose sake another one is booted do what their names say.

Where a part is missing its test is skipped; ``make test-vm`` promises all of them, and there it fails.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from pyflannel.linux.netns import inside
from tests.support.namespaces import Namespace, veth

pytestmark = pytest.mark.needs("root", "netns", "veth")

DATAGRAMS = 50
FAST_PATH = """
    nft 'add table ip probe
         add flowtable ip probe fast { hook ingress priority 0; devices = { left, right }; }
         add chain ip probe forward { type filter hook forward priority 0; }
         add rule ip probe forward counter ip protocol udp flow add @fast'
"""


@pytest.fixture
def ends() -> Iterator[tuple[Namespace, Namespace]]:
    """192.0.2.1 and 192.0.2.2, with a cable between them."""
    with Namespace("one") as one, Namespace("two") as two:
        veth(one, "eth0", two, "eth0")
        for number, space in enumerate((one, two), start=1):
            space.run(f"ip address add 192.0.2.{number}/24 dev eth0")
        yield one, two


@pytest.mark.needs("ipip")
def test_ipip_carries_packets(ends: tuple[Namespace, Namespace]) -> None:
    for number, space in enumerate(ends, start=1):
        space.run(f"ip link add tunnel type ipip local 192.0.2.{number} remote 192.0.2.{3 - number}")
        space.run(f"ip address add 198.51.100.{number}/24 dev tunnel")
        space.run("ip link set tunnel up")
    ends[0].run("ping -c 1 -W 5 198.51.100.2")


@pytest.mark.needs("wireguard")
def test_a_wireguard_device_can_be_put_up(ends: tuple[Namespace, Namespace]) -> None:
    ends[0].run("ip link add tunnel up type wireguard")
    (link,) = ends[0].objects("ip -j -d link show dev tunnel")
    assert link["mtu"] == 1420


@pytest.mark.needs("dummy")
def test_a_dummy_swallows_what_it_is_sent(ends: tuple[Namespace, Namespace]) -> None:
    ends[0].run("ip link add nowhere up type dummy")
    ends[0].run("ip route add 198.51.100.0/24 dev nowhere")
    assert "100% packet loss" in ends[0].shell("ping -c 2 -i 0.2 -W 1 198.51.100.7 || true")


@pytest.mark.needs("netem")
def test_netem_delays_and_loses(ends: tuple[Namespace, Namespace]) -> None:
    one, _ = ends
    one.run("tc qdisc add dev eth0 root netem delay 200ms")
    fastest = re.search(r"rtt min/avg/max/mdev = ([\d.]+)/", one.run("ping -c 2 -W 5 192.0.2.2"))
    assert fastest is not None
    assert float(fastest[1]) >= 200.0
    one.run("tc qdisc replace dev eth0 root netem loss 100%")
    assert "100% packet loss" in one.shell("ping -c 2 -i 0.2 -W 1 192.0.2.2 || true")


@pytest.mark.needs("flowtable")
def test_a_flowtable_takes_packets_past_the_forward_chain() -> None:
    with ExitStack() as stack:
        near, router, far = (stack.enter_context(Namespace(name)) for name in ("near", "router", "far"))
        for number, (space, port) in enumerate(((near, "left"), (far, "right")), start=1):
            veth(space, "eth0", router, port)
            router.run(f"ip address add 198.51.{number}.1/24 dev {port}")
            space.run(f"ip address add 198.51.{number}.2/24 dev eth0")
            space.run(f"ip route add default via 198.51.{number}.1")
        router.shell("echo 1 >/proc/sys/net/ipv4/ip_forward")
        router.shell(FAST_PATH)
        echo(near, far, "198.51.2.2")
        counted = re.search(r"counter packets (\d+)", router.run("nft list table ip probe"))
        assert counted is not None
        # The first ones there and back make the flow known.
        assert 2 <= int(counted[1]) < DATAGRAMS


def echo(near: Namespace, far: Namespace, address: str) -> None:
    """Send datagrams from ``near`` to ``far`` and back, one after the other."""
    with inside(str(far.path), udp) as there, inside(str(near.path), udp) as here:
        there.bind((address, 7007))
        for number in range(DATAGRAMS):
            here.sendto(b"%d" % number, (address, 7007))
            data, sender = there.recvfrom(64)
            there.sendto(data, sender)
            assert here.recv(64) == b"%d" % number


def udp() -> socket.socket:
    """A socket that does not wait for ever."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(10)
    return made
