"""Traces on two real hosts: what is planted is found, at its hop and on its host, and what is well is not doubted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest

from pyflannel.cli.agent_settings import agent_settings
from pyflannel.cli.known_network import known_network
from pyflannel.cli.trace import traced
from pyflannel.linux.netns import inside
from pyflannel.outputs import read_subnet_env
from pyflannel.settings import Settings
from pyflannel.trace.facts import Flow, Peer, Point
from pyflannel.trace.follow import Ask, Leg, NoAnswer, NotHere, Trace, Verdict
from pyflannel.trace.remote import Respondent
from tests.support.machines import eventually
from tests.support.namespaces import Namespace
from tests.support.pair import CONFIG, Host, Pair
from tests.support.private_run import private_run
from tests.support.trio import Trio, reaches

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge", "iptables")


def settings(host: Host) -> Settings:
    flags = [f"--store=local:{host.store.path}", f"-subnet-file={host.subnet_file}", f"--state-dir={host.home}"]
    return agent_settings([*flags, *host.flags], defaults=None, environ={})


def answering(hosts: tuple[Host, ...]) -> Ask:
    """Has the agent of a host answer, whether or not one runs there."""

    def ask(peer: Peer, question: bytes) -> bytes:
        (host,) = (each for each in hosts if ip_address(each.address) in peer.hosts)
        return inside(str(host.space.path), lambda: asyncio.run(_answer(host, question)))

    return ask


async def _answer(host: Host, question: bytes) -> bytes:
    network, _ = await known_network(settings(host))
    return await Respondent(lambda: network, time.monotonic, host.subnet_file.parent)(question)


def trace(host: Host, flow: Flow, ask: Ask) -> Trace:
    def look() -> Trace:
        network, _ = asyncio.run(known_network(settings(host)))
        return traced(network, settings(host), flow, ask)

    return inside(str(host.space.path), look)


def flow(host: Host, peer: Host) -> Flow:
    return Flow(ip_address(host.target), ip_address(peer.target))


def told(trace: Trace) -> str:
    """The whole of it, for a failed assertion."""
    return "\n".join(
        [
            f"{leg.host or 'here'} {'back' if leg.back else 'there'} {hop.point} {hop.mood}: {hop.text}"
            for leg in trace.legs
            for hop in leg.hops
        ]
        + [trace.sentence]
    )


def last(trace: Trace) -> tuple[Leg, Point, str]:
    """Where it ends: the leg, the hop, and what is said of it."""
    leg = trace.legs[-1]
    return leg, leg.hops[-1].point, leg.hops[-1].text


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both containers reach each other, and no agent mends what is broken."""
    with Pair(tmp_path_factory.mktemp("trace")) as made:
        made.start()
        made.one.stop()
        made.two.stop()
        yield made


@dataclass(frozen=True)
class Breakage:
    """Something planted on a host, ``one`` or ``two`` or a container of it, and where it is to be found."""

    where: str
    do: str
    undo: str
    point: Point
    words: str
    found_on: str = ""
    """``one`` or ``two``; empty: where it was planted."""
    back: bool = False
    """Whether it stops only the answer."""


