"""The udp backend on a real kernel: what it sets up, with whom it speaks, that it heals, and that nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

import pyflannel
from pyflannel.linux.netns import inside
from pyflannel.tunnel.control import ControlError, Remote
from pyflannel.tunnel.device import Tun, open_socket
from pyflannel.tunnel.messages import Statistics, Status
from tests.support.machines import eventually, stop
from tests.support.pair import CONFIG, Host, Pair
from tests.support.tunnel_hosts import NAIVE

pytestmark = pytest.mark.needs("root", "netns", "tun", "veth", "bridge", "iptables")

UDP = CONFIG.replace("vxlan", "udp")
DEV = "flannel0"


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Pair]:
    with Pair(tmp_path) as made:
        made.store.configure(UDP)
        try:
            yield made
        finally:
            for host in made.hosts:
                end_forwarders(host)


@pytest.fixture
def pair(bare: Pair) -> Pair:
    bare.start()
    return bare


def end_forwarders(host: Host) -> None:
    """A forwarder outlives its agent, and lives in the namespace of its host."""
    if host.agent is not None:
        stop(host.agent)
    for word in host.space.run(f"ip netns pids {host.space.name}").split():
        # The program that lists them is among them.
        with suppress(ProcessLookupError):
            os.kill(int(word), signal.SIGKILL)


def socket_of(host: Host) -> Path:
    return host.subnet_file.with_name(f"{DEV}.sock")


def remote(host: Host) -> Remote:
    found = Remote.connect(socket_of(host))
    assert found is not None, "no forwarder runs"
    return found


def status(host: Host) -> Status:
    with remote(host) as forwarder:
        return forwarder.hello()


def present_status(host: Host) -> Status | None:
    """None while one forwarder gives way to another."""
    found = Remote.connect(socket_of(host))
    if found is None:
        return None
    with found, suppress(ControlError):
        return found.hello()
    return None


def await_status(host: Host, holds: Callable[[Status], bool], what: str) -> None:
    eventually(lambda: (seen := present_status(host)) is not None and holds(seen), what)


def statistics(host: Host) -> Statistics:
    with remote(host) as forwarder:
        return forwarder.statistics()


def routes(host: Host) -> list[str]:
    """As ``ip route`` lists them, but for what depends on whether a process serves the device just now."""
    return [line.replace("linkdown", "").strip() for line in host.space.run(f"ip route show dev {DEV}").splitlines()]


def await_whole(host: Host) -> None:
    """Wait until everything about the device is as it should be."""
    network = "10.2.0.0/16"

    def is_whole() -> bool:
        try:
            return routes(host) == [network] and f"inet {host.subnet[0]}/32" in host.space.run(f"ip addr show {DEV}")
        except AssertionError:
            return False

    eventually(is_whole, f"address and route of {DEV}", 10.0)


def test_a_host_looks_as_with_flannel(pair: Pair) -> None:
    (link,) = pair.one.space.objects(f"ip -j -d link show dev {DEV}")
    assert (link["mtu"], link["linkinfo"]) == (
        1472,
        {
            "info_kind": "tun",
            "info_data": {"type": "tun", "pi": False, "vnet_hdr": True, "multi_queue": False, "persist": True},
        },
    )
    await_whole(pair.one)
    assert "FLANNEL_MTU=1472" in pair.one.subnet_file.read_text()
    assert pair.one.space.run(f"sysctl -n net.ipv4.conf.{DEV}.accept_local").strip() == "1"
    assert pair.store.leases()[str(pair.one.subnet)].attrs.backend_type == ""
    assert status(pair.one).address == "172.16.41.131:8285"


def test_packets_cross_and_are_counted_by_peer(pair: Pair) -> None:
    said = pair.one.container.run(f"ping -n -c 3 -i 0.1 -s 1400 {pair.two.target}")
    # One in each forwarder and one in each host.
    assert "ttl=60" in said
    for host, peer in ((pair.one, pair.two), (pair.two, pair.one)):
        ((endpoint, counters),) = statistics(host).peers
        assert (str(endpoint.address), endpoint.port) == (peer.address, 8285)
        assert counters.packets_in >= 3
        assert counters.packets_out >= 3
        assert counters.drops == {}


def test_all_hosts_of_a_network_have_the_port_that_is_configured(bare: Pair) -> None:
    bare.store.configure(UDP.replace('"udp"', '"udp","Port":7285'))
    bare.start()
    assert status(bare.two).address == "172.16.41.132:7285"


@dataclass(frozen=True, slots=True)
class Transfer:
    """What iperf3 tells of a connection."""

    octets: int
    retransmits: int


@contextmanager
def transferring(sender: Host, receiver: Host, seconds: int, *options: str) -> Iterator[list[Transfer]]:
    """A TCP connection from container to container that lasts at least as long as the block; then its figures."""
    server = subprocess.Popen(
        receiver.container.argv("iperf3", "-s", "-1"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        eventually(lambda: ":5201 " in receiver.container.run("ss -Hlnt"), "iperf3")
        command = ["iperf3", "-c", receiver.target, "-t", str(seconds), "-J", *options]
        client = subprocess.Popen(sender.container.argv(*command), stdout=subprocess.PIPE, text=True)
        found: list[Transfer] = []
        yield found
        said, _ = client.communicate(timeout=seconds + 30)
        assert client.returncode == 0, said
        end = json.loads(said)["end"]
        found.append(Transfer(end["sum_received"]["bytes"], end["sum_sent"]["retransmits"]))
    finally:
        stop(server)


@pytest.mark.needs("iperf3")
@pytest.mark.parametrize("options", [(), ("-R",)], ids=["there", "back"])
def test_tcp_crosses_in_large_pieces(pair: Pair, options: tuple[str, ...]) -> None:
    with transferring(pair.one, pair.two, 1, *options) as found:
        pass
    assert found[0].octets > 10_000_000
    for host in pair.hosts:
        ((_, counters),) = statistics(host).peers
        assert counters.drops == {}


@pytest.fixture
def mixed(bare: Pair) -> Iterator[Pair]:
    """The second host has a forwarder that takes packet by packet, and no agent."""
    one, two = bare.hosts
    bare.store.write({"10.2.40.0-24": f'{{"PublicIP":"{two.address}"}}'})
    one.started()
    one.settle_in(one.subnet)
    two.space.run("iptables -P FORWARD ACCEPT")
    two.settle_in(bare.store.leases()["10.2.40.0/24"].subnet.ipv4 or one.subnet)
    space = str(two.space.path)
    tun = inside(space, lambda: Tun.open("flannel%d", vnet=False))
    with inside(space, lambda: open_socket(two.address, 8285)) as sock:
        two.space.run(f"ip address add 10.2.40.0/32 dev {DEV}")
        two.space.run(f"ip link set {DEV} up mtu 1472")
        two.space.run(f"ip route add 10.2.0.0/16 dev {DEV} scope global")
        # The naive one knows nothing of datagrams that come together.
        sock.setsockopt(17, 104, 0)
        fds = [tun.fd, sock.fileno()]
        naive = subprocess.Popen([sys.executable, NAIVE, *map(str, fds), one.address], pass_fds=fds)
    os.close(tun.fd)
    try:
        yield bare
    finally:
        stop(naive)


def test_a_host_that_sends_packet_by_packet_is_a_peer_like_any_other(mixed: Pair) -> None:
    for sender, receiver in (mixed.hosts, mixed.hosts[::-1]):
        sender.container.run(f"ping -n -c 3 -i 0.1 -s 3000 {receiver.target}")
        listener = inside(str(receiver.container.path), lambda at=receiver: socket.create_server((at.target, 7000)))  # type: ignore[misc]
        data = os.urandom(3_000_000)
        with listener:
            sending = inside(
                str(sender.container.path),
                lambda at=receiver: socket.create_connection((at.target, 7000), 10),  # type: ignore[misc]
            )
            assert exchanged(sending, listener, data) == data
    mixed.await_contact()


def exchanged(sending: socket.socket, listener: socket.socket, data: bytes) -> bytes:
    """What of ``data`` arrives at the other end."""
    receiving, _ = listener.accept()
    with sending, receiving:
        sending.setblocking(False)
        receiving.settimeout(20)
        rest, got = memoryview(data), bytearray()
        while len(got) < len(data):
            try:
                rest = rest[sending.send(rest) :]
            except BlockingIOError:
                got += receiving.recv(1 << 20)
            if not rest:
                got += receiving.recv(1 << 20)
    return bytes(got)


def test_what_somebody_does_to_the_device_is_undone(pair: Pair) -> None:
    for deed in (
        f"ip link del {DEV}",
        f"ip route del 10.2.0.0/16 dev {DEV}",
        f"ip address flush dev {DEV}",
        f"ip link set {DEV} down",
        f"ip link set {DEV} mtu 1300",
        f"ip link set {DEV} down && ip link set {DEV} name stolen && ip link set stolen up",
    ):
        pair.one.space.shell(deed)
        await_whole(pair.one)
        pair.await_contact()


def test_a_forwarder_that_dies_has_a_successor_at_once(pair: Pair) -> None:
    for _ in range(3):
        before = status(pair.one)
        os.kill(before.pid, signal.SIGKILL)
        await_successor(pair.one, before.pid)
        pair.await_contact()
        assert status(pair.one).routes == before.routes
    assert pair.one.agent is not None
    children = Path(f"/proc/{pair.one.agent.pid}/task/{pair.one.agent.pid}/children").read_text().split()
    assert children == [str(status(pair.one).pid)], "the dead were not waited for"


@pytest.mark.parametrize("restarted", [False, True], ids=["known", "never heard of"])
def test_a_forwarder_that_hangs_has_a_successor(pair: Pair, *, restarted: bool) -> None:
    before = status(pair.one)
    if restarted:
        pair.one.stop()
    os.kill(before.pid, signal.SIGSTOP)
    if restarted:
        pair.one.started()
    eventually(lambda: "Killing the forwarder" in pair.one.said(), "its end", 30.0)
    await_successor(pair.one, before.pid)
    pair.await_contact()
    assert status(pair.one).routes == before.routes


def await_successor(host: Host, former: int) -> None:
    await_status(host, lambda seen: seen.pid != former and bool(seen.device), "another forwarder")


def test_routes_of_the_forwarder_that_are_not_ours_go(pair: Pair) -> None:
    pair.one.stop()
    with remote(pair.one) as forwarder:
        generation, held = forwarder.routes()
        forwarder.set_routes(generation + 5, [])
    pair.one.started()
    pair.await_contact()
    with remote(pair.one) as forwarder:
        assert forwarder.routes()[1] == held


def test_peers_come_and_go_without_touching_the_others(pair: Pair) -> None:
    record = '{"PublicIP":"172.16.42.9"}'
    with pair.losing_nothing():
        pair.store.write({f"10.2.{number}.0-24": record for number in range(100, 160)})
        await_status(pair.one, lambda seen: seen.routes == 61, "60 more routes")
        pair.store.write({f"10.2.{number}.0-24": None for number in range(100, 160)})
        await_status(pair.one, lambda seen: seen.routes == 1, "60 fewer")


def test_an_agent_that_ends_dies_or_starts_loses_nothing(pair: Pair) -> None:
    before = status(pair.one).pid
    with pair.losing_nothing():
        pair.one.stop()
        pair.one.started()
        pair.one.kill()
        pair.one.started()
    assert status(pair.one).pid == before


def test_a_forwarder_of_another_release_and_protocol_is_replaced_without_a_loss(pair: Pair) -> None:
    path = socket_of(pair.one)
    with pair.losing_nothing():
        pair.one.stop()
        command = pair.one.space.argv(sys.executable, "-m", "tests.support.tunnel_elder", str(path))
        with subprocess.Popen(command, stdout=subprocess.PIPE) as elder:
            assert elder.stdout is not None
            assert elder.stdout.readline() == b"ready\n"
            assert status(pair.one).release == "0.0.1"
            pair.one.started()
            assert elder.wait(20) == 0
    assert (status(pair.one).release, status(pair.one).routes) == (pyflannel.__version__, 1)


@pytest.mark.needs("iperf3")
def test_an_agent_that_is_restarted_under_load_costs_nothing(pair: Pair) -> None:
    with transferring(pair.one, pair.two, 4) as found:
        for _ in range(2):
            pair.one.stop()
            pair.one.started()
            pair.two.kill()
            pair.two.started()
    assert found[0].octets > 10_000_000
    for host in pair.hosts:
        ((_, counters),) = statistics(host).peers
        assert counters.drops == {}


def test_a_host_whose_address_changes_is_followed(pair: Pair) -> None:
    pair.one.space.shell("ip address flush dev ens33 && ip address add 172.16.41.141/24 dev ens33")
    await_status(pair.one, lambda seen: seen.address == "172.16.41.141:8285", "the new address")
    pair.await_contact()


def test_a_port_that_is_taken_is_named(bare: Pair) -> None:
    with inside(str(bare.one.space.path), lambda: open_socket("172.16.41.131", 8285)):
        agent = bare.one.start()
        assert agent.wait(20) == 1
    assert "another program has the UDP port" in bare.one.said()
    assert DEV not in bare.one.space.run("ip link")


def test_a_device_that_a_running_program_has_is_left_alone(bare: Pair) -> None:
    tun = inside(str(bare.one.space.path), lambda: Tun.open(DEV, vnet=False))
    try:
        agent = bare.one.start()
        assert agent.wait(20) == 1
        assert f"there is a device {DEV} already" in bare.one.said()
        bare.one.space.run(f"ip link show {DEV}")
    finally:
        os.close(tun.fd)
