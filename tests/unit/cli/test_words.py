from __future__ import annotations

import pytest

from pyflannel.cli.words import plain, span


def test_what_is_not_printable_is_escaped() -> None:
    assert plain("größer\x1b[2J\nrm -rf") == "größer\\x1b[2J\\nrm -rf"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((None, "-"), (-3, "0s"), (59.9, "59s"), (60, "1m00s"), (61, "1m01s"), (3599, "59m59s"), (3660, "1h01m")),
        *((86_399, "23h59m"), (86_400, "1d00h"), (190_800, "2d05h"), (90_000_000, "1041d16h")),
    ],
)
def test_a_stretch_of_time_is_told_in_its_two_largest_units(seconds: float | None, text: str) -> None:
    assert span(seconds) == text
