from __future__ import annotations

from pyflannel.tunnel.outbox import Outbox


def sent(*runs: tuple[bytes, int, str]) -> list[tuple[bytes, int, str]]:
    outbox: Outbox[str] = Outbox()
    for payload, size, peer in runs:
        outbox.add(payload, size, peer)
    return outbox.datagrams()


def test_packets_of_one_size_to_one_peer_go_together() -> None:
    assert sent((b"aa", 2, "x"), (b"bb", 2, "x"), (b"cc", 2, "x")) == [(b"aabbcc", 2, "x")]


def test_a_shorter_packet_ends_the_run() -> None:
    assert sent((b"aa", 2, "x"), (b"b", 1, "x"), (b"c", 1, "x")) == [(b"aab", 2, "x"), (b"c", 1, "x")]


def test_a_longer_packet_begins_another() -> None:
    assert sent((b"a", 1, "x"), (b"bb", 2, "x"), (b"c", 1, "x")) == [(b"a", 1, "x"), (b"bbc", 2, "x")]


def test_a_run_of_smaller_packets_is_not_taken_for_one_packet() -> None:
    assert sent((b"aaaaa", 5, "x"), (b"bbcc", 2, "x")) == [(b"aaaaa", 5, "x"), (b"bbcc", 2, "x")]


def test_peers_do_not_disturb_each_other() -> None:
    assert sent((b"aa", 2, "x"), (b"bb", 2, "y"), (b"cc", 2, "x")) == [(b"aacc", 2, "x"), (b"bb", 2, "y")]


def test_a_run_has_at_most_64_packets() -> None:
    assert [len(payload) for payload, _, _ in sent(*[(b"a", 1, "x")] * 130)] == [64, 64, 2]


def test_a_run_fits_into_the_largest_datagram() -> None:
    assert [len(payload) for payload, _, _ in sent(*[(bytes(1472), 1472, "x")] * 46)] == [44 * 1472, 2 * 1472]