# {…} stand for the subnet, gateway, bridge, container and VTEP MAC of each host.
BREAKAGES = {
    "route deleted": Breakage(
        "one",
        "ip route del {subnet2}",
        "ip route add {subnet2} via {gateway2} dev flannel.1 onlink",
        Point.ROUTE,
        "missing",
    ),
    "blackhole for the container": Breakage(
        "one",
        "ip route add blackhole {target2}",
        "ip route del blackhole {target2}",
        Point.ROUTE,
        "blackhole",
    ),
    "another route takes it": Breakage(
        "one",
        "ip route add {target2} via 172.16.41.77 dev ens33",
        "ip route del {target2}",
        Point.ROUTE,
        "another route decides",
    ),
    "neighbour deleted": Breakage(
        "one",
        "ip neigh del {gateway2} dev flannel.1",
        "ip neigh replace {gateway2} lladdr {mac2} dev flannel.1 nud permanent",
        Point.NEIGHBOUR,
        "no neighbour",
    ),
    "neighbour wrong": Breakage(
        "one",
        "ip neigh replace {gateway2} lladdr 02:00:00:00:00:99 dev flannel.1 nud permanent",
        "ip neigh replace {gateway2} lladdr {mac2} dev flannel.1 nud permanent",
        Point.NEIGHBOUR,
        "the lease says",
    ),
    "FDB entry deleted": Breakage(
        "one",
        "bridge fdb del {mac2} dev flannel.1 dst 172.16.41.132 self",
        "bridge fdb replace {mac2} dev flannel.1 dst 172.16.41.132 self permanent",
        Point.FDB,
        "no forwarding",
    ),
    "FDB entry wrong": Breakage(
        "one",
        "bridge fdb replace {mac2} dev flannel.1 dst 172.16.41.200 self permanent",
        "bridge fdb replace {mac2} dev flannel.1 dst 172.16.41.132 self permanent",
        Point.FDB,
        "172.16.41.200",
    ),
    "FORWARD drops here": Breakage(
        "one",
        "iptables -I FORWARD -d {target2} -j DROP",
        "iptables -D FORWARD -d {target2} -j DROP",
        Point.FIREWALL,
        "-A FORWARD -d {target2}/32 -j DROP",
    ),
    "FORWARD rejects there": Breakage(
        "two",
        "iptables -I FORWARD -p icmp -i flannel.1 -j REJECT",
        "iptables -D FORWARD -p icmp -i flannel.1 -j REJECT",
        Point.FIREWALL,
        "rejects it: -A FORWARD -i flannel.1",
    ),
    "raw drops there, as Docker 28 does": Breakage(
        "two",
        "iptables -t raw -A PREROUTING -d {target2} ! -i docker0 -j DROP",
        "iptables -t raw -F PREROUTING",
        Point.FIREWALL,
        "PREROUTING of table raw drops it",
    ),
    "INPUT drops vxlan there": Breakage(
        "two",
        "iptables -A INPUT -p udp --dport 8472 -j DROP",
        "iptables -F INPUT",
        Point.FIREWALL,
        "UDP port 8472",
    ),
    "OUTPUT drops vxlan here": Breakage(
        "one",
        "iptables -A OUTPUT -p udp --dport 8472 -j DROP",
        "iptables -F OUTPUT",
        Point.FIREWALL,
        "of the packet around it",
    ),
    "no forwarding here": Breakage(
        "one",
        "sysctl -qw net.ipv4.ip_forward=0",
        "sysctl -qw net.ipv4.ip_forward=1",
        Point.FORWARDING,
        "ip_forward",
    ),
    "no forwarding there": Breakage(
        "two",
        "sysctl -qw net.ipv4.ip_forward=0",
        "sysctl -qw net.ipv4.ip_forward=1",
        Point.FORWARDING,
        "ip_forward",
    ),
    "strict rp_filter and an answer that goes another way": Breakage(
        "two",
        "sysctl -qw net.ipv4.conf.flannel/1.rp_filter=1; ip route add {target1} via 172.16.41.131 dev ens33",
        "sysctl -qw net.ipv4.conf.flannel/1.rp_filter=0; ip route del {target1}",
        Point.REVERSE_PATH,
        "rp_filter",
    ),
    "the container is gone": Breakage(
        "two.container",
        "ip address flush dev eth0",
        "ip address add {target2}/24 dev eth0; ip route add default via {bridge2}",
        Point.CONTAINER,
        "nobody on docker0 answers",
    ),
    "the sender is gone": Breakage(
        "one.container",
        "ip address flush dev eth0",
        "ip address add {target1}/24 dev eth0; ip route add default via {bridge1}",
        Point.CONTAINER,
        "nobody on docker0 answers",
    ),
    "bridge down here": Breakage(
        "one",
        "ip link set docker0 down",
        "ip link set docker0 up",
        Point.BRIDGE,
        "docker0, which has",
    ),
    "bridge down there": Breakage(
        "two",
        "ip link set docker0 down",
        "ip link set docker0 up",
        Point.BRIDGE,
        "docker0, which has",
    ),
    "the way to the host is a blackhole": Breakage(
        "one",
        "ip route add blackhole 172.16.41.132",
        "ip route del blackhole 172.16.41.132",
        Point.UNDERLAY,
        "cannot reach 172.16.41.132",
    ),
    "the other host is off": Breakage(
        "two",
        "ip link set ens33 down",
        "ip link set ens33 up",
        Point.UNDERLAY,
        "nobody on ens33 answers for 172.16.41.132",
        found_on="one",
    ),
    "another MAC there": Breakage(
        "two",
        "ip link set flannel.1 address 02:00:00:00:00:77",
        # The kernel forgets the neighbours of a device that gets another address.
        "ip link set flannel.1 address {mac2};ip neigh replace {gateway1} lladdr {mac1} dev flannel.1 nud permanent",
        Point.TUNNEL,
        "02:00:00:00:00:77",
    ),
    "no route back": Breakage(
        "two",
        "ip route del {subnet1}",
        "ip route add {subnet1} via {gateway1} dev flannel.1 onlink",
        Point.ROUTE,
        "missing",
        back=True,
    ),
    "FORWARD drops what comes back": Breakage(
        "one",
        "iptables -I FORWARD -m conntrack --ctstate ESTABLISHED -j DROP",
        "iptables -D FORWARD -m conntrack --ctstate ESTABLISHED -j DROP",
        Point.FIREWALL,
        "ESTABLISHED",
        back=True,
    ),
    "device down here": Breakage(
        "one",
        "ip link set flannel.1 down",
        "ip link set flannel.1 up; "
        "ip route add {subnet2} via {gateway2} dev flannel.1 onlink; "
        "ip neigh replace {gateway2} lladdr {mac2} dev flannel.1 nud permanent",
        Point.DEVICE,
        "flannel.1, by which it should leave, is down",
    ),
    "device down there": Breakage(
        "two",
        "ip link set flannel.1 down",
        "ip link set flannel.1 up; "
        "ip route add {subnet1} via {gateway1} dev flannel.1 onlink; "
        "ip neigh replace {gateway1} lladdr {mac1} dev flannel.1 nud permanent",
        Point.DEVICE,
        "flannel.1 is down",
    ),
}


