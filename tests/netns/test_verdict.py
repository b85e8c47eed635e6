"""Verdicts against the kernel: real packets through random rules, and what becomes of them.

A host between two others forwards UDP datagrams, each to a port of its own.  Whatever rules are drawn, those datagrams
arrive for which the walk says so, and no others.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address

import pytest

from pyflannel.firewall import nft
from pyflannel.firewall.verdict import Outcome, Packet, Verdict, parse, walk
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
NFT_CONDITIONS = (
    "",
    "ip saddr 10.9.1.2",
    "ip saddr != 10.9.1.2",
    "ip saddr 10.9.1.0/24 ip daddr 10.9.2.0/30",
    "ip daddr { 10.9.2.2, 10.9.3.0/24 }",
    "ip daddr 10.9.2.3-10.9.2.9",
    "ip daddr @mine",
    "ip daddr != @mine",
    'iifname "left"',
    'iifname "le*"',
    'iifname != "le*"',
    'iifname != { "lo", "left" }',
    'oifname "right"',
    'iif "left"',
    "meta l4proto udp",
    "meta l4proto != { tcp, icmp }",
    "ip protocol tcp",
    "udp dport 80",
    "udp dport != 80",
    "udp dport { 53, 8000-9000 }",
    "tcp dport != 80",
    "th dport 53",
    "icmp type echo-request",
    "ct state new",
    "ct state established,related",
    "ct state { established, related }",
    "ct state != invalid",
    "ct status dnat",
    "meta nfproto ipv4",
    "ip6 saddr != ::1",
    "fib daddr type local",
    "fib daddr type != local",
    "fib saddr . iif oif missing",
    "fib saddr . iif oif exists",
)
NFT_VERDICTS = ("accept", "drop", "reject", "return", "continue", "counter", 'counter accept comment "a drop in words"')


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


def drawn_for_nft(rng: random.Random) -> str:
    """Two base chains of a table of one's own for ``nft -f``; jumps lead to later chains only."""
    elements = "elements = { 10.9.2.2, 10.9.4.0/24 }"
    lines = [
        "table inet theirs {",
        f"set mine {{ type ipv4_addr; flags interval; {elements}; }}",
        "map ways { type ifname : verdict; }",
    ]
    bodies: list[str] = []
    for at, chain in enumerate(("FORWARD", *CHAINS)):
        ways = [f"{verb} {other}" for other in CHAINS[max(at, 1) :] for verb in ("jump", "goto")]
        maps = [
            *(f'oifname vmap {{ "lo" : drop, "right" : {way} }}' for way in ways[:2]),
            *["iifname vmap @ways"][: len(ways)],
            f"udp dport vmap {{ 80 : drop, 53-60 : accept, 8472 : {ways[0] if ways else 'return'} }}",
        ]
        rules = [
            rng.choice([f"{rng.choice(NFT_CONDITIONS)} {rng.choice([*NFT_VERDICTS, *ways, *ways])}"] * 3 + maps)
            for _ in range(rng.randrange(6))
        ]
        policy = rng.choice(["accept", "accept", "drop"])
        hook = f"type filter hook forward priority {rng.randrange(-5, 5)}; policy {policy};" if at < 2 else ""
        name = chain if at else "FIRST"
        lines.append(f"chain {name} {{ {hook} }}")
        bodies.append("chain {} {{\n{}\n}}".format(name, "\n".join(rules)))
    jump = f'add element inet theirs ways {{ "left" : jump {CHAINS[-1]} }}'
    whole = "\n".join([*lines, "}", jump, "table inet theirs {", *bodies, "}", ""])
    return f"table inet theirs\ndelete table inet theirs\n{whole}"


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


def said(judge: Callable[[Packet], Verdict]) -> dict[tuple[str, str, int], Outcome]:
    return {
        (source, target, port): judge(
            Packet(
                *(ip_address(source), ip_address(target), "left", "right", "udp", 40001, port),
                destination_type="UNICAST",
                reverse_path=True,
            )
        ).outcome
        for source in SOURCES
        for target in TARGETS
        for port in PORTS
    }


@contextmanager
def receiving(stage: Stage) -> Iterator[Receivers]:
    receivers = Receivers(stage.right)
    try:
        # Neighbours are asked once, so that from now on whatever is sent is there when the call returns.
        for target in TARGETS:
            stage.left.run(f"ping -c 1 {target}")
        for source in SOURCES:
            stage.right.run(f"ping -c 1 {source}")
        yield receivers
    finally:
        receivers.close()


def compare(stage: Stage, receivers: Receivers, judge: Callable[[Packet], Verdict], about: str) -> None:
    verdicts = said(judge)
    assert Outcome.UNCERTAIN not in verdicts.values(), about
    send(stage.left)
    wanted = {way for way, outcome in verdicts.items() if outcome is Outcome.ACCEPT}
    assert receivers.arrived() == wanted, about


@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_packets_do_what_the_walk_says(stage: Stage, variant: str) -> None:
    with receiving(stage) as receivers:
        for seed in range(ROUNDS):
            text = drawn(random.Random(seed))
            stage.host.run(f"iptables-{variant}-restore", stdin=text)
            printed = stage.host.run(f"iptables-{variant}-save")
            compare(stage, receivers, partial(walk, parse(printed), "filter", "FORWARD"), f"seed {seed}\n{printed}")


@pytest.mark.needs("nft")
def test_packets_do_what_the_walk_through_a_table_of_nftables_says(stage: Stage) -> None:
    with receiving(stage) as receivers:
        for seed in range(ROUNDS):
            stage.host.run("nft -f -", stdin=drawn_for_nft(random.Random(seed)))
            tables = [nft.read(stage.host.run("nft -j list table inet theirs"))]
            listed = stage.host.run("nft list table inet theirs")
            compare(stage, receivers, partial(nft.walk, tables, "forward"), f"seed {seed}\n{listed}")
