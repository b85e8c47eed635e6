"""An underlay that is slow and loses a fifth of what hosts and etcd send: everything gets there in the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pytest

from tests.support.etcd_cluster import EtcdCluster, Place
from tests.support.etcd_records import EtcdRecords
from tests.support.machines import Switch
from tests.support.namespaces import Namespace
from tests.support.pair import CONFIG, Host, Pair, Peer

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge", "iptables", "etcd", "netem")

ETCD = "172.16.41.11"
NETEM = "netem delay 50ms loss 20%"
"""On everything that a host or etcd sends."""
PEER = Peer("10.2.241.0/24", "02:00:00:00:00:41", "172.16.41.141")
PATIENCE_S = 60.0


class FarApart(Pair):
    """Two hosts and an etcd of one member, with ``NETEM`` between any two of them."""

    def __init__(self, home: Path) -> None:
        self.switch, self.member = Switch(), Namespace("etcd")
        self.switch.plug(self.member, "ens33", f"{ETCD}/24")
        (home / "etcd").mkdir()
        self.etcd = EtcdCluster(home / "etcd", places=[Place(ETCD, self.member.name)])
        # The administrator sits at etcd's own machine.
        self.store = EtcdRecords(self.etcd.urls, self.member, "v3", [])
        self.one = Host("host1", self.switch, "172.16.41.131", self.store, home / "host1")
        self.two = Host("host2", self.switch, "172.16.41.132", self.store, home / "host2")
        self.hosts = (self.one, self.two)
        for host in self.hosts:
            # The last of several counts: this takes back the local store of other pairs.
            host.flags += ["--store=", "-etcd-api=3", f"-etcd-endpoints={self.etcd.urls[0]}"]
        for space in (self.member, self.one.space, self.two.space):
            space.run(f"tc qdisc add dev ens33 root {NETEM}")

    def start(self) -> None:
        """Start all, and return once the containers have reached each other."""
        self.etcd.start()
        self.store.configure(CONFIG)
        super().start()

    def __enter__(self) -> FarApart:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self.etcd.kill()
        self.member.delete()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarApart]:
    with FarApart(tmp_path_factory.mktemp("apart")) as made:
        made.start()
        yield made


def test_hosts_get_their_leases_and_containers_reach_each_other(pair: FarApart) -> None:
    leases = pair.store.leases()
    for host in pair.hosts:
        assert str(leases[str(host.subnet)].attrs.public_ip) == host.address
    loss = pair.probe_for(2.0)
    # Else there was nothing to overcome.  Of what is sent 64 in a hundred are to come back.
    assert 0 < loss.received < loss.sent, loss


def test_what_somebody_took_away_is_put_back(pair: FarApart) -> None:
    before = pair.one.picture()
    pair.one.space.run("ip link delete flannel.1")
    pair.one.await_picture(before, "the device and all that was on it")
    pair.await_contact()


def test_what_becomes_of_other_hosts_is_heard_of(pair: FarApart) -> None:
    before = [host.picture() for host in pair.hosts]
    pair.store.join(PEER)
    for host in pair.hosts:
        host.await_line(f"Subnet added: {PEER.subnet} ", PATIENCE_S)
        assert PEER.mac in str(host.picture().ours.fdb)
    pair.store.leave(PEER)
    for host, picture in zip(pair.hosts, before, strict=True):
        host.await_picture(picture, "its end", PATIENCE_S)


def test_an_agent_that_starts_again_takes_up_the_lease_it_had(pair: FarApart) -> None:
    before, subnet = pair.one.picture(), pair.one.subnet
    pair.one.stop()
    pair.one.started()
    assert pair.one.subnet == subnet
    assert pair.one.picture() == before
