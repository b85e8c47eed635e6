from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflannel.settings import LogFormat, Settings
from pyflannel.telemetry.logs import (
    BacktraceAt,
    JsonFormatter,
    Redactor,
    TextFormatter,
    Verbosity,
    level_of,
    setup,
)

LOG = logging.getLogger("pyflannel.telemetry.test")
KLOG = re.compile(r"[IWEF][01]\d[0-3]\d [012]\d:[0-5]\d:[0-6]\d\.\d{6} [ \d]{6}\d [^ :]+:\d+\] .*")


@pytest.fixture(autouse=True)
def logging_is_left_as_found() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("pyflannel")
    handlers, level = root.handlers[:], ours.level
    yield
    root.handlers = handlers
    ours.setLevel(level)


def record(message: str, *args: object, level: int = logging.INFO, path: str = "/src/vxlan.py") -> logging.LogRecord:
    return logging.LogRecord("pyflannel.x", level, path, 12, message, args, None)


def text(entry: logging.LogRecord, *secrets: str) -> str:
    return TextFormatter(Redactor(secrets)).format(entry)


def fields(entry: logging.LogRecord, *secrets: str) -> dict[str, object]:
    line = JsonFormatter(Redactor(secrets)).format(entry)
    assert "\n" not in line
    parsed = json.loads(line)
    assert isinstance(parsed, dict)
    return parsed


def logged(settings: Settings) -> io.StringIO:
    """Where lines go from now on."""
    stream = io.StringIO()
    setup(settings, stream)
    return stream


def test_a_text_line_has_the_shape_of_klogs() -> None:
    entry = record("Subnet added: %s", "10.2.41.0/24")
    when = datetime.fromtimestamp(entry.created).strftime("%m%d %H:%M:%S.%f")
    assert text(entry) == f"I{when} {os.getpid():7d} vxlan.py:12] Subnet added: 10.2.41.0/24"
    assert KLOG.fullmatch(text(entry))


@pytest.mark.parametrize(
    ("level", "letter"),
    [
        (1, "I"),
        (logging.DEBUG, "I"),
        (logging.INFO, "I"),
        (logging.WARNING, "W"),
        (logging.ERROR, "E"),
        (logging.CRITICAL, "F"),
        (60, "F"),
    ],
)
def test_the_first_letter_tells_the_level(level: int, letter: str) -> None:
    assert text(record("x", level=level))[0] == letter


@given(st.text())
def test_one_event_is_one_line_whatever_others_wrote(foreign: str) -> None:
    assert len(text(record("peer says %s", foreign)).splitlines()) == 1


def test_control_characters_are_escaped_and_other_text_is_not() -> None:
    assert text(record("a\nE0101\x1b[31m\x85 é 网")).endswith(r"] a\nE0101\x1b[31m\x85 é 网")


def failure(message: str) -> logging.LogRecord:
    entry = record("gave up")
    try:
        raise OSError(message)
    except OSError:
        entry.exc_info = sys.exc_info()
    return entry


def test_a_traceback_follows_the_line() -> None:
    first, *rest = text(failure("no route")).splitlines()
    assert first.endswith("gave up")
    assert rest[0] == "Traceback (most recent call last):"
    assert rest[-1] == "OSError: no route"


