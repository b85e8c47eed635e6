"""Verdicts against the kernel: real packets through random rules, and what becomes of them.

A host between two others forwards UDP datagrams, each to a port of its own.  Whatever rules are drawn, those datagrams
arrive for which the walk says so, and no others.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from pyflannel.firewall.verdict import Outcome, Packet, parse, walk
from pyflannel.linux.netns import inside
from tests.support.namespaces import Namespace, veth

pytestmark = pytest.mark.needs("root", "netns", "veth", "iptables")

SOURCES = ("10.9.1.2", "10.9.1.3")
TARGETS = ("10.9.2.2", "10.9.2.3")
PORTS = (53, 80, 8472, 40000)
ROUNDS = 30
CHAINS = ("FORWARD", "ONE", "TWO", "THREE")
CONDITIONS = (
    "",
    *(f"-s {source}" for source in SOURCES),
    "! -s 10.9.1.2/32",
    "-s 10.9.1.0/24 -d 10.9.2.0/30",
    *(f"-d {target}" for target in TARGETS),
    "-d 10.0.2.2/255.0.255.255",
    "-i left",
    "-i le+",
    "! -i le+",
    "-o right",
    "! -o right",
    "-i right",
    "-p udp",
    "-p tcp",
    "! -p tcp",
    "-p udp --dport 80",
    "-p udp ! --dport 80",
    "-p udp --dport 60:9000",
    "-p udp --sport 1024:",
    "-p udp -m multiport --dports 53,8000:9000",
    "-p udp -m multiport ! --ports 53,80",
    "-m conntrack --ctstate NEW",
    "-m conntrack --ctstate RELATED,ESTABLISHED",
    "-m conntrack ! --ctstate INVALID",
    "-m mark --mark 0x1/0x1",
    "-m mark ! --mark 0x1/0x1",
    "-m addrtype --dst-type LOCAL",
    "-m addrtype ! --dst-type LOCAL",
    "-m iprange --src-range 10.9.1.1-10.9.1.2",
    '-m comment --comment "a \\"-j DROP\\" in words"',
)

TARGETS_OF_RULES = ("-j ACCEPT", "-j DROP", "-j REJECT", "-j RETURN", "-j MARK --set-xmark 0x1/0x1", "")


@dataclass(frozen=True)
class Stage:
    left: Namespace
    host: Namespace
    right: Namespace


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Namespace("left") as left, Namespace("host") as host, Namespace("right") as right:
        veth(left, "eth0", host, "left")
        veth(right, "eth0", host, "right")
        host.run("ip address add 10.9.1.1/24 dev left")
        host.run("ip address add 10.9.2.1/24 dev right")
        host.shell("echo 1 >/proc/sys/net/ipv4/ip_forward")
        for space, addresses, gateway in ((left, SOURCES, "10.9.1.1"), (right, TARGETS, "10.9.2.1")):
            for address in addresses:
                space.run(f"ip address add {address}/24 dev eth0")
            space.run(f"ip route add default via {gateway}")
        yield Stage(left, host, right)


def drawn(rng: random.Random) -> str:
    """A filter table for ``iptables-restore``; jumps lead to later chains only."""
    lines = [
        "*filter",
        f":FORWARD {rng.choice(['ACCEPT', 'DROP'])} [0:0]",
        *(f":{name} - [0:0]" for name in CHAINS[1:]),
    ]
    for at, chain in enumerate(CHAINS):
        ways = [f"{verb} {other}" for other in CHAINS[at + 1 :] for verb in ("-j", "-g")]
        for _ in range(rng.randrange(6)):
            targets = [
                "-j ACCEPT",
                "-j DROP",
                "-j REJECT",
                "-j RETURN",
                "-j MARK --set-xmark 0x1/0x1",
                "",
                *ways,
                *ways,
            ]
            lines.append(f"-A {chain} {rng.choice(CONDITIONS)} {rng.choice(targets)}")
    return "\n".join([*lines, "COMMIT", ""])


class Receivers:
    """What arrives at the right: which source got through to which address and port."""

    def __init__(self, space: Namespace) -> None:
        ways = [(target, port) for target in TARGETS for port in PORTS]
        self.sockets = inside(str(space.path), lambda: {way: _bound(*way) for way in ways})

    def arrived(self) -> set[tuple[str, str, int]]:
        found: set[tuple[str, str, int]] = set()
        for (target, port), each in self.sockets.items():
            while True:
                try:
                    _, (source, _) = each.recvfrom(64)
                except BlockingIOError:
                    break
                found.add((source, target, port))
        return found

    def close(self) -> None:
        for each in self.sockets.values():
            each.close()


def _bound(address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.bind((address, port))
    return made


def send(space: Namespace) -> None:
    """A datagram from each address to each, of a connection that nobody has heard of."""

    def go() -> None:
        for source in SOURCES:
            for target in TARGETS:
                for port in PORTS:
                    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as each:
                        each.bind((source, 0))
                        # A REJECT of before may be told now.
                        each.sendto(b"x", (target, port))

    inside(str(space.path), go)


def said(text: str) -> dict[tuple[str, str, int], Outcome]:
    rules = parse(text)
    return {
        (source, target, port): walk(
            rules,
            "filter",
            "FORWARD",
            Packet(
                *(ip_address(source), ip_address(target), "left", "right", "udp", 40001, port),
                destination_type="UNICAST",
            ),
        ).outcome
        for source in SOURCES
        for target in TARGETS
        for port in PORTS
    }


@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_packets_do_what_the_walk_says(stage: Stage, variant: str) -> None:
    receivers = Receivers(stage.right)
    try:
        # Neighbours are asked once, so that from now on whatever is sent is there when the call returns.
        for target in TARGETS:
            stage.left.run(f"ping -c 1 {target}")
        for source in SOURCES:
            stage.right.run(f"ping -c 1 {source}")
        for seed in range(ROUNDS):
            text = drawn(random.Random(seed))
            stage.host.run(f"iptables-{variant}-restore", stdin=text)
            printed = stage.host.run(f"iptables-{variant}-save")
            verdicts = said(printed)
            assert Outcome.UNCERTAIN not in verdicts.values(), f"seed {seed}\n{printed}"
            send(stage.left)
            wanted = {way for way, outcome in verdicts.items() if outcome is Outcome.ACCEPT}
            assert receivers.arrived() == wanted, f"seed {seed}\n{printed}"
    finally:
        receivers.close()
