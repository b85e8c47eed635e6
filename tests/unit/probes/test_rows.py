"""Rows: what is asked, what is told of whom, and how often."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

import pytest

from pyflannel.lease.model import Subnet
from pyflannel.probes.rows import (
    MOST,
    RATE,
    BadRow,
    Cell,
    How,
    Teller,
    answer,
    is_question,
    question,
    read_answer,
    read_question,
    seen,
)
from pyflannel.probes.sight import OURS_ARRIVE, THEIRS_ARRIVE, Reach, Sight
from pyflannel.probes.wire import LONGEST_BODY
from pyflannel.trace import messages
from tests.support.builders import subnet
from tests.support.probe_world import World, end

HERE, FAST, GONE, STRANGE = (subnet(f"10.2.{third}.0/24") for third in (71, 41, 90, 7))
SIGHTS = {FAST: Sight(Reach.REACHED, "", 0.00041, 0.0), GONE: Sight(Reach.LOST, "does not answer any more", 0.002, 1.0)}


class Agent:
    """One that sees ``SIGHTS``, and what it was asked to look at."""

    def __init__(self) -> None:
        self.now = 100.0
        self.looked: list[Subnet] = []
        self.tell = Teller(lambda: HERE, self.sights, lambda: self.now)

    def sights(self, of: Iterable[Subnet]) -> Mapping[Subnet, Sight]:
        self.looked += of
        return {each: SIGHTS[each] for each in of if each in SIGHTS}


def test_of_each_host_that_is_named_it_is_told_how_it_is_reached() -> None:
    agent = Agent()
    told = read_answer(agent.tell(question([GONE, HERE, FAST, STRANGE])))
    assert told == (
        Cell(How.LOST, 0.002, 1.0),
        Cell(How.ITSELF),
        Cell(How.REACHED, 0.00041, 0.0),
        Cell(How.STRANGER),
    )
    assert agent.looked == [GONE, HERE, FAST, STRANGE]


def test_both_families_of_a_host_are_its_name() -> None:
    both = subnet("10.2.41.0/24", "fd00:10:2::/64")
    only = Subnet(None, both.ipv6)
    assert read_question(question([both, only, FAST])) == (both, only, FAST)


def test_the_largest_question_and_its_answer_fit_an_errand() -> None:
    asked = question([subnet(f"10.2.{third}.0/24", f"fd00:10:2:{third}::/64") for third in range(MOST)])
    assert len(asked) <= LONGEST_BODY
    told = Agent().tell(asked)
    assert len(told) <= LONGEST_BODY
    with pytest.raises(ValueError, match="33 hosts"):
        question([FAST] * (MOST + 1))
    with pytest.raises(ValueError, match="33 hosts"):
        answer([Cell()] * (MOST + 1))


def test_where_packets_arrive_and_answers_do_not_is_told_apart_from_where_nothing_does() -> None:
    assert seen(Reach.LOST, OURS_ARRIVE, None, 1.0).how is How.ARRIVES
    assert seen(Reach.LOST, THEIRS_ARRIVE, None, 1.0).how is How.LOST
    assert seen(Reach.REACHED, OURS_ARRIVE, None, None).how is How.REACHED


def test_a_peer_whose_answers_get_lost_is_in_these_words() -> None:
    world = World(3)
    world.run(10)
    world.answers_lost.add(end(1))
    world.until(lambda: world.sight(1).reach is Reach.LOST, 10)
    assert world.sight(1).reason == OURS_ARRIVE


def test_some_loss_is_never_told_as_none_and_a_long_way_never_as_an_unknown_one() -> None:
    (slow,) = read_answer(answer([Cell(How.LOSSY, 1e9, 0.001)]))
    assert slow.loss == 0.01
    assert slow.rtt is not None
    assert slow.rtt > 4000


def test_too_many_questions_are_not_answered_and_later_ones_are() -> None:
    agent = Agent()
    for _ in range(int(RATE)):
        agent.tell(question([FAST]))
    with pytest.raises(ValueError, match="more than 20"):
        agent.tell(question([FAST]))
    agent.now += 0.1
    assert agent.tell(question([FAST]))


def test_what_is_no_question_costs_nothing_of_what_may_be_answered() -> None:
    agent = Agent()
    for _ in range(100):
        with pytest.raises(BadRow):
            agent.tell(b"\xf2\x01\x01\x05")
    assert agent.tell(question([FAST]))


def test_no_trace_is_taken_for_a_row_and_no_row_for_a_trace() -> None:
    trace = messages.answer(messages.Half((), trouble="the question is not understood"))
    assert is_question(question([]))
    assert not is_question(trace)
    assert not is_question(b"")
    with pytest.raises(BadRow, match="begins with"):
        read_answer(trace)
    with pytest.raises(messages.BadMessage):
        messages.read_question(question([FAST]))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "0 octets"),
        (b"\xf2\x02\x01\x00", "begins with f20201"),
        (answer([]), "begins with f20102"),
        (b"\xf2\x01\x01\x21", "33 hosts"),
        (b"\xf2\x01\x01\x01", "a subnet is missing"),
        (b"\xf2\x01\x01\x01\x00", "families 0"),
        (b"\xf2\x01\x01\x01\x04", "families 4"),
        (b"\xf2\x01\x01\x01\x01\x18\x0a", "not whole"),
        (b"\xf2\x01\x01\x01\x01\x18\x0a\x02\x29\x01", "host bits"),
        (b"\xf2\x01\x01\x01\x01\x21\x0a\x02\x29\x00", "33"),
        (question([FAST]) + b"\0", "1 octets follow"),
    ],
)
def test_what_is_no_question_is_refused_with_the_reason(raw: bytes, reason: str) -> None:
    with pytest.raises(BadRow, match=reason):
        read_question(raw)


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (struct.pack("!BBI", 7, 0, 0), "in the way 7"),
        (struct.pack("!BBI", 1, 101, 0), "101 percent"),
        (b"\1\0\0\0\0", "1 cells in 9"),
        (struct.pack("!BBI", 1, 0, 0) + b"\0", "1 cells in 11"),
    ],
)
def test_what_is_no_answer_is_refused_with_the_reason(cells: bytes, reason: str) -> None:
    with pytest.raises(BadRow, match=reason):
        read_answer(b"\xf2\x01\x02\x01" + cells)