def test_json_has_the_event_and_its_extra_fields() -> None:
    entry = record("Subnet added: %s", "10.2.41.0/24", level=logging.WARNING)
    entry.subnet, entry.count, entry.line = "10.2.41.0/24", 2, "not ours"
    when = datetime.fromtimestamp(entry.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert fields(entry) == {
        "time": when,
        "level": "warning",
        "file": "vxlan.py",
        "line": 12,
        "message": "Subnet added: 10.2.41.0/24",
        "subnet": "10.2.41.0/24",
        "count": 2,
    }


def test_json_keeps_a_traceback_in_its_one_line() -> None:
    assert str(fields(failure("no route"))["traceback"]).endswith("OSError: no route")


@given(st.text(min_size=4).filter(lambda secret: not set(secret) & set("*\\")))
def test_a_secret_is_replaced_in_message_traceback_and_extra_fields(secret: str) -> None:
    entry = failure(f"refused: {secret}")
    entry.msg, entry.args, entry.detail = "user %s", (secret,), [secret, {"deep": 1}]
    got = fields(entry, secret)
    assert got["message"] == "user ***"
    assert str(got["traceback"]).endswith("refused: ***")
    assert text(entry, secret).splitlines()[0].endswith("] user ***")


def test_a_secret_is_replaced_inside_of_other_values() -> None:
    entry = record("x")
    entry.detail = ["hunter2"]
    assert fields(entry, "hunter2")["detail"] == "['***']"


def test_of_secrets_within_each_other_the_longer_goes_first() -> None:
    assert Redactor(["hunter2", "user:hunter2"])("user:hunter2 hunter2") == "*** ***"


def test_a_secret_too_short_to_be_one_does_not_garble_the_log() -> None:
    assert Redactor(["", "a", "abc"])("abc a") == "abc a"


def test_each_step_of_verbosity_lets_more_through() -> None:
    assert [level_of(v) for v in (-1, 0, 1, 2, 10, 99)] == [logging.INFO, logging.INFO, logging.DEBUG, 9, 1, 1]


@pytest.mark.parametrize(
    ("pattern", "path", "passes"),
    [
        ("vxlan", "/src/backends/vxlan.py", True),
        ("vx*", "/src/backends/vxlan.py", True),
        ("vx", "/src/backends/vxlan.py", False),
        ("src", "/src/backends/vxlan.py", False),
        ("backends/*", "/src/backends/vxlan.py", True),
        ("firewall/*", "/src/backends/vxlan.py", False),
    ],
)
def test_vmodule_names_files(pattern: str, path: str, passes: bool) -> None:
    assert Verbosity(0, [(pattern, 1)]).filter(record("x", level=logging.DEBUG, path=path)) is passes


def test_the_first_pattern_that_fits_counts_and_never_takes_away() -> None:
    detail = record("x", level=level_of(2))
    assert not Verbosity(0, [("vx*", 1), ("vxlan", 2)]).filter(detail)
    assert Verbosity(2, [("vxlan", 0)]).filter(detail)


def test_a_backtrace_is_added_to_the_asked_line_only() -> None:
    entry = record("x")
    assert BacktraceAt("vxlan.py:13").filter(entry)
    assert entry.stack_info is None
    assert BacktraceAt("vxlan.py:12").filter(entry)
    assert "test_a_backtrace_is_added" in text(entry)


def test_details_are_logged_when_asked_for() -> None:
    stream = logged(Settings())
    LOG.debug("detail")
    LOG.info("event")
    assert [line.partition("] ")[2] for line in stream.getvalue().splitlines()] == ["event"]
    stream = logged(Settings(v=1))
    LOG.debug("detail")
    assert stream.getvalue().endswith("] detail\n")


def test_vmodule_is_obeyed_by_a_running_log() -> None:
    stream = logged(Settings(vmodule="test_logs=2,other=3"))
    LOG.log(level_of(2), "two")
    LOG.log(level_of(3), "three")
    assert [line.partition("] ")[2] for line in stream.getvalue().splitlines()] == ["two"]


def test_libraries_speak_from_warnings_on() -> None:
    stream = logged(Settings(v=10))
    logging.getLogger("some.library").info("header: token")
    logging.getLogger("some.library").warning("odd")
    assert [line.partition("] ")[2] for line in stream.getvalue().splitlines()] == ["odd"]


def test_setting_up_again_replaces_the_former() -> None:
    first = logged(Settings())
    second = logged(Settings(log_format=LogFormat.JSON))
    LOG.info("x")
    assert first.getvalue() == ""
    assert json.loads(second.getvalue())["file"] == "test_logs.py"


def test_a_running_log_hides_the_secrets_of_the_settings() -> None:
    stream = logged(Settings(etcd_password="hunter2", etcd_endpoints=("http://user:swordfish@a",)))
    LOG.info("hunter2 at http://user:swordfish@a")
    assert stream.getvalue().endswith("] *** at http://***@a\n")


def test_the_place_asked_for_with_log_backtrace_at_dumps_the_stack() -> None:
    def caller() -> None:
        LOG.info("x")

    stream = logged(Settings(log_backtrace_at=f"test_logs.py:{caller.__code__.co_firstlineno + 1}"))
    caller()
    _, title, *frames = stream.getvalue().splitlines()
    assert title == "Stack (most recent call last):"
    assert frames[-2].endswith("in caller")
