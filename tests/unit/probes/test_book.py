"""Who is asked when, and what is said of the cluster: played through in a time of its own."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from dataclasses import replace

import pytest

from pyflannel.probes.book import worst
from pyflannel.probes.schedule import MOST, PERIOD, QUICK_TICK
from pyflannel.probes.sight import Reach, Sight
from pyflannel.probes.track import Means, Path
from tests.support.probe_world import MTU, World, end, host, lease, line, subnet

SOON = 5.0
"""Seconds in which a person should know."""
SMALL_CLUSTERS = pytest.mark.parametrize("peers", [1, 2, 3, 7, 15, 16])


def healthy(peers: int, **changes: bool) -> World:
    world = World(peers, **changes)
    world.run(20)
    assert world.troubles() == {}
    return world


def every_window(times: list[float]) -> list[int]:
    return [sum(start <= time < start + PERIOD for time in times) for start in times]


@SMALL_CLUSTERS
def test_all_is_well_in_a_cluster_that_is(peers: int) -> None:
    world = healthy(peers)
    for number in range(1, peers + 1):
        sight = world.sight(number)
        assert (sight.reach, sight.reason, sight.loss, sight.mtu) == (Reach.REACHED, "", 0.0, MTU)
        assert sight.rtt is not None
        assert sight.heard is not None
        assert world.now - sight.heard < 2 * PERIOD


@pytest.mark.parametrize("peers", [1, 16, 100, 1000])
@pytest.mark.parametrize("trouble", ["none", "all dead", "lossy", "narrow"])
def test_there_are_never_more_questions_than_the_bound(peers: int, trouble: str) -> None:
    world = World(peers)
    world.run(20)
    match trouble:
        case "all dead":
            world.dead |= {host(number) for number in range(1, peers + 1)}
            world.dead |= {end(number) for number in range(1, peers + 1)}
        case "lossy":
            world.loss = 0.3
        case "narrow":
            world.most = 1000
    world.run(20)
    assert max(every_window([time for time, _ in world.sent])) <= MOST


@SMALL_CLUSTERS
def test_a_host_that_dies_is_known_soon_and_so_is_its_return(peers: int) -> None:
    world = healthy(peers)
    world.dead |= {host(1), end(1)}
    world.until(lambda: world.troubles() == {"peer-unreachable": [str(subnet(1))]}, SOON)
    assert "172.16.0.2 does not answer any more" in world.text("peer-unreachable")
    assert world.sight(1).reach is Reach.LOST
    world.run(60)
    world.dead.clear()
    world.until(lambda: world.troubles() == {}, SOON)
    world.run(1)
    assert world.sight(1).reach is Reach.REACHED


@SMALL_CLUSTERS
def test_a_blocked_tunnel_is_told_from_a_dead_host(peers: int) -> None:
    world = healthy(peers)
    world.dead.add(end(1))
    world.until(lambda: world.troubles() == {"tunnel-blocked": [str(subnet(1))]}, SOON)
    assert "UDP port 8472 between 172.16.0.1 and 172.16.0.2 is probably blocked" in world.text("tunnel-blocked")
    world.run(60)
    world.dead.clear()
    world.until(lambda: world.troubles() == {}, SOON)


@pytest.mark.parametrize("peers", [2, 3, 7, 16, 500])
def test_a_host_that_is_cut_off_says_that_and_nothing_of_its_peers(peers: int) -> None:
    world = World(peers)
    world.run(20 + peers / 2)
    for number in range(1, peers + 1):
        world.dead |= {host(number), end(number)}
    world.until(lambda: world.troubles() == {"cut-off": [""]}, SOON)
    assert world.sight(1).reach is Reach.LOST
    world.run(30)
    assert world.troubles() == {"cut-off": [""]}
    world.dead.clear()
    world.until(lambda: world.troubles() == {}, SOON)


def test_a_tunnel_that_is_blocked_to_everybody_is_said_once() -> None:
    world = healthy(4)
    world.dead |= {end(number) for number in range(1, 5)}
    world.until(lambda: world.troubles() == {"tunnel-blocked": [""]}, 3 * SOON)
    assert "to any host" in world.text("tunnel-blocked")
    world.dead.clear()
    world.until(lambda: world.troubles() == {}, SOON)


def test_hosts_without_an_agent_of_ours_are_asked_by_echo_and_watched_as_well() -> None:
    world = World(3)
    world.without_agent |= {host(1), end(1), host(2), end(2)}
    world.run(60)
    assert world.troubles() == {}
    assert [world.sight(number).reach for number in (1, 2, 3)] == [Reach.REACHED] * 3
    assert (world.sight(1).loss, world.sight(1).mtu) == (0.0, MTU)
    world.dead |= {host(1), end(1)}
    world.until(lambda: world.troubles() == {"peer-unreachable": [str(subnet(1))]}, SOON)
    world.dead = {end(2)}
    world.until(lambda: world.troubles() == {"tunnel-blocked": [str(subnet(2))]}, 2 * SOON)
    assert "unless that host answers no ICMP echo there" in world.text("tunnel-blocked")
    world.dead.clear()
    world.until(lambda: world.troubles() == {}, SOON)


def test_an_agent_that_stops_is_no_trouble_of_its_host() -> None:
    world = healthy(2)
    world.without_agent |= {host(1), end(1)}
    world.run(60)
    assert world.troubles() == {}
    assert (world.sight(1).reach, world.sight(1).reason) == (
        Reach.REACHED,
        "its agent does not answer, its containers are reached",
    )
    world.without_agent.clear()
    world.run(60)
    assert world.sight(1).reason == ""


def test_an_agent_behind_a_firewall_that_drops_icmp_is_no_trouble() -> None:
    world = World(2)
    world.deaf_for |= {(address, Means.ECHO) for address in (host(1), end(1), host(2), end(2))}
    world.run(20)
    assert world.troubles() == {}
    world.dead |= {end(1)}
    world.until(lambda: world.troubles() == {"tunnel-blocked": [str(subnet(1))]}, SOON)
    world.dead.clear()
    world.until(lambda: world.troubles() == {}, SOON)


def test_a_host_that_has_never_answered_is_not_called_broken() -> None:
    world = World(2)
    world.dead |= {host(1), end(1)}
    world.run(30)
    assert world.troubles() == {"peer-silent": [str(subnet(1))]}
    assert world.sight(1) == Sight(Reach.UNKNOWN, "has never answered", None, 1.0, None, None)
    world.dead.clear()
    world.until(lambda: world.troubles() == {}, 2 * SOON)


def test_many_hosts_that_have_never_answered_are_one_notice() -> None:
    world = World(30)
    world.dead |= {address for number in range(1, 21) for address in (host(number), end(number))}
    world.run(60)
    assert world.troubles() == {"peer-silent": [""]}


def test_a_tunnel_blocked_from_the_start_is_told_where_the_host_answers() -> None:
    world = World(2)
    world.dead.add(end(1))
    world.until(lambda: world.troubles() == {"tunnel-blocked": [str(subnet(1))]}, SOON)


def test_the_direction_that_is_blocked_is_named_by_who_cannot_be_answered() -> None:
    world = healthy(2)
    world.answers_lost.add(end(1))
    world.until(lambda: "one-way" in world.troubles(), SOON)
    assert "UDP port 8472 from 172.16.0.2 to 172.16.0.1 is probably blocked" in world.text("one-way")
    world.answers_lost.clear()
    world.until(lambda: world.troubles() == {}, SOON)


def test_the_direction_that_is_blocked_is_named_by_who_cannot_ask() -> None:
    world = healthy(2)
    world.dead.add(end(1))
    world.run(SOON)
    world.hail(1, Path.OVERLAY)
    # The next question may well be answered.
    assert world.troubles() == {"tunnel-blocked": [str(subnet(1))]}
    world.until(lambda: world.troubles() == {"one-way": [str(subnet(1))]}, 1)
    assert "UDP port 8472 from 172.16.0.1 to 172.16.0.2 is probably blocked" in world.text("one-way")


def test_a_host_that_dies_after_one_direction_was_blocked_is_called_dead() -> None:
    world = healthy(2)
    world.dead.add(end(1))
    for number in range(1, 9):
        world.run(1)
        world.hail(1, Path.OVERLAY, number)
    assert world.troubles() == {"one-way": [str(subnet(1))]}
    world.dead.add(host(1))
    world.until(lambda: world.troubles() == {"peer-unreachable": [str(subnet(1))]}, 20)


def test_a_host_whose_packets_arrive_while_none_of_ours_does_is_not_called_dead() -> None:
    world = healthy(2)
    world.dead |= {host(1), end(1)}
    world.run(SOON)
    world.hail(1, Path.UNDERLAY)
    world.run(SOON)
    assert "packets of 172.16.0.2 arrive" in world.text("one-way")


@pytest.mark.parametrize("loss", [0.3, 0.5])
def test_a_lossy_path_is_noticed_and_forgotten_soon_after_the_repair(loss: float) -> None:
    world = healthy(3)
    world.loss = loss / 2
    world.until(lambda: "peer-lossy" in world.troubles(), 60)
    world.loss = 0.0
    world.until(lambda: world.troubles() == {}, SOON)
    assert world.sight(1).reach is Reach.REACHED


def test_a_packet_lost_now_and_then_is_nobodys_concern() -> None:
    world = World(16)
    world.loss = 0.0005
    for _ in range(600):
        world.run(1)
        assert world.troubles() == {}


@pytest.mark.parametrize("most", [100, 576, 1280, 1399, 1449])
def test_the_largest_packet_that_passes_is_found(most: int) -> None:
    world = healthy(2)
    world.most = most
    world.until(lambda: "path-mtu-small" in world.troubles(), SOON)
    found = f"packets of {MTU} octets do not pass, those of {most} do"
    world.until(lambda: world.sight(1).reason == world.sight(2).reason == found, 30)
    assert world.sight(1).mtu == most
    world.most = 9000
    world.until(lambda: world.troubles() == {}, SOON)
    assert world.sight(1).mtu == MTU


@pytest.mark.parametrize("peers", [1, 16, 300])
def test_one_large_packet_is_sent_in_a_period_however_many_peers_there_are(peers: int) -> None:
    world = healthy(peers)
    world.run(2 * PERIOD * peers)
    before = len(world.sent)
    world.run(100 * PERIOD)
    large = [asked for _, asked in world.sent[before:] if asked.ask.size]
    assert 50 <= len(large) <= 200


def test_a_lease_of_a_host_that_has_another_subnet_is_not_taken_for_a_blocked_way() -> None:
    old = lease(2, on=1)
    world = World(1)
    world.dead.add(end(2))
    world.look(lease(1), old)
    world.until(lambda: world.troubles() == {"peer-silent": [str(old.subnet)]}, 2 * SOON)
    assert "is this lease an old one?" in world.text("peer-silent")
    world.run(30)
    assert world.troubles() == {"peer-silent": [str(old.subnet)]}
    world.dead.add(end(1))
    world.until(lambda: "tunnel-blocked" in world.troubles() or "one-way" in world.troubles(), 2 * SOON)


def test_a_device_that_lets_more_through_is_tried_at_once() -> None:
    world = healthy(2)
    world.look(lease(1), lease(2), mtu=8950)
    world.until(lambda: world.sight(1).mtu == 8950, SOON)
    world.look(lease(1), lease(2), mtu=0)
    world.run(5)
    assert world.troubles() == {}


def test_where_no_end_is_sure_to_answer_the_host_counts() -> None:
    world = World(2, sure=False)
    world.dead |= {line(1, sure=False).end}
    world.run(20)
    assert world.troubles() == {}
    assert world.sight(1).reach is Reach.REACHED
    world.dead |= {host(1)}
    world.until(lambda: world.troubles() == {"peer-unreachable": [str(subnet(1))]}, SOON)
    world.dead.clear()
    world.until(lambda: world.troubles() == {}, SOON)


def test_an_end_that_need_not_be_there_and_goes_is_mentioned() -> None:
    world = World(2, sure=False)
    world.run(60)
    world.dead |= {line(1, sure=False).end}
    world.until(lambda: world.troubles() == {"subnet-silent": [str(subnet(1))]}, SOON)
    assert world.sight(1).reach is Reach.UNKNOWN


def test_in_a_large_cluster_everybody_has_a_turn() -> None:
    world = World(400)
    world.run(200)
    assert world.troubles() == {}
    counts = Counter(question.target for _, question in world.sent)
    assert len(counts) == 400
    world.run(200)
    assert all(world.sight(number).reach is Reach.REACHED for number in range(1, 401))


def test_a_newcomer_in_a_large_cluster_does_not_wait_for_its_turn_and_is_not_stormed() -> None:
    world = World(400)
    world.run(400)
    known = [lease(number) for number in range(1, 401)]
    world.look(*known, lease(401))
    took = world.until(lambda: world.sight(401).reach is Reach.REACHED, 400 / 50 + SOON)
    assert took <= 400 / 50 + SOON


def test_half_a_cluster_that_dies_does_not_keep_the_others_from_their_turn() -> None:
    world = World(100)
    world.run(120)
    world.dead |= {address for number in range(1, 51) for address in (host(number), end(number))}
    world.run(300)
    assert sorted(world.troubles()) == ["peer-unreachable"]
    assert len(world.troubles()["peer-unreachable"]) == 50
    begun = len(world.sent)
    world.run(60)
    alive = {question.target for _, question in world.sent[begun:]} & {end(number) for number in range(51, 101)}
    assert len(alive) == 50


def test_who_leaves_is_forgotten_with_all_that_is_said_of_it() -> None:
    world = healthy(3)
    world.dead |= {host(1), end(1)}
    world.until(lambda: world.troubles(), SOON)
    world.look(lease(2), lease(3))
    assert world.troubles() == {}
    world.run(20)
    assert subnet(1) not in world.book.sights(world.now, world.now)
    world.look()
    assert world.book.empty


def test_what_is_asked_of_a_few_peers_is_told_of_those_that_are_peers() -> None:
    world = healthy(3)
    sights = world.book.sights(world.now, world.now, (subnet(2), subnet(77)))
    assert sights == {subnet(2): world.sight(2)}


def test_a_peer_on_another_host_is_a_peer_we_know_nothing_of() -> None:
    world = healthy(2)
    world.look(lease(1, on=77), lease(2))
    assert world.sight(1).reach is Reach.UNKNOWN
    assert world.sight(2).reach is Reach.REACHED


def test_an_answer_to_what_was_asked_before_a_peer_moved_says_nothing_of_it() -> None:
    world = healthy(1)
    world.latency = 1.5
    world.until(lambda: world.sent[-1][0] == world.now, 2 * PERIOD)
    world.look(lease(1, on=77))
    world.dead |= {host(1), host(77), end(1)}
    world.run(3)
    assert world.sight(1).reach is Reach.UNKNOWN
    assert world.sight(1).heard is None


def test_peers_that_say_what_they_said_are_not_asked_for_that() -> None:
    world = healthy(16)
    world.book.look(world.outlook, world.now)
    world.book.look(replace(world.outlook), world.now)
    assert world.book.pause(world.now, world.now) != QUICK_TICK


def test_a_peer_that_is_well_takes_little_memory() -> None:
    peers = 1000
    tracemalloc.start()
    try:
        world = World(peers)
        world.run(peers / MOST * PERIOD * 2)
        assert world.troubles() == {}
        world.sent.clear()
        world.arrived.clear()
        gc.collect()
        probes = tracemalloc.Filter(inclusive=True, filename_pattern="*/pyflannel/probes/*")
        kept = sum(each.size for each in tracemalloc.take_snapshot().filter_traces([probes]).traces)
    finally:
        tracemalloc.stop()
    assert kept / peers < 300


def test_late_answers_show_that_the_peer_is_there() -> None:
    world = healthy(1)
    world.latency = 1.5
    world.run(60)
    assert world.troubles() == {}
    assert world.sight(1).reach is Reach.REACHED


def test_an_answer_from_elsewhere_or_to_nothing_counts_for_nothing() -> None:
    world = World(1)
    world.dead |= {host(1), end(1)}
    world.run(1)
    _, question = world.sent[-1]
    means = question.ask.means
    other = Means.ECHO if means is Means.OWN else Means.OWN
    assert not world.book.answered(question.nonce, means, host(9), world.now)
    assert not world.book.answered(question.nonce, other, question.target, world.now)
    assert not world.book.answered(question.nonce ^ 1, means, question.target, world.now)
    assert world.book.answered(question.nonce, means, question.target, world.now)
    assert not world.book.answered(question.nonce, means, question.target, world.now)


def test_what_cannot_be_sent_is_a_miss_with_a_reason() -> None:
    world = healthy(1)
    world.dead |= {host(1), end(1)}
    for _ in range(80):
        begun = len(world.sent)
        world.tick()
        for _, question in world.sent[begun:]:
            world.book.refused(question.nonce, "Network is unreachable", world.now)
    assert "(sending: Network is unreachable)" in world.text("peer-unreachable")


def test_strangers_have_no_answer_and_peers_hear_what_arrived() -> None:
    world = healthy(2)
    from tests.support.probe_world import question

    assert world.book.hail(host(9), Path.OVERLAY, question(5, 1), world.now) is None
    assert world.book.hail(end(1), Path.OVERLAY, question(5, 1), world.now) is not None
    report = world.book.hail(end(1), Path.OVERLAY, question(5, 3), world.now)
    assert report is not None
    overlay, underlay = report
    assert (overlay.newest, overlay.seen) == (3, 0b101)
    assert underlay.newest == 0


@pytest.mark.parametrize("unable", ["own", "echo"])
def test_who_cannot_ask_one_way_asks_the_other(unable: str) -> None:
    world = World(2)
    setattr(world.book, unable, frozenset())
    world.run(20)
    assert world.troubles() == {}
    assert {question.ask.means for _, question in world.sent} == {Means.ECHO if unable == "own" else Means.OWN}
    assert world.sight(1).reach is Reach.REACHED


def test_who_cannot_ask_at_all_knows_nothing() -> None:
    world = World(2)
    world.book.own = world.book.echo = frozenset()
    world.run(20)
    assert (world.troubles(), world.sent) == ({}, [])
    assert world.sight(1).reach is Reach.UNKNOWN


def test_of_several_families_the_worst_is_told() -> None:
    well, unknown, lost = Sight(Reach.REACHED), Sight(), Sight(Reach.LOST, "gone")
    assert worst([well, unknown]) == unknown
    assert worst([unknown, lost, well]) == lost
    assert worst([]) == Sight()


def test_a_peer_that_says_something_new_is_asked_at_once_and_not_forgotten() -> None:
    world = healthy(16)
    begun = len(world.sent)
    world.look(lease(1, said="something new"), *(lease(number) for number in range(2, 17)))
    assert world.sight(1).reach is Reach.REACHED
    world.until(lambda: any(asked.ask.size for _, asked in world.sent[begun:] if asked.target == end(1)), SOON)


def test_who_asks_us_beside_the_overlay_hears_from_us_through_it_and_not_more_often_than_that_helps() -> None:
    world = World(100)
    world.run(90)
    asked = len(world.sent)
    for _ in range(4):
        world.hail(1, Path.UNDERLAY)
        world.run(0.5)
    told = [question for _, question in world.sent[asked:] if question.target == end(1)]
    assert 1 <= len(told) <= 3


def test_each_time_something_was_put_right_those_in_trouble_are_asked_at_once() -> None:
    world = healthy(3)
    world.dead |= {host(1), end(1)}
    world.until(lambda: world.troubles(), SOON)
    for _ in range(5):
        world.run(1)
        asked = len(world.sent)
        world.book.stir(world.now)
        world.tick()
        assert end(1) in {question.target for _, question in world.sent[asked:]}


@pytest.mark.parametrize("seed", range(8))
def test_of_a_path_that_loses_packets_it_is_not_said_that_large_ones_do_not_pass(seed: int) -> None:
    world = World(3, seed=seed)
    world.run(20)
    world.loss = 0.08
    for _ in range(120):
        world.run(1)
        assert "path-mtu-small" not in world.troubles()


def test_in_a_large_cluster_that_is_well_there_is_little_to_wake_up_for() -> None:
    world = World(100)
    world.run(120)
    wakes, until = 0, world.now + 60
    while world.now < until:
        world.tick()
        wakes += 1
    assert wakes <= 60 / PERIOD * 4
    assert max(every_window([time for time, _ in world.sent[-400:]])) == MOST
