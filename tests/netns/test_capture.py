"""``flannelctl capture`` on a real pair: what containers say to each other is seen inside the tunnel, both ways."""

from __future__ import annotations

import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.pair import CONFIG, Pair

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge", "iptables")

CAPTURE = [sys.executable, "-m", "pyflannel.cli.flannelctl", "capture", "--no-defaults"]


@contextmanager
def capturing(pair: Pair, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A capture on the first host, under way."""
    flags = ["--", f"--store=local:{pair.store.path}", f"-subnet-file={pair.one.subnet_file}", "-iface=ens33"]
    command = [*pair.one.enter, *CAPTURE, *arguments, *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        said = process.stderr.readline()
        assert said.startswith("watching "), said + process.stderr.read()
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with Pair(tmp_path_factory.mktemp("capture")) as made:
        for host in made.hosts:
            # What agents say to one another would be seen, too.
            host.flags.append("-probe=false")
        made.start()
        yield made


def test_a_ping_is_seen_as_inner_packets_both_ways(pair: Pair, tmp_path: Path) -> None:
    file = tmp_path / "seen.pcap"
    with capturing(pair, "--count", "2", "--pcap", str(file), pair.two.address) as process:
        pair.one.container.run(f"ping -c 1 -s 56 {pair.two.target}")
        output, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    asked, answered = output.splitlines()
    here, there = pair.one.target, pair.two.target
    assert f" out IP {here} > {there}: ICMP echo request, id " in asked
    assert asked.endswith("seq 1, ttl 63, DF, length 84")
    assert f" in  IP {there} > {here}: ICMP echo reply, id " in answered
    assert "length 84" in answered
    assert "2 packets, 0 more" in errors
    raw = file.read_bytes()
    assert struct.unpack_from("=IHHiIII", raw)[0] == 0xA1B2C3D4
    assert len(raw) == 24 + 2 * (16 + 84)


def test_what_is_not_of_that_peer_is_not_shown_and_the_time_ends_it(pair: Pair) -> None:
    with capturing(pair, "--duration", "1", str(pair.two.subnet)) as process:
        # To the network, and not to that peer: no lease, so it goes by no tunnel's peer.
        subprocess.run(
            pair.one.container.argv("ping", "-c", "1", "-W", "1", "10.2.201.1"), check=False, capture_output=True
        )
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, output) == (0, ""), errors


def test_an_interrupt_ends_it_with_the_count(pair: Pair) -> None:
    with capturing(pair, pair.two.target) as process:
        pair.one.container.run(f"ping -c 1 {pair.two.target}")
        assert process.stdout is not None
        assert "echo request" in process.stdout.readline()
        assert "echo reply" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert "2 packets, 0 more" in errors


def test_nobodys_address_is_refused(pair: Pair) -> None:
    flags = ["--", f"--store=local:{pair.store.path}", f"-subnet-file={pair.one.subnet_file}", "-iface=ens33"]
    command = [*pair.one.enter, *CAPTURE, "192.0.2.99", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no host has 192.0.2.99" in done.stderr


def test_host_gw_shows_the_same_on_the_external_interface(tmp_path: Path) -> None:
    with Pair(tmp_path) as pair:
        pair.store.configure(CONFIG.replace("vxlan", "host-gw"))
        pair.start()
        with capturing(pair, "--count", "2", pair.two.address) as process:
            # Beside the ping, what the hosts say to each other goes by the same interface.
            pair.one.space.run(f"ping -c 1 {pair.two.address}")
            pair.one.container.run(f"ping -c 1 {pair.two.target}")
            output, errors = process.communicate(timeout=20)
        assert process.returncode == 0, errors
        asked, answered = output.splitlines()
        assert f" out IP {pair.one.target} > {pair.two.target}: ICMP echo request" in asked
        assert f" in  IP {pair.two.target} > {pair.one.target}: ICMP echo reply" in answered