def words(pair: Pair) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, host in enumerate((pair.one, pair.two), 1):
        mac = str(host.link()["address"])
        found |= {
            f"subnet{number}": str(host.subnet),
            f"gateway{number}": str(host.subnet[0]),
            f"bridge{number}": str(host.subnet[1]),
            f"target{number}": host.target,
            f"mac{number}": mac,
        }
    return found


def shell(pair: Pair, where: str, script: str) -> None:
    name, _, container = where.partition(".")
    host: Host = getattr(pair, name)
    (host.container if container else host.space).shell(script)


@pytest.mark.parametrize("breakage", BREAKAGES.values(), ids=list(BREAKAGES))
def test_a_planted_fault_is_found_at_its_hop(pair: Pair, breakage: Breakage) -> None:
    terms = words(pair)
    shell(pair, breakage.where, breakage.do.format(**terms))
    try:
        assert not reaches(pair.one, pair.two)
        found = trace(pair.one, flow(pair.one, pair.two), answering(pair.hosts))
    finally:
        shell(pair, breakage.where, breakage.undo.format(**terms))
    leg, point, text = last(found)
    assert found.verdict is Verdict.ENDS, told(found)
    host = breakage.found_on or breakage.where.partition(".")[0]
    wanted = "" if host == "one" else pair.two.address
    assert (leg.host, leg.back, point) == (wanted, breakage.back, breakage.point), told(found)
    assert breakage.words.format(**terms) in text
    assert found.sentence.endswith(f"at {point}: {text}.")
    eventually(lambda: reaches(pair.one, pair.two), "the fault undone", 10.0)


def test_what_is_well_arrives_both_ways(pair: Pair) -> None:
    for here, there in ((pair.one, pair.two), (pair.two, pair.one)):
        found = trace(here, flow(here, there), answering(pair.hosts))
        assert found.verdict is Verdict.ARRIVES, told(found)
        assert [(leg.host, leg.back) for leg in found.legs] == [
            *[("", False), (there.address, False), (there.address, True), ("", True)]
        ]


def test_a_host_reaches_containers_of_another(pair: Pair) -> None:
    found = trace(pair.one, Flow(ip_address(pair.one.address), ip_address(pair.two.target)), answering(pair.hosts))
    assert found.verdict is Verdict.ARRIVES, told(found)


def test_two_containers_of_one_host_are_followed_here_alone(pair: Pair) -> None:
    bridge = pair.one.subnet[1]
    found = trace(pair.one, Flow(ip_address(pair.one.target), bridge), answering(pair.hosts))
    assert (found.verdict, {leg.host for leg in found.legs}) == (Verdict.ARRIVES, {""}), told(found)


