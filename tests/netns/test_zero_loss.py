"""Not one packet of the containers is lost, whatever becomes of the agent and whatever it has to do."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from tests.support import go_flanneld
from tests.support.faults import GONE, PEERS, STALE
from tests.support.machines import eventually, stop
from tests.support.pair import Host, Pair, Peer
from tests.support.pictures import Half

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge", "iptables")

ONE = Peer("10.2.51.0/24", "de:ad:00:00:00:01", "172.16.41.131")
TWO = Peer("10.2.62.0/24", "de:ad:00:00:00:02", "172.16.41.132")
"""The leases of both hosts, where a Go flanneld has taken them."""

DEATHS_MS = (0, 10, 30, 60, 100, 150, 200, 250, 300)
EVENTS_PER_SECOND = 500
CHURN_S = 10
TICK_S = 0.05


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Pair]:
    """Two hosts on which nothing runs yet."""
    with Pair(tmp_path) as made:
        yield made


@pytest.fixture
def pair(bare: Pair) -> Pair:
    """Two hosts whose containers reach each other, and two peers that are records only."""
    bare.store.join(*PEERS)
    bare.start()
    for host in bare.hosts:
        for peer in PEERS:
            host.await_line(f"Subnet added: {peer.subnet} ")
    return bare


@contextmanager
def nothing_lost(pair: Pair) -> Iterator[None]:
    """What happens in this block costs no packet, and leaves both hosts in contact."""
    with pair.losing_nothing():
        yield
    assert pair.probe_for(0.1).lost == 0


def test_an_end_and_a_new_start_lose_nothing(pair: Pair) -> None:
    before = pair.one.picture()
    with nothing_lost(pair):
        pair.one.stop()
        assert pair.one.picture() == before
        pair.one.started()
    assert pair.one.picture() == before


def test_a_violent_end_and_a_new_start_lose_nothing(pair: Pair) -> None:
    before = pair.one.picture()
    with nothing_lost(pair):
        pair.one.kill()
        pair.one.started()
    assert pair.one.picture() == before


def test_a_violent_end_at_any_moment_of_a_start_loses_nothing(pair: Pair) -> None:
    before = pair.one.picture()
    pair.one.kill()
    with nothing_lost(pair):
        for death in DEATHS_MS:
            pair.one.start()
            time.sleep(death / 1000)
            pair.one.kill()
            assert pair.one.picture() == before, f"killed {death} ms after the start"
        pair.one.started()
    assert pair.one.picture() == before


def test_a_violent_end_amid_a_first_start_leaves_what_the_next_can_finish(pair: Pair) -> None:
    before = pair.one.picture()
    for death in DEATHS_MS:
        pair.one.kill()
        pair.one.space.run("ip link delete flannel.1")
        pair.one.space.run("iptables -F")
        pair.one.start()
        time.sleep(death / 1000)
        pair.one.kill()
        pair.one.started()
        pair.one.await_picture(before, f"killed {death} ms after the start")


def test_taking_over_from_go_flanneld_loses_nothing_and_prunes_what_is_stale(bare: Pair) -> None:
    for host, own, other in ((bare.one, ONE, TWO), (bare.two, TWO, ONE)):
        host.flags.append("-ip-masq")
        go_flanneld.leave_newest(host, own, other, *PEERS)
        host.settle_in(IPv4Network(own.subnet))
    bare.store.join(ONE, TWO, *PEERS)
    clean = [host.picture().ours for host in bare.hosts]
    indices = [host.link()["ifindex"] for host in bare.hosts]
    for host in bare.hosts:
        STALE.happen(host)
    with nothing_lost(bare):
        for host in bare.hosts:
            host.started()
    assert [host.link()["ifindex"] for host in bare.hosts] == indices
    assert [str(host.subnet) for host in bare.hosts] == [ONE.subnet, TWO.subnet]
    for host, ours in zip(bare.hosts, clean, strict=True):
        assert host.picture().ours == ours
        assert "Firewall" not in host.said(), "flannel's rules were right, and are to be left alone"
    assert bare.store.leases()[ONE.subnet].attrs.backend_data == f'{{"VNI":1,"VtepMAC":"{ONE.mac}"}}'


def test_taking_over_from_v0_8_loses_nothing_and_prunes_the_old_scheme_after_the_new_stands(bare: Pair) -> None:
    for host, own, other in ((bare.one, ONE, TWO), (bare.two, TWO, ONE)):
        # Who let v0.8 forward had to do it himself.
        host.space.run("iptables -P FORWARD ACCEPT")
        go_flanneld.leave_v08(host, own, other, PEERS[0], GONE)
        host.settle_in(IPv4Network(own.subnet))
    bare.store.write({peer.name: go_flanneld.record_of_v08(peer) for peer in (ONE, TWO, *PEERS)})
    indices = [host.link()["ifindex"] for host in bare.hosts]
    with heard_of_routes(bare.one) as heard, nothing_lost(bare):
        for host in bare.hosts:
            host.started()
        eventually(lambda: "Deleted 10.2.0.0/16" in heard.read_text(), "the end of the old route")
    lines = heard.read_text().splitlines()
    end = next(number for number, line in enumerate(lines) if line.startswith("Deleted 10.2.0.0/16"))
    for peer in (TWO, *PEERS):
        assert f"{peer.subnet} via {peer.gateway} dev flannel.1 onlink" in "\n".join(lines[:end])
    assert [host.link()["ifindex"] for host in bare.hosts] == indices
    for host, own, other in ((bare.one, ONE, TWO), (bare.two, TWO, ONE)):
        assert reached(host.picture().ours) == {peer.subnet for peer in (other, *PEERS)}
        assert host.link()["address"] == own.mac


@contextmanager
def heard_of_routes(host: Host) -> Iterator[Path]:
    """The file in which the kernel's news of a host's routes are written down meanwhile, one a line."""
    path = host.home / "monitor"
    with path.open("wb") as out:
        command = ["stdbuf", "-oL", "ip", "monitor", "route"]
        monitor = subprocess.Popen(["nsenter", f"--net={host.space.path}", *command], stdout=out)
    try:

        def heard() -> bool:
            host.space.run("ip route add 203.0.113.1/32 dev lo")
            host.space.run("ip route delete 203.0.113.1/32")
            return "203.0.113.1" in path.read_text()

        eventually(heard, "ip monitor")
        yield path
    finally:
        stop(monitor)


def reached(ours: Half) -> set[str]:
    """The subnets of peers for which neighbour, FDB entry and route stand and fit together; nothing else may stand."""
    hosts = dict(_pair(line, "mac=", "dst=") for line in ours.fdb)
    macs = {line.split()[1]: line.split()[2] for line in ours.neighbours}
    routes = dict(_pair(line, "dst=", "gateway=") for line in ours.routes if "table=main" in line)
    assert {macs[gateway] for gateway in routes.values()} == set(hosts), ours
    assert set(routes.values()) == set(macs), ours
    return set(routes)


def _pair(line: str, *keys: str) -> tuple[str, str]:
    words = [word.removeprefix(key) for key in keys for word in line.split() if word.startswith(key)]
    assert len(words) == 2, line
    return words[0], words[1]


def test_audits_under_load_lose_nothing(pair: Pair) -> None:
    many = crowd(500)
    pair.store.join(*many)
    pair.one.await_line(f"Subnets added: {len(many)}")
    before = pair.one.picture()
    intruder = "route add 10.2.240.0/24 via 10.2.240.0 dev flannel.1 onlink"
    with nothing_lost(pair):
        for _ in range(12):
            # Each contradicts what is wanted, and so asks for everything to be looked at.
            pair.one.space.run(f"ip {intruder}")
            eventually(lambda: "10.2.240" not in pair.one.space.run("ip route show 10.2.240.0/24"), "its end", 5.0)
    assert pair.one.picture() == before


def crowd(size: int) -> list[Peer]:
    """As many peers, with subnets of /28 from 10.2.128.0 on."""
    subnets = IPv4Network("10.2.128.0/18").subnets(new_prefix=28)
    return [
        Peer(str(subnet), f"02:00:00:01:{number >> 8:02x}:{number & 255:02x}", f"172.16.40.{number % 250 + 1}")
        for number, subnet in zip(range(size), subnets, strict=False)
    ]


def test_five_hundred_lease_events_a_second_lose_nothing(pair: Pair) -> None:
    before = [host.picture() for host in pair.hosts]
    rng = random.Random(5)
    peers = crowd(200)
    choices = {peer.name: [None, peer.record, Peer(peer.subnet, peer.mac, "172.16.42.9").record] for peer in peers}
    held: dict[str, str | None] = dict.fromkeys(choices)
    with nothing_lost(pair):
        began = time.monotonic()
        for number in range(1, int(CHURN_S / TICK_S) + 1):
            some = rng.sample(sorted(choices), int(EVENTS_PER_SECOND * TICK_S))
            # Each is another value than the one held, and so is an event.
            news = {name: rng.choice([value for value in choices[name] if value != held[name]]) for name in some}
            pair.store.write(news)
            held |= news
            time.sleep(max(0.0, began + number * TICK_S - time.monotonic()))
        pair.store.leave(*peers)
        for host, picture in zip(pair.hosts, before, strict=True):
            host.await_picture(picture, "the end of all that came", 20.0)


@pytest.mark.parametrize(
    "command",
    [
        "ip link set flannel.1 mtu 1400",
        "ip link set flannel.1 type vxlan id 1 learning",
        "sh -c 'echo 1 >/proc/sys/net/ipv6/conf/flannel.1/accept_ra'",
    ],
    ids=["MTU", "learning", "accept_ra"],
)
def test_a_setting_of_the_device_that_somebody_changed_is_put_back_without_a_loss(pair: Pair, command: str) -> None:
    before = pair.one.picture()
    with nothing_lost(pair):
        pair.one.space.run(command)
        pair.one.await_picture(before, "the setting", 10.0)


def test_what_others_add_beside_our_own_is_taken_away_without_a_loss(pair: Pair) -> None:
    before = pair.one.picture()
    with nothing_lost(pair):
        STALE.happen(pair.one)
        pair.one.space.run("ip address add 10.2.240.1/32 dev flannel.1")
        pair.one.space.run(f"ip route append {pair.two.subnet} via {GONE.gateway} dev flannel.1 onlink metric 9")
        pair.one.await_picture(before, "ours alone")
