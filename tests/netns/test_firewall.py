"""The firewall with the real tools, both variants and both families, and with real packets through it."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal

import pytest

from pyflannel.firewall.iptables import Saved, parse_save, render
from pyflannel.firewall.rules import RuleSet, rules
from pyflannel.linux.netns import inside as errand
from pyflannel.linux.run import run
from pyflannel.linux.xtables import FirewallError, Variant, Xtables
from tests.support import loops
from tests.support.namespaces import Namespace, veth
from tests.support.programs import inside
from tests.support.tables import RefusedError, Tables

GOLDEN = Path(__file__).parents[1] / "golden" / "iptables"
JUMP = '-m comment --comment "flanneld forward" -j FLANNEL-FWD'
PORT = 8080
PLAIN_JUMP = '-m comment --comment "flanneld nomasq" -j FLANNEL-NOMASQ'

V4_NETS = (IPv4Network("10.2.0.0/16"), IPv4Network("10.2.71.0/24"))
V6_NETS = (IPv6Network("fd00:2::/48"), IPv6Network("fd00:2:0:71::/64"))
V4, V4_PLAIN = (rules(*V4_NETS, masquerade=way, forward=True, random_fully=True) for way in (True, False))
V6, V6_PLAIN = (rules(*V6_NETS, masquerade=way, forward=True, random_fully=True) for way in (True, False))


@dataclass(frozen=True, slots=True)
class Host:
    """A fresh namespace and the tools of one family and variant in it."""

    space: Namespace
    xtables: Xtables
    program: str
    wanted: RuleSet

    def ensure(self) -> tuple[str, ...]:
        return loops.run(self.xtables.ensure(self.wanted)).mended

    def not_masquerading(self) -> Host:
        """The same host where Docker masquerades."""
        return replace(self, wanted=V4_PLAIN if self.wanted.family == 4 else V6_PLAIN)

    def run(self, arguments: str) -> str:
        return self.space.run(f"{self.program} -w {arguments}")

    def saved(self) -> Saved:
        return parse_save(loops.run(self.xtables.observe()))

    def listing(self) -> str:
        """Our rules, in the form of the golden files."""
        lines = [*self.run("-t nat -S").splitlines(), *self.run("-S").splitlines()]
        ours = [line for line in lines if "FLANNEL" in line]
        ours.sort(key=lambda line: ("FWD" in line, not line.startswith("-N"), "-j FLANNEL" not in line))
        return "\n".join([*ours, ""])


CASES: list[tuple[Literal[4, 6], Variant]] = [(4, "nft"), (4, "legacy"), (6, "nft"), (6, "legacy")]


def program(family: int, variant: str) -> str:
    return f"{'iptables' if family == 4 else 'ip6tables'}-{variant}"


@pytest.fixture(
    params=[
        pytest.param(case, id=program(*case), marks=pytest.mark.needs("root", "netns", program(*case)))
        for case in CASES
    ]
)
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    family, variant = request.param
    with Namespace("fw") as space:
        xtables = Xtables(family, variant, inside(space))
        yield Host(space, xtables, program(family, variant), V4 if family == 4 else V6)


def test_rules_are_listed_as_flannels(host: Host) -> None:
    assert len(host.ensure()) == 4
    golden = GOLDEN / ("ipv4.rules" if host.wanted.family == 4 else "ipv6.rules")
    assert host.listing() == golden.read_text()


def test_rules_without_masquerading_are_listed_as_documented(host: Host) -> None:
    host = host.not_masquerading()
    assert len(host.ensure()) == 4
    golden = GOLDEN / ("ipv4-nomasq.rules" if host.wanted.family == 4 else "ipv6-nomasq.rules")
    assert host.listing() == golden.read_text()
    assert host.ensure() == ()


def test_turning_masquerading_on_or_off_leaves_nothing_of_the_other_way(host: Host) -> None:
    network = host.wanted.chains[-1].rules[0].source
    assert network is not None
    docker = f"-s {network.network} ! -o docker0 -j MASQUERADE"
    host.run(f"-t nat -A POSTROUTING {docker}")
    for way in (host, host.not_masquerading(), host):
        way.ensure()
        saved = host.saved()
        ours = {name for table, name in saved.chains if table == "nat" and "FLANNEL" in name}
        assert ours == {chain.name for chain in way.wanted.chains if chain.table == "nat"}
        assert [rule for rule in saved.rules("nat", "POSTROUTING") if "FLANNEL" not in rule] == [docker]


@pytest.mark.parametrize(
    "damage",
    [
        [f"-t nat -D POSTROUTING {PLAIN_JUMP}"],
        [f"-t nat -A POSTROUTING {PLAIN_JUMP}"],
        ["-t nat -I POSTROUTING -j MASQUERADE"],
        ["-t nat -A FLANNEL-NOMASQ -j MASQUERADE"],
        ["-t nat -D FLANNEL-NOMASQ 3"],
        ["-t nat -F"],
        ["-t nat -F", "-t nat -X"],
    ],
    ids="; ".join,
)
def test_damage_to_what_spares_remote_containers_is_repaired(host: Host, damage: list[str]) -> None:
    host = host.not_masquerading()
    host.ensure()
    healthy = host.listing()
    for command in damage:
        host.run(command)
    theirs = [rule for rule in host.saved().rules("nat", "POSTROUTING") if rule != PLAIN_JUMP]
    assert host.ensure()
    assert host.listing() == healthy
    assert host.saved().rules("nat", "POSTROUTING") == (PLAIN_JUMP, *theirs)
    assert host.ensure() == ()


def test_the_second_time_nothing_is_written(host: Host) -> None:
    assert host.ensure()
    assert host.ensure() == ()


def test_tools_tell_their_version(host: Host) -> None:
    assert loops.run(host.xtables.version()).variant in ("nf_tables", "legacy")


@pytest.mark.parametrize(
    "damage",
    [
        [f"-D FORWARD {JUMP}"],
        [f"-A FORWARD {JUMP}"],
        [f"-I FORWARD 1 {JUMP}", f"-I FORWARD 1 {JUMP}"],
        ["-I FORWARD 1 -j DROP"],
        ["-D FLANNEL-FWD 1"],
        ["-A FLANNEL-FWD -j DROP"],
        ["-I FLANNEL-FWD 1 -j RETURN"],
        ["-F"],
        ["-F", "-X"],
        ["-t nat -D FLANNEL-POSTRTG 3"],
        ["-t nat -F"],
        ["-t nat -F", "-t nat -X"],
    ],
    ids="; ".join,
)
def test_damage_is_repaired_and_nothing_else_changed(host: Host, damage: list[str]) -> None:
    host.ensure()
    healthy = host.listing()
    for command in damage:
        host.run(command)
    theirs = [rule for rule in host.saved().rules("filter", "FORWARD") if rule != JUMP]
    assert host.ensure()
    assert host.listing() == healthy
    assert host.saved().rules("filter", "FORWARD") == (JUMP, *theirs)
    assert host.ensure() == ()


def test_our_rules_go_without_a_trace(host: Host) -> None:
    host.run("-A FORWARD -j DROP")
    host.run("-t nat -A POSTROUTING -j RETURN")
    before = host.saved()
    host.ensure()
    loops.run(host.xtables.remove())
    assert host.saved() == before
    assert not loops.run(host.xtables.remove()).changed


@pytest.mark.parametrize(
    "payload",
    [
        f"*filter\n-A FORWARD -j ACCEPT\n-D FORWARD {JUMP}\nCOMMIT\n",
        "*filter\n-A FORWARD -j ACCEPT\n-I FORWARD 4 -j DROP\nCOMMIT\n",
        "*filter\n-A FORWARD -j ACCEPT\n-A FORWARD -j NOT-THERE\nCOMMIT\n",
        "*filter\n:X - [0:0]\n-A X -j ACCEPT\n-A FORWARD -j X\n-X X\nCOMMIT\n",
        "*filter\n:X - [0:0]\n-A X -j ACCEPT\n-X X\nCOMMIT\n",
    ],
    ids=["deleting what is gone", "inserting beyond the end", "unknown target", "chain in use", "chain not empty"],
)
def test_a_payload_that_does_not_fit_is_refused_whole_by_the_tools_and_by_our_tables(host: Host, payload: str) -> None:
    host.run("-A FORWARD -j RETURN")
    before, tables = host.saved(), Tables.holding("filter", {"FORWARD": ["-j RETURN"]})
    with pytest.raises(FirewallError, match=f"{host.program}-restore .*exit status"):
        loops.run(host.xtables.restore(payload))
    assert host.saved() == before
    with pytest.raises(RefusedError):
        tables.restore(payload)
    assert parse_save(tables.save()).chains.items() >= before.chains.items()


def test_payloads_lead_the_tools_and_our_tables_to_the_same_rules(host: Host) -> None:
    tables = Tables()
    for payload in (
        render(host.wanted),
        f"*filter\n:FLANNEL-FWD - [0:0]\n-A FORWARD -j RETURN\n-D FORWARD {JUMP}\n-I FORWARD 2 {JUMP}\nCOMMIT\n",
        f"*filter\n-D FORWARD {JUMP}\n-F FLANNEL-FWD\n-X FLANNEL-FWD\nCOMMIT\n",
    ):
        tables.restore(payload)
        loops.run(host.xtables.restore(payload))
        assert host.saved() == parse_save(tables.save())


def test_rules_others_add_at_the_same_time_are_all_kept(host: Host) -> None:
    host.run("-N DOCKER")

    async def docker(network: int) -> None:
        done = await run(host.space.argv(host.program, "-w", "-A", "DOCKER", "-i", f"br{network}", "-j", "ACCEPT"))
        assert done.status == 0, done.err

    async def vandal() -> None:
        for _ in range(3):
            await host.xtables.ensure(host.wanted)
            await run(host.space.argv(host.program, "-w", "-F", "FLANNEL-FWD"))

    async def scenario() -> None:
        await asyncio.gather(vandal(), *(docker(network) for network in range(12)))
        await host.xtables.ensure(host.wanted)

    loops.run(scenario())
    saved = host.saved()
    assert sorted(saved.rules("filter", "DOCKER")) == sorted(f"-i br{network} -j ACCEPT" for network in range(12))
    assert host.ensure() == ()


def pings(space: Namespace, address: str) -> bool:
    command = space.argv("ping", "-c", "1", "-W", "1", address)
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class Crossroads:
    """A host that routes between a local container, a remote one, and a world that knows no overlay address."""

    def __init__(self, router: Namespace, local: Namespace, remote: Namespace, world: Namespace) -> None:
        self.router, self.local, self.remote, self.world = router, local, remote, world
        cables = (("local", local, "10.2.71"), ("remote", remote, "10.2.41"), ("world", world, "192.0.2"))
        for name, there, net in cables:
            veth(router, name, there, "eth0")
            router.run(f"ip addr add {net}.1/24 dev {name}")
            there.run(f"ip addr add {net}.2/24 dev eth0")
            if there is not world:
                there.run(f"ip route add default via {net}.1")
        router.run("sysctl -qw net.ipv4.ip_forward=1")
        # Docker's rules, policy DROP among them, with --ip-masq=false as our options for Docker have it.
        lines = (GOLDEN / "docker.save").read_text().splitlines(keepends=True)
        router.run("iptables-restore", stdin="".join(line for line in lines if "-j MASQUERADE" not in line))

    def ensure(self, wanted: RuleSet = V4) -> tuple[str, ...]:
        return loops.run(Xtables(4, run=inside(self.router)).ensure(wanted)).mended

    def source(self, client: Namespace, address: str, server: Namespace, behind: str | None = None) -> str:
        """What ``server`` sees as the source of a TCP connection that ``client`` makes to ``address``.

        ``behind`` is the server's own address, if ``address`` is only translated to it.
        """
        with (
            errand(server.name, lambda: socket.create_server((behind or address, PORT))) as listener,
            errand(client.name, lambda: socket.create_connection((address, PORT), timeout=5)),
        ):
            listener.settimeout(5)
            accepted, (peer, _) = listener.accept()
            accepted.close()
        return str(peer)


@pytest.fixture
def crossroads() -> Iterator[Crossroads]:
    with (
        Namespace("router") as router,
        Namespace("local") as local,
        Namespace("remote") as remote,
        Namespace("world") as world,
    ):
        yield Crossroads(router, local, remote, world)


@pytest.mark.needs("root", "netns", "veth", "iptables")
def test_containers_reach_one_another_and_the_world_through_dockers_drop_policy(crossroads: Crossroads) -> None:
    local = crossroads.local
    assert not pings(local, "10.2.41.2")
    assert not pings(local, "192.0.2.2")
    assert len(crossroads.ensure()) == 4
    assert pings(local, "10.2.41.2")
    assert pings(local, "192.0.2.2")


@pytest.mark.needs("root", "netns", "veth", "iptables")
def test_containers_see_each_others_own_addresses(crossroads: Crossroads) -> None:
    crossroads.ensure()
    crossroads.remote.run("iptables -w -A INPUT ! -s 10.2.71.2 -j DROP")
    assert pings(crossroads.local, "10.2.41.2")
    assert not pings(crossroads.router, "10.2.41.2")


@pytest.mark.needs("root", "netns", "veth", "iptables")
def test_a_persons_drop_in_docker_user_still_counts(crossroads: Crossroads) -> None:
    crossroads.ensure()
    crossroads.router.run("iptables -w -I DOCKER-USER -s 10.2.71.2 -j DROP")
    assert crossroads.ensure() == ()
    assert not pings(crossroads.local, "10.2.41.2")
    crossroads.router.run("iptables -w -D DOCKER-USER 1")
    assert pings(crossroads.local, "10.2.41.2")


@pytest.mark.needs("root", "netns", "veth", "iptables")
def test_containers_see_each_others_own_addresses_where_docker_masquerades(crossroads: Crossroads) -> None:
    local, remote, world = crossroads.local, crossroads.remote, crossroads.world
    crossroads.ensure(V4_PLAIN)
    # As Docker does when it starts; "local" is the device that is docker0 there.
    crossroads.router.run("iptables -w -t nat -I POSTROUTING -s 10.2.71.0/24 ! -o local -j MASQUERADE")
    assert crossroads.source(local, "10.2.41.2", remote) == "10.2.41.1"
    assert crossroads.ensure(V4_PLAIN)
    assert crossroads.source(local, "10.2.41.2", remote) == "10.2.71.2"
    assert crossroads.source(remote, "10.2.71.2", local) == "10.2.41.2"
    assert crossroads.source(local, "192.0.2.2", world) == "192.0.2.1"


@pytest.mark.needs("root", "netns", "veth", "iptables")
def test_a_container_still_reaches_itself_through_a_port_it_publishes(crossroads: Crossroads) -> None:
    """Docker's rules for a published port without the userland proxy; the answer must come back through the host."""
    local, router = crossroads.local, crossroads.router
    crossroads.ensure(V4_PLAIN)
    for rule in (
        f"POSTROUTING -s 10.2.71.2/32 -d 10.2.71.2/32 -p tcp --dport {PORT} -j MASQUERADE",
        f"PREROUTING -d 10.2.71.1/32 -p tcp --dport {PORT} -j DNAT --to-destination 10.2.71.2:{PORT}",
    ):
        router.run(f"iptables -w -t nat -I {rule}")
    crossroads.ensure(V4_PLAIN)
    assert crossroads.source(local, "10.2.71.1", local, behind="10.2.71.2") == "10.2.71.1"
