"""Whatever becomes of etcd is told where it matters to a person, and so is its end; what the agents get over by
themselves is not spoken of.

As in test_explains, and the table at the end as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import pytest

from tests.support.etcd_pair import PASSWORD, PEERS, EtcdPair
from tests.support.etcd_records import key_of
from tests.support.explained import WELL, Chronicle, Fault, Told, awaited, explained, unspoken
from tests.support.mischief import restart
from tests.support.pair import CONFIG, Host
from tests.support.pki import CLIENT, EXPIRED, issue, make_pki

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge", "iptables", "etcd", "openssl")

Act: TypeAlias = Callable[[EtcdPair], object]
NOTICED_S: Final = 25.0
"""How long it may take to notice that a member says nothing any more: pings go out every 10 s, and have 3 s."""
HERE: Final = Told(("store-unreachable",))
EVERYWHERE: Final = Told(("store-unreachable",), ("store-unreachable",))
RECORDS_ONLY: Final = ("peer-silent",)
"""What is said of a newcomer: there is nothing of it but its record."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """With etcd."""

    plant: Act
    repair: Act
    told: Told


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdPair]:
    """With an etcd as most have it."""
    with EtcdPair(tmp_path_factory.mktemp("plain")) as made:
        yield well(made)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdPair]:
    """With certificates on both sides, a password, tokens that are good for a second, and little room for data."""
    with EtcdPair(tmp_path_factory.mktemp("guarded"), guarded=True, quota=1 << 20) as made:
        yield well(made)


def well(pair: EtcdPair) -> EtcdPair:
    """Two hosts that know each other, and nobody else."""
    pair.start()
    pair.records.leave(*PEERS)
    awaited(pair, WELL, "two hosts that are well")
    return pair


def name_of(host: Host) -> str:
    """The last part of the key of its lease."""
    return str(host.subnet).replace("/", "-")


def mend(pair: EtcdPair) -> None:
    """Let the members hear everybody."""
    pair.mend()


def heal(pair: EtcdPair) -> None:
    """Let all members run."""
    pair.heal()


def again(pair: EtcdPair) -> None:
    """Start all members anew, so that each agent has to say again who it is."""
    pair.etcd.kill()
    pair.etcd.heal()


# What a person has to do something about


def start_without_a_store(pair: EtcdPair) -> None:
    pair.etcd.kill()
    restart(pair.one)


def start_without_store_or_memory(pair: EtcdPair) -> None:
    pair.etcd.kill()
    pair.one.stop()
    for file in pair.one.home.glob("last-known-*"):
        file.unlink()
    pair.one.start()


TROUBLES: Final = {
    "all members are stopped": Trouble(lambda pair: pair.etcd.kill(), heal, EVERYWHERE),
    "what this host says to the members gets lost": Trouble(lambda pair: pair.cut_off(pair.one), mend, HERE),
    "all data are lost": Trouble(
        lambda pair: pair.etcd.wipe(),
        lambda pair: pair.records.configure(CONFIG),
        Told(("config-refused",), ("config-refused",)),
    ),
    "the agent here is started while no member runs": Trouble(start_without_a_store, heal, EVERYWHERE),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_a_trouble_with_the_store_is_told_and_so_is_its_end(plain: EtcdPair, chronicle: Chronicle, name: str) -> None:
    trouble = TROUBLES[name]
    fault = Fault(name, partial(trouble.plant, plain), partial(trouble.repair, plain), trouble.told)
    explained(plain, fault, chronicle)


def test_an_agent_that_is_started_without_a_store_or_a_memory(plain: EtcdPair, chronicle: Chronicle) -> None:
    where = [url.rpartition("//")[2] for url in plain.etcd.urls]
    refused = f"etcd v3 at {'; at '.join(f'http://{each}: connection refused' for each in where)}"
    told = Told(
        ("store-unreachable",),
        ("store-unreachable",),
        trace=f"nothing: Error: the store does not answer ({refused}), and nothing was ever saved of it",
    )
    name = "the agent here is started while no member runs, and remembers nothing"
    fault = Fault(name, partial(start_without_store_or_memory, plain), plain.heal, told)
    explained(plain, fault, chronicle)


def change_password(pair: EtcdPair, password: str) -> None:
    pair.etcd.ctl("user", "passwd", "root", "--interactive=false", stdin=f"{password}\n")
    pair.etcd.who = [f"--user=root:{password}"]


def lock_out(pair: EtcdPair) -> None:
    change_password(pair, "another")
    again(pair)


def expire(pair: EtcdPair) -> None:
    assert pair.pki is not None
    issue(pair.pki, "client", CLIENT, EXPIRED)
    again(pair)


def renew(pair: EtcdPair) -> None:
    assert pair.pki is not None
    issue(pair.pki, "client", CLIENT)


def trust(pair: EtcdPair, authority: Path) -> None:
    """Have the agents go by the certificate of this authority."""
    mine(pair).write_bytes((authority / "ca.pem").read_bytes())


def mine(pair: EtcdPair) -> Path:
    """The agents' own copy of the authority's certificate."""
    assert pair.pki is not None
    return pair.pki / "trusted.pem"


def distrust(pair: EtcdPair) -> None:
    assert pair.pki is not None
    trust(pair, make_pki(pair.pki / "other"))
    again(pair)


def trust_again(pair: EtcdPair) -> None:
    assert pair.pki is not None
    trust(pair, pair.pki)


def fill(pair: EtcdPair) -> None:
    while not pair.etcd.ctl("alarm", "list").strip():
        pair.etcd.attempt("put", "/elsewhere", stdin="x" * 200_000)


def make_room(pair: EtcdPair) -> None:
    pair.etcd.ctl("del", "/elsewhere")
    pair.etcd.compact()
    pair.etcd.ctl("defrag")
    pair.etcd.ctl("alarm", "disarm")


def fill_and_lose(pair: EtcdPair) -> None:
    fill(pair)
    pair.records.ctl("del", key_of(name_of(pair.one)))


GUARDED: Final = {
    "the password is another one": Trouble(lock_out, lambda pair: change_password(pair, PASSWORD), EVERYWHERE),
    "the agents' certificate has expired": Trouble(expire, renew, EVERYWHERE),
    "the members' certificates are of another authority": Trouble(distrust, trust_again, EVERYWHERE),
    "etcd is full, and the lease of this host is deleted": Trouble(
        # The other host does not know this one any more, and so does not answer it.
        fill_and_lose,
        make_room,
        Told(("lease-missing",), trace="unsure there, at agent"),
    ),
}


@pytest.fixture(scope="module")
def trusting(guarded: EtcdPair) -> EtcdPair:
    """The agents have a copy of their own of what they go by."""
    trust_again(guarded)
    for host in guarded.hosts:
        host.flags.append(f"-etcd-cafile={mine(guarded)}")
        restart(host)
    awaited(guarded, WELL, "two hosts that are well")
    return guarded


@pytest.mark.parametrize("name", GUARDED)
def test_a_trouble_with_a_guarded_store_is_told_and_so_is_its_end(
    trusting: EtcdPair, chronicle: Chronicle, name: str
) -> None:
    trouble = GUARDED[name]
    fault = Fault(name, partial(trouble.plant, trusting), partial(trouble.repair, trusting), trouble.told)
    explained(trusting, fault, chronicle)


def test_a_host_that_looks_in_the_other_api_of_etcd(tmp_path: Path, chronicle: Chronicle) -> None:
    with EtcdPair(tmp_path, api="v2") as pair:
        well(pair)

        def look(*flags: str) -> None:
            pair.one.flags[:] = [each for each in pair.one.flags if not each.startswith("-etcd-api=")]
            pair.one.flags.extend(flags)
            restart(pair.one)

        where = f"/coreos.com/network/config in etcd v3 at {pair.etcd.urls[0]}: no such key"
        said = f"nothing: Error: there is no network configuration: {where}"
        told = Told(("config-missing",), doctor=("etcd-api",), trace=said)
        fault = Fault(
            "the configuration is in etcd's v2, the agent here looks in v3",
            partial(look, "-etcd-api=3"),
            partial(look, "-etcd-api=2"),
            told,
        )
        explained(pair, fault, chronicle)


# What nobody has to do anything about


def is_noticed(pair: EtcdPair) -> None:
    """Return once both agents have heard what the store says now."""
    pair.newcomer(patience=NOTICED_S)
    pair.records.write({subnet.replace("/", "-"): None for subnet in pair.strangers()})


def lose_a_member(pair: EtcdPair, how: Callable[[int], object]) -> None:
    how(pair.serving())
    is_noticed(pair)
    pair.heal()
    is_noticed(pair)


def restore(pair: EtcdPair, directory: Path) -> None:
    pair.etcd.save(directory / "snapshot")
    pair.appear()
    pair.etcd.restore(directory / "snapshot")
    is_noticed(pair)


def run_out(pair: EtcdPair) -> None:
    # Longer than a token is good for.
    time.sleep(2)
    is_noticed(pair)


def answer_late(pair: EtcdPair) -> None:
    with pair.slow(pair.one, 2.0):
        is_noticed(pair)


def take_away(pair: EtcdPair, *command: str) -> None:
    pair.records.ctl(*command)
    pair.one.await_line("has vanished from the store; writing it again")
    is_noticed(pair)


def lead_otherwise(pair: EtcdPair) -> None:
    pair.etcd.move_leader()
    is_noticed(pair)


def compact(pair: EtcdPair) -> None:
    pair.appear()
    pair.etcd.compact()
    is_noticed(pair)


QUIET: Final[dict[str, Act]] = {
    "a member is killed": lambda pair: lose_a_member(pair, pair.etcd.kill),
    "a member hangs": lambda pair: lose_a_member(pair, pair.etcd.freeze),
    "another member leads": lead_otherwise,
    "history is compacted": compact,
    "the lease of this host is deleted": lambda pair: take_away(pair, "del", key_of(name_of(pair.one))),
    "the etcd lease of this host is revoked": lambda pair: take_away(
        pair, "lease", "revoke", pair.records.etcd_lease(name_of(pair.one))
    ),
}


@pytest.mark.parametrize("name", QUIET)
def test_what_the_agents_get_over_by_themselves_is_not_spoken_of(plain: EtcdPair, name: str) -> None:
    unspoken(plain, partial(QUIET[name], plain), name, RECORDS_ONLY)


def test_tokens_that_run_out_are_not_spoken_of(guarded: EtcdPair) -> None:
    unspoken(guarded, partial(run_out, guarded), "tokens run out", RECORDS_ONLY)


def test_an_old_snapshot_with_the_same_hosts_in_it_is_not_spoken_of(plain: EtcdPair, tmp_path: Path) -> None:
    # While nobody runs that is said, and no longer.
    unspoken(plain, partial(restore, plain, tmp_path), "an old snapshot", (*RECORDS_ONLY, "store-unreachable"))


def test_answers_that_take_two_seconds_are_not_spoken_of(plain: EtcdPair) -> None:
    # The agent is stopped twice, to have it ask elsewhere.
    unspoken(plain, partial(answer_late, plain), "answers take two seconds", (*RECORDS_ONLY, "silent"))
