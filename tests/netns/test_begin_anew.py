"""What an agent does without being restarted, or without a store: another configuration, another subnet, a memory."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.machines import eventually
from tests.support.pair import CONFIG, Host, Pair, Peer

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge", "iptables")

PEER = Peer("10.2.240.0/24", "de:ad:00:00:00:09", "172.16.41.199")
"""A host of which there is nothing but its record."""


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with Pair(tmp_path) as made:
        made.store.join(PEER)
        made.start()
        for host in made.hosts:
            host.await_line(f"Subnet added: {PEER.subnet} ")
        yield made


@contextmanager
def no_store(pair: Pair) -> Iterator[None]:
    """Within the block there is something else in place of the store."""
    path = pair.store.path
    pair.store.close()
    kept = {file: file.with_name(f"kept-{file.name}") for file in sorted(path.parent.glob(f"{path.name}*"))}
    for file, elsewhere in kept.items():
        file.rename(elsewhere)
    path.mkdir()
    try:
        yield
    finally:
        path.rmdir()
        for file, elsewhere in kept.items():
            elsewhere.rename(file)
        pair.store.open()


def starts(host: Host) -> int:
    return host.said().count("Running backend.")


def await_starts(host: Host, count: int) -> None:
    eventually(lambda: starts(host) == count, "a new beginning")


def altered(**backend: object) -> str:
    options = "".join(f',"{name}":{value}' for name, value in backend.items())
    return CONFIG.replace('"Type":"vxlan"', f'"Type":"vxlan"{options}')


def test_what_can_change_changes_while_traffic_flows(pair: Pair) -> None:
    before = {host: (host.subnet, host.link()["address"]) for host in pair.hosts}
    with pair.losing_nothing():
        pair.store.configure(altered(MTU=1400))
        for host in pair.hosts:
            host.await_line("FLANNEL_MTU was 1450 and is 1350: restart Docker")
            await_starts(host, 2)
            assert host.link()["mtu"] == 1350
    assert {host: (host.subnet, host.link()["address"]) for host in pair.hosts} == before
    for host in pair.hosts:
        assert f"{PEER.gateway} dev flannel.1" in host.space.run("ip route").replace("via ", "")


def test_a_signal_that_comes_while_the_agent_begins_anew_is_heeded(pair: Pair) -> None:
    pair.two.stop()
    for number, milliseconds in enumerate((0, 5, 10, 20, 40, 80, 160, 320)):
        pair.store.configure(altered(MTU=1400 + number))
        time.sleep(milliseconds / 1000)
        pair.one.stop()
        pair.one.started()


def test_another_vni_is_taken_up_by_all_without_a_restart(pair: Pair) -> None:
    pair.store.leave(PEER)
    pair.store.configure(altered(VNI=7))
    for host in pair.hosts:
        host.await_line("Beginning anew: ")
        await_starts(host, 2)
        host.await_line("ip link del flannel.1")
    pair.await_contact()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be used: the network configuration is not a JSON object"),
        (CONFIG.replace("vxlan", "ipsec"), "cannot be used: Backend.Type"),
        ("", "is gone. The one in force stays so"),
        (CONFIG.replace("10.2.", "10.3."), "so the one in force stays so. Every container here has to move"),
    ],
    ids=["broken", "unknown backend", "gone", "another network"],
)
def test_what_cannot_be_done_is_said_and_what_was_in_force_stays(pair: Pair, text: str, said: str) -> None:
    with pair.losing_nothing():
        pair.store.configure(text or None)
        for host in pair.hosts:
            host.await_line(said)
        pair.store.join(Peer("10.2.241.0/24", "de:ad:00:00:00:0a", "172.16.41.198"))
        for host in pair.hosts:
            host.await_line("Subnet added: 10.2.241.0/24")
        pair.store.configure(CONFIG)
    assert [starts(host) for host in pair.hosts] == [1, 1]


def test_a_configuration_this_host_cannot_run_with_is_given_up_again(pair: Pair) -> None:
    pair.one.space.run("ip link add flannel.7 type bridge")
    with pair.losing_nothing():
        # Of host two nothing is asked: it would change, and the two would not hear each other.
        pair.two.stop()
        pair.store.configure(altered(VNI=7))
        pair.one.await_line("Going back to the configuration as it was: this host cannot run with the new one: ")
        await_starts(pair.one, 2)
    assert pair.one.said().count("Beginning anew") == 1


def test_an_agent_whose_subnet_was_taken_gets_another_and_leaves_that_one_alone(pair: Pair) -> None:
    lost = pair.one.subnet
    thief = Peer(str(lost), "de:ad:00:00:00:0b", "172.16.41.197")
    pair.store.join(thief)
    pair.one.await_line(f"our subnet {lost} now belongs to {thief.host}")
    pair.one.await_line(f"FLANNEL_SUBNET was {lost[1]}/24 and is ")
    assert pair.one.subnet != lost
    leases = pair.store.leases()
    assert str(leases[str(lost)].attrs.public_ip) == thief.host
    assert str(leases[str(pair.one.subnet)].attrs.public_ip) == pair.one.address
    assert f"{pair.one.subnet[0]}/32" in pair.one.space.run("ip -4 address show dev flannel.1")
    eventually(lambda: str(lost[0]) not in pair.one.space.run("ip -4 address show dev flannel.1"), "the old address")
    pair.two.await_line(f"Subnet added: {pair.one.subnet} ")


def test_two_hosts_with_one_address_are_found_out(pair: Pair) -> None:
    pair.two.stop()
    pair.two.forget()
    pair.two.flags.append(f"-public-ip={pair.one.address}")
    pair.two.start()
    told = "nother host publishes our address 172.16.41.131 in our lease of"
    eventually(lambda: any(told in host.said() for host in pair.hosts), "one of the two says so", 60.0)


def test_a_start_without_a_store_goes_by_what_was_last_known(pair: Pair) -> None:
    cached(pair)
    before = [host.picture() for host in pair.hosts]
    leases = pair.store.leases()
    with pair.losing_nothing():
        for host in pair.hosts:
            host.stop()
        with no_store(pair):
            # As after a reboot.
            pair.two.subnet_file.unlink()
            for host in pair.hosts:
                host.start()
                host.await_line("leases as last known, until the store answers")
                host.await_line("Running backend.")
        for host in pair.hosts:
            host.await_line("The store answers again")
    for host, picture in zip(pair.hosts, before, strict=True):
        host.await_picture(picture, "all as it was")
        assert starts(host) == 1
    assert pair.store.leases() == leases


def test_a_host_that_comes_up_without_a_store_is_in_the_network(pair: Pair) -> None:
    cached(pair)
    pair.one.stop()
    pair.one.space.run("ip link delete flannel.1")
    pair.one.subnet_file.unlink()
    with no_store(pair):
        pair.one.start()
        pair.one.await_line("Running backend.")
        pair.await_contact()
    # What happened meanwhile: one host has gone, another has come.
    pair.store.leave(PEER)
    pair.store.join(Peer("10.2.241.0/24", "de:ad:00:00:00:0a", "172.16.41.198"))
    pair.one.await_line("Subnet added: 10.2.241.0/24")
    pair.one.await_line(f"Subnet removed: {PEER.subnet}")
    eventually(lambda: PEER.gateway not in pair.one.space.run("ip route"), "the route of the host that has gone")


def test_a_memory_that_is_damaged_is_no_memory(pair: Pair) -> None:
    file = cached(pair)
    pair.one.stop()
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))
    with no_store(pair):
        pair.one.start()
        pair.one.await_line(f"Ignoring {file}: it breaks off before its last line")
        pair.one.await_line("Couldn't fetch network config")
    pair.one.await_line("Running backend.")


def test_a_copy_of_a_host_does_not_go_by_the_originals_memory(pair: Pair) -> None:
    file = cached(pair)
    pair.two.stop()
    shutil.copy(file, pair.two.home)
    with no_store(pair):
        pair.two.start()
        pair.two.await_line(f"the lease in it is that of {pair.one.address}, and this is another machine")
    pair.two.await_line("Running backend.")


def test_a_lease_is_given_back_only_by_an_agent_that_was_told_to(pair: Pair) -> None:
    mine = str(pair.one.subnet)
    pair.one.stop()
    assert mine in pair.store.leases()
    pair.one.flags.append("-release-on-exit")
    pair.one.started()
    pair.one.stop()
    assert mine not in pair.store.leases()
    assert f"Released our lease {mine}" in pair.one.said()
    with no_store(pair):
        pair.one.start()
        pair.one.await_line("Couldn't fetch network config")
        assert "last known" not in pair.one.said(), "nobody may go by a lease that was given back"
    pair.one.await_line("Running backend.")


def cached(pair: Pair) -> Path:
    """Return once both agents have saved all they know; the file of host one."""
    for host in pair.hosts:
        known = {str(PEER.subnet), str(pair.one.subnet), str(pair.two.subnet)}
        await_memory(host, known)
    (file,) = pair.one.home.glob("last-known-*")
    return file


def await_memory(host: Host, subnets: set[str]) -> None:
    def is_whole() -> bool:
        text = "".join(file.read_text() for file in host.home.glob("last-known-*"))
        return all(subnet.replace("/", "-") in text for subnet in subnets)

    eventually(is_whole, "a memory of all leases", 90.0)
