"""The README's three-host guide, with real parts: one etcd, two Docker hosts, containers that talk.

Each step does what the guide tells a person to do; the assertions are what the guide says they will see.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.machines import Machine, Switch, eventually, stop
from tests.support.rootfs import busybox_archive

pytestmark = [
    pytest.mark.needs("root", "netns", "vxlan", "bridge", "veth", "iptables", "etcd", "docker", "busybox"),
    pytest.mark.timeout(300),
]

PREFIX = "/docker/network"
CONFIG = '{"Network":"10.2.0.0/16","SubnetLen":24,"Backend":{"Type":"vxlan"}}'
FLANNELD = str(Path(sys.executable).with_name("flanneld"))


class DockerHost:
    """A machine that runs flanneld and Docker Engine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.agent: subprocess.Popen[bytes] | None = None

    def start_flanneld(self) -> None:
        self.agent = self.machine.spawn(
            "flanneld", FLANNELD, "-etcd-endpoints=http://172.16.41.130:2379", "-iface=ens33", f"-etcd-prefix={PREFIX}"
        )

    def wait_for_subnet(self) -> None:
        eventually(
            lambda: self.machine.attempt("test", "-s", "/run/flannel/subnet.env").returncode == 0,
            f"subnet.env; flanneld says:\n{self.machine.log('flanneld')}",
        )

    def environment(self) -> dict[str, str]:
        lines = self.machine.run("cat", "/run/flannel/subnet.env").splitlines()
        return dict(line.split("=", 1) for line in lines)

    @property
    def subnet(self) -> str:
        """The leased subnet, e.g. 10.2.71.0/24."""
        return self.environment()["FLANNEL_SUBNET"].replace(".1/24", ".0/24")

    @property
    def gateway(self) -> str:
        """The subnet's .0 address."""
        return self.subnet.partition("/")[0]

    def start_docker(self) -> None:
        script = '. /run/flannel/subnet.env; exec dockerd --bip="$FLANNEL_SUBNET" --mtu="$FLANNEL_MTU"'
        self.machine.spawn("dockerd", "sh", "-c", script)
        eventually(lambda: self.machine.attempt("docker", "version").returncode == 0, "dockerd", patience=60)

    def docker(self, *arguments: str) -> str:
        return self.machine.run("docker", *arguments)

    def start_container(self, name: str) -> str:
        """A container that serves its caller's address over TCP; returns the container's own address."""
        serve = "while true; do nc -l -p 7777 -e sh -c 'netstat -tn | grep :7777'; done"
        self.docker("run", "--detach", "--name", name, "busybox", "/bin/busybox", "sh", "-c", serve)
        return self.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", name).strip()


@dataclass
class Cluster:
    """Three hosts, as in the README's picture."""

    store: Machine
    host2: DockerHost
    host3: DockerHost
    api: str

    def etcdctl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.store.run(
            "env",
            f"ETCDCTL_API={self.api}",
            "etcdctl",
            "--endpoints=http://172.16.41.130:2379",
            *arguments,
            stdin=stdin,
        )


