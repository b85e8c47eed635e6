"""The wireguard backend on a real kernel, or over wireguard-go where that has no module: what it programs, that nobody
reads along, that it heals, and that nothing is lost meanwhile."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pyflannel.linux.netns import inside
from tests.support.machines import eventually
from tests.support.pair import CONFIG, Host, Pair
from tests.support.private_run import private_run, programs

pytestmark = pytest.mark.needs("root", "netns", "veth", "bridge", "iptables", "wg")

PSK = base64.b64encode(bytes(range(32))).decode()
WIREGUARD = CONFIG.replace("vxlan", "wireguard")
OPTIONS = f'"wireguard","PSK":"{PSK}","PersistentKeepaliveInterval":1'
FULL = CONFIG.replace('"vxlan"', OPTIONS)
DUAL = WIREGUARD.replace('"Backend"', '"EnableIPv6":true,"IPv6Network":"fd00:10:2::/48","Backend"')
AUTO = DUAL.replace('"wireguard"', '"wireguard","Mode":"auto"')
SECRET = b"attack at dawn"
ETH_P_ALL = 3
PORT = 7070


@pytest.fixture(
    params=[
        pytest.param("kernel", marks=pytest.mark.needs("wireguard")),
        pytest.param("wireguard-go", marks=pytest.mark.needs("wireguard-go")),
    ]
)
def bare(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    """Two hosts on which nothing runs yet."""
    with Pair(tmp_path) as made, ExitStack() as stack:
        for host in made.hosts:
            stack.enter_context(private_run(host))
        made.store.configure(WIREGUARD)
        yield made


@pytest.fixture
def pair(bare: Pair) -> Pair:
    bare.start()
    return bare


def run(host: Host, *command: str) -> str:
    return subprocess.run([*host.enter, *command], capture_output=True, text=True, check=True).stdout


def peers(host: Host, dev: str = "flannel-wg") -> dict[str, dict[str, str]]:
    """What ``wg show`` says of each peer, by its key."""
    columns = ("psk", "endpoint", "allowed", "handshake", "received", "sent", "keepalive")
    rows = [line.split("\t") for line in run(host, "wg", "show", dev, "dump").splitlines()[1:]]
    return {key: dict(zip(columns, row, strict=True)) for key, *row in rows}


def identity(host: Host, dev: str = "flannel-wg") -> tuple[str, str]:
    """Public key and port of a device; two empty texts if it is not there."""
    told = subprocess.run([*host.enter, "wg", "show", dev, "dump"], capture_output=True, text=True, check=False).stdout
    _, public, port, _ = told.splitlines()[0].split("\t") if told else ("", "", "", "")
    return public, port


def known(host: Host, peer: Host) -> bool:
    """Whether ``host`` holds just the one peer, as it should be."""
    held = {key: (entry["endpoint"], entry["allowed"]) for key, entry in peers(host).items()}
    return held == {identity(peer)[0]: (f"{peer.address}:51820", str(peer.subnet))}


def test_two_hosts_know_each_other_by_key_and_carry_traffic_both_ways(pair: Pair) -> None:
    for host, peer in (pair.hosts, pair.hosts[::-1]):
        (link,) = host.space.objects("ip -j -d link show dev flannel-wg")
        (address,) = host.space.objects("ip -j -4 address show dev flannel-wg")
        (route,) = host.space.objects("ip -j route show dev flannel-wg")
        assert (link["mtu"], "UP" in str(link["flags"])) == (1420, True)
        assert [(each["local"], each["prefixlen"]) for each in address["addr_info"]] == [(str(host.subnet[0]), 32)]  # type: ignore[attr-defined]
        assert (route["dst"], route.get("scope"), route.get("protocol", "boot")) == ("10.2.0.0/16", "link", "boot")
        assert identity(host)[1] == "51820"
        assert known(host, peer)
        attrs = pair.store.leases()[str(host.subnet)].attrs
        assert attrs.backend_data == f'{{"PublicKey":"{identity(host)[0]}","Port":51820}}'
        host.container.run(f"ping -c 2 -i 0.1 {peer.target}")
        assert "FLANNEL_MTU=1420" in host.subnet_file.read_text()
        key = host.home / "wgkey"
        assert key.stat().st_mode & 0o777 == 0o400
        assert key.read_text() not in host.said()


def test_nobody_on_the_way_reads_what_is_said(pair: Pair) -> None:
    tap = inside(
        str(pair.switch.path), lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    )
    with tap:
        tap.setblocking(False)
        assert conversation(pair) == SECRET * 1000
        frames = []
        try:
            while True:
                frames.append(tap.recv(65536))
        except BlockingIOError:
            pass
    encrypted = [frame for frame in frames if frame[12:14] == b"\x08\x00" and frame[23] == socket.IPPROTO_UDP]
    assert sum(map(len, encrypted)) > len(SECRET) * 1000
    assert not [frame for frame in frames if SECRET in frame or pair.two.subnet[2].packed in frame]


def conversation(pair: Pair) -> bytes:
    """What the container of ``two`` hears over TCP when that of ``one`` says its secret a thousand times."""
    hear = f"import socket as s; c=s.create_server(('', {PORT})); print(flush=True); c=c.accept()[0]; b=b''\n"
    hear += "while d := c.recv(65536): b += d\nimport sys; sys.stdout.buffer.write(b)"
    say = f"import socket as s; c=s.create_connection(('{pair.two.target}', {PORT}), 20); c.sendall({SECRET!r} * 1000)"
    listener = subprocess.Popen(pair.two.container.argv(sys.executable, "-c", hear), stdout=subprocess.PIPE)
    try:
        assert listener.stdout is not None
        assert listener.stdout.readline() == b"\n"
        subprocess.run(pair.one.container.argv(sys.executable, "-c", say), check=True)
        return listener.communicate(timeout=60)[0]
    finally:
        listener.kill()
        listener.communicate()


@pytest.mark.parametrize(
    "deed",
    [
        "ip link del flannel-wg",
        "ip link set flannel-wg down",
        # Before Linux 6.2 only what is down; and in one go, for the agent would not have it down for long.
        r"printf 'link set flannel-wg down\nlink set flannel-wg name astray\nlink set astray up\n' | ip -batch -",
        "ip route del 10.2.0.0/16",
        "wg set flannel-wg peer {peer} remove",
        "wg set flannel-wg peer {peer} allowed-ips 10.2.98.0/24",
        "wg set flannel-wg peer {other} allowed-ips {subnet}",
        "wg genkey | wg set flannel-wg private-key /proc/self/fd/0",
        "wg set flannel-wg listen-port 4000",
        "wg genpsk | wg set flannel-wg peer {peer} preshared-key /proc/self/fd/0",
    ],
    ids=[
        "device deleted",
        "device down",
        "device renamed",
        "route deleted",
        "peer removed",
        "allowed networks altered",
        "subnet given to another",
        "key altered",
        "port altered",
        "shared key altered",
    ],
)
def test_what_somebody_does_to_it_is_undone(pair: Pair, deed: str) -> None:
    public, port = identity(pair.one)
    other = base64.b64encode(bytes(31) + b"\1").decode()
    script = deed.format(peer=identity(pair.two)[0], other=other, subnet=pair.two.subnet)
    said = len(pair.one.said())
    run(pair.one, "sh", "-ec", script)
    eventually(lambda: "Put right in the kernel: " in pair.one.said()[said:], "the repair", 10.0)
    eventually(lambda: identity(pair.one) == (public, port), "the identity", 10.0)
    eventually(lambda: known(pair.one, pair.two), "the peer", 10.0)
    pair.await_contact()


def test_an_agent_that_ends_dies_or_starts_loses_nothing(pair: Pair) -> None:
    before = [(programs(host), identity(host)) for host in pair.hosts]
    for pid in (pid for pids, _ in before for pid in pids):
        # As with the kernel, no packet is to wait for a processor that other programs of this machine keep busy.
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setscheduler(int(thread.name), os.SCHED_FIFO, os.sched_param(5))
    with pair.losing_nothing():
        pair.one.stop()
        pair.one.started()
        pair.one.kill()
        pair.one.started()
    assert [(programs(host), identity(host)) for host in pair.hosts] == before
    assert "Put right" not in pair.one.said()


def test_a_new_key_costs_a_handshake_and_leaves_nothing_of_the_old_one(pair: Pair) -> None:
    for host in pair.hosts:
        was = identity(host)[0]
        with pair.probing() as probing:
            host.stop()
            (host.home / "wgkey").unlink()
            host.started()
            assert identity(host)[0] != was
            eventually(lambda: known(pair.one, pair.two) and known(pair.two, pair.one), "the new key", 10.0)
        # An attempt that came too early would be repeated after five.
        assert probing.loss.longest_gap_s < 4.0


def test_the_key_that_go_flanneld_left_is_kept(bare: Pair) -> None:
    run(bare.one, "sh", "-ec", "mkdir /run/flannel; umask 077; wg genkey >/run/flannel/wgkey")
    wanted = run(bare.one, "sh", "-ec", "wg pubkey </run/flannel/wgkey").strip()
    bare.start()
    assert identity(bare.one)[0] == wanted
    assert (bare.one.home / "wgkey").exists()


def test_a_key_file_without_a_key_stops_the_start_and_is_not_shown(bare: Pair) -> None:
    (bare.one.home / "wgkey").write_text("my secret")
    agent = bare.one.start()
    assert agent.wait(20) != 0
    assert f"{bare.one.home}/wgkey holds no WireGuard key" in bare.one.said()
    assert "my secret" not in bare.one.said()


def test_hosts_that_share_a_key_and_keep_ways_open(bare: Pair) -> None:
    bare.store.configure(FULL)
    bare.start()
    (entry,) = peers(bare.one).values()
    assert (entry["psk"], entry["keepalive"]) == (PSK, "1")
    assert PSK not in bare.one.said()
    idle = int(entry["received"])
    eventually(lambda: int(next(iter(peers(bare.one).values()))["received"]) > idle, "a keepalive", 10.0)


def test_a_peer_that_speaks_from_elsewhere_is_answered_there(pair: Pair) -> None:
    run(pair.two, "wg", "set", "flannel-wg", "listen-port", "4000")
    pair.await_contact()
    # Its agent has put the port right, and the peer is heard from there.
    eventually(lambda: known(pair.one, pair.two), "the peer", 10.0)
    pair.two.stop()
    run(pair.two, "wg", "set", "flannel-wg", "listen-port", "4000")
    pair.await_contact()
    pair.two.container.run(f"ping -c 1 {pair.one.target}")
    (entry,) = peers(pair.one).values()
    assert entry["endpoint"] == f"{pair.two.address}:4000"
    pair.one.stop()
    pair.one.started()
    (entry,) = peers(pair.one).values()
    assert entry["endpoint"] == f"{pair.two.address}:4000"
    pair.await_contact()


@pytest.mark.parametrize(
    ("config", "second"), [(DUAL, "flannel-wg-v6"), (AUTO, "flannel-wg")], ids=["separate", "auto"]
)
def test_both_address_families_travel_as_the_mode_says(bare: Pair, config: str, second: str) -> None:
    for number, host in enumerate(bare.hosts, 1):
        host.space.run(f"ip address add fd00:41::{number}/64 dev ens33 nodad")
    bare.store.configure(config)
    for host in bare.hosts:
        host.start()
    for host in bare.hosts:
        host.await_line("Running backend.")
    own = [next(iter(address["addr_info"]))["local"] for address in global_addresses(bare, second)]  # type: ignore[call-overload]
    for host, mine, far in zip(bare.hosts, own, own[::-1], strict=True):
        eventually(lambda host=host: len(peers(host, second)) == 1, "the peer")  # type: ignore[misc]
        host.space.run(f"ping -6 -c 2 -i 0.2 -w 10 -I {mine} {far}")
        (entry,) = peers(host, second).values()
        assert len(entry["allowed"].split(",")) == (1 if config == DUAL else 2)
        assert entry["endpoint"].startswith("[fd00:41::" if config == DUAL else "172.16.41.")
    for host, far in zip(bare.hosts, bare.hosts[::-1], strict=True):
        host.space.run(f"ping -c 2 -i 0.2 -w 10 -I {host.subnet[0]} {far.subnet[0]}")


def global_addresses(pair: Pair, dev: str) -> list[dict[str, object]]:
    return [host.space.objects(f"ip -j -6 address show dev {dev} scope global")[0] for host in pair.hosts]


@pytest.mark.needs("wireguard-go")
def test_a_program_that_is_killed_is_started_again(pair: Pair) -> None:
    (pid,) = programs(pair.one)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: programs(pair.one) not in ([], [pid]), "another program", 10.0)
    eventually(lambda: known(pair.one, pair.two), "the peer", 10.0)
    pair.await_contact()


def test_the_device_goes_when_nobody_asks_for_it_any_more(pair: Pair) -> None:
    pair.store.configure(CONFIG)
    for host in pair.hosts:
        eventually(lambda host=host: "flannel.1:" in host.space.run("ip link"), "the other way")  # type: ignore[misc]
    pair.await_contact()
    for host in pair.hosts:
        eventually(lambda host=host: "flannel-wg" not in host.space.run("ip link"), "the end of the device")  # type: ignore[misc]
        eventually(lambda host=host: programs(host) == [], "the end of the program")  # type: ignore[misc]
