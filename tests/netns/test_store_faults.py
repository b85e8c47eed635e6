"""Whatever becomes of etcd: no packet of the containers is lost, no agent ends, and soon all know what the store says.

Each test prints how many seconds after the store had taken its record a host was in the kernels of both others (see it
with ``pytest -rP``).  A single client in these troubles is the business of tests/contract/test_etcd3_faults.py, and an
event that a watch leaves out, which takes minutes to be found, that of tests/unit/store/test_feed.py.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.etcd_pair import SERVER, EtcdPair
from tests.support.etcd_records import key_of
from tests.support.machines import eventually
from tests.support.pair import CONFIG, Host, Peer
from tests.support.pki import CLIENT, EXPIRED, issue

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge", "iptables", "etcd")

NOTICED_S = 25.0
"""How long it may take to notice that somebody says nothing any more: pings go out every 10 s, and have 3 s."""
AWHILE_S = 6
"""For so long the way to the members is closed without anybody being told."""
AWAY_S = 20
"""For so long we look what an agent without a store costs."""


class Ward:
    """One pair for many tests; a new one when a test has left it in a state from which it does not recover."""

    def __init__(self, fresh: Callable[[], EtcdPair]) -> None:
        self._fresh, self._stack = fresh, ExitStack()
        self._well: EtcdPair | None = None

    @contextmanager
    def bed(self) -> Iterator[EtcdPair]:
        """A pair whose agents have done their work."""
        if self._well is None:
            self._well = self._stack.enter_context(self._fresh())
            self._well.start()
        yield self._well
        try:
            self._well.recover()
        except AssertionError:
            self.close()

    def close(self) -> None:
        self._well = None
        self._stack.close()


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    ward = Ward(lambda: EtcdPair(tmp_path_factory.mktemp("common")))
    yield ward
    ward.close()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    ward = Ward(lambda: EtcdPair(tmp_path_factory.mktemp("guarded"), guarded=True, quota=1 << 20))
    yield ward
    ward.close()


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    ward = Ward(lambda: EtcdPair(tmp_path_factory.mktemp("old"), api="v2"))
    yield ward
    ward.close()


@pytest.fixture
def pair(common: Ward) -> Iterator[EtcdPair]:
    """With an etcd as most have it."""
    with common.bed() as pair:
        yield pair


@pytest.fixture
def guarded_pair(guarded: Ward) -> Iterator[EtcdPair]:
    """With certificates on both sides, a password, tokens that are good for a second, and little room for data."""
    with guarded.bed() as pair:
        yield pair


@pytest.fixture
def old_pair(old: Ward) -> Iterator[EtcdPair]:
    """By way of the v2 API."""
    with old.bed() as pair:
        yield pair


@contextmanager
def survived(pair: EtcdPair, *gone: str) -> Iterator[None]:
    """What happens in this block costs no packet and ends no agent; the kernels hold what the store says after it.

    The routes to the subnets ``gone`` are taken away, and never one to another.
    """
    runs = [host.said().count("Running backend.") for host in pair.hosts]
    for news in pair.news.values():
        news.forget()
    with pair.probing() as probing:
        yield
        pair.agree()
    for host, before in zip(pair.hosts, runs, strict=True):
        assert host.agent is not None
        assert host.agent.poll() is None, host.said()[-3000:]
        assert host.said().count("Running backend.") == before, host.said()[-3000:]
    assert probing.loss.lost == 0, probing.loss
    for news in pair.news.values():
        assert news.removed() == set(gone)


# Members


def test_member_that_serves_is_killed(pair: EtcdPair) -> None:
    with survived(pair):
        for _ in range(2):
            pair.etcd.kill(pair.serving())
            print("one of three killed:", pair.newcomer())
            print("and started again:", pair.newcomer(repair=pair.heal))


def test_member_that_serves_hangs(pair: EtcdPair) -> None:
    with survived(pair):
        pair.etcd.freeze(pair.serving())
        print("one of three hangs:", pair.newcomer(patience=NOTICED_S))
        print("and goes on:", pair.newcomer(repair=pair.heal))


def test_member_that_serves_is_cut_off_from_everybody(pair: EtcdPair) -> None:
    with survived(pair):
        pair.part(pair.serving())
        print("one of three cut off:", pair.newcomer(patience=NOTICED_S))
        print("and back:", pair.newcomer(repair=pair.heal))


def test_all_members_are_killed(pair: EtcdPair) -> None:
    with survived(pair):
        pair.etcd.kill()
        for host in pair.hosts:
            host.await_line("the store does not answer: ")
        print("all killed and started again:", pair.newcomer(repair=pair.heal))


def test_another_member_leads(pair: EtcdPair) -> None:
    with survived(pair):
        print("leader moved:", pair.newcomer(repair=pair.etcd.move_leader))


def test_every_answer_takes_two_seconds(pair: EtcdPair) -> None:
    with survived(pair), pair.slow(pair.one, 2.0):
        print("all answers 2 s late on the first host:", pair.newcomer())


# The way to the members


def test_store_is_out_of_reach_while_history_is_compacted(pair: EtcdPair) -> None:
    leaving, _ = pair.join(2)
    with survived(pair, leaving.subnet):
        pair.cut_off(pair.one)
        pair.cut_off(pair.two, told=True)
        spent = [processor_time(host) for host in pair.hosts]
        began = time.monotonic()
        pair.records.leave(leaving)
        pair.appear()
        pair.etcd.compact()
        time.sleep(AWAY_S)
        took = time.monotonic() - began
        shares = [(processor_time(host) - before) / took for host, before in zip(pair.hosts, spent, strict=True)]
        for host in pair.hosts:
            host.await_line("the store does not answer: ")
        print("out of reach, history compacted:", pair.newcomer(repair=pair.mend))
    print(f"processor time of an agent meanwhile: black hole {shares[0]:.2%}, refused {shares[1]:.2%}")
    assert max(shares) < 0.2


def processor_time(host: Host) -> float:
    """Seconds that the agent has spent so far."""
    assert host.agent is not None
    fields = Path(f"/proc/{host.agent.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_store_is_out_of_reach_for_a_moment(pair: EtcdPair, busy: bool) -> None:
    with survived(pair):
        pair.cut_off(*pair.hosts)
        if busy:
            pair.appear()
        time.sleep(AWHILE_S)
        print(f"out of reach for {AWHILE_S} s, {busy=}:", pair.newcomer(repair=pair.mend, patience=NOTICED_S))


# What is in the store


def test_all_is_restored_from_an_old_snapshot(pair: EtcdPair, tmp_path: Path) -> None:
    (leaving,) = pair.join(1)
    pair.etcd.save(tmp_path / "snapshot")
    (late,) = pair.join(1)
    pair.records.leave(leaving)
    pair.agree()
    with survived(pair, late.subnet):
        print("restored:", pair.newcomer(repair=lambda: pair.etcd.restore(tmp_path / "snapshot")))
        leases = pair.records.leases()
        assert leaving.subnet in leases
        assert late.subnet not in leases


def test_all_data_is_lost(pair: EtcdPair) -> None:
    with survived(pair, *pair.strangers()):
        pair.etcd.wipe()
        print("wiped:", pair.newcomer())
        for host in pair.hosts:
            host.await_line("is gone. The one in force stays so")
        pair.records.configure(CONFIG)


def test_lease_of_a_host_is_deleted(pair: EtcdPair) -> None:
    with survived(pair):
        pair.records.ctl("del", key_of(name_of(pair.one)))
        pair.one.await_line("has vanished from the store; writing it again")
        print("own lease deleted:", pair.newcomer())


def test_etcd_lease_of_a_host_is_revoked(pair: EtcdPair) -> None:
    with survived(pair):
        pair.records.ctl("lease", "revoke", pair.records.etcd_lease(name_of(pair.one)))
        pair.one.await_line("has vanished from the store; writing it again")
        print("own etcd lease revoked:", pair.newcomer())


def test_lease_of_a_host_is_overwritten_by_another(pair: EtcdPair) -> None:
    # All others send to the other now: what the containers here have is lost, until Docker gives them new addresses.
    lost = pair.one.subnet
    thief = Peer(str(lost), "02:00:00:00:00:66", "172.16.41.166")
    pair.records.join(thief)
    pair.one.await_line(f"our subnet {lost} now belongs to {thief.host}")
    eventually(lambda: pair.one.subnet != lost, "another subnet")
    pair.one.space.run("ip link delete cable")
    pair.one.space.run("ip link delete docker0")
    pair.one.settle_in(pair.one.subnet)
    pair.agree()
    assert str(pair.records.leases()[str(lost)].attrs.public_ip) == thief.host
    print("own lease overwritten:", pair.newcomer())
    pair.await_contact()
    pair.records.leave(thief)


def name_of(host: Host) -> str:
    """The last part of the key of its lease."""
    return str(host.subnet).replace("/", "-")


# With certificates, a password and little room


@pytest.mark.needs("openssl")
def test_tokens_run_out(guarded_pair: EtcdPair) -> None:
    pair = guarded_pair
    with survived(pair):
        time.sleep(3)  # three times as long as a token is good for
        print("token ran out:", pair.newcomer())
        pair.etcd.kill(pair.serving())
        print("and a new watch had to be begun:", pair.newcomer())
        print("and all were well again:", pair.newcomer(repair=pair.heal))


@pytest.mark.needs("openssl")
def test_certificates_are_replaced_and_once_by_one_that_has_expired(guarded_pair: EtcdPair) -> None:
    pair = guarded_pair
    pki = pair.pki
    assert pki is not None
    with survived(pair):
        issue(pki, "server", SERVER)
        issue(pki, "client", CLIENT, EXPIRED)
        pair.etcd.kill()
        pair.etcd.heal()
        for host in pair.hosts:
            host.await_line("certificate has expired")
        print("certificates replaced:", pair.newcomer(repair=lambda: issue(pki, "client", CLIENT)))


@pytest.mark.needs("openssl")
def test_store_is_full(guarded_pair: EtcdPair) -> None:
    pair = guarded_pair
    with survived(pair):
        while not pair.etcd.ctl("alarm", "list").strip():
            pair.etcd.attempt("put", "/elsewhere", stdin="x" * 200_000)
        time.sleep(1)
        print("store was full:", pair.newcomer(repair=lambda: make_room(pair)))


def make_room(pair: EtcdPair) -> None:
    pair.etcd.ctl("del", "/elsewhere")
    pair.etcd.compact()
    pair.etcd.ctl("defrag")
    pair.etcd.ctl("alarm", "disarm")


# By way of the v2 API


def test_v2_member_that_serves_is_killed(old_pair: EtcdPair) -> None:
    pair = old_pair
    with survived(pair):
        pair.etcd.kill(pair.serving())
        print("v2, one of three killed:", pair.newcomer())
        print("and started again:", pair.newcomer(repair=pair.heal))


def test_v2_member_that_serves_hangs(old_pair: EtcdPair) -> None:
    pair = old_pair
    with survived(pair):
        pair.etcd.freeze(pair.serving())
        print("v2, one of three hangs:", pair.newcomer(patience=NOTICED_S))
        print("and goes on:", pair.newcomer(repair=pair.heal))


def test_v2_all_data_is_lost(old_pair: EtcdPair) -> None:
    pair = old_pair
    with survived(pair, *pair.strangers()):
        pair.etcd.wipe()
        print("v2, wiped:", pair.newcomer())
        pair.records.configure(CONFIG)


def test_v2_history_is_cleared_while_the_store_is_out_of_reach(old_pair: EtcdPair) -> None:
    pair = old_pair
    (leaving,) = pair.join(1)
    with survived(pair, leaving.subnet):
        pair.cut_off(*pair.hosts, told=True)
        pair.records.leave(leaving)
        pair.bustle()
        print("v2, history cleared:", pair.newcomer(repair=pair.mend))
