"""``flannelctl doctor`` and ``report`` beside a real Docker: nothing where all is well, and what is set wrongly."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyflannel.store.local import LocalStore
from tests.support.doctors import Visit, at, read
from tests.support.machines import Machine, Switch, eventually, stop

pytestmark = [
    pytest.mark.needs("root", "netns", "vxlan", "bridge", "veth", "iptables", "docker"),
    pytest.mark.timeout(180),
]

PREFIX = "/coreos.com/network"
PASSWORD = "correct-horse-battery"
CONFIG = '{"Network":"10.2.0.0/16","SubnetLen":24,"Backend":{"Type":"vxlan"}}'


class DockerHost:
    """A machine with an agent, and with Docker once that is started."""

    def __init__(self, machine: Machine, store: Path) -> None:
        self.machine = machine
        self.flags = [f"-store=local:{store}", "-iface=ens33"]
        machine.spawn("flanneld", sys.executable, "-m", "pyflannel.cli.flanneld", *self.flags)
        eventually(lambda: machine.attempt("test", "-s", "/run/flannel/subnet.env").returncode == 0, "subnet.env")

    def start_docker(self, options: str) -> subprocess.Popen[bytes]:
        script = f". /run/flannel/subnet.env; exec dockerd {options}"
        daemon = self.machine.spawn("dockerd", "sh", "-c", script)
        eventually(lambda: self.machine.attempt("docker", "version").returncode == 0, "dockerd", patience=60)
        return daemon

    def visit(self) -> Visit:
        return read(at(self.machine.argv(), self.flags, "--json"))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[DockerHost]:
    async def configure() -> None:
        store = LocalStore(tmp_path / "store.db", PREFIX)
        await store.write_config(CONFIG)
        await store.close()

    asyncio.run(configure())
    with Switch() as switch, Machine("docker", switch, "172.16.41.131/24", tmp_path) as machine:
        yield DockerHost(machine, tmp_path / "store.db")


def test_a_docker_host_is_well_until_docker_is_told_something_else(host: DockerHost, tmp_path: Path) -> None:
    daemon = host.start_docker('--bip="$FLANNEL_SUBNET" --mtu="$FLANNEL_MTU"')
    well = host.visit()
    assert well.document["findings"] == [], well.text
    assert well.document["notes"] == []

    # A report of that host has what Docker says, and no secret.
    report = tmp_path / "report.tar.gz"
    secret = [*host.flags, f"-etcd-password={PASSWORD}"]
    done = at(host.machine.argv(), secret, "-o", str(report), command="report")
    assert done.returncode == 0, done.stderr
    with tarfile.open(report) as archive:
        texts = {name.partition("/")[2]: archive.extractfile(name) for name in archive.getnames()}
        read_ = {name: file.read().decode() for name, file in texts.items() if file is not None}
    assert '"com.docker.network.driver.mtu": "1450"' in read_["docker/network.txt"]
    assert "FLANNEL_MTU=1450" in read_["files/subnet.env"]
    assert "etcd-password = ***" in read_["settings.txt"]
    assert not [name for name, text in read_.items() if PASSWORD in text]

    stop(daemon)
    daemon = host.start_docker('--bip="$FLANNEL_SUBNET"')
    large = host.visit()
    assert large.codes == ["packets-too-large"], large.text
    assert "Docker's network bridge has the MTU 1500, and subnet.env says FLANNEL_MTU=1450" in large.evidence

    stop(daemon)
    host.start_docker('--bip=172.17.0.1/16 --mtu="$FLANNEL_MTU"')
    elsewhere = host.visit()
    assert elsewhere.codes == ["bridge-elsewhere"], elsewhere.text
    assert "docker0 has 172.17.0.1/16" in elsewhere.evidence
