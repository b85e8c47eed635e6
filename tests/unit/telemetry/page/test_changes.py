"""What the page is told of a change: all of it, and nothing besides."""

from __future__ import annotations

from dataclasses import replace

from pyflannel.probes.rows import Cell, How
from pyflannel.telemetry.document import PORTION, Document, LeasePart, PeerPart
from pyflannel.telemetry.matrix import Matrix, Row
from pyflannel.telemetry.page.changes import all_of, changed, redrawn, settled, time_is
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


ONE, TWO = ("10.2.41.0/24", None), ("10.2.71.0/24", "fd00::/64")
ROW = Row({ONE: Cell(How.ITSELF), TWO: Cell(How.LOSSY, 0.0183, 0.23)}, NOW)


def redrawn_to(before: Matrix, after: Matrix) -> list[tuple[str, object]]:
    return list(events(b"".join(redrawn(before, after))))


def test_the_matrix_is_told_as_who_is_in_it_and_a_row_of_each_that_was_asked() -> None:
    assert redrawn_to(Matrix(), Matrix((ONE, TWO), 1001, {ONE: ROW})) == [
        ("hosts", {"of": 1001, "hosts": [["10.2.41.0/24", None], ["10.2.71.0/24", "fd00::/64"]]}),
        (
            "row",
            {
                "from": ["10.2.41.0/24", None],
                "at": NOW,
                "why": "",
                "to": [["itself", None, None], ["lossy", 0.0183, 0.23]],
            },
        ),
    ]


def test_of_rows_only_those_are_told_that_are_different() -> None:
    before = Matrix((ONE, TWO), 2, {ONE: ROW, TWO: Row(why="no answer comes")})
    assert redrawn_to(before, replace(before)) == []
    ((name, value),) = redrawn_to(before, replace(before, rows={**before.rows, TWO: replace(ROW, cells={})}))
    assert name == "row"
    assert value == {"from": ["10.2.71.0/24", "fd00::/64"], "at": NOW, "why": "", "to": [None, None]}


def test_a_host_that_does_not_tell_says_why_and_nothing_else() -> None:
    _, (_, value) = redrawn_to(Matrix(), Matrix((ONE, TWO), 2, {TWO: Row(why="no answer comes")}))
    assert value == {"from": ["10.2.71.0/24", "fd00::/64"], "at": None, "why": "no answer comes", "to": []}


def test_a_row_that_is_no_longer_known_is_forgotten() -> None:
    before = Matrix((ONE, TWO), 2, {ONE: ROW, TWO: ROW})
    names = [name for name, _ in redrawn_to(before, replace(before, rows={ONE: ROW}))]
    assert names == ["hosts", "row"]


def test_other_hosts_have_all_rows_told_again_in_their_order() -> None:
    before = Matrix((ONE, TWO), 2, {ONE: ROW})
    names = [name for name, _ in redrawn_to(before, replace(before, hosts=(TWO, ONE)))]
    assert names == ["hosts", "row"]
    assert redrawn_to(before, Matrix()) == [("hosts", {"of": 0, "hosts": []})]
