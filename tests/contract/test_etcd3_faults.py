"""Three real members, every trouble they can be in, and a follower that must end up knowing what they hold.

And on the way there it must never miss a lease that the store had all the time: that would cut off a host.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from pyflannel.lease.model import Attrs, Changes, Snapshot, Subnet
from pyflannel.lease.table import LeaseTable
from pyflannel.lease.wire import encode_attrs, subnet_name
from pyflannel.store.api import Store, Unavailable
from pyflannel.store.endpoints import NO_TLS, Credentials, Tls
from pyflannel.store.etcd3 import RESUME_AFTER_S, Etcd3Store
from pyflannel.store.feed import News, Outage, follow
from tests.support.etcd_cluster import EtcdCluster
from tests.support.etcd_stores import DAY, used
from tests.support.loops import run
from tests.support.pki import CLIENT, EXPIRED, SERVER, issue, make_pki
from tests.support.relay import Relay
from tests.support.stores import PREFIX

pytestmark = pytest.mark.needs("etcd")

ONE, TWO, THREE, FOUR = (Subnet(IPv4Network(f"10.2.{third}.0/24")) for third in (1, 2, 3, 4))
CONFIG = '{"Network":"10.2.0.0/16"}'
PASSWORD = "hidden"


def host(number: int) -> Attrs:
    return Attrs(IPv4Address(f"172.16.41.{number}"))


def key(subnet: Subnet) -> str:
    return f"{PREFIX}/subnets/{subnet_name(subnet)}"


def put(etcd: EtcdCluster, *subnets: Subnet) -> None:
    for subnet in subnets:
        etcd.ctl("put", key(subnet), encode_attrs(host(1)))


def remove(etcd: EtcdCluster, *subnets: Subnet) -> None:
    for subnet in subnets:
        etcd.ctl("del", key(subnet))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path_factory.mktemp("etcd")) as etcd:
        yield etcd


@pytest.fixture
def etcd(cluster: EtcdCluster) -> EtcdCluster:
    """All members well, two leases and a configuration in it."""
    cluster.heal()
    cluster.ctl("del", "--prefix", "/")
    cluster.ctl("put", f"{PREFIX}/config", CONFIG)
    put(cluster, ONE, TWO)
    return cluster


class Follower:
    """Knows what ``follow`` says, and remembers what it should not have said."""

    def __init__(self, etcd: EtcdCluster) -> None:
        self._etcd = etcd
        self._table = LeaseTable()
        self._config: str | None = None
        self._heard = asyncio.Event()
        self.may_go: set[Subnet] = set()
        """What the store may be without."""
        self.outages: list[str] = []
        self.snapshots = 0

    async def run(self, store: Store) -> None:
        loop = asyncio.get_running_loop()
        feed = follow(store, clock=loop.time, sleep=asyncio.sleep, jitter=lambda seconds: seconds)
        async with aclosing(feed):
            async for news in feed:
                self._take(news)
                self._heard.set()

    async def agrees(self) -> None:
        """Wait until we know what the store holds now."""
        holds = await asyncio.to_thread(contents, self._etcd)
        while self._known() != holds:
            self._heard.clear()
            await self._heard.wait()

    async def notices_an_outage(self, why: str = "") -> None:
        """Wait for one that is told with this reason."""
        while not any(why in reason for reason in self.outages):
            self._heard.clear()
            await self._heard.wait()

    def _take(self, news: News) -> None:
        if isinstance(news, Outage):
            self.outages.append(news.reason)
            return
        if isinstance(news, Snapshot):
            self.snapshots += 1
            self._config = news.config
            gone = self._table.apply_snapshot(news).gone
        else:
            assert isinstance(news, Changes)
            self._config = self._config if news.config is None else news.config
            gone = self._table.apply(news).gone
        assert {lease.subnet for lease in gone} <= self.may_go, f"wrongly gone: {gone}"

    def _known(self) -> dict[str, object]:
        known: dict[str, object] = {key(subnet): lease.modified for subnet, lease in self._table.leases.items()}
        return {**known, f"{PREFIX}/config": self._config} if self._config else known


def contents(etcd: EtcdCluster) -> dict[str, object]:
    """What the store holds, as etcdctl tells it: the text of the configuration, the revision of each lease."""
    records = json.loads(etcd.ctl("get", "--prefix", "--write-out=json", PREFIX)).get("kvs", ())
    decoded = {b64decode(kv["key"]).decode(): (b64decode(kv["value"]).decode(), kv["mod_revision"]) for kv in records}
    return {name: text if name.endswith("/config") else revision for name, (text, revision) in decoded.items()}


@asynccontextmanager
async def following(
    etcd: EtcdCluster, urls: Sequence[str], tls: Tls = NO_TLS, user: Credentials | None = None
) -> AsyncIterator[Follower]:
    """A follower, asking the first of ``urls`` first, that knows all and has watched for a while."""
    follower = Follower(etcd)
    async with used(Etcd3Store(urls, PREFIX, tls=tls, credentials=user)) as store, asyncio.TaskGroup() as group:
        task = group.create_task(follower.run(store))
        await follower.agrees()
        await asyncio.sleep(RESUME_AFTER_S)
        yield follower
        task.cancel()


def beginning_with(etcd: EtcdCluster, first: int) -> list[str]:
    urls = etcd.urls
    return [urls.pop(first), *urls]


# Members


@pytest.mark.parametrize("victim", ["leader", "follower"])
def test_member_that_serves_us_is_killed(etcd: EtcdCluster, victim: str) -> None:
    which = etcd.leader() if victim == "leader" else (etcd.leader() + 1) % 3

    async def story() -> None:
        async with following(etcd, beginning_with(etcd, which)) as follower:
            etcd.kill(which)
            await asyncio.to_thread(etcd.leader)
            follower.may_go = {ONE}
            remove(etcd, ONE)
            put(etcd, THREE)
            await follower.agrees()
            if victim == "follower":
                assert (follower.outages, follower.snapshots) == ([], 1)
            await asyncio.to_thread(etcd.start, which)
            put(etcd, FOUR)
            await follower.agrees()

    run(story(), limit=60)


def test_member_that_serves_us_hangs_or_the_line_to_it_is_cut(etcd: EtcdCluster) -> None:
    good = etcd.leader()
    hung = (good + 1) % 3

    async def story() -> None:
        async with (
            Relay(etcd.urls[good]) as relay,
            following(etcd, beginning_with(etcd, hung)) as at_hung,
            following(etcd, [relay.url, *beginning_with(etcd, good)]) as at_cut,
        ):
            etcd.freeze(hung)
            relay.hold()
            for follower in (at_hung, at_cut):
                follower.may_go = {ONE}
            remove(etcd, ONE)
            put(etcd, THREE)
            for follower in (at_hung, at_cut):
                await follower.agrees()
                assert follower.outages == []
            etcd.thaw(hung)
            relay.resume()
            put(etcd, FOUR)
            for follower in (at_hung, at_cut):
                await follower.agrees()

    run(story(), limit=60)


def test_another_member_leads(etcd: EtcdCluster) -> None:
    async def story() -> None:
        async with following(etcd, beginning_with(etcd, etcd.leader())) as follower:
            await asyncio.to_thread(etcd.move_leader)
            follower.may_go = {ONE}
            remove(etcd, ONE)
            put(etcd, THREE)
            await follower.agrees()
            assert (follower.outages, follower.snapshots) == ([], 1)

    run(story(), limit=60)


def test_all_members_are_down_for_a_while(etcd: EtcdCluster) -> None:
    async def story() -> None:
        async with following(etcd, etcd.urls) as follower:
            etcd.kill()
            await follower.notices_an_outage()
            await asyncio.to_thread(etcd.start)
            put(etcd, THREE)
            await follower.agrees()

    run(story(), limit=60)


def test_member_that_serves_us_is_left_alone(etcd: EtcdCluster) -> None:
    # It goes on answering, but there may be things it does not know.
    async def story() -> None:
        async with following(etcd, etcd.urls[:1]) as follower:
            etcd.kill(1, 2)
            await follower.notices_an_outage()
            await asyncio.to_thread(etcd.start, 1, 2)
            put(etcd, THREE)
            await follower.agrees()

    run(story(), limit=60)


def test_member_that_hangs_costs_its_time_once(etcd: EtcdCluster) -> None:
    async def story() -> None:
        async with Relay(etcd.urls[0]) as relay, used(Etcd3Store([relay.url, *etcd.urls[1:]], PREFIX)) as store:
            await store.leases()
            relay.hold()
            made = await store.create(THREE, host(3), DAY)
            sent = relay.bytes_sent
            await store.renew(made, DAY)
            assert {lease.subnet for lease in (await store.leases()).leases} == {ONE, TWO, THREE}
            assert (relay.bytes_sent, relay.connections) == (sent, 1)

    run(story())


def test_slow_member_is_left_for_a_faster_one(etcd: EtcdCluster) -> None:
    async def story() -> None:
        slow = Relay(etcd.urls[0], answers_after_s=2.0)
        async with slow as relay, following(etcd, [relay.url, *etcd.urls[1:]]) as follower:
            assert relay.connections == 1  # for the first list, and none for the watch
            follower.may_go = {ONE}
            remove(etcd, ONE)
            put(etcd, THREE)
            await follower.agrees()

    run(story())


# Data


def test_history_is_compacted_while_we_are_cut_off(etcd: EtcdCluster) -> None:
    async def story() -> None:
        async with Relay(etcd.urls[0]) as relay, following(etcd, [relay.url]) as follower:
            relay.hold()
            follower.may_go = {ONE}
            remove(etcd, ONE)
            put(etcd, THREE)
            etcd.compact()
            await relay.cut()
            await follower.agrees()
            assert (follower.outages, follower.snapshots) == ([], 2)
            put(etcd, FOUR)
            await follower.agrees()

    run(story())


def test_store_is_restored_from_an_old_snapshot(etcd: EtcdCluster, tmp_path: Path) -> None:
    etcd.save(tmp_path / "snapshot")
    put(etcd, THREE)
    etcd.ctl("put", f"{PREFIX}/config", "{}")

    async def story() -> None:
        async with following(etcd, etcd.urls) as follower:
            follower.may_go = {THREE}
            await asyncio.to_thread(etcd.restore, tmp_path / "snapshot")
            await follower.agrees()
            put(etcd, FOUR)
            await follower.agrees()

    run(story(), limit=60)


def test_store_is_restored_while_we_are_cut_off(etcd: EtcdCluster, tmp_path: Path) -> None:
    # Nobody told us that members went away.  That the revision went back must be enough.
    etcd.save(tmp_path / "snapshot")
    put(etcd, THREE, THREE)

    async def story() -> None:
        async with Relay(etcd.urls[0]) as relay, following(etcd, [relay.url]) as follower:
            relay.hold()
            follower.may_go = {TWO, THREE}
            await asyncio.to_thread(etcd.restore, tmp_path / "snapshot")
            remove(etcd, TWO)
            await relay.cut()
            await follower.agrees()
            assert (follower.outages, follower.snapshots) == ([], 2)

    run(story(), limit=60)


def test_store_is_wiped(etcd: EtcdCluster) -> None:
    async def story() -> None:
        async with following(etcd, etcd.urls) as follower:
            follower.may_go = {ONE, TWO}
            await asyncio.to_thread(etcd.wipe)
            await follower.agrees()
            etcd.ctl("put", f"{PREFIX}/config", CONFIG)
            put(etcd, ONE)
            await follower.agrees()

    run(story(), limit=60)


def test_store_is_full(tmp_path: Path) -> None:
    with EtcdCluster(tmp_path, quota=1 << 20) as etcd:
        put(etcd, ONE)

        async def story() -> None:
            async with following(etcd, etcd.urls) as follower, used(Etcd3Store(etcd.urls, PREFIX)) as store:
                made = await store.create(TWO, host(2), DAY)
                await asyncio.to_thread(fill, etcd)
                with pytest.raises(Unavailable, match="database space exceeded"):
                    await store.create(THREE, host(3), DAY)
                assert await store.renew(made, DAY) == made
                follower.may_go = {TWO}
                await store.release(made)
                await asyncio.to_thread(make_room, etcd)
                await store.create(THREE, host(3), DAY)
                await follower.agrees()
                assert follower.outages == []

        run(story(), limit=60)


def fill(etcd: EtcdCluster) -> None:
    while not etcd.ctl("alarm", "list").strip():
        etcd.attempt("put", "/elsewhere", stdin="x" * 200_000)


def make_room(etcd: EtcdCluster) -> None:
    etcd.ctl("del", "/elsewhere")
    etcd.compact()
    etcd.ctl("defrag")
    etcd.ctl("alarm", "disarm")


# Who is who


def test_token_runs_out(tmp_path: Path) -> None:
    with EtcdCluster(tmp_path, arguments=["--auth-token-ttl=1"]) as etcd:
        etcd.ctl("user", "add", f"root:{PASSWORD}")
        etcd.ctl("user", "grant-role", "root", "root")
        etcd.ctl("auth", "enable")
        etcd.who = [f"--user=root:{PASSWORD}"]
        put(etcd, ONE, TWO)
        served_by = (etcd.leader() + 1) % 3

        async def story() -> None:
            user = Credentials("root", PASSWORD)
            async with following(etcd, beginning_with(etcd, served_by), user=user) as follower:
                await asyncio.sleep(3)  # twice the life of a token
                put(etcd, THREE)
                await follower.agrees()
                etcd.kill(served_by)
                put(etcd, FOUR)
                await follower.agrees()
                assert (follower.outages, follower.snapshots) == ([], 1)

        run(story(), limit=60)


@pytest.mark.needs("openssl")
def test_certificates_are_replaced_and_once_by_an_expired_one(tmp_path: Path) -> None:
    pki = make_pki(tmp_path / "pki")
    tls = Tls(str(pki / "ca.pem"), str(pki / "client.pem"), str(pki / "client.key"))
    with EtcdCluster(tmp_path, pki=pki) as etcd:
        put(etcd, ONE, TWO)

        async def story() -> None:
            async with Relay(etcd.urls[0]) as relay, following(etcd, [relay.url], tls) as follower:
                issue(pki, "client", CLIENT)
                issue(pki, "server", SERVER)
                put(etcd, THREE)
                await follower.agrees()  # over the connection that stands
                await relay.cut()
                put(etcd, FOUR)
                await follower.agrees()  # over one made with the new certificates
                assert (follower.outages, follower.snapshots) == ([], 1)
                issue(pki, "client", CLIENT, EXPIRED)
                await asyncio.sleep(RESUME_AFTER_S)
                await relay.cut()
                await follower.notices_an_outage("certificate has expired")
                issue(pki, "client", CLIENT)
                put(etcd, THREE)
                await follower.agrees()

        run(story(), limit=60)
