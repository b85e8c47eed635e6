"""The agent as a process on a host of its own: what it leaves in the kernel, and how it ends when it cannot go on."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyflannel.lease.wire import decode_attrs
from pyflannel.store.local import LocalStore
from tests.support.embedded_stores import write_local_record
from tests.support.machines import eventually, stop
from tests.support.namespaces import Namespace
from tests.support.pair import CONFIG

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "iptables")

PREFIX = "/coreos.com/network"
PEER = '{"PublicIP":"172.16.41.132","PublicIPv6":null,"BackendType":"vxlan","BackendData":%s}'

MONITOR = ("stdbuf", "-oL", "ip", "monitor", "link", "address", "route", "neigh")


class Host:
    """A namespace with ens33, a local store, and agents started on it."""

    def __init__(self, space: Namespace, home: Path) -> None:
        self.space, self.home = space, home
        self.subnet_file = home / "subnet.env"
        self.iface = "ens33"
        self.log = home / "flanneld.log"
        self._agents: list[subprocess.Popen[bytes]] = []
        space.run("ip link add ens33 type veth peer name far0")
        space.run("ip addr add 172.16.41.131/24 dev ens33")
        space.run("ip link set ens33 up")
        space.run("ip link set far0 up")

    @property
    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "pyflannel.cli.flanneld", f"--store=local:{self.home}/store.db"),
            *(f"-subnet-file={self.subnet_file}", f"--state-dir={self.home}", f"-iface={self.iface}"),
        ]

    def configure(self, text: str = CONFIG) -> None:
        async def write() -> None:
            store = LocalStore(self.home / "store.db", PREFIX)
            await store.write_config(text)
            await store.close()

        asyncio.run(write())

    def start(self, *flags: str) -> subprocess.Popen[bytes]:
        """Start an agent and return at once."""
        with self.log.open("ab") as log:
            agent = subprocess.Popen(
                ["nsenter", f"--net={self.space.path}", "--", *self.command, *flags], stdout=log, stderr=log
            )
        self._agents.append(agent)
        return agent

    def started(self, *flags: str) -> subprocess.Popen[bytes]:
        """Start an agent and return once containers may start."""
        self.subnet_file.unlink(missing_ok=True)
        agent = self.start(*flags)
        eventually(lambda: self.subnet_file.exists() or agent.poll() is not None, "subnet.env")
        assert agent.poll() is None, self.said()
        return agent

    def ended(self, *flags: str) -> int:
        """Run an agent that is to end by itself, and return its exit status."""
        return self.start(*flags).wait(timeout=20)

    def said(self) -> str:
        return self.log.read_text()

    def close(self) -> None:
        for agent in self._agents:
            stop(agent)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with Namespace("agent") as space:
        made = Host(space, tmp_path)
        made.configure()
        yield made
        made.close()


def kernel(space: Namespace) -> list[str]:
    """Everything the agent could have left behind."""
    return [
        *space.run("ip -br link").splitlines(),
        *space.run("ip route").splitlines(),
        *(line for line in space.run("iptables-save").splitlines() if line[0] not in "#:"),
    ]


def test_a_start_programs_the_device_and_says_what_docker_needs(host: Host) -> None:
    host.started()
    lines = host.subnet_file.read_text().splitlines()
    subnet = lines[1].removeprefix("FLANNEL_SUBNET=").replace(".1/24", ".0/32")
    assert lines == ["FLANNEL_NETWORK=10.2.0.0/16", lines[1], "FLANNEL_MTU=1450", "FLANNEL_IPMASQ=false"]
    assert subnet in host.space.run("ip -4 addr show dev flannel.1")
    assert "FLANNEL-FWD" in host.space.run("iptables -S FORWARD")


@pytest.mark.parametrize("number", [15, 2], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_cleanly_and_leaves_the_network_standing(host: Host, number: int) -> None:
    agent = host.started()
    eventually(lambda: "Watching for new subnet leases" in host.said(), "the peers")
    before = kernel(host.space)
    agent.send_signal(number)
    assert agent.wait(timeout=10) == 0
    assert "Exiting cleanly..." in host.said()
    assert kernel(host.space) == before


def test_a_second_start_changes_nothing_in_the_kernel(host: Host, tmp_path: Path) -> None:
    write_peer(host, "10.2.41.0-24")
    first = host.started()
    eventually(lambda: "Subnet added: 10.2.41.0/24" in host.said(), "the peer")
    stop(first)
    out_file = tmp_path / "monitor"
    with out_file.open("wb") as out:
        monitor = subprocess.Popen(
            ["nsenter", f"--net={host.space.path}", *MONITOR],
            stdout=out,
        )
    try:
        # A change of somebody else's shows that the monitor listens; then it must be the last one it heard of.
        eventually(lambda: "witness" in heard_of_a_witness(host, out_file), "ip monitor")
        host.started()
        eventually(lambda: host.said().count("Subnet added: 10.2.41.0/24") == 2, "the peer")
        seen = out_file.read_text().count("witness")
        eventually(lambda: heard_of_a_witness(host, out_file).count("witness") > seen, "the witness again")
    finally:
        stop(monitor)
    heard = out_file.read_text().splitlines()
    assert [line for line in heard if "flannel.1" in line or "10.2." in line] == []


def heard_of_a_witness(host: Host, out_file: Path) -> str:
    """Make a foreign device come and go, and return all that the monitor has heard so far."""
    host.space.run("ip link add witness type veth peer name witness2")
    host.space.run("ip link del witness")
    return out_file.read_text()


def write_peer(host: Host, name: str, mac: str = "02:00:00:00:00:02", vni: int = 1) -> None:
    """A record of another host, as that host would write it."""
    value = PEER % f'{{"VNI":{vni},"VtepMAC":"{mac}"}}'
    write_raw(host, name, value)


def write_raw(host: Host, name: str, value: str) -> None:
    write_local_record(host.home / "store.db", PREFIX, name, value)


def test_a_peer_that_joins_is_reachable_and_one_that_breaks_its_record_is_not(host: Host) -> None:
    host.started()
    write_peer(host, "10.2.41.0-24")
    eventually(lambda: "10.2.41.0" in host.space.run("ip route show dev flannel.1"), "the route")
    eventually(lambda: "Subnet added: 10.2.41.0/24 via 172.16.41.132" in host.said(), "the line")
    write_raw(host, "10.2.42.0-24", "no JSON at all")
    write_raw(host, "192.168.0.0-24", PEER % '{"VNI":1,"VtepMAC":"02:00:00:00:00:03"}')
    eventually(lambda: "Ignoring lease 192.168.0.0/24" in host.said(), "the complaint")
    eventually(lambda: "10.2.42.0-24" in host.said(), "the other complaint")
    assert host.space.run("ip route show dev flannel.1").split() == ["10.2.41.0/24", "via", "10.2.41.0", "onlink"]


def test_what_an_earlier_run_left_of_vanished_peers_is_pruned(host: Host) -> None:
    stop(host.started())
    host.space.run("ip route add 10.2.99.0/24 via 10.2.99.0 dev flannel.1 onlink")
    host.space.run("ip neigh add 10.2.99.0 lladdr 02:00:00:00:00:99 dev flannel.1 nud permanent")
    host.space.run("bridge fdb add 02:00:00:00:00:99 dev flannel.1 self permanent dst 172.16.41.99")
    host.started()
    eventually(lambda: "10.2.99.0" not in host.space.run("ip route show dev flannel.1"), "the route's end")
    eventually(lambda: "10.2.99.0" not in host.space.run("ip neigh show dev flannel.1"), "the neighbour's end")
    eventually(lambda: "172.16.41.99" not in host.space.run("bridge fdb show dev flannel.1"), "the FDB entry's end")


def test_another_vni_takes_the_place_of_the_former_one(host: Host) -> None:
    write_peer(host, "10.2.41.0-24")
    first = host.started()
    eventually(lambda: "10.2.41.0" in host.space.run("ip route show dev flannel.1"), "the route")
    stop(first)
    host.space.run("ip link add flannel.9 type vxlan id 9 dev ens33 local 172.16.41.131 dstport 8472")
    host.configure(CONFIG.replace('"Type":"vxlan"', '"Type":"vxlan","VNI":7'))
    write_peer(host, "10.2.41.0-24", vni=7)
    host.started()
    eventually(lambda: "10.2.41.0" in host.space.run("ip route show dev flannel.7"), "the route over the new device")
    names = {entry["ifname"] for entry in host.space.objects("ip -j link")}
    assert "flannel.1" not in names
    assert "flannel.9" in names, "a device that is not ours has gone"


def test_a_device_that_lost_name_and_address_while_nobody_looked_is_ours_all_the_same(host: Host) -> None:
    stop(host.started())
    before = host.space.objects("ip -j link show dev flannel.1")[0]["address"]
    host.space.run("ip link set flannel.1 down")
    host.space.run("ip link set flannel.1 name foo address 02:00:00:00:00:aa")
    host.started()
    (link,) = host.space.objects("ip -j link show type vxlan")
    assert (link["ifname"], link["address"]) == ("flannel.1", before)


def test_a_device_made_anew_keeps_its_address(host: Host) -> None:
    stop(host.started())
    mac = link(host)["address"]
    host.space.run("ip link del flannel.1")
    host.started()
    assert link(host)["address"] == mac


def test_a_device_whose_address_was_changed_meanwhile_gets_the_published_one_back(host: Host) -> None:
    stop(host.started())
    mac = link(host)["address"]
    host.space.run("ip link set flannel.1 address 02:00:00:00:00:77")
    host.started()
    assert link(host)["address"] == mac == published_mac(host)


def test_an_existing_device_is_adopted_with_its_address_and_brought_to_the_configured_mtu(host: Host) -> None:
    host.space.run("ip link add flannel.1 type vxlan id 1 dev ens33 local 172.16.41.131 dstport 8472 nolearning")
    host.space.run("ip link set flannel.1 address 3e:5b:2a:64:7c:0d mtu 1400")
    before = link(host)["ifindex"]
    host.started()
    after = link(host)
    assert (after["ifindex"], after["address"], after["mtu"]) == (before, "3e:5b:2a:64:7c:0d", 1450)
    assert published_mac(host) == "3e:5b:2a:64:7c:0d"


def link(host: Host) -> dict[str, object]:
    (entry,) = host.space.objects("ip -j link show dev flannel.1")
    return entry


def published_mac(host: Host) -> str:
    async def read() -> str:
        store = LocalStore(host.home / "store.db", PREFIX)
        (lease,) = (await store.leases()).leases
        await store.close()
        return lease.attrs.backend_data or "{}"

    return str(json.loads(asyncio.run(read()))["VtepMAC"])


def test_ip_masq_puts_its_chain_in_place(host: Host) -> None:
    host.started("-ip-masq")
    assert "FLANNEL-POSTRTG" in host.space.run("iptables -t nat -S POSTROUTING")
    assert "FLANNEL_IPMASQ=true" in host.subnet_file.read_text()


def test_rules_that_somebody_flushed_come_back(host: Host) -> None:
    host.started("-iptables-resync=1")
    host.space.run("iptables -F FORWARD")
    eventually(lambda: "FLANNEL-FWD" in host.space.run("iptables -S FORWARD"), "the jump")


@pytest.mark.needs("iptables-nft")
def test_rules_that_somebody_flushed_come_back_without_waiting_for_the_clock(host: Host) -> None:
    host.started("-iptables-resync=3600")
    if "nf_tables" not in host.space.run("iptables --version"):
        pytest.skip("plain iptables is the legacy variant here, of whose changes nobody tells")
    # The agent says so once it runs; from then on it listens.
    eventually(lambda: "Running backend." in host.said(), "the agent")
    host.space.run("iptables -F FORWARD")
    eventually(lambda: "FLANNEL-FWD" in host.space.run("iptables -S FORWARD"), "the jump")


def test_the_interface_that_won_is_named_with_the_reason(host: Host) -> None:
    host.started()
    assert "] Using interface with name ens33 and address 172.16.41.131\n" in host.said()
    assert "] Interface ens33 was chosen because: -iface=ens33\n" in host.said()


def test_a_configuration_written_later_is_picked_up(host: Host) -> None:
    host.configure("{")
    agent = host.start()
    eventually(lambda: "cannot be used" in host.said(), "the complaint")
    assert agent.poll() is None
    host.configure()
    eventually(host.subnet_file.exists, "subnet.env")


def test_no_interface_to_use_ends_it_with_the_candidates(host: Host) -> None:
    before = kernel(host.space)
    host.iface = "eth7"
    assert host.ended() == 1
    assert "eth7" in host.said()
    assert "ens33" in host.said()
    assert kernel(host.space) == before


def test_a_port_that_is_taken_ends_it_and_leaves_nothing_half_made(host: Host) -> None:
    script = "import socket,time; s=socket.socket(2,2); s.bind(('',8472)); print(flush=True); time.sleep(60)"
    squatter = subprocess.Popen(
        ["nsenter", f"--net={host.space.path}", sys.executable, "-c", script], stdout=subprocess.PIPE
    )
    try:
        assert squatter.stdout is not None
        squatter.stdout.readline()
        before = kernel(host.space)
        assert host.ended() == 1
        assert "UDP port" in host.said()
        assert kernel(host.space) == before
        assert not host.subnet_file.exists()
    finally:
        stop(squatter)
        squatter.communicate()


def test_a_device_name_that_is_taken_ends_it_and_touches_nothing(host: Host) -> None:
    host.space.run("ip link add flannel.1 type bridge")
    before = kernel(host.space)
    assert host.ended() == 1
    assert "flannel.1" in host.said()
    assert kernel(host.space) == before


def test_without_rights_it_says_so_and_ends(host: Host) -> None:
    inside = [
        "nsenter",
        f"--net={host.space.path}",
        "--",
        "setpriv",
        "--bounding-set=-net_admin",
        "--inh-caps=-net_admin",
    ]
    done = subprocess.run([*inside, *host.command], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert "CAP_NET_ADMIN" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_iptables_programs_masquerading_is_an_error_and_forwarding_a_warning(host: Host) -> None:
    bare = ["env", "PATH=/nonexistent"]
    inside = ["nsenter", f"--net={host.space.path}", "--", *bare, *host.command]
    done = subprocess.run([*inside, "-ip-masq"], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert "-ip-masq: running iptables: No such file or directory" in done.stderr
    assert "flannel.1" not in host.space.run("ip -br link")
    with host.log.open("ab") as log:
        agent = subprocess.Popen(inside, stdout=log, stderr=log)
    eventually(host.subnet_file.exists, "subnet.env")
    assert stop(agent) == 0
    assert "running iptables: No such file or directory" in host.said()


def test_a_read_only_place_for_the_subnet_file_is_waited_out(host: Host) -> None:
    blocked = host.home / "run"
    blocked.write_text("a file where a directory should be")
    host.start(f"-subnet-file={blocked}/subnet.env")
    eventually(lambda: "could not write the subnet file" in host.said(), "the complaint")
    blocked.unlink()
    eventually((blocked / "subnet.env").exists, "the file")


def test_what_it_publishes_is_what_flannel_publishes(host: Host) -> None:
    host.started()

    async def read() -> str | None:
        store = LocalStore(host.home / "store.db", PREFIX)
        (lease,) = (await store.leases()).leases
        await store.close()
        return lease.attrs.backend_type + str(lease.attrs.public_ip)

    assert asyncio.run(read()) == "vxlan172.16.41.131"
    assert decode_attrs('{"PublicIP":"172.16.41.131"}').public_ip is not None
