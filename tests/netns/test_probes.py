"""Agents' devices on a real kernel, and probers that ask over them: what is said of each fault, and that it goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pyflannel.outputs import read_subnet_env
from tests.support.pair import CONFIG, Host, Pair
from tests.support.probing import Watcher

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge", "iptables")

TUNNEL = "-p udp --dport 8472"


class Probed:
    """Two hosts with agents, and a prober on each."""

    def __init__(self, pair: Pair, stack: ExitStack) -> None:
        self.pair = pair
        for host in pair.hosts:
            host.flags.append("-probe=false")
        pair.start()
        self.one, self.two = (stack.enter_context(_watcher(pair, host)) for host in pair.hosts)
        self.await_well()

    def await_well(self) -> None:
        for watcher, peer in ((self.one, self.pair.two), (self.two, self.pair.one)):
            watcher.await_reach(peer, "reachable")
            watcher.await_codes()


def _watcher(pair: Pair, host: Host) -> Watcher:
    return Watcher(host, pair.store, [str(host.subnet)])


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with Pair(tmp_path) as made:
        yield made


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture
def probed(pair: Pair, stack: ExitStack) -> Probed:
    return Probed(pair, stack)


def test_two_hosts_that_are_well_know_it(probed: Probed) -> None:
    probed.one.until(lambda: probed.one.sight(probed.pair.two).get("mtu") == 1450, "full packets pass")
    sight = probed.one.sight(probed.pair.two)
    assert (sight["reach"], sight["reason"]) == ("reachable", "")
    rtt, heard = sight["rtt"], sight["heard"]
    assert isinstance(rtt, float)
    assert 0 < rtt < 1
    assert isinstance(heard, float)


def test_a_port_blocked_in_both_directions_is_named(probed: Probed) -> None:
    two = probed.pair.two
    two.space.run(f"iptables -I INPUT {TUNNEL} -j DROP")
    two.space.run(f"iptables -I OUTPUT {TUNNEL} -j DROP")
    probed.one.await_codes("tunnel-blocked")
    assert f"UDP port 8472 between {probed.pair.one.address} and {two.address} is probably blocked" in (
        probed.one.texts()
    )
    probed.two.await_codes("tunnel-blocked")
    assert "(sending: Operation not permitted)" in probed.two.texts() or "8472" in probed.two.texts()
    assert probed.one.sight(two)["reach"] == "unreachable"
    two.space.run("iptables -F INPUT")
    two.space.run("iptables -F OUTPUT")
    probed.await_well()


def test_a_port_blocked_in_one_direction_is_named_with_the_direction(probed: Probed) -> None:
    one, two = probed.pair.one, probed.pair.two
    two.space.run(f"iptables -I INPUT {TUNNEL} -j DROP")
    direction = f"UDP port 8472 from {one.address} to {two.address} is probably blocked"
    probed.one.until(lambda: probed.one.codes() == ["one-way"] and direction in probed.one.texts(), direction)
    probed.two.until(lambda: probed.two.codes() == ["one-way"] and direction in probed.two.texts(), direction)
    two.space.run("iptables -F INPUT")
    probed.await_well()


def test_large_packets_that_get_lost_on_the_way_are_noticed_and_the_limit_is_found(
    pair: Pair, stack: ExitStack
) -> None:
    # Outer packets of more than 1350 octets, as behind a tunnel that nobody told of.
    pair.switch.shell("ip link set br0 type bridge nf_call_iptables 0 2>/dev/null || true")
    large = "-p udp --dport 8472 -m length --length 1351:65535 -j DROP"
    for host in pair.hosts:
        host.space.run(f"iptables -I INPUT {large}")
    for host in pair.hosts:
        host.flags.append("-probe=false")
    pair.start()
    one = stack.enter_context(_watcher(pair, pair.one))
    stack.enter_context(_watcher(pair, pair.two))
    one.until(lambda: "those of 1300 do" in one.texts(), "the limit of 1300")
    assert one.codes() == ["path-mtu-small"]
    assert one.sight(pair.two)["mtu"] == 1300
    for host in pair.hosts:
        host.space.run("iptables -F INPUT")
    one.await_codes()
    assert one.sight(pair.two)["mtu"] == 1450


def test_a_host_that_goes_and_comes_is_known(probed: Probed) -> None:
    two = probed.pair.two
    two.space.run("ip link set ens33 down")
    probed.one.await_codes("peer-unreachable")
    assert f"{two.address} does not answer any more" in probed.one.texts()
    two.space.run("ip link set ens33 up")
    probed.await_well()


def test_a_host_without_an_agent_of_ours_is_asked_by_echo(probed: Probed) -> None:
    probed.two.stop()
    two = probed.pair.two
    probed.one.until(lambda: "agent" in str(probed.one.sight(two).get("reason")), "no agent there", 40.0)
    assert probed.one.codes() == []
    assert probed.one.sight(two)["reach"] == "reachable"
    two.space.run(f"iptables -I INPUT {TUNNEL} -j DROP")
    probed.one.await_codes("tunnel-blocked")
    two.space.run("iptables -F INPUT")
    probed.one.await_codes()
    probed.two.start()
    probed.one.until(lambda: probed.one.sight(two).get("reason") == "", "the agent is back", 60.0)


def test_a_host_that_was_never_one_of_ours_is_well_by_echo_alone(pair: Pair, stack: ExitStack) -> None:
    for host in pair.hosts:
        host.flags.append("-probe=false")
    pair.start()
    one = stack.enter_context(_watcher(pair, pair.one))
    one.await_reach(pair.two, "reachable")
    one.until(lambda: one.sight(pair.two).get("mtu") == 1450, "full packets pass")
    pair.two.space.run("iptables -I INPUT -p icmp -j DROP")
    one.until(lambda: one.codes() and one.codes() != ["peer-lossy"], "a host that says nothing any more")


def test_a_host_that_has_never_said_anything_is_a_notice_only(pair: Pair, stack: ExitStack) -> None:
    for host in pair.hosts:
        host.flags.append("-probe=false")
    pair.start()
    pair.two.space.run("iptables -I INPUT -p icmp -j DROP")
    one = stack.enter_context(_watcher(pair, pair.one))
    one.await_codes("peer-silent")
    assert one.sight(pair.two)["reach"] == "unknown"


def test_a_port_that_another_program_has_is_a_condition_and_echo_helps(probed: Probed) -> None:
    other = _watcher(probed.pair, probed.pair.one)
    other._log = probed.pair.one.home / "other.log"
    with other:
        other.await_codes("probe-port-taken")
        other.await_reach(probed.pair.two, "reachable")
        probed.one.stop()
        other.await_codes()


def test_agents_answer_questions_in_words_and_strangers_none(probed: Probed) -> None:
    two = str(probed.pair.two.subnet)
    assert probed.one.ask(two, "drawer") == "reward"
    probed.pair.two.space.run(f"iptables -I INPUT {TUNNEL} -j DROP")
    assert probed.two.ask(str(probed.pair.one.subnet), "stressed") == "desserts"


def test_hosts_on_one_link_without_a_tunnel_are_asked_themselves(pair: Pair, stack: ExitStack) -> None:
    pair.store.configure(CONFIG.replace("vxlan", "host-gw"))
    for host in pair.hosts:
        host.flags.append("-probe=false")
    pair.start()
    one = stack.enter_context(_watcher(pair, pair.one))
    stack.enter_context(_watcher(pair, pair.two))
    one.await_reach(pair.two, "reachable")
    one.until(lambda: one.sight(pair.two).get("mtu") == 1500, "Docker's bridge answers")
    pair.two.space.run("ip link set docker0 down")
    pair.two.space.run("ip address flush dev docker0")
    one.await_codes("subnet-silent")
    pair.two.space.run("ip link set ens33 down")
    one.await_codes("peer-unreachable")


def test_a_device_that_is_gone_for_a_while_ends_nothing(probed: Probed) -> None:
    one = probed.pair.one
    with one.asleep():
        one.space.run("ip link delete flannel.1")
        probed.one.until(lambda: probed.one.codes(), "that nothing is reached")
    probed.await_well()


def test_of_two_families_the_broken_one_is_told(pair: Pair, stack: ExitStack) -> None:
    pair.store.configure(CONFIG.replace('{"Network"', '{"EnableIPv6":true,"IPv6Network":"fd00:10:2::/48","Network"'))
    for number, host in enumerate(pair.hosts, 131):
        host.flags.append("-probe=false")
        host.space.run(f"ip address add 2001:db8::{number}/64 dev ens33 nodad")
    pair.start()
    watchers = []
    for number, host in enumerate(pair.hosts, 131):
        ipv6 = read_subnet_env(host.subnet_file.read_text()).ipv6_subnet
        own = [str(host.subnet), str(ipv6)]
        watchers.append(stack.enter_context(Watcher(host, pair.store, own, address6=f"2001:db8::{number}")))
    one, two = watchers
    one.until(lambda: [each["reach"] for each in one.sights().values()] == ["reachable"], "two is reached")
    one.until(lambda: [each["mtu"] for each in one.sights().values()] == [1430], "full packets pass")
    pair.two.space.run(f"ip6tables -I INPUT {TUNNEL} -j DROP")
    one.until(lambda: one.codes() == ["one-way"] and "from 2001:db8::131 to 2001:db8::132" in one.texts(), "one way")
    pair.two.space.run("ip6tables -F INPUT")
    one.await_codes()
    two.await_codes()