def test_two_containers_of_one_bridge_need_no_forwarding(pair: Pair) -> None:
    with Namespace("neighbour") as neighbour:
        target = pair.one.subnet[3]
        pair.one.space.run(f"ip link add cable3 type veth peer name eth0 netns {neighbour.name}")
        pair.one.space.run("ip link set cable3 master docker0 up")
        neighbour.run(f"ip address add {target}/24 dev eth0")
        neighbour.run("ip link set eth0 up")
        pair.one.space.shell("echo 0 >/proc/sys/net/ipv4/ip_forward")
        try:
            eventually(lambda: pings(pair.one, str(target)), "the neighbour")
            found = trace(pair.one, Flow(ip_address(pair.one.target), target), answering(pair.hosts))
        finally:
            pair.one.space.shell("echo 1 >/proc/sys/net/ipv4/ip_forward")
    assert found.verdict is Verdict.ARRIVES, told(found)
    assert Point.ROUTE not in {hop.point for hop in found.legs[0].hops}


def test_a_packet_that_is_too_large_ends_before_the_tunnel(pair: Pair) -> None:
    ends = ip_address(pair.one.target), ip_address(pair.two.target)
    fits = trace(pair.one, Flow(*ends, size=1450), answering(pair.hosts))
    large = trace(pair.one, Flow(*ends, size=1451), answering(pair.hosts))
    assert fits.verdict is Verdict.ARRIVES, told(fits)
    assert last(large)[1] is Point.MTU, told(large)


def test_ports_count(pair: Pair) -> None:
    pair.two.space.run("iptables -I FORWARD -p tcp --dport 80 -j DROP")
    ends = ip_address(pair.one.target), ip_address(pair.two.target)
    dropped = trace(pair.one, Flow(*ends, "tcp", 80), answering(pair.hosts))
    passed = trace(pair.one, Flow(*ends, "tcp", 81), answering(pair.hosts))
    any_port = trace(pair.one, Flow(*ends, "tcp"), answering(pair.hosts))
    pair.two.space.run("iptables -D FORWARD -p tcp --dport 80 -j DROP")
    assert [each.verdict for each in (dropped, passed, any_port)] == [Verdict.ENDS, Verdict.ARRIVES, Verdict.UNTOLD]


def test_an_address_nobody_has_a_lease_for_is_named(pair: Pair) -> None:
    found = trace(pair.one, Flow(ip_address(pair.one.target), ip_address("10.2.201.7")), answering(pair.hosts))
    assert last(found)[1] is Point.LEASE, told(found)
    assert "no host has a lease" in found.sentence


def test_without_an_answer_of_the_other_agent_the_first_half_stands(pair: Pair) -> None:
    def silence(peer: Peer, question: bytes) -> bytes:
        raise NoAnswer("it does not answer")

    found = trace(pair.one, flow(pair.one, pair.two), silence)
    assert (found.verdict, last(found)[1]) == (Verdict.UNTOLD, Point.AGENT), told(found)
    assert len(found.legs[0].hops) > 5


def test_a_source_on_another_host_is_refused_with_its_place(pair: Pair) -> None:
    with pytest.raises(NotHere, match=rf"on {pair.two.address}"):
        trace(pair.one, flow(pair.two, pair.one), answering(pair.hosts))


@pytest.mark.needs("nft")
def test_another_programs_table_of_nftables_is_where_it_ends_or_may_end(pair: Pair) -> None:
    verdicts = []
    pair.two.space.run("nft add table inet theirs")
    pair.two.space.run("nft add chain inet theirs f { type filter hook forward priority 5 ; }")
    for rule in ("tcp dport 25 drop", "meta mark 7 drop", "icmp type echo-request drop"):
        pair.two.space.run(f"nft add rule inet theirs f {rule}")
        found = trace(pair.one, flow(pair.one, pair.two), answering(pair.hosts))
        verdicts.append(found.verdict)
    pair.two.space.run("nft delete table inet theirs")
    assert verdicts == [Verdict.ARRIVES, Verdict.UNTOLD, Verdict.ENDS], told(found)
    assert found.legs[-1].host == pair.two.address
    assert "drops it at forward: inet theirs f icmp type echo-request drop" in found.sentence


