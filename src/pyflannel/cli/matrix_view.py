"""How it looks who reaches whom: to people a table of numbers, to programs a document.

A column is as wide as a number, so that thirty of them fit a wide terminal: hosts are numbered, and named at the left.
Reasons and names quote other hosts, so no control character gets through to a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pyflannel.cli.words import plain
from pyflannel.probes.rows import Cell, How
from pyflannel.telemetry.matrix import Matrix, Name

CORNER: Final = "FROM \\ TO (ms)"
LOST: Final = "lost"
_WORDS: Final = {How.LOST: LOST, How.ARRIVES: "arrives", How.STRANGER: "no peer", How.ITSELF: ""}
_UNKNOWN: Final = "?"
_WELL: Final = (How.REACHED, How.ITSELF, How.UNKNOWN, How.STRANGER)


def table(matrix: Matrix) -> tuple[list[str], list[list[str]], dict[str, str]]:
    """Header, rows, and in which style a cell with that text is shown on a terminal."""
    header = [CORNER, *(str(number) for number, _ in enumerate(matrix.hosts, 1))]
    width = len(header[-1])
    rows = [[f"{number:>{width}} {label(host)}", *_texts(matrix, host)] for number, host in enumerate(matrix.hosts, 1)]
    if any(matrix.row(host).why for host in matrix.hosts):
        header.append("")
        for line, host in zip(rows, matrix.hosts, strict=True):
            why = matrix.row(host).why
            line.append(f"does not tell: {plain(why)}" if why else "")
    lossy = {_text(cell): "yellow" for _, _, cell in _cells(matrix) if cell.how is How.LOSSY}
    return header, rows, lossy | {LOST: "bold red", _WORDS[How.ARRIVES]: "yellow", _UNKNOWN: "dim"}


def notes(matrix: Matrix) -> Iterator[str]:
    """What has to be said beside the table."""
    if matrix.of > len(matrix.hosts):
        yield f"{len(matrix.hosts)} of {matrix.of:,} hosts: those in trouble first"
    if any(cell.how is How.ARRIVES for _, _, cell in _cells(matrix)):
        yield "arrives: packets do, and no answer comes back"


def document(matrix: Matrix) -> dict[str, object]:
    """The same for programs; what is not known is null."""
    return {
        "of": matrix.of,
        "hosts": [{"subnet": ipv4, "ipv6_subnet": ipv6} for ipv4, ipv6 in matrix.hosts],
        "rows": [
            {
                "from": {"subnet": host[0], "ipv6_subnet": host[1]},
                "why": matrix.row(host).why,
                "to": None if matrix.row(host).why else [_said(matrix.row(host).cells.get(to)) for to in matrix.hosts],
            }
            for host in matrix.hosts
        ],
    }


def is_well(matrix: Matrix) -> bool:
    """Whether nobody says that anything is wrong."""
    return all(cell.how in _WELL for _, _, cell in _cells(matrix))


def label(host: Name) -> str:
    """A host, by its subnets."""
    return plain(" and ".join(filter(None, host)))


def _cells(matrix: Matrix) -> Iterator[tuple[Name, Name, Cell]]:
    for host in matrix.hosts:
        for to, cell in matrix.row(host).cells.items():
            if to != host:
                yield host, to, cell


def _texts(matrix: Matrix, host: Name) -> list[str]:
    row = matrix.row(host)
    return ["" if row.why or to == host else _text(row.cells.get(to, Cell())) for to in matrix.hosts]


def _text(cell: Cell) -> str:
    if cell.how in _WORDS:
        return _WORDS[cell.how]
    if cell.how is How.UNKNOWN or cell.rtt is None:
        return _UNKNOWN
    took = cell.rtt * 1000
    time = f"{took:.2f}" if took < 1 else f"{took:.1f}" if took < 10 else f"{took:.0f}"
    return f"{time} {cell.loss:.0%}" if cell.loss else time


def _said(cell: Cell | None) -> dict[str, object] | None:
    return None if cell is None else {"state": cell.how, "rtt": cell.rtt, "loss": cell.loss}
