"""The probe: can its figures be believed?"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.pair import Pair
from tests.support.probe import account

on_a_path = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge", "iptables")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with Pair(tmp_path_factory.mktemp("pair")) as made:
        made.start()
        yield made


@on_a_path
def test_nothing_is_lost_while_nothing_happens(pair: Pair) -> None:
    loss = pair.probe_for(1.5)
    assert loss.sent >= 1400
    assert (loss.lost, loss.longest_gap_s, loss.duplicates, loss.out_of_order) == (0, 0.0, 0, 0), loss


@on_a_path
def test_a_cable_that_is_out_for_a_fifth_of_a_second_is_seen(pair: Pair) -> None:
    with pair.probing() as probing:
        time.sleep(0.3)
        pair.switch.run("ip link set port1 down")
        time.sleep(0.2)
        pair.switch.run("ip link set port1 up")
        time.sleep(0.5)
    loss = probing.loss
    # Less only by what the sender, had it not been let run, would have sent too late.
    assert loss.longest_gap_s >= 0.2 - loss.longest_silence_s, loss
    assert loss.lost >= 1000 * (0.2 - loss.longest_silence_s), loss
    assert loss.received >= 400, loss


@on_a_path
def test_a_single_packet_refused_by_a_firewall_is_seen(pair: Pair) -> None:
    rule = "INPUT -p udp -m statistic --mode nth --every 200 --packet 100 -j DROP"
    with pair.probing() as probing:
        # In the container: on the host the agent would put its own rules first.
        pair.two.container.run(f"iptables -I {rule}")
        time.sleep(1.0)
        pair.two.container.run(f"iptables -D {rule}")
    loss = probing.loss
    assert 1 <= loss.lost < loss.sent, loss


@pytest.mark.parametrize(
    ("arrivals", "lost", "gap", "duplicates", "out_of_order"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], 0, 0.0, 0, 0),
        ([0, 1, 5, 6, 7], 3, 3.0, 0, 0),
        ([2, 3, 4, 5], 4, 2.0, 0, 0),
        ([], 8, 7.001, 0, 0),
        ([0, 1, 2, 2, 3, 4, 5, 6, 7], 0, 0.0, 1, 0),
        ([0, 2, 1, 3, 4, 5, 7, 6], 0, 0.0, 0, 2),
        ([0, 1, 2, 3, 3, 1, 4, 5, 6, 7], 0, 0.0, 2, 0),
    ],
)
def test_what_came_back_is_accounted_for(
    arrivals: list[int], lost: int, gap: float, duplicates: int, out_of_order: int
) -> None:
    """Eight datagrams, one a second."""
    loss = account([float(number) for number in range(8)], arrivals)
    assert (loss.lost, loss.duplicates, loss.out_of_order) == (lost, duplicates, out_of_order)
    assert loss.longest_gap_s == pytest.approx(gap)
    assert loss.longest_silence_s == 1.0
