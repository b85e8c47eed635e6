"""Who is shown, and what each row says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from pyflannel.probes import rows
from pyflannel.probes.rows import MOST, Cell, How
from pyflannel.probes.sight import OURS_ARRIVE
from pyflannel.telemetry.document import Document, LeasePart, PeerPart
from pyflannel.telemetry.matrix import NOT_ASKED, OTHERWISE, Matrix, hosts, own_row, question, subnet, told
from tests.support import builders
from tests.support.status import NOW, PEER, document

OWN = ("10.2.71.0/24", None)
FAST, FAR = ("10.2.41.0/24", None), ("10.2.9.0/24", None)


def crowd(count: int, troubled: Iterable[int] = (), state: str = "unreachable") -> Document:
    """That of a host with so many peers, in no order, some of them in trouble."""
    bad = set(troubled)
    peers = [
        replace(
            PEER, subnet=f"10.{3 + (number >> 8)}.{number & 255}.0/24", state=state if number in bad else "reachable"
        )
        for number in range(count)
    ]
    return document(peers=[*peers[count // 2 :], *peers[: count // 2]])


def peer(number: int) -> tuple[str | None, str | None]:
    return f"10.{3 + (number >> 8)}.{number & 255}.0/24", None


def test_all_are_shown_in_the_order_of_their_subnets() -> None:
    said = document(peers=[PEER, replace(PEER, subnet="10.2.9.0/24"), replace(PEER, subnet="10.2.100.0/24")])
    assert hosts(said) == (FAR, FAST, OWN, ("10.2.100.0/24", None))


def test_hosts_of_ipv6_alone_follow_those_of_ipv4_and_what_is_no_subnet_comes_last() -> None:
    odd, six = PeerPart("<b>"), PeerPart(None, "fd00:10:2::/64")
    assert hosts(document(peers=[odd, six, PEER])) == (FAST, OWN, (None, "fd00:10:2::/64"), ("<b>", None))


@pytest.mark.parametrize("said", [document(peers=()), replace(document(), lease=LeasePart())])
def test_nobody_is_shown_where_there_are_no_peers_or_no_lease(said: Document) -> None:
    assert hosts(said) == ()


def test_of_very_many_those_in_trouble_are_shown_and_then_the_first() -> None:
    shown = hosts(crowd(1000, [500, 900]))
    assert len(shown) == MOST
    assert shown == (OWN, *map(peer, range(29)), peer(500), peer(900))
    assert {peer(number) for number in range(300, 331)} | {OWN} == set(hosts(crowd(1000, range(300, 600), "lossy")))


def test_who_is_shown_stays_and_gives_way_only_to_one_in_trouble() -> None:
    before = hosts(crowd(1000, [500]))
    assert hosts(crowd(1000), before) == before
    later = hosts(crowd(1000, [700]), before)
    assert set(later) - set(before) == {peer(700)}
    assert set(before) - set(later) == {peer(500)}, "of those that are well the last gives way"
    assert hosts(crowd(1000, range(100)), hosts(crowd(1000, range(50, 100)))) == hosts(crowd(1000, range(50, 100)))


def test_the_place_of_one_that_is_gone_is_taken_by_the_next() -> None:
    before = hosts(crowd(1000, [500]))
    assert hosts(crowd(400), before) == (OWN, *map(peer, range(31)))


def test_our_own_row_is_what_the_status_says() -> None:
    peers = [
        PEER,
        replace(PEER, subnet="10.2.9.0/24", state="unreachable", reason=OURS_ARRIVE, loss=1.0),
        replace(PEER, subnet="10.2.10.0/24", state="failed"),
        replace(PEER, subnet="10.2.11.0/24", state="ignored"),
        replace(PEER, subnet="10.2.12.0/24", state="of a later release"),
        replace(PEER, subnet="10.2.13.0/24", state="lossy", loss=0.2),
    ]
    row = own_row(said := document(peers=peers), hosts(said))
    assert (row.at, row.why) == (None, "")
    assert row.cells[FAST] == Cell(How.REACHED, PEER.rtt, 0.0)
    found = {name: cell.how for (name, _), cell in row.cells.items()}
    assert found == {
        "10.2.9.0/24": How.ARRIVES,
        "10.2.10.0/24": How.LOST,
        "10.2.11.0/24": How.STRANGER,
        "10.2.12.0/24": How.UNKNOWN,
        "10.2.13.0/24": How.LOSSY,
        "10.2.41.0/24": How.REACHED,
        "10.2.71.0/24": How.ITSELF,
    }


def test_an_answer_is_the_row_of_those_who_were_asked_about() -> None:
    shown = (FAR, ("no subnet", None), OWN)
    asked = rows.read_question(question(shown))
    assert asked == (builders.subnet("10.2.9.0/24"), builders.subnet("10.2.71.0/24"))
    row = told(rows.answer([Cell(How.ITSELF), Cell(How.LOST)]), shown, NOW)
    assert (row.cells, row.at, row.why) == ({FAR: Cell(How.ITSELF), OWN: Cell(How.LOST)}, NOW, "")


@pytest.mark.parametrize("raw", [b"", b"x\x9c nonsense", rows.answer([Cell()]), rows.answer([Cell()] * 3)])
def test_who_answers_something_else_does_not_tell(raw: bytes) -> None:
    row = told(raw, (FAR, OWN), NOW)
    assert (row.cells, row.at, row.why) == ({}, None, OTHERWISE)


def test_who_has_no_row_was_not_asked_yet() -> None:
    assert Matrix((OWN, FAR), 2).row(FAR).why == NOT_ASKED


def test_a_host_is_known_by_its_subnets() -> None:
    assert subnet(("10.2.9.0/24", "fd00::/64")) == builders.subnet("10.2.9.0/24", "fd00::/64")
    assert subnet((None, None)) is None
    assert subnet(("10.2.9.1/24", None)) is None
