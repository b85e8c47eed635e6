from __future__ import annotations

import pytest

from pyflannel.cli.words import plain, span


def test_what_is_not_printable_is_escaped() -> None:
    assert plain("größer\x1b[2J\nrm -rf") == "größer\\x1b[2J\\nrm -rf"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (-3, "0s"), (59.9, "59s"), (61, "1m01s"), (3 * 3600 + 60, "3h01m"), (2 * 86400 + 5 * 3600, "2d05h")],
)
def test_a_stretch_of_time_is_told_in_its_two_largest_units(seconds: float | None, text: str) -> None:
    assert span(seconds) == text
