"""Prometheus' text format, version 0.0.4: how metrics are written down (docs/adr/0010 says why we do it ourselves).

    # HELP flannel_peers Other hosts, by how it stands with them.
    # TYPE flannel_peers gauge
    flannel_peers{state="reachable"} 12

Rules of this file
  1. It knows the format, and no metric.
  2. What is written is what prometheus-client's parser reads back: a property test says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeAlias

from pyflannel.durations import Durations

TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
PORTION: Final = 500
"""Samples in one piece: about a millisecond's work."""

Number: TypeAlias = int | float
Sample: TypeAlias = tuple[tuple[str, ...], Number]
"""The values of the family's labels, and what was measured."""


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: all samples of one name."""

    name: str
    type: str
    """``gauge``, ``counter`` or ``histogram``."""
    help: str
    """One sentence, for ``# HELP`` and for docs/metrics.md."""
    labels: tuple[str, ...] = ()


def write(family: Family, samples: Iterable[Sample]) -> Iterator[str]:
    """The lines of a gauge or a counter, in pieces."""
    yield _head(family)
    lines = (f"{family.name}{_labels(family.labels, values)} {_number(number)}\n" for values, number in samples)
    while piece := "".join(islice(lines, PORTION)):
        yield piece


def write_durations(family: Family, samples: Iterable[tuple[tuple[str, ...], Durations]]) -> Iterator[str]:
    """The lines of a histogram."""
    yield _head(family)
    for values, durations in samples:
        names = (*family.labels, "le")
        for bound, count in durations.up_to():
            yield f"{family.name}_bucket{_labels(names, (*values, repr(bound)))} {count}\n"
        labels, count = _labels(family.labels, values), durations.count
        yield f"{family.name}_bucket{_labels(names, (*values, '+Inf'))} {count}\n"
        yield f"{family.name}_sum{labels} {_number(durations.total)}\n{family.name}_count{labels} {count}\n"


def _head(family: Family) -> str:
    said = family.help.replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {family.name} {said}\n# TYPE {family.name} {family.type}\n"


def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    if not names:
        return ""
    return "{" + ",".join([f'{name}="{_quoted(value)}"' for name, value in zip(names, values, strict=True)]) + "}"


def _quoted(value: str) -> str:
    return value.translate(_ESCAPES)


def _number(number: Number) -> str:
    return repr(number) if isinstance(number, float) else str(int(number))


_ESCAPES: Final = {ord("\\"): r"\\", ord('"'): r"\"", ord("\n"): r"\n"}
