"""Who reaches whom, at a terminal and for programs."""

from __future__ import annotations

import json
from dataclasses import replace

from pyflannel.cli.matrix_view import document, is_well, notes, table
from pyflannel.cli.terminal import aligned
from pyflannel.probes.rows import Cell, How
from pyflannel.telemetry.matrix import Matrix, Name, Row
from tests.support.status import NOW

ONE: Name = ("10.2.9.0/24", None)
TWO: Name = ("10.2.41.0/24", "fd00::/64")
THREE: Name = (None, "fd00:0:0:1::/64")


def cells(*of: Cell) -> Row:
    return Row(dict(zip((ONE, TWO, THREE), of, strict=False)), NOW)


ITSELF, LOST = Cell(How.ITSELF), Cell(How.LOST, 0.1, 1.0)
MATRIX = Matrix(
    (ONE, TWO, THREE),
    3,
    {
        ONE: cells(ITSELF, Cell(How.REACHED, 0.00041, 0.0), Cell(How.LOSSY, 0.0183, 0.23)),
        TWO: cells(LOST, ITSELF, Cell(How.ARRIVES, None, 1.0)),
        THREE: Row(why="no answer\x1b comes"),
    },
)


def test_a_row_says_what_its_host_says_of_each_column() -> None:
    header, rows, _ = table(MATRIX)
    assert aligned(header, rows).splitlines() == [
        "FROM \\ TO (ms)                1     2     3",
        "1 10.2.9.0/24                       0.41  18 23%",
        "2 10.2.41.0/24 and fd00::/64  lost        arrives",
        "3 fd00:0:0:1::/64                                  does not tell: no answer\\x1b comes",
    ]


def test_round_trips_are_short_whatever_they_are() -> None:
    ways = {0.0000004: "0.00", 0.0004: "0.40", 0.00451: "4.5", 0.0183: "18", 4.2: "4200"}
    for rtt, text in ways.items():
        _, rows, _ = table(Matrix((ONE, TWO), 2, {ONE: cells(ITSELF, Cell(How.REACHED, rtt, None))}))
        assert rows[0][2] == text


def test_what_is_not_known_is_said_to_be() -> None:
    row = cells(ITSELF, Cell(How.UNKNOWN, 0.1), Cell(How.REACHED, None))
    _, rows, _ = table(Matrix((ONE, TWO, THREE), 3, {ONE: row, TWO: cells(Cell(How.STRANGER)), THREE: Row(at=NOW)}))
    assert [line[1:] for line in rows] == [["", "?", "?"], ["no peer", "", "?"], ["?", "?", ""]]


def test_trouble_stands_out_on_a_terminal() -> None:
    _, _, styles = table(MATRIX)
    assert (styles["lost"], styles["18 23%"], styles["arrives"]) == ("bold red", "yellow", "yellow")
    assert "0.41" not in styles


def test_no_more_is_said_beside_it_than_there_is_to_say() -> None:
    assert list(notes(MATRIX)) == ["arrives: packets do, and no answer comes back"]
    quiet = Matrix((ONE, TWO), 1001, {ONE: cells(ITSELF, Cell(How.REACHED, 0.001))})
    assert list(notes(quiet)) == ["2 of 1,001 hosts: those in trouble first"]
    assert len(table(Matrix((ONE,), 1, {ONE: cells(ITSELF)}))[0]) == 2


def test_it_is_well_if_nobody_says_otherwise() -> None:
    assert not is_well(MATRIX)
    well = cells(ITSELF, Cell(How.REACHED, 0.001, 0.05), Cell(How.UNKNOWN))
    assert is_well(Matrix(MATRIX.hosts, 3, {ONE: well, TWO: Row(why="no answer comes")}))
    for how in (How.LOST, How.LOSSY, How.ARRIVES):
        assert not is_well(Matrix(MATRIX.hosts, 3, {ONE: replace(well, cells={**well.cells, TWO: Cell(how)})}))


def test_programs_get_the_same_with_null_for_what_is_not_known() -> None:
    said = json.loads(json.dumps(document(MATRIX)))
    assert said["of"] == 3
    assert said["hosts"][1] == {"subnet": "10.2.41.0/24", "ipv6_subnet": "fd00::/64"}
    first, second, third = said["rows"]
    assert first["from"] == said["hosts"][0]
    assert first["to"][1] == {"state": "reachable", "rtt": 0.00041, "loss": 0.0}
    assert second["to"][2] == {"state": "arrives", "rtt": None, "loss": 1.0}
    assert (third["why"], third["to"]) == ("no answer\x1b comes", None)
