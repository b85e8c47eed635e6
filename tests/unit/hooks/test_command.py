from __future__ import annotations

import pytest

from pyflannel.hooks.command import LONGEST_LINE, MOST_LINES, tell


@pytest.fixture(autouse=True)
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level("INFO")
    return caplog


def test_each_line_is_a_line_of_the_log_and_says_of_what(said: pytest.LogCaptureFixture) -> None:
    tell("SubnetAddCommand for 10.2.41.0/24", b"RTNETLINK answers: File exists\n\n  \xff and so on")
    assert said.messages == [
        "SubnetAddCommand for 10.2.41.0/24: RTNETLINK answers: File exists",
        "SubnetAddCommand for 10.2.41.0/24:   \ufffd and so on",
    ]


def test_many_lines_and_long_ones_are_cut_short(said: pytest.LogCaptureFixture) -> None:
    tell("X", b"y" * (LONGEST_LINE + 1) + b"\nz" * (MOST_LINES + 4))
    assert said.messages[0] == f"X: {'y' * LONGEST_LINE}…"
    assert len(said.messages) == MOST_LINES + 1
    assert said.messages[-1] == "X: and 5 more lines"


def test_silence_is_nothing_to_tell(said: pytest.LogCaptureFixture) -> None:
    tell("X", b"")
    assert said.messages == []
