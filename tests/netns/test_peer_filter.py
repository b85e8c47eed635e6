"""The filter of tunnel packets on real kernels: who is let in, that it follows the leases, and that it heals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machines import eventually
from tests.support.namespaces import Namespace
from tests.support.pair import Host, Pair, Peer

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge", "iptables", "nft")

TABLE = "flannel-peers-1"
STRANGER = "172.16.41.66"


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with Pair(tmp_path) as made:
        made.one.flags.append("-peer-filter")
        made.start()
        eventually(lambda: TABLE in made.one.space.run("nft list tables"), "the table")
        # On a busy machine the other host may know of us, and ask, before we have heard of it.
        eventually(lambda: known(made.one) == {made.two.address}, "the other host")
        yield made


@pytest.fixture
def stranger(pair: Pair) -> Iterator[Namespace]:
    """A host nobody has heard of, which knows all about the tunnel of ``one``."""
    with Namespace("stranger") as made:
        pair.switch.plug(made, "eth0", f"{STRANGER}/24")
        made.run("ip link add vx type vxlan id 1 dstport 8472 local 172.16.41.66 dev eth0 nolearning")
        made.run("ip link set vx up address 02:00:00:00:00:66")
        made.run("ip address add 10.2.77.1/32 dev vx")
        mac = pair.one.link()["address"]
        made.run(f"ip neigh add {pair.one.subnet[0]} lladdr {mac} dev vx nud permanent")
        made.run(f"bridge fdb add {mac} dev vx dst {pair.one.address}")
        made.run(f"ip route add {pair.one.subnet} via {pair.one.subnet[0]} dev vx onlink")
        yield made


def dropped(host: Host) -> int:
    """How many packets the table has thrown away."""
    entries = json.loads(host.space.run(f"nft -j list table inet {TABLE}"))["nftables"]
    parts = [part for entry in entries for part in entry.get("rule", {}).get("expr", ())]
    return sum(int(part["counter"]["packets"]) for part in parts if "counter" in part)


def known(host: Host) -> set[str]:
    entries = json.loads(host.space.run(f"nft -j list set inet {TABLE} hosts"))["nftables"]
    return {element for entry in entries for element in entry.get("set", {}).get("elem", ())}


def knock(stranger: Namespace, host: Host) -> None:
    """Send what nobody will answer: who sends it has no lease."""
    stranger.shell(f"ping -c 3 -i 0.2 -W 1 -I 10.2.77.1 {host.target} || true")


def test_known_hosts_are_let_in_and_strangers_are_not(pair: Pair, stranger: Namespace) -> None:
    before = dropped(pair.one)
    assert pair.probe_for(0.2).lost == 0
    assert dropped(pair.one) == before
    knock(stranger, pair.one)
    assert dropped(pair.one) == before + 3
    knock(stranger, pair.two)
    assert TABLE not in pair.two.space.run("nft list tables"), "nobody asked for it there"


def test_packets_of_another_network_on_the_same_port_are_let_in(pair: Pair, stranger: Namespace) -> None:
    before = dropped(pair.one)
    for space, dev, own, other in (
        (stranger, "eth0", STRANGER, pair.one.address),
        (pair.one.space, "ens33", pair.one.address, STRANGER),
    ):
        space.run(f"ip link add theirs type vxlan id 7 dstport 8472 local {own} remote {other} dev {dev}")
        space.run("ip link set theirs up")
    stranger.run("ip address add 192.0.2.1/24 dev theirs")
    pair.one.space.run("ip address add 192.0.2.2/24 dev theirs")
    stranger.run("ping -c 1 -W 5 192.0.2.2")
    assert dropped(pair.one) == before


def test_hosts_come_and_go_without_a_packet_lost(pair: Pair) -> None:
    peer = Peer("10.2.88.0/24", "02:00:00:00:00:88", "172.16.41.188")
    second = Peer("10.2.89.0/24", "02:00:00:00:00:89", "172.16.41.188")
    with pair.losing_nothing():
        pair.store.join(peer, second)
        eventually(lambda: known(pair.one) == {pair.two.address, peer.host}, "the new host")
        pair.store.leave(second)
        pair.one.await_line(f"Subnet removed: {second.subnet} ")
        assert known(pair.one) == {pair.two.address, peer.host}
        pair.store.leave(peer)
        eventually(lambda: known(pair.one) == {pair.two.address}, "the host to go")


@pytest.mark.parametrize(
    "deed",
    [
        "nft flush ruleset",
        f"nft delete table inet {TABLE}",
        f"nft flush chain inet {TABLE} input",
        f"nft flush set inet {TABLE} hosts",
        f"nft add element inet {TABLE} hosts '{{ {STRANGER} }}'",
        f"nft insert rule inet {TABLE} input accept",
    ],
)
def test_what_somebody_does_to_the_table_is_undone(pair: Pair, stranger: Namespace, deed: str) -> None:
    before = pair.one.space.run(f"nft -s list table inet {TABLE}")
    pair.one.space.shell(deed)
    eventually(lambda: is_as(pair.one, before), f"{before}\n{pair.one.said()[-2000:]}", 5.0)
    knock(stranger, pair.one)
    assert dropped(pair.one) == 3
    pair.await_contact()


def is_as(host: Host, wanted: str) -> bool:
    listed = host.space.run("nft list tables")
    return TABLE in listed and host.space.run(f"nft -s list table inet {TABLE}") == wanted


def test_an_agent_that_ends_dies_or_starts_loses_nothing(pair: Pair) -> None:
    with pair.losing_nothing():
        pair.one.stop()
        pair.one.started()
        pair.one.kill()
        pair.one.started()


def test_a_start_without_the_option_takes_the_table_away(pair: Pair, stranger: Namespace) -> None:
    pair.one.stop()
    assert TABLE in pair.one.space.run("nft list tables")
    pair.one.flags.remove("-peer-filter")
    pair.one.started()
    eventually(lambda: TABLE not in pair.one.space.run("nft list tables"), "the table to go")


def test_without_nft_everybody_is_let_in_and_a_line_says_so(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    with Pair(tmp_path) as pair:
        pair.one.flags.append("-peer-filter")
        pair.one.environment["PATH"] = without_nft(tools)
        pair.start()
        pair.one.await_line(
            "-peer-filter has no effect for now, and tunnel packets of anybody are let in: there is no nft"
        )
        assert pair.one.space.run("nft list tables").count("flannel") == 0


def without_nft(folder: Path) -> str:
    """A search path on which there is everything but nft."""
    for place in ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"):
        for program in sorted(Path(place).iterdir()) if Path(place).is_dir() else ():
            link = folder / program.name
            if program.name != "nft" and not link.exists() and not link.is_symlink():
                link.symlink_to(program)
    return str(folder)
