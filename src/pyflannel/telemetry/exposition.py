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
    line = f"{family.name}{_labels(family.labels)} %s\n"
    lines = (line % (*map(_quoted, values), _number(number)) for values, number in samples)
    while piece := "".join(islice(lines, PORTION)):
        yield piece


def write_durations(family: Family, samples: Iterable[tuple[tuple[str, ...], Durations]]) -> Iterator[str]:
    """The lines of a histogram."""
    yield _head(family)
    bucket = f"{family.name}_bucket{_labels((*family.labels, 'le'))} %s\n"
    labels = _labels(family.labels)
    sums = f"{family.name}_sum{labels} %s\n{family.name}_count{labels} %s\n"
    for values, durations in samples:
        quoted, count = tuple(map(_quoted, values)), durations.count
        for bound, below in durations.up_to():
            yield bucket % (*quoted, repr(bound), below)
        yield bucket % (*quoted, "+Inf", count)
        yield sums % (*quoted, _number(durations.total), *quoted, count)


def _head(family: Family) -> str:
    said = family.help.replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {family.name} {said}\n# TYPE {family.name} {family.type}\n"


def _labels(names: tuple[str, ...]) -> str:
    """Them, with a place for each value."""
    return "{" + ",".join([f'{name}="%s"' for name in names]) + "}" if names else ""


def _quoted(value: str) -> str:
    # There are thousands of them, and hardly ever anything to do.
    return value.translate(_ESCAPES) if '"' in value or "\\" in value or "\n" in value else value


def _number(number: Number) -> str:
    return repr(number) if isinstance(number, float) else str(int(number))


_ESCAPES: Final = {ord("\\"): r"\\", ord('"'): r"\"", ord("\n"): r"\n"}
