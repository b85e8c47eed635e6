"""The tunnel between two hosts, with real devices: ours against ours, and against a forwarder that knows no tricks."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyflannel.linux.netns import inside
from pyflannel.tunnel.control import Remote
from pyflannel.tunnel.packet import Drop
from tests.support.machines import eventually
from tests.support.tunnel_hosts import DEVICE, NAIVE, Host, Hosts
from tests.support.tunnel_twin import c_twin

pytestmark = pytest.mark.needs("root", "netns")

AMOUNT = 20_000_000
LANGUAGES = ["Python", "C"]


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with Hosts() as made:
        yield made


def ours(host: Host, place: Path, language: str = "Python", *, vnet: bool = True) -> Remote:
    if language == "C" and c_twin() is None:
        pytest.skip("neither the extension nor a compiler is there")
    return host.forward(place / host.outer, language, vnet=vnet)


def naive(host: Host) -> None:
    host.forward_with(sys.executable, NAIVE)


def transfer(sender: Host, receiver: Host, amount: int = AMOUNT) -> None:
    """Send random octets through a TCP connection and compare their digests; no packet may have a wrong checksum."""
    before = bad_checksums(receiver)
    listener = inside(str(receiver.space.path), lambda: socket.create_server((receiver.inner, 7000)))
    digests: list[str] = []

    def receive() -> None:
        connection, _ = listener.accept()
        digest = hashlib.sha256()
        with connection:
            connection.settimeout(60)
            while data := connection.recv(1 << 20):
                digest.update(data)
        digests.append(digest.hexdigest())

    thread = threading.Thread(target=receive)
    thread.start()
    block = os.urandom(1_000_003)
    data = (block * (amount // len(block) + 1))[:amount]
    with inside(str(sender.space.path), lambda: socket.create_connection((receiver.inner, 7000), 20)) as connection:
        connection.settimeout(60)
        connection.sendall(data)
    thread.join()
    listener.close()
    assert digests == [hashlib.sha256(data).hexdigest()]
    assert bad_checksums(receiver) == before


def bad_checksums(host: Host) -> int:
    """TcpInCsumErrors and UdpInCsumErrors."""
    lines = host.space.run("nstat -asz TcpInCsumErrors UdpInCsumErrors").splitlines()[1:]
    return sum(int(line.split()[1]) for line in lines)


def ping(sender: Host, receiver: Host, *options: str) -> str:
    return sender.space.run(" ".join(["ping -n -c 3 -i 0.01 -W 2", *options, receiver.inner]))


@pytest.mark.parametrize("language", LANGUAGES)
def test_two_of_ours(hosts: Hosts, tmp_path: Path, language: str) -> None:
    with ours(hosts.one, tmp_path, language) as one, ours(hosts.two, tmp_path, language) as two:
        ping(hosts.one, hosts.two)
        ping(hosts.one, hosts.two, "-s", "1400")
        transfer(hosts.one, hosts.two)
        transfer(hosts.two, hosts.one)
        for remote in (one, two):
            statistics = remote.statistics()
            assert not statistics.rest.drops
            ((_, counters),) = statistics.peers
            assert not counters.drops
            assert counters.packets_out > AMOUNT / 1500
            assert counters.bytes_in > AMOUNT


@pytest.mark.parametrize("language", LANGUAGES)
def test_ours_and_one_that_sends_packet_by_packet(hosts: Hosts, tmp_path: Path, language: str) -> None:
    naive(hosts.two)
    with ours(hosts.one, tmp_path, language):
        ping(hosts.one, hosts.two)
        ping(hosts.two, hosts.one, "-s", "4000")
        transfer(hosts.one, hosts.two, 5_000_000)
        transfer(hosts.two, hosts.one, 5_000_000)


def test_a_device_without_virtio_headers(hosts: Hosts, tmp_path: Path) -> None:
    with ours(hosts.one, tmp_path, vnet=False), ours(hosts.two, tmp_path):
        transfer(hosts.one, hosts.two, 5_000_000)
        transfer(hosts.two, hosts.one, 5_000_000)


def test_fragments_of_a_large_datagram_arrive(hosts: Hosts, tmp_path: Path) -> None:
    with ours(hosts.one, tmp_path), ours(hosts.two, tmp_path):
        ping(hosts.one, hosts.two, "-s", "20000")


def test_a_path_smaller_than_the_device_believes_fragments_outside(hosts: Hosts, tmp_path: Path) -> None:
    with ours(hosts.one, tmp_path), ours(hosts.two, tmp_path):
        for host in (hosts.one, hosts.two):
            host.space.run("ip link set eth0 mtu 1400")
        transfer(hosts.one, hosts.two, 2_000_000)


def test_ttl_goes_down_by_one_on_each_side(hosts: Hosts, tmp_path: Path) -> None:
    with ours(hosts.one, tmp_path), ours(hosts.two, tmp_path):
        assert "ttl=62" in ping(hosts.one, hosts.two)
        with pytest.raises(AssertionError, match="Time to live exceeded"):
            ping(hosts.one, hosts.two, "-t", "1")
        with pytest.raises(AssertionError, match=f"From {hosts.two.inner}.*Time to live exceeded"):
            ping(hosts.one, hosts.two, "-t", "2")


def test_an_unknown_destination_is_unreachable_at_once(hosts: Hosts, tmp_path: Path) -> None:
    with ours(hosts.one, tmp_path) as remote:
        with pytest.raises(AssertionError, match="Destination Net Unreachable"):
            hosts.one.space.run("ping -n -c 1 -W 5 10.1.77.1")
        assert remote.statistics().rest.drops == {Drop.NO_ROUTE: 1}


def test_a_device_that_is_down_stops_nothing_for_good(hosts: Hosts, tmp_path: Path) -> None:
    with ours(hosts.one, tmp_path), ours(hosts.two, tmp_path) as remote:
        hosts.two.space.run(f"ip link set {DEVICE} down")
        with pytest.raises(AssertionError):
            hosts.one.space.run(f"ping -n -c 1 -W 1 {hosts.two.inner}")
        assert remote.statistics().rest.drops == {Drop.NOT_DELIVERED: 1}
        hosts.two.space.run(f"ip link set {DEVICE} up")
        hosts.two.space.run(f"ip route add 10.1.0.0/16 dev {DEVICE} src {hosts.two.inner}")
        ping(hosts.one, hosts.two)


def test_a_deleted_device_ends_the_forwarder(hosts: Hosts, tmp_path: Path) -> None:
    with ours(hosts.one, tmp_path):
        process = hosts.one.process
        assert process is not None
        hosts.one.space.run(f"ip link delete {DEVICE}")
        eventually(lambda: process.poll() is not None, "the end of the forwarder")


def test_an_agent_that_leaves_stops_nothing(hosts: Hosts, tmp_path: Path) -> None:
    ours(hosts.one, tmp_path).close()
    ours(hosts.two, tmp_path).close()
    ping(hosts.one, hosts.two)
    adopted = Remote.connect(tmp_path / hosts.one.outer)
    assert adopted is not None
    with adopted:
        status = adopted.hello()
        assert (status.device, status.generation, status.routes) == (DEVICE, 1, 1)
        assert status.address == f"{hosts.one.outer}:8285"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_handover_under_load_loses_nothing(hosts: Hosts, tmp_path: Path, language: str) -> None:
    """1,000 pings a second from the other side, while the device goes through four processes."""
    remote = ours(hosts.one, tmp_path, language)
    with ours(hosts.two, tmp_path, language):
        flood = subprocess.Popen(
            hosts.two.space.argv("ping", "-n", "-q", "-i", "0.001", "-c", "3000", hosts.one.inner),
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3):
            tun, sock = remote.hand_over()
            remote.close()
            old = hosts.one.process
            remote = hosts.one.launch(tmp_path / hosts.one.outer, language)
            assert old is not None
            assert old.wait(10) == 0
            hosts.one.tell(remote)
            remote.start(tun, sock)
            os.close(tun)
            os.close(sock)
        said, _ = flood.communicate(timeout=60)
        remote.close()
    assert "3000 packets transmitted, 3000 received" in said