def test_the_command_prints_its_verdict_and_ends_with_its_status(pair: Pair) -> None:
    command = [sys.executable, "-m", "pyflannel.cli.flannelctl", "trace", "--no-defaults"]
    flags = ["--", f"--store=local:{pair.store.path}", f"-subnet-file={pair.one.subnet_file}", "-iface=ens33"]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        whole = [*pair.one.enter, *command, *arguments, *flags]
        return subprocess.run(whole, capture_output=True, text=True, check=False)

    silent = run(pair.one.target, pair.two.target)
    assert silent.returncode == 3, silent
    assert "cannot be asked" in silent.stdout
    nowhere = run("--json", pair.one.target, "10.2.201.7")
    assert nowhere.returncode == 1, nowhere
    assert json.loads(nowhere.stdout)["legs"][0]["hops"][-1]["point"] == "lease"
    assert run(pair.two.target, pair.one.target).returncode == 2
    assert run("10.2.0.1", "fd00::1").returncode == 2


@pytest.mark.parametrize(
    "backend",
    [
        "host-gw",
        "udp",
        pytest.param("ipip", marks=pytest.mark.needs("ipip")),
        pytest.param("wireguard", marks=pytest.mark.needs("wireguard")),
    ],
)
def test_every_backend_is_followed(tmp_path: Path, backend: str) -> None:
    with Pair(tmp_path) as pair:
        pair.store.configure(CONFIG.replace("vxlan", backend))
        pair.start()
        well = trace(pair.one, flow(pair.one, pair.two), answering(pair.hosts))
        assert well.verdict is Verdict.ARRIVES, told(well)
        # Not FORWARD, where an agent that runs sees to what stands before its rules.
        pair.two.space.run(f"iptables -t raw -I PREROUTING -d {pair.two.target} -j DROP")
        broken = trace(pair.one, flow(pair.one, pair.two), answering(pair.hosts))
        assert (last(broken)[0].host, last(broken)[1]) == (pair.two.address, Point.FIREWALL), told(broken)


def test_a_route_of_host_gw_that_is_gone_is_found(tmp_path: Path) -> None:
    with Pair(tmp_path) as pair:
        pair.store.configure(CONFIG.replace("vxlan", "host-gw"))
        pair.start()
        pair.one.stop()
        pair.one.space.run(f"ip route del {pair.two.subnet}")
        found = trace(pair.one, flow(pair.one, pair.two), answering(pair.hosts))
        assert last(found)[1] is Point.ROUTE, told(found)
        assert f"{pair.two.subnet} via {pair.two.address} dev ens33 proto 70" in found.sentence


def test_a_forwarder_of_udp_that_has_died_is_found_on_either_side(tmp_path: Path) -> None:
    with Pair(tmp_path) as pair:
        pair.store.configure(CONFIG.replace("vxlan", "udp"))
        pair.start()
        for host in pair.hosts:
            host.stop()
        for dead, wanted in ((pair.two, pair.two.address), (pair.one, "")):
            for word in dead.space.run(f"ip netns pids {dead.space.name}").split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(word), signal.SIGKILL)
            eventually(partial(stopped, dead, "flannel0"), "the forwarder gone")
            found = trace(pair.one, flow(pair.one, pair.two), answering(pair.hosts))
            assert (last(found)[0].host, last(found)[1]) == (wanted, Point.TUNNEL), told(found)


def stopped(host: Host, dev: str) -> bool:
    flags = host.space.objects(f"ip -j link show {dev}")[0]["flags"]
    assert isinstance(flags, list)
    return "NO-CARRIER" in flags


DUAL = CONFIG.replace('"SubnetLen"', '"EnableIPv6":true,"IPv6Network":"fd00:10:2::/48","SubnetLen"')


