"""How a trace is shown: to people leg by leg, to programs as a JSON document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pyflannel.cli.words import plain
from pyflannel.trace.facts import Mood
from pyflannel.trace.follow import Leg, Trace, Verdict

SIGNS: Final = {Mood.PASS: "ok", Mood.NOTE: "note", Mood.UNSURE: "?", Mood.END: "ENDS"}
COLOURS: Final = {Mood.PASS: "green", Mood.NOTE: "cyan", Mood.UNSURE: "yellow", Mood.END: "red"}
STATUSES: Final = {Verdict.ARRIVES: 0, Verdict.ENDS: 1, Verdict.UNTOLD: 3}
_WIDTH: Final = 13


def lines(trace: Trace) -> Iterator[tuple[str, Mood | None]]:
    """A trace line by line, each with the mood of its hop; titles and the end have none."""
    for leg in trace.legs:
        yield title(leg, trace), None
        for hop in leg.hops:
            yield f"  {SIGNS[hop.mood]:<5} {hop.point:<{_WIDTH}} {plain(hop.text)}".rstrip(), hop.mood
    yield plain(trace.sentence), None
    if trace.remedy:
        yield f"What to do: {plain(trace.remedy)}", None


def title(leg: Leg, trace: Trace) -> str:
    """What a leg is about."""
    flow = trace.flow.answer() if leg.back else trace.flow
    return f"{flow.source} to {flow.destination}, {f'on {plain(leg.host)}' if leg.host else 'on this host'}"


def document(trace: Trace) -> dict[str, object]:
    """A trace for programs."""
    flow = trace.flow
    return {
        "format": 1,
        "source": str(flow.source),
        "destination": str(flow.destination),
        "protocol": flow.protocol,
        "port": flow.port,
        "size": flow.size,
        "verdict": trace.verdict.value,
        "sentence": trace.sentence,
        "remedy": trace.remedy,
        "legs": [
            {
                "host": leg.host or None,
                "back": leg.back,
                "hops": [
                    {"point": hop.point.value, "mood": hop.mood.value, "text": hop.text, "remedy": hop.remedy}
                    for hop in leg.hops
                ],
            }
            for leg in trace.legs
        ],
    }
