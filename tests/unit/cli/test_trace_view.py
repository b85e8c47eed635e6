"""A trace as people and programs read it."""

from __future__ import annotations

from pyflannel.cli.trace_view import STATUSES, document, lines
from pyflannel.trace.facts import Hop, Mood, Point
from pyflannel.trace.follow import Leg, Trace, Verdict
from tests.support.crossings import FLOW, PEER

HOPS = (
    Hop(Point.SOURCE, Mood.PASS, "10.2.71.2 is a container on docker0"),
    Hop(Point.FIREWALL, Mood.NOTE, "POSTROUTING gives it another address"),
)
END = Hop(Point.FIREWALL, Mood.END, "FORWARD drops \x1b[2J it", "let it pass")
SENTENCE = f"It arrives, but the answer ends on {PEER}, at firewall: FORWARD drops it."
TRACE = Trace(FLOW, Verdict.ENDS, SENTENCE, "let it pass", (Leg("", False, HOPS), Leg(str(PEER), True, (END,))))


def test_a_trace_reads_leg_by_leg_and_ends_with_what_to_do() -> None:
    assert [line for line, _ in lines(TRACE)] == [
        "10.2.71.2 to 10.2.41.2, on this host",
        "  ok    source        10.2.71.2 is a container on docker0",
        "  note  firewall      POSTROUTING gives it another address",
        "10.2.41.2 to 10.2.71.2, on 172.16.41.132",
        r"  ENDS  firewall      FORWARD drops \x1b[2J it",
        SENTENCE,
        "What to do: let it pass",
    ]


def test_where_nothing_is_to_be_done_nothing_is_said_of_it() -> None:
    arrived = Trace(FLOW, Verdict.ARRIVES, "It arrives, and so does the answer.", "", ())
    assert [line for line, _ in lines(arrived)] == ["It arrives, and so does the answer."]


def test_programs_get_every_hop() -> None:
    found = document(TRACE)
    assert (found["verdict"], found["source"], found["port"]) == ("ends", "10.2.71.2", None)
    legs = found["legs"]
    assert isinstance(legs, list)
    assert legs[1] == {
        "host": "172.16.41.132",
        "back": True,
        "hops": [{"point": "firewall", "mood": "ends", "text": END.text, "remedy": "let it pass"}],
    }
    assert legs[0]["host"] is None


def test_each_verdict_has_a_status_of_its_own() -> None:
    assert STATUSES == {Verdict.ARRIVES: 0, Verdict.ENDS: 1, Verdict.UNTOLD: 3}