def test_ipv6_is_followed_as_well(tmp_path: Path) -> None:
    with Pair(tmp_path) as pair:
        pair.store.configure(DUAL)
        ends = []
        for number, host in enumerate(pair.hosts, 131):
            host.space.run(f"ip -6 address add fd00:41::{number}/64 dev ens33 nodad")
            host.space.shell("echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
        pair.start()
        for host in pair.hosts:
            subnet = read_subnet_env(host.subnet_file.read_text()).ipv6_subnet
            assert subnet is not None
            host.space.run(f"ip -6 address add {subnet[1]}/64 dev docker0 nodad")
            host.container.run(f"ip -6 address add {subnet[2]}/64 dev eth0 nodad")
            host.container.run(f"ip -6 route add default via {subnet[1]}")
            ends.append(subnet[2])
        # Until a bridge is sure of its own address the kernel asks nobody on it.
        unsure = "tentative"
        eventually(lambda: not any(unsure in host.space.run("ip -6 addr") for host in pair.hosts), "sure addresses")
        eventually(lambda: pings(pair.one, str(ends[1])), "IPv6 across")
        six = Flow(ends[0], ends[1])
        well = trace(pair.one, six, answering(pair.hosts))
        assert well.verdict is Verdict.ARRIVES, told(well)
        pair.two.space.shell("echo 0 >/proc/sys/net/ipv6/conf/all/forwarding")
        still = trace(pair.one, six, answering(pair.hosts))
        assert (last(still)[0].host, last(still)[1]) == (pair.two.address, Point.FORWARDING), told(still)
        pair.two.space.shell("echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
        pair.two.space.run("ip6tables -t raw -I PREROUTING -s fd00:10:2::/48 -j DROP")
        dropped = trace(pair.one, six, answering(pair.hosts))
        assert (last(dropped)[0].host, last(dropped)[1]) == (pair.two.address, Point.FIREWALL), told(dropped)


def pings(host: Host, target: str) -> bool:
    try:
        host.container.run(f"ping -c 1 -W 1 {target}")
    except AssertionError:
        return False
    return True


def test_direct_routes_and_the_tunnel_are_told_apart(tmp_path: Path) -> None:
    with Trio(tmp_path, CONFIG.replace('"vxlan"', '"vxlan","DirectRouting":true')) as trio:
        trio.start()
        near = trace(trio.one, flow(trio.one, trio.two), answering(trio.hosts))
        far = trace(trio.one, flow(trio.one, trio.three), answering(trio.hosts))
        assert (near.verdict, far.verdict) == (Verdict.ARRIVES, Verdict.ARRIVES), told(near) + told(far)
        assert Point.FDB not in {hop.point for hop in near.legs[0].hops}
        assert Point.FDB in {hop.point for hop in far.legs[0].hops}
        trio.router.shell("echo 0 >/proc/sys/net/ipv4/ip_forward")
        trio.one.space.run("ip route del 172.16.42.0/24")
        lost = trace(trio.one, flow(trio.one, trio.three), answering(trio.hosts))
        assert last(lost)[1] is Point.UNDERLAY, told(lost)


@pytest.mark.needs("wireguard-go")
def test_wireguard_of_a_program_is_followed_as_far_as_this_host_goes(tmp_path: Path) -> None:
    with Pair(tmp_path) as pair, contextlib.ExitStack() as stack:
        for host in pair.hosts:
            stack.enter_context(private_run(host))
        pair.store.configure(CONFIG.replace("vxlan", "wireguard"))
        pair.start()
        # The program is asked at a socket in the host's own /run, so the command has to run there.
        ends = [pair.one.target, pair.two.target]
        places = [f"-subnet-file={pair.one.subnet_file}", f"--state-dir={pair.one.home}", "-iface=ens33"]
        command = [sys.executable, "-m", "pyflannel.cli.flannelctl", "trace", "--no-defaults", "--json", *ends, "--"]
        whole = [*pair.one.enter, *command, f"--store=local:{pair.store.path}", *places]
        done = subprocess.run(whole, capture_output=True, text=True, check=False)
        hops = json.loads(done.stdout)["legs"][0]["hops"]
        assert {hop["mood"] for hop in hops} == {"passes"}, done.stdout
        (tunnel,) = (hop["text"] for hop in hops if hop["point"] == "tunnel")
        assert tunnel.startswith("flannel-wg encrypts it for ")
        assert tunnel.endswith(f" at {pair.two.address}:51820")


def test_agents_tell_each_other_their_halves(tmp_path: Path) -> None:
    with Pair(tmp_path) as pair:
        pair.start()
        command = [
            *pair.one.enter,
            sys.executable,
            "-m",
            "pyflannel.cli.flannelctl",
            "trace",
            "--no-defaults",
            "--json",
        ]
        flags = ["--", f"--store=local:{pair.store.path}", f"-subnet-file={pair.one.subnet_file}", "-iface=ens33"]

        def found() -> dict[str, object]:
            ends = [pair.one.target, pair.two.target]
            done = subprocess.run([*command, *ends, *flags], capture_output=True, text=True, check=False)
            answer: dict[str, object] = json.loads(done.stdout)
            return answer

        eventually(lambda: found()["verdict"] == "arrives", "the other agent's answer")
        pair.two.space.run(f"iptables -t raw -I PREROUTING -d {pair.two.target} ! -i docker0 -j DROP")
        told = found()
        assert told["verdict"] == "ends"
        assert f"on {pair.two.address}, at firewall" in str(told["sentence"])
