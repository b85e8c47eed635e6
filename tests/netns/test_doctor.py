"""``flannelctl doctor`` on real hosts: nothing where all is well, and each problem, planted alone, by its name."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.capabilities import missing
from tests.support.doctors import at, read, run, visit
from tests.support.etcd import Etcd
from tests.support.machines import eventually
from tests.support.namespaces import Namespace
from tests.support.pair import CONFIG, Host, Pair, Peer

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge", "iptables")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with Pair(tmp_path_factory.mktemp("pair")) as made:
        made.start()
        yield made


@pytest.fixture
def host(pair: Pair) -> Host:
    return pair.one


@dataclass(frozen=True, slots=True)
class Plant:
    """A problem, and how it is taken out again by hand.

    ``{subnet}``, ``{first}`` and ``{target}`` are the host's, ``{beyond}`` is a container of the other one.
    """

    code: str
    deed: str
    undo: str
    evidence: str
    fixed: bool = False
    """Whether ``--fix`` is to put it right; ``undo`` then takes away what is left."""
    needs: tuple[str, ...] = ()


SHADOW = "-s 10.2.0.0/16 -j DROP"
HIDE = "-s {subnet} ! -o docker0 -j MASQUERADE"
PLANTS = {
    "no forwarding": Plant(
        "forwarding-off", "echo 0 >/proc/sys/net/ipv4/ip_forward", "", "net.ipv4.ip_forward is 0", fixed=True
    ),
    "no forwarding from the tunnel": Plant(
        "forwarding-off",
        "echo 0 >/proc/sys/net/ipv4/conf/flannel.1/forwarding",
        "",
        "net/ipv4/conf/flannel.1/forwarding is 0",
        fixed=True,
    ),
    "strict filtering": Plant(
        "rp-filter",
        "ip link add br9 up type bridge; ip route add 172.16.41.132 dev br9; "
        "echo 1 >/proc/sys/net/ipv4/conf/ens33/rp_filter",
        "ip link del br9; echo 0 >/proc/sys/net/ipv4/conf/ens33/rp_filter",
        "the way to 172.16.41.132 leads out by br9",
        fixed=True,
    ),
    "strict filtering of the tunnel": Plant(
        "rp-filter",
        "echo 1 >/proc/sys/net/ipv4/conf/flannel.1/rp_filter; ip route add {beyond} via 172.16.41.132 dev ens33",
        "ip route del {beyond}; echo 0 >/proc/sys/net/ipv4/conf/flannel.1/rp_filter",
        "the way to {beyond}/32 leads out by ens33",
        fixed=True,
    ),
    "a rule before ours": Plant(
        "forward-dropped",
        f"iptables -N DOCKER-USER; iptables -A DOCKER-USER {SHADOW}; iptables -I FORWARD -j DOCKER-USER",
        "iptables -D FORWARD -j DOCKER-USER; iptables -F DOCKER-USER; iptables -X DOCKER-USER",
        f"ends at: -A DOCKER-USER {SHADOW}",
    ),
    "a policy in the other variant": Plant(
        "forward-dropped",
        "iptables-legacy -P FORWARD DROP",
        "iptables-legacy -P FORWARD ACCEPT",
        "ends at: -P FORWARD DROP",
        needs=("iptables-legacy",),
    ),
    "rules in the other variant": Plant(
        "iptables-mixed",
        "iptables-legacy -A INPUT -p tcp -j ACCEPT",
        "iptables-legacy -F INPUT",
        "iptables-legacy holds -A INPUT -p tcp -j ACCEPT",
        needs=("iptables-legacy",),
    ),
    "our chain in the other variant": Plant(
        "stale-rules",
        "iptables-legacy -N FLANNEL-FWD; "
        "iptables-legacy -A FORWARD -m comment --comment 'flanneld forward' -j FLANNEL-FWD",
        "",
        "FLANNEL-FWD is still there",
        fixed=True,
        needs=("iptables-legacy",),
    ),
    "a table that Go flanneld left": Plant(
        "stale-rules", "nft add table ip flannel-ipv4", "", "table ip flannel-ipv4", fixed=True, needs=("nft",)
    ),
    "Docker's filter": Plant(
        "docker-direct-access",
        "iptables -t raw -A PREROUTING -d {target} ! -i docker0 -j DROP",
        "iptables -t raw -F PREROUTING",
        "-d {target}/32 ! -i docker0 -j DROP (table raw)",
    ),
    "Docker's filter, kept with nftables": Plant(
        "docker-direct-access",
        "nft add table ip docker-bridges; "
        "nft add chain ip docker-bridges raw-PREROUTING '{ type filter hook prerouting priority raw ; }'; "
        "nft add rule ip docker-bridges raw-PREROUTING ip daddr {target} iifname != docker0 counter drop",
        "nft delete table ip docker-bridges",
        "ip docker-bridges raw-PREROUTING ip daddr {target} iifname != docker0 drop (nftables)",
        needs=("nft",),
    ),
    "a table of nftables": Plant(
        "forward-dropped",
        "nft add table inet theirs; nft add chain inet theirs f '{ type filter hook forward priority 0 ; }'; "
        "nft add rule inet theirs f ip saddr 10.2.0.0/16 reject",
        "nft delete table inet theirs",
        "ends at: inet theirs f ip saddr 10.2.0.0/16 reject",
        needs=("nft",),
    ),
    "a port that is shut": Plant(
        "port-blocked",
        "iptables -A INPUT -p udp --dport 8472 -j DROP",
        "iptables -F INPUT",
        "a packet from 172.16.41.132 on ens33 ends at: -A INPUT -p udp",
        fixed=True,
    ),
    "containers behind our address": Plant(
        "containers-masqueraded",
        f"iptables -t nat -N cali-POSTROUTING; iptables -t nat -A cali-POSTROUTING {HIDE}; "
        "iptables -t nat -I POSTROUTING -j cali-POSTROUTING",
        "iptables -t nat -D POSTROUTING -j cali-POSTROUTING; iptables -t nat -F cali-POSTROUTING; "
        "iptables -t nat -X cali-POSTROUTING",
        f"-A cali-POSTROUTING {HIDE}",
    ),
    "kube-proxy without br_netfilter": Plant(
        "bridge-netfilter-off",
        "iptables -t nat -N KUBE-SERVICES; iptables -t nat -A KUBE-SERVICES -d 10.96.0.1 -j RETURN; "
        "setting=/proc/sys/net/bridge/bridge-nf-call-iptables; [ ! -e $setting ] || echo 0 >$setting",
        "iptables -t nat -F KUBE-SERVICES; iptables -t nat -X KUBE-SERVICES",
        "net.bridge.bridge-nf-call-iptables is",
    ),
    "another bridge in the network": Plant(
        "routes-overlap",
        "ip link add br9 up type bridge; ip address add 10.2.200.1/24 dev br9",
        "ip link del br9",
        "there is a route: 10.2.200.0/24 dev br9",
    ),
    "a rule that leads elsewhere": Plant(
        "routes-overlap",
        "ip link add br9 up type bridge; ip route add 10.2.0.0/16 dev br9 table 99; "
        "ip rule add to 10.2.0.0/16 lookup 99",
        "ip rule del to 10.2.0.0/16 lookup 99; ip link del br9",
        "a container of another host, to br9",
    ),
    "a bridge elsewhere": Plant(
        "bridge-elsewhere",
        "ip address del {first}/24 dev docker0; ip address add 172.17.0.1/16 dev docker0",
        "ip address del 172.17.0.1/16 dev docker0; ip address add {first}/24 dev docker0",
        "docker0 has 172.17.0.1/16, and the subnet of this host is {subnet}",
    ),
    "a bridge that takes in too much": Plant(
        "bridge-elsewhere",
        "ip address del {first}/24 dev docker0; ip address add {first}/16 dev docker0",
        "ip address del {first}/16 dev docker0; ip address add {first}/24 dev docker0",
        "docker0 has {first}/16",
    ),
    "a container with large packets": Plant(
        "packets-too-large",
        "ip link set cable mtu 1500",
        "ip link set cable mtu 1450",
        "cable, a port of docker0, has the MTU 1500, and subnet.env says FLANNEL_MTU=1450",
    ),
    "a device of another VNI": Plant(
        "stale-device",
        "ip link add flannel.7 up type vxlan id 7 dstport 8472 dev ens33; ip address add {gateway}/32 dev flannel.7",
        "",
        "flannel.7 has {gateway}/32, and the agent uses flannel.1",
        fixed=True,
    ),
}


def filled(text: str, pair: Pair) -> str:
    host = pair.one
    gateway, first = str(host.subnet[0]), str(host.subnet[1])
    words = {"subnet": str(host.subnet), "gateway": gateway, "first": first, "target": host.target}
    words["beyond"] = pair.two.target
    for word, value in words.items():
        text = text.replace("{" + word + "}", value)
    return text


def nothing_is_wrong(host: Host) -> None:
    # What the agent complained about meanwhile goes when it has looked again.
    eventually(lambda: visit(host).status == 0, "a host without a problem", patience=30)


@pytest.mark.parametrize("name", PLANTS)
def test_a_problem_is_found_by_its_name_and_gone_when_it_is(pair: Pair, host: Host, name: str) -> None:
    plant = PLANTS[name]
    for capability in plant.needs:
        if reason := missing(capability):
            pytest.skip(f"needs {capability}: {reason}")
    host.space.shell(filled(plant.deed, pair))
    try:
        found = visit(host)
        assert (found.codes, found.status) == ([plant.code], 1), found.text
        assert filled(plant.evidence, pair) in found.evidence
        if plant.fixed:
            mended = visit(host, "--fix", "--yes")
            assert (mended.fixed, mended.codes) == ([plant.code], []), mended.text
    finally:
        host.space.shell(filled(plant.undo, pair))
    nothing_is_wrong(host)


def test_a_host_in_a_network_says_in_one_line_that_nothing_is_wrong(pair: Pair) -> None:
    for each in pair.hosts:
        done = run(each)
        assert (done.returncode, done.stdout, done.stderr) == (0, "nothing found\n", "")


def test_a_person_is_asked_and_may_say_no(host: Host) -> None:
    host.space.shell("echo 0 >/proc/sys/net/ipv4/ip_forward")
    refused = run(host, "--fix", stdin="n\n")
    assert refused.returncode == 1
    assert "  sysctl -w net.ipv4.ip_forward=1\nRun this? [y/N]: " in refused.stdout
    assert "error forwarding-off: this host forwards no packets" in refused.stdout
    agreed = run(host, "--fix", stdin="y\n")
    assert agreed.returncode == 0
    assert agreed.stdout.endswith("nothing found\n")


def test_two_leases_of_one_host_are_found(pair: Pair, host: Host) -> None:
    twin = Peer("10.2.150.0/24", "02:00:00:00:00:96", "172.16.41.132")
    pair.store.join(twin)
    try:
        eventually(lambda: visit(host).codes == ["leases-of-one-host"], "two leases of one host")
    finally:
        pair.store.leave(twin)
    nothing_is_wrong(host)


def test_another_machine_with_our_address_is_found(pair: Pair, host: Host) -> None:
    with Namespace("twin") as twin:
        pair.switch.plug(twin, "ens33", f"{host.address}/24")
        (link,) = twin.objects("ip -j link show dev ens33")
        found = visit(host)
        assert found.codes == ["host-address-twice"], found.text
        assert f"{link['address']} answers for {host.address} on ens33" in found.evidence
    nothing_is_wrong(host)


def test_another_interface_of_this_host_on_the_same_link_is_no_other_machine(pair: Pair, host: Host) -> None:
    pair.switch.plug(host.space, "ens34", "172.16.41.231/32")
    try:
        assert visit(host).codes == []
    finally:
        host.space.run("ip link del ens34")
    nothing_is_wrong(host)


@pytest.mark.parametrize(
    ("code", "pattern", "change"),
    [
        ("subnet-file-missing", "", None),
        ("subnet-file-stale", "FLANNEL_MTU=1450", "FLANNEL_MTU=1400"),
        ("subnet-file-stale", "FLANNEL_SUBNET=", "FLANNEL_SUBNET=10.2.98.1/24,x"),
    ],
    ids=["gone", "another MTU", "another subnet"],
)
def test_a_subnet_file_that_is_not_the_agents_is_found(host: Host, code: str, pattern: str, change: str | None) -> None:
    text = host.subnet_file.read_text()
    if change is None:
        host.subnet_file.unlink()
    else:
        host.subnet_file.write_text(text.replace(pattern, change))
    try:
        found = visit(host)
    finally:
        host.subnet_file.write_text(text)
    assert found.codes == [code], found.text
    nothing_is_wrong(host)


def test_a_clock_that_was_set_back_is_found(host: Host) -> None:
    file = host.home / "vtep-macs.json"
    ahead = time.time() + 86_400
    os.utime(file, (ahead, ahead))
    try:
        assert visit(host).codes == ["clock-wrong"]
    finally:
        os.utime(file)
    nothing_is_wrong(host)


def test_an_agent_that_hangs_is_found(host: Host) -> None:
    with host.asleep():
        found = visit(host)
    assert found.codes == ["agent-silent"], found.text
    nothing_is_wrong(host)


def test_an_agent_that_is_gone_is_found_and_what_became_of_its_device(host: Host) -> None:
    host.kill()
    found = visit(host)
    assert found.codes == ["agent-not-running"], found.text
    assert f"there is {host.subnet_file}, the device flannel.1" in found.evidence
    host.space.run("ip link set flannel.1 address 02:00:00:00:00:99")
    changed = visit(host, "--fix", "--yes")
    assert (changed.fixed, changed.codes) == (["mac-changed"], ["agent-not-running"]), changed.text
    assert "flannel.1 has 02:00:00:00:00:99" in changed.evidence
    host.space.run("ip link set ens33 mtu 1400")
    assert visit(host).codes == ["agent-not-running", "tunnel-too-large"]
    host.space.run("ip link set ens33 mtu 1500")
    host.started()
    nothing_is_wrong(host)


@contextmanager
def _bound(space: Namespace, port: int) -> Iterator[None]:
    """Somebody's program on a UDP port of ``space``."""
    script = (
        f"import socket,time; s=socket.socket(2,2); s.bind(('',{port})); print('bound',flush=True); time.sleep(600)"
    )
    process = subprocess.Popen(
        ["nsenter", f"--net={space.path}", "--", sys.executable, "-S", "-c", script], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def test_a_machine_without_an_agent_says_so_and_what_a_start_would_meet(tmp_path: Path) -> None:
    with Pair(tmp_path) as fresh:
        plain = run(fresh.one)
        assert plain.returncode == 0
        assert plain.stdout == (
            f"note: no agent runs here: nobody answers at {fresh.one.home}/flanneld.sock, there is no process "
            f"flanneld, no {fresh.one.subnet_file}\nnothing found\n"
        )
        with _bound(fresh.one.space, 8472):
            found = visit(fresh.one)
            assert found.codes == ["port-taken"], found.text
        assert visit(fresh.one).codes == []


@pytest.mark.skipif(missing("ipip") is None, reason="this kernel has ipip")
def test_a_kernel_that_cannot_do_what_is_asked_is_found(tmp_path: Path) -> None:
    with Pair(tmp_path) as fresh:
        fresh.store.configure(CONFIG.replace("vxlan", "ipip"))
        found = visit(fresh.one)
        assert found.codes == ["kernel-lacks"], found.text
        assert "ip link add probe0 type ipip remote 192.0.2.1" in found.evidence


@pytest.mark.needs("tun")
@pytest.mark.parametrize(
    "config",
    [
        CONFIG.replace("vxlan", "host-gw"),
        CONFIG.replace("vxlan", "udp"),
        CONFIG.replace('"vxlan"', '"vxlan","DirectRouting":true,"Port":4789,"VNI":77'),
    ],
    ids=["host-gw", "udp", "direct routing"],
)
def test_other_networks_are_well_too(tmp_path: Path, config: str) -> None:
    with Pair(tmp_path) as other:
        other.store.configure(config)
        other.start()
        for each in other.hosts:
            assert run(each).stdout == "nothing found\n"


def test_a_network_of_both_families_is_well_once_ipv6_is_forwarded(tmp_path: Path) -> None:
    with Pair(tmp_path) as dual:
        both = '"EnableIPv6":true,"IPv6Network":"fd00:10:2::/48","Backend"'
        dual.store.configure(CONFIG.replace('"Backend"', both))
        for number, each in enumerate(dual.hosts, 1):
            each.space.shell(f"ip address add fd99::{number}/64 dev ens33 nodad")
        dual.start()
        host = dual.one
        host.space.run("ip link set cable mtu 1430")
        found = visit(host)
        assert found.codes == ["forwarding-off"], found.text
        assert found.evidence == "net.ipv6.conf.all.forwarding is 0"
        host.space.shell("echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
        assert run(host).stdout == "nothing found\n"


def test_every_host_of_a_lab_is_well() -> None:
    name = f"doctor-{secrets.token_hex(3)}"
    flannelctl = [sys.executable, "-m", "pyflannel.cli.flannelctl"]
    lab = [*flannelctl, "lab"]

    def do(*words: str) -> str:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    try:
        do(*lab, "up", "--name", name, "--hosts", "2")
        for host in ("host1", "host2"):
            assert do(*lab, "exec", "--name", name, host, "--", *flannelctl, "doctor") == "nothing found\n"
    finally:
        do(*lab, "down", "--name", name)


@pytest.mark.needs("etcd")
def test_a_configuration_in_the_other_api_of_etcd_is_found(tmp_path: Path) -> None:
    key = "/coreos.com/network/config"
    with Etcd(tmp_path, v2=True) as etcd:
        flags = [f"-etcd-endpoints={etcd.url}", f"-subnet-file={tmp_path}/subnet.env", f"-state-dir={tmp_path}"]
        etcd.v2("PUT", key, {"value": CONFIG})
        assert "etcd-api" not in read(at([], flags, "--json")).codes
        found = read(at([], [*flags, "-etcd-api=3"], "--json"))
        # This machine need not be one where containers could live.
        assert "etcd-api" in found.codes, found.text
        assert f"{key} in etcd v2 at {etcd.url} is there" in found.evidence
        etcd.ctl("put", key, CONFIG.replace("10.2", "10.3"))
        assert "etcd-api" in read(at([], [*flags, "-etcd-api=3"], "--json")).codes
        etcd.ctl("put", key, CONFIG)
        assert "etcd-api" not in read(at([], flags, "--json")).codes
