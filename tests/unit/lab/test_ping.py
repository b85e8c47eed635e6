"""Who is pinged, how often, and what is made of the answers."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address

import pytest

from pyflannel.lab.ping import Endpoint, measure, round_trip

A, B, C = (Endpoint(name, IPv4Address(f"10.2.{n}.2")) for n, name in enumerate(("a", "b", "c"), start=1))

IPUTILS = """PING 10.2.1.2 (10.2.1.2) 56(84) bytes of data.
64 bytes from 10.2.1.2: icmp_seq=1 ttl=62 time=0.128 ms

--- 10.2.1.2 ping statistics ---
1 packets transmitted, 1 received, 0% packet loss, time 0ms
rtt min/avg/max/mdev = 0.128/0.128/0.128/0.000 ms
"""
BUSYBOX = """PING 10.2.1.2 (10.2.1.2): 56 data bytes
64 bytes from 10.2.1.2: seq=0 ttl=62 time=0.074 ms
"""
LOST = """PING 10.2.1.2 (10.2.1.2) 56(84) bytes of data.

--- 10.2.1.2 ping statistics ---
1 packets transmitted, 0 received, 100% packet loss, time 0ms
"""


@pytest.mark.parametrize(
    ("said", "rtt_ms"),
    [(IPUTILS, 0.128), (BUSYBOX, 0.074), (LOST, None), ("", None), ("64 bytes: time<1 ms", 1.0), ("time=12 ms", 12.0)],
)
def test_round_trip_is_read_from_what_ping_prints(said: str, rtt_ms: float | None) -> None:
    assert round_trip(said) == rtt_ms


def test_every_ordered_pair_is_pinged_once_if_all_answer() -> None:
    sent: Counter[tuple[str, str]] = Counter()

    def probe(sender: Endpoint, target: Endpoint) -> float:
        sent[sender.name, target.name] += 1
        return 0.1

    matrix = measure([A, B, C], probe, wait_s=60)
    assert sent == Counter([("a", "b"), ("a", "c"), ("b", "a"), ("b", "c"), ("c", "a"), ("c", "b")])
    assert matrix.rtt_ms == dict.fromkeys(sent, 0.1)
    assert matrix.lost == []


def test_pair_that_stays_silent_is_lost() -> None:
    matrix = measure([A, B], lambda sender, target: None if target == B else 0.1, wait_s=0)
    assert matrix.lost == [("a", "b")]
    assert matrix.rtt_ms["b", "a"] == 0.1


def test_silent_pair_alone_is_tried_again() -> None:
    sent: Counter[tuple[str, str]] = Counter()

    def probe(sender: Endpoint, target: Endpoint) -> float | None:
        sent[sender.name, target.name] += 1
        return None if target == B and sent[sender.name, target.name] < 3 else 0.1

    matrix = measure([A, B], probe, wait_s=60)
    assert matrix.lost == []
    assert sent == Counter({("a", "b"): 3, ("b", "a"): 1})
