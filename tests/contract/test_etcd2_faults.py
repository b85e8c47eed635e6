"""The v2 API's client, and the feed on top of it, while etcd fails and forgets.

Each story ends with the followed table equal to what etcd holds, and with nothing said to be gone that was not.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from pyflannel.lease.model import Subnet
from pyflannel.store.api import Conflict, Unavailable
from pyflannel.store.etcd2 import Etcd2Store
from tests.support.etcd import Etcd
from tests.support.etcd2_stage import THREE, change, hasty, patient, stage, take
from tests.support.etcd_cluster import EtcdCluster
from tests.support.etcd_stores import DAY, HOST2, HOST3, ONE, TWO, used
from tests.support.fake_http import ok
from tests.support.followed import following
from tests.support.http_proxy import Fault, HttpProxy
from tests.support.loops import run
from tests.support.relay import Relay
from tests.support.stores import PREFIX

pytestmark = pytest.mark.needs("etcd")

MEMORY = 1000
"""Changes that the v2 API remembers."""


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    with Etcd(tmp_path, v2=True) as etcd:
        yield etcd


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """One etcd for all stories that leave it as it is; each has a prefix of its own."""
    with Etcd(tmp_path_factory.mktemp("shared"), v2=True) as etcd:
        yield etcd


async def insist(deed: Callable[[], Awaitable[object]]) -> None:
    """Do it, as an agent would: after a failure it looks again."""
    while True:
        try:
            await deed()
        except (Unavailable, Conflict):
            await asyncio.sleep(0.02)
        else:
            return


# Members that fail


def test_member_killed_and_started_again_costs_an_outage_and_no_lease(etcd: Etcd) -> None:
    async def story() -> None:
        direct = hasty(etcd.url)
        async with stage(direct, hasty(etcd.url)) as seen:
            etcd.kill()
            await seen.until(lambda: bool(seen.outages))
            etcd.start()
            await change(direct)
            await seen.settled(direct)
            assert seen.gone == {TWO}

    run(story())


def test_what_happened_behind_a_cut_wire_is_known_when_it_is_mended(shared: Etcd) -> None:
    async def story() -> None:
        direct = hasty(shared.url, prefix="/cut")
        async with Relay(shared.url) as relay, stage(direct, hasty(relay.url, prefix="/cut")) as seen:
            relay.hold()
            await change(direct)
            await seen.until(lambda: bool(seen.outages))
            relay.resume()
            await seen.settled(direct)
            assert seen.gone == {TWO}

    run(story())


def test_slow_etcd_is_no_outage(shared: Etcd) -> None:
    async def story() -> None:
        direct = hasty(shared.url, prefix="/slow")
        async with Relay(shared.url, 0.3) as relay, stage(direct, patient(relay.url, prefix="/slow")) as seen:
            await change(direct)
            await seen.settled(direct)
            assert (seen.gone, seen.outages) == ({TWO}, [])

    run(story())


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path, arguments=["--enable-v2=true"]) as cluster:
        yield cluster


def test_cluster_is_followed_while_its_members_hang_and_die(cluster: EtcdCluster) -> None:
    async def story() -> None:
        direct = Etcd2Store(cluster.urls[1:], PREFIX, call_s=1.0)
        async with stage(direct, hasty(*cluster.urls)) as seen:
            cluster.freeze(0)
            await insist(lambda: change(direct))
            await seen.settled(direct)
            cluster.thaw(0)
            cluster.kill(cluster.leader())
            await insist(lambda: take(direct, TWO))
            await seen.settled(direct)
            assert seen.gone == {TWO}

    run(story())


def test_member_without_a_leader_is_an_outage_though_it_answers(cluster: EtcdCluster) -> None:
    async def story() -> None:
        direct = Etcd2Store(cluster.urls, PREFIX)
        async with stage(direct, patient(cluster.urls[0])) as seen:
            cluster.kill(1, 2)
            await seen.until(lambda: bool(seen.outages))
            assert seen.outages == [f"etcd v2 at {cluster.urls[0]}: watch ended: it has no leader"]
            cluster.start()
            await insist(lambda: change(direct))
            await seen.settled(direct)
            assert seen.gone == {TWO}

    run(story())


def test_subnets_are_taken_once_each_while_the_leader_dies(cluster: EtcdCluster) -> None:
    subnets = [Subnet(IPv4Network(f"10.2.{third}.0/24")) for third in range(100, 120)]

    async def story() -> None:
        store = Etcd2Store(cluster.urls, PREFIX, call_s=1.0)
        async with used(store), used(hasty(*cluster.urls)) as followed, following(followed) as seen:
            for subnet in subnets:
                if subnet == subnets[7]:
                    cluster.kill(cluster.leader())
                await insist(partial(take, store, subnet))
            await seen.settled(store)
            assert (set(seen.table.leases), seen.gone) == (set(subnets), set())

    run(story())


# Members that forget


def test_history_cleared_while_the_wire_was_cut_is_listed_anew(shared: Etcd) -> None:
    async def story() -> None:
        direct = hasty(shared.url, prefix="/cleared")
        async with Relay(shared.url) as relay, stage(direct, hasty(relay.url, prefix="/cleared")) as seen:
            relay.hold()
            await change(direct)
            for _ in range(MEMORY + 1):
                shared.v2("PUT", "/elsewhere", {"value": ""})
            relay.resume()
            await seen.settled(direct)
            assert seen.gone == {TWO}

    run(story())


def test_data_wiped_is_listed_anew_and_followed_on(tmp_path: Path, etcd: Etcd) -> None:
    async def story() -> None:
        direct = hasty(etcd.url)
        async with stage(direct, hasty(etcd.url)) as seen:
            etcd.kill()
            shutil.rmtree(tmp_path / "etcd-data")
            etcd.start()
            await seen.until(lambda: not seen.table.leases)
            await direct.create(THREE, HOST3, DAY)
            await seen.settled(direct)
            assert seen.gone == {ONE, TWO}

    run(story())


def test_data_restored_from_an_old_copy_is_listed_anew_and_followed_on(tmp_path: Path, etcd: Etcd) -> None:
    data, copy = tmp_path / "etcd-data", tmp_path / "copy"

    async def story() -> None:
        direct = hasty(etcd.url)
        async with stage(direct, hasty(etcd.url)) as seen:
            etcd.kill()
            shutil.copytree(data, copy)
            etcd.start()
            await change(direct)
            await seen.settled(direct)
            etcd.kill()
            shutil.rmtree(data)
            copy.rename(data)
            etcd.start()
            await seen.until(lambda: set(seen.table.leases) == {ONE, TWO})
            await seen.settled(direct)
            assert seen.gone == {TWO, THREE}

    run(story())


def test_index_that_goes_back_while_connections_stand_is_noticed(shared: Etcd, etcd: Etcd) -> None:
    async def story() -> None:
        young = hasty(etcd.url)
        async with HttpProxy(shared.port) as proxy, stage(hasty(shared.url), patient(proxy.url)) as seen:
            async with used(young):
                await young.create(TWO, HOST2, DAY)
                proxy.target = etcd.port
                await seen.until(lambda: set(seen.table.leases) == {TWO})
                await change(young)
                await seen.settled(young)
            assert seen.outages == []

    for _ in range(20):
        shared.v2("PUT", "/elsewhere", {"value": ""})
    run(story())


def test_lagging_member_is_no_reason_to_list_again(shared: Etcd) -> None:
    """A watch from the future is served, if a quorum has seen that future."""

    async def story() -> None:
        direct = hasty(shared.url, prefix="/lag")
        async with HttpProxy(shared.port) as proxy, stage(direct, patient(proxy.url, prefix="/lag")) as seen:
            behind = Fault(lambda _head, body: ok(body.decode(), "X-Etcd-Index: 1"))
            proxy.spoil(behind, only="GET /v2/keys/lag/?wait")
            for config in ("one", "two"):  # the first is told to a wait that has begun already
                shared.v2("PUT", "/lag/config", {"value": config})
                await seen.settled(direct)
            await proxy.over()
            assert (seen.snapshots, seen.outages) == (1, [])

    run(story())


# What becomes of directories


@pytest.mark.parametrize("path", ["/subnets", ""])
def test_directory_removed_with_all_that_is_in_it_is_noticed(shared: Etcd, path: str) -> None:
    prefix = f"/removed{len(path)}"

    async def story() -> None:
        direct = hasty(shared.url, prefix=prefix)
        async with stage(direct, hasty(shared.url, prefix=prefix)) as seen:
            shared.v2("PUT", f"{prefix}/config", {"value": "{}"})
            await seen.until(lambda: seen.config == "{}")
            shared.v2("DELETE", f"{prefix}{path}", query="?recursive=true")
            await seen.settled(direct)
            assert (seen.gone, seen.config) == ({ONE, TWO}, "{}" if path else "")

    run(story())


def test_config_replaced_by_a_directory_is_a_config_removed(shared: Etcd) -> None:
    async def story() -> None:
        direct = hasty(shared.url, prefix="/dir")
        async with stage(direct, hasty(shared.url, prefix="/dir")) as seen:
            shared.v2("PUT", "/dir/config", {"value": "{}"})
            await seen.until(lambda: seen.config == "{}")
            shared.v2("PUT", "/dir/config", {"dir": "true"})
            await seen.until(lambda: seen.config == "")
            assert (await direct.network_config()).text is None
            await seen.settled(direct)

    run(story())


def test_other_networks_beside_ours_are_none_of_our_business(shared: Etcd) -> None:
    async def story() -> None:
        direct = hasty(shared.url, prefix="/many")
        async with stage(direct, hasty(shared.url, prefix="/many")) as seen:
            for key in ("/many/blue/config", "/many/blue/subnets/10.2.1.0-24", "/many/x", "/many/_hidden"):
                shared.v2("PUT", key, {"value": '{"PublicIP":"192.0.2.1"}'})
            shared.v2("DELETE", "/many/blue", query="?recursive=true")
            await change(direct)
            await seen.settled(direct)
            assert (set(seen.table.leases), seen.gone, seen.table.unreadable) == ({ONE, THREE}, {TWO}, {})

    run(story())
