"""What the page is told of a change: all of it, and nothing besides."""

from __future__ import annotations

from dataclasses import replace

from pyflannel.telemetry.document import PORTION, Document, LeasePart, PeerPart
from pyflannel.telemetry.page.changes import all_of, changed, settled, time_is
from tests.support.sse import events
from tests.support.status import NOW, PEER, TROUBLE, document


def told(before: Document, after: Document) -> list[tuple[str, object]]:
    return list(events(b"".join(changed(before, after))))


def crowd(count: int) -> list[PeerPart]:
    return [replace(PEER, subnet=f"10.{number >> 8}.{number & 255}.0/24") for number in range(count)]


def test_everything_is_one_event_whatever_the_texts_are() -> None:
    hostile = replace(TROUBLE, text="a\nb\r\n\nevent: all\ndata: {}\n\n\u2028")
    ((name, value),) = events(b"".join(all_of(document(hostile))))
    assert name == "all"
    assert value["conditions"][0]["text"] == hostile.text
    assert value["peers"][0]["subnet"] == PEER.subnet


def test_nothing_is_told_where_nothing_is_different() -> None:
    assert not told(document(TROUBLE), document(TROUBLE))
    assert not told(same := document(), same)


def test_a_part_that_is_different_is_told_whole_and_the_others_are_not() -> None:
    ((name, value),) = told(document(), document(TROUBLE))
    assert name == "some"
    assert list(value) == ["format", "conditions"]  # type: ignore[call-overload]


def test_of_very_many_peers_only_the_one_that_is_different_is_told() -> None:
    peers = crowd(1000)
    slower = [*peers[:500], replace(peers[500], rtt=0.1), *peers[501:]]
    data = b"".join(changed(document(peers=peers), document(peers=slower)))
    ((_, value),) = events(data)
    assert [peer["subnet"] for peer in value["peers"]] == [peers[500].subnet]
    assert len(data) < 1000


def test_a_peer_that_is_gone_is_named_by_its_subnets() -> None:
    assert told(document(), document(peers=())) == [("gone", [[PEER.subnet, None]])]


def test_very_many_changes_come_in_pieces_that_are_one_event() -> None:
    peers = crowd(2 * PORTION + 1)
    pieces = list(changed(document(peers=()), document(peers=peers)))
    assert max(map(len, pieces)) < 400 * PORTION
    ((_, value),) = events(b"".join(pieces))
    assert [peer["subnet"] for peer in value["peers"]] == [peer.subnet for peer in peers]


def test_dates_that_are_reckoned_anew_are_the_same_dates() -> None:
    before = document()
    lease = before.lease
    assert lease.expires is not None
    assert lease.renewed is not None
    again = replace(before, lease=replace(lease, expires=lease.expires + 0.01, renewed=lease.renewed - 0.01))
    assert settled(before, again) == before
    renewed = replace(before, lease=LeasePart(lease.subnet, None, NOW + 86400, False, NOW))
    assert settled(before, renewed) == renewed
    reserved = replace(before, lease=replace(lease, expires=None, reserved=True))
    assert settled(before, reserved) == reserved


def test_the_time_is_a_number() -> None:
    assert list(events(time_is(NOW))) == [("time", NOW)]