@pytest.fixture(params=["2", "3"], ids=["etcd-v2", "etcd-v3"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    api: str = request.param
    with ExitStack() as stack:
        switch = stack.enter_context(Switch())
        store, two, three = (
            stack.enter_context(Machine(f"host{number}", switch, f"172.16.41.{129 + number}/24", tmp_path))
            for number in (1, 2, 3)
        )
        store.spawn(
            "etcd",
            *("etcd", "--data-dir", str(tmp_path / "etcd"), f"--enable-v2={'true' if api == '2' else 'false'}"),
            *("--listen-client-urls", "http://172.16.41.130:2379,http://127.0.0.1:2379"),
            *("--advertise-client-urls", "http://172.16.41.130:2379", "--listen-peer-urls", "http://127.0.0.1:2380"),
        )
        built = Cluster(store, DockerHost(two), DockerHost(three), api)
        health = "cluster-health" if api == "2" else "endpoint health"
        eventually(
            lambda: (
                store.attempt(
                    "env", f"ETCDCTL_API={api}", "etcdctl", "--endpoints=http://172.16.41.130:2379", *health.split()
                ).returncode
                == 0
            ),
            "etcd",
        )
        yield built


def write_config(cluster: Cluster, path: Path) -> None:
    """Step 1: the administrator writes the network configuration, from a file."""
    path.write_text(CONFIG)
    verb = "set" if cluster.api == "2" else "put"
    cluster.etcdctl(verb, f"{PREFIX}/config", stdin=path.read_text())


def test_containers_on_two_docker_hosts_reach_each_other(cluster: Cluster, tmp_path: Path) -> None:
    host2, host3 = cluster.host2, cluster.host3
    image = busybox_archive(tmp_path)
    write_config(cluster, tmp_path / "config.json")

    # Step 2: each host leases a subnet and says which.
    for host in (host2, host3):
        host.start_flanneld()
    for host in (host2, host3):
        host.wait_for_subnet()
    for host in (host2, host3):
        environment = host.environment()
        assert list(environment) == ["FLANNEL_NETWORK", "FLANNEL_SUBNET", "FLANNEL_MTU", "FLANNEL_IPMASQ"]
        assert environment["FLANNEL_NETWORK"] == "10.2.0.0/16"
        assert re.fullmatch(r"10\.2\.\d+\.1/24", environment["FLANNEL_SUBNET"])
        assert environment["FLANNEL_MTU"] == "1450"
        assert environment["FLANNEL_IPMASQ"] == "false"
    assert host2.subnet != host3.subnet

    # What stands in the kernel is compat §5.2, entry for entry.
    for host, peer in ((host2, host3), (host3, host2)):
        eventually(lambda host=host, peer=peer: peer.gateway in host.machine.run("ip", "route"), "the peer's route")  # type: ignore[misc]
        check_kernel(host, peer)

    # Step 3: Docker takes the subnet.
    for host in (host2, host3):
        host.start_docker()
        assert host.environment()["FLANNEL_SUBNET"] in host.machine.run("ip", "-4", "addr", "show", "dev", "docker0")
        assert "-P FORWARD DROP" in host.machine.run("iptables", "-S", "FORWARD")
        host.docker("import", str(image), "busybox")

    # Step 4: containers talk, both ways, and see each other's own addresses.
    one, two = host2.start_container("one"), host3.start_container("two")
    for host, name, own, other in ((host2, "one", one, two), (host3, "two", two, one)):
        assert " 0% packet loss" in host.docker("exec", name, "ping", "-c", "3", "-W", "2", other)
        # The far side prints its connection table: a line that names both ends as they are.
        seen = host.docker("exec", name, "sh", "-c", f"nc -w 5 {other} 7777 </dev/null")
        assert f"{other}:7777" in seen
        assert f"{own}:" in seen

    # Stopping the agent is clean, and the network goes on without it.
    for host in (host2, host3):
        assert host.agent is not None
        assert stop(host.agent) == 0
    assert " 0% packet loss" in host2.docker("exec", "one", "ping", "-c", "2", "-W", "2", two)

    # Starting it again finds the lease it had.
    before = host2.subnet
    host2.start_flanneld()
    eventually(lambda: host2.machine.log("flanneld").count("Running backend.") == 2, "the second start")
    assert host2.subnet == before


def check_kernel(host: DockerHost, peer: DockerHost) -> None:
    """``ip -d link``, ``ip addr``, ``ip route``, ``ip neigh`` and ``bridge fdb``, entry for entry."""

    def objects(*command: str) -> list[dict[str, object]]:
        return [entry for entry in json.loads(host.machine.run(*command)) if entry]

    (link,) = objects("ip", "-j", "-d", "link", "show", "dev", "flannel.1")
    assert link["mtu"] == 1450
    assert "UP" in str(link["flags"])
    info = link["linkinfo"]
    assert isinstance(info, dict)
    assert info["info_kind"] == "vxlan"
    data = info["info_data"]
    wanted = {"id": 1, "link": "ens33", "local": host.machine.address, "port": 8472, "learning": False}
    assert {key: data[key] for key in wanted} == wanted

    addresses = host.machine.run("ip", "-o", "-4", "addr", "show", "dev", "flannel.1").splitlines()
    assert [line.split()[3:6] for line in addresses] == [[f"{host.gateway}/32", "scope", "global"]]

    assert host.machine.run("ip", "route", "show", "dev", "flannel.1").split("\n") == [
        f"{peer.subnet} via {peer.gateway} onlink ",
        "",
    ]
    far = json.loads(peer.machine.run("ip", "-j", "link", "show", "dev", "flannel.1"))[0]
    (neighbour,) = objects("ip", "-j", "-4", "neigh", "show", "dev", "flannel.1")
    assert (neighbour["dst"], neighbour["lladdr"], neighbour["state"]) == (peer.gateway, far["address"], ["PERMANENT"])
    (forward,) = objects("bridge", "-j", "fdb", "show", "dev", "flannel.1")
    assert (forward["mac"], forward["dst"], forward["flags"], forward["state"]) == (
        far["address"],
        peer.machine.address,
        ["self"],
        "permanent",
    )
