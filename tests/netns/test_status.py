"""What real agents say of themselves, and whether that is true to the kernel."""

from __future__ import annotations

import http.client
import json
import socket
import stat
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pyflannel.cli.agent_socket import AgentSilent, get, status
from pyflannel.linux.netns import inside
from pyflannel.telemetry.document import Document
from tests.support.machines import eventually, stop
from tests.support.pair import CONFIG, Host, Pair, Peer

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge", "iptables")

HEALTH, STATUS = 8080, 9000
SILENT = Peer("10.2.150.0/24", "02:00:00:00:01:50", "172.16.41.150")
"""A host that is a record only."""


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with Pair(tmp_path) as made:
        yield made


def control(host: Host) -> Path:
    return host.home / "flanneld.sock"


def asked(host: Host, path: str, port: int = HEALTH, method: str = "GET", name: str = "localhost") -> tuple[int, bytes]:
    """What the agent answers who came to a port of its loopback by this name; 0 while nobody listens."""

    def connect() -> socket.socket:
        return socket.create_connection(("127.0.0.1", port), timeout=5)

    try:
        channel = inside(str(host.space.path), connect)
    except ConnectionRefusedError:
        return 0, b""
    with channel:
        channel.sendall(f"{method} {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        answer = http.client.HTTPResponse(channel, method=method)
        answer.begin()
        return answer.status, answer.read()


def await_answer(host: Host, path: str, expected: int, patience: float = 20.0) -> float:
    """Seconds until the agent answers with this status."""
    began = time.monotonic()
    eventually(lambda: asked(host, path)[0] == expected, f"{expected} for {path}", patience)
    return time.monotonic() - began


def page(host: Host, path: str) -> tuple[int, str]:
    """What a browser gets there, and which sources of scripts it is told to trust."""

    def connect() -> socket.socket:
        return socket.create_connection(("127.0.0.1", STATUS), timeout=5)

    connection = http.client.HTTPConnection("127.0.0.1", STATUS, timeout=5)
    connection.sock = inside(str(host.space.path), connect)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response.status, response.headers.get("Content-Security-Policy", "")
    finally:
        connection.close()


def silence(host: Host) -> str:
    """Why the agent cannot be asked; empty if it can."""
    try:
        status(control(host))
    except AgentSilent as exc:
        return str(exc)
    return ""


def flannelctl(host: Host, *words: str) -> subprocess.CompletedProcess[str]:
    """The program, on that host."""
    command = [*host.enter, sys.executable, "-m", "pyflannel.cli.flannelctl", *words, f"--socket={control(host)}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def settled(host: Host) -> Document:
    """Its status once all is programmed."""
    eventually(lambda: status(control(host)).kernel.complete, "all peers to be known")
    return status(control(host))


def test_health_is_told_while_the_configuration_is_waited_for_and_readiness_once_packets_pass(pair: Pair) -> None:
    host = pair.one
    host.flags += [f"-healthz-port={HEALTH}"]
    pair.store.configure(None)
    host.start()
    await_answer(host, "/healthz", 200)
    assert asked(host, "/healthz") == (200, b"flanneld is running")
    assert asked(host, "/healthz", method="POST", name="some.host.example") == (200, b"flanneld is running")
    assert asked(host, "/readyz") == (503, b"flanneld is not ready yet")
    waiting = status(control(host))
    assert waiting.agent.phase == "waiting"
    assert [each.code for each in waiting.conditions] == ["config-missing"]
    done = flannelctl(host, "status")
    assert done.returncode == 1
    assert "flanneld 0" in done.stdout
    assert "config-missing" in done.stdout

    pair.store.configure(CONFIG)
    await_answer(host, "/readyz", 200)
    assert asked(host, "/readyz") == (200, b"flanneld is ready")
    for path in ("/status", "/metrics", "/ask", "/"):
        assert asked(host, path)[0] == 404

    host.space.run("ip link set ens33 down")
    assert await_answer(host, "/readyz", 503) < 5
    assert "interface-unusable" in {each.code for each in status(control(host)).conditions}
    host.space.run("ip link set ens33 up")
    assert await_answer(host, "/readyz", 200) < 5
    assert asked(host, "/healthz") == (200, b"flanneld is running")


def test_the_status_is_true_to_the_kernel(pair: Pair) -> None:
    pair.store.join(SILENT)
    pair.start()
    said = settled(pair.one)
    link = pair.one.link()
    assert (said.agent.phase, said.agent.pid) == ("running", pair.one.agent and pair.one.agent.pid)
    assert (said.network.device, said.network.backend) == (link["ifname"], "vxlan")
    assert said.network.mtu == link["mtu"]
    assert said.lease.subnet == str(pair.one.subnet)
    assert said.host.ipv4 == pair.one.address
    routes = pair.one.space.objects(f"ip -j route show dev {said.network.device} proto boot")
    assert said.kernel.wanted["Route"] == len(routes) == 2
    assert said.kernel.failed == {}
    assert (said.firewall.wanted, said.firewall.ok, said.outputs.written) == (True, True, True)
    assert {(peer.subnet, peer.public_ip) for peer in said.peers} == {
        (str(pair.two.subnet), pair.two.address),
        (SILENT.subnet, SILENT.host),
    }
    (before,) = said.devices
    assert pair.probe_for(0.3).lost == 0
    (after,) = status(control(pair.one)).devices
    assert before.tx_packets is not None
    assert after.tx_packets is not None
    assert after.tx_packets >= before.tx_packets + 200


def test_what_was_put_right_is_counted_by_kind_and_the_metrics_say_the_same(pair: Pair) -> None:
    pair.one.flags += [f"-status-port={STATUS}"]
    pair.start()
    settled(pair.one)
    pair.one.space.run(f"ip route del {pair.two.subnet}")
    eventually(lambda: status(control(pair.one)).kernel.repairs == {"Route": 1}, "a repair to be counted")
    code, text = asked(pair.one, "/metrics", STATUS)
    assert code == 200
    samples = defaultdict[str, float](float)
    for family in text_string_to_metric_families(text.decode()):
        for each in family.samples:
            samples[each.name] += each.value
    assert samples["flannel_kernel_repairs_total"] == 1
    assert samples["flannel_leases"] == 2
    assert samples["flannel_kernel_items_failed"] == 0
    assert samples["flannel_ready"] == 1
    assert 10e6 < samples["process_resident_memory_bytes"] < 100e6
    assert samples["flannel_store_request_duration_seconds_count"] > 0
    assert asked(pair.one, "/status", STATUS)[0] == 200
    assert asked(pair.one, "/ask", STATUS)[0] == 404


def test_a_peer_the_kernel_refuses_shows_with_the_reason(pair: Pair) -> None:
    pair.start()
    pair.one.space.run(f"ip route add {SILENT.subnet} dev ens33")
    pair.store.join(SILENT)

    def state() -> str:
        return next((peer.state for peer in status(control(pair.one)).peers if peer.subnet == SILENT.subnet), "")

    eventually(lambda: state() == "failed", "the failure to be told")
    said = status(control(pair.one))
    assert said.kernel.failed == {"Route": 1}
    assert "kernel-refuses" in {each.code for each in said.conditions}
    done = flannelctl(pair.one, "peers")
    assert done.returncode == 1
    (row,) = (line for line in done.stdout.splitlines() if line.startswith(SILENT.subnet))
    assert "failed" in row
    assert "ip route" in row
    pair.one.space.run(f"ip route del {SILENT.subnet} dev ens33")
    eventually(lambda: state() not in ("failed", ""), "the failure to be gone", 10.0)


def test_people_are_told_on_one_screen_and_by_the_exit_status(pair: Pair) -> None:
    pair.start()
    settled(pair.one)
    done = flannelctl(pair.one, "status")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.endswith("All is well.\n")
    assert len(done.stdout.splitlines()) <= 24
    for words in (str(pair.one.subnet), "flannel.1", "vxlan", "172.16.41.131 on ens33"):
        assert words in done.stdout
    done = flannelctl(pair.one, "peers")
    assert done.returncode == 0, done.stdout
    header, row = done.stdout.splitlines()
    assert header.startswith("SUBNET")
    assert row.startswith(str(pair.two.subnet))
    (peer,) = json.loads(flannelctl(pair.one, "peers", "--json").stdout)
    assert peer["public_ip"] == pair.two.address


def test_the_control_socket_is_for_root_and_goes_with_the_agent(pair: Pair) -> None:
    pair.one.started()
    assert stat.S_IMODE(control(pair.one).lstat().st_mode) == 0o600
    pair.one.kill()
    # A child that it was just starting may hold the socket for a moment longer.
    eventually(lambda: "no agent runs" in silence(pair.one), "the end of it")
    assert control(pair.one).exists()
    pair.one.started()
    assert status(control(pair.one)).agent.phase == "running"
    pair.one.stop()
    assert not control(pair.one).exists()


def test_a_second_agent_leaves_the_socket_of_the_first_alone_and_says_so(pair: Pair) -> None:
    pair.one.started()
    pid = status(control(pair.one)).agent.pid
    first, pair.one.agent = pair.one.agent, None
    assert first is not None
    try:
        pair.one.start()
        pair.one.await_line("another agent is asked there")
        assert status(control(pair.one)).agent.pid == pid
    finally:
        stop(first)


def test_a_port_that_is_taken_costs_nothing_but_a_condition(pair: Pair) -> None:
    host = pair.one
    host.flags += [f"-healthz-port={HEALTH}"]
    with inside(str(host.space.path), lambda: socket.create_server(("0.0.0.0", HEALTH))):
        host.started()
        (condition,) = status(control(host)).conditions
        assert (condition.code, condition.subject) == ("not-served", f"0.0.0.0:{HEALTH}")
        assert "Address already in use" in condition.text
    await_answer(host, "/readyz", 200)
    assert not status(control(host)).conditions


def test_whoever_asks_is_answered_across_a_change_of_the_network(pair: Pair) -> None:
    host = pair.one
    host.flags += [f"-healthz-port={HEALTH}"]
    host.started()
    pid = status(control(host)).agent.pid
    pair.store.configure(CONFIG.replace('"vxlan"', '"vxlan","VNI":7'))
    eventually(lambda: status(control(host)).network.vni == 7, "the new network", 20.0)
    await_answer(host, "/readyz", 200)
    assert asked(host, "/healthz") == (200, b"flanneld is running")
    assert status(control(host)).agent.pid == pid


@pytest.mark.needs("wireguard")
def test_octets_to_wireguard_peers_are_those_of_the_kernel(pair: Pair) -> None:
    pair.store.configure(CONFIG.replace('"vxlan"', '"wireguard"'))
    pair.start()
    assert pair.probe_for(0.3).lost == 0
    (peer,) = status(control(pair.one)).peers
    words = pair.one.space.run("wg show flannel-wg transfer").split()
    assert peer.tx_bytes is not None
    assert peer.rx_bytes is not None
    assert 0 < peer.rx_bytes <= int(words[1])
    assert 0 < peer.tx_bytes <= int(words[2])


@pytest.mark.needs("tun")
def test_packets_to_udp_peers_are_those_of_the_forwarder(pair: Pair) -> None:
    pair.store.configure(CONFIG.replace('"vxlan"', '"udp"'))
    pair.start()
    before = status(control(pair.one)).peers[0]
    assert pair.probe_for(0.3).lost == 0
    after = status(control(pair.one)).peers[0]
    assert before.tx_packets is not None
    assert after.tx_packets is not None
    assert after.tx_packets >= before.tx_packets + 200
    assert after.rx_bytes is not None
    assert after.rx_bytes > 0


def test_many_who_say_nothing_keep_nobody_from_being_answered(pair: Pair) -> None:
    host = pair.one
    host.flags += [f"-healthz-port={HEALTH}"]
    host.started()
    await_answer(host, "/readyz", 200)

    def crowd() -> list[socket.socket]:
        return [socket.create_connection(("127.0.0.1", HEALTH), timeout=5) for _ in range(200)]

    held = inside(str(host.space.path), crowd)
    try:
        assert asked(host, "/readyz")[0] == 200
        assert get(control(host), "/healthz") == b"flanneld is running"
        assert len(list(Path(f"/proc/{status(control(host)).agent.pid}/fd").iterdir())) < 100
    finally:
        for each in held:
            each.close()


def test_the_page_is_served_to_this_host_where_it_is_asked_for(pair: Pair) -> None:
    pair.one.flags += ["-ui", f"-status-port={STATUS}"]
    pair.two.flags += [f"-status-port={STATUS}"]
    pair.start()
    served, policy = page(pair.one, "/")
    assert served == 200
    assert policy.startswith("default-src 'none'")
    assert page(pair.one, "/page.js")[0] == 200
    assert page(pair.two, "/")[0] == 404
    # A browser that a site on the Internet has sent to 127.0.0.1.
    assert asked(pair.one, "/status", STATUS, name="evil.example")[0] == 421
    outside = (
        f"import socket; s = socket.socket(); raise SystemExit(s.connect_ex(('{pair.one.address}', {STATUS})) == 0)"
    )
    pair.two.space.run(f'{sys.executable} -c "{outside}"')
