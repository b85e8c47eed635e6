"""How log lines look, and what never gets into one.

Rules of this file
  1. Text lines have the shape of klog's, which is flannel's (compat §9.4), so that what reads one reads the other.
  2. All lines go to stderr: stdout is for results, and systemd and Docker keep stderr.
  3. One event, one line: control characters are escaped, for much of what we log was written by other hosts.
  4. Verbosity is about our own modules.  Libraries speak from warnings on: their details hold headers with tokens.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Final, TextIO

from pyflannel.settings import LogFormat, Settings, secrets
from pyflannel.settings.values import read_vmodule

SHORTEST_SECRET: Final = 4
"""Characters.  Hiding anything shorter would garble every line, and give it away by that."""

_CONTROL: Final = {code: repr(chr(code))[1:-1] for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}
_CONTROL_IN_LINES: Final = _CONTROL | {ord("\n"): "\n"}
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def level_of(verbosity: int) -> int:
    """The lowest level of ``logging`` that ``-v`` lets through: 0 is INFO, 1 DEBUG, and each further one 1 below."""
    return logging.INFO if verbosity <= 0 else max(1, logging.DEBUG + 1 - verbosity)


class Redactor:
    """Replaces secrets by stars: the second line of defence, behind not logging them."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Of ``secrets``, those shorter than ``SHORTEST_SECRET`` are left alone."""
        # The longest first, for one secret may be part of another.
        long_enough = {secret for secret in secrets if len(secret) >= SHORTEST_SECRET}
        self._secrets = sorted(long_enough, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """``text`` without the secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


class TextFormatter(logging.Formatter):
    """``Lmmdd hh:mm:ss.uuuuuu PPPPPPP file.py:line] message`` in local time."""

    def __init__(self, redact: Redactor) -> None:
        """``redact`` goes over all text that others chose."""
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """One line, followed by the lines of a traceback if there is one."""
        time = datetime.fromtimestamp(record.created).strftime("%m%d %H:%M:%S.%f")
        message = self._redact(record.getMessage()).translate(_CONTROL)
        line = f"{_letter(record.levelno)}{time} {record.process:>7} {record.filename}:{record.lineno}] {message}"
        trace = self._redact(_traceback(record)).rstrip().translate(_CONTROL_IN_LINES)
        return f"{line}\n{trace}" if trace else line


def _letter(level: int) -> str:
    for bound, letter in ((logging.CRITICAL, "F"), (logging.ERROR, "E"), (logging.WARNING, "W")):
        if level >= bound:
            return letter
    return "I"


def _traceback(record: logging.LogRecord) -> str:
    parts = list(traceback.format_exception(*record.exc_info)) if record.exc_info else []
    return "".join((*parts, record.stack_info or ""))


class JsonFormatter(logging.Formatter):
    """One object a line: time (RFC 3339, UTC), level, file, line, message, the ``extra`` fields, any traceback."""

    def __init__(self, redact: Redactor) -> None:
        """``redact`` goes over all text that others chose."""
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """One line.  An extra field cannot take the name of one of ours."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        fields: dict[str, object] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "file": record.filename,
            "line": record.lineno,
            "message": record.getMessage(),
        }
        fields = {key: value for key, value in vars(record).items() if key not in _STANDARD} | fields
        if trace := _traceback(record):
            fields["traceback"] = self._redact(trace).rstrip()
        return json.dumps({key: self._plain(value) for key, value in fields.items()}, ensure_ascii=False)

    def _plain(self, value: object) -> object:
        return value if value is None or isinstance(value, int | float) else self._redact(str(value))


class Verbosity(logging.Filter):
    """Lets through what ``-v`` allows, and for files that ``-vmodule`` names what that allows if it is more.

    As in klog the first pattern that fits counts; one with a slash is compared with the end of the path, others with
    the name of the file, both without ``.py``.
    """

    def __init__(self, verbosity: int, vmodule: Sequence[tuple[str, int]]) -> None:
        """``vmodule`` as ``read_vmodule`` returns it."""
        super().__init__()
        self._verbosity, self._vmodule = verbosity, vmodule
        self.lowest: int = level_of(max([verbosity, *(level for _, level in vmodule)]))
        """The lowest level that can pass for any file."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record passes."""
        return record.levelno >= level_of(max(self._verbosity, self._of_file(record)))

    def _of_file(self, record: logging.LogRecord) -> int:
        for pattern, level in self._vmodule:
            name = record.pathname if "/" in pattern else record.filename
            if fnmatchcase(name.removesuffix(".py"), f"*/{pattern}" if "/" in pattern else pattern):
                return level
        return 0


class BacktraceAt(logging.Filter):
    """Adds the stack to what the given ``file:line`` logs, for finding out who calls it."""

    def __init__(self, place: str) -> None:
        """``place`` is ``file.py:line``; anything else is never met."""
        super().__init__()
        self._place = place

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets everything through."""
        if f"{record.filename}:{record.lineno}" == self._place:
            frames = [
                frame for frame in traceback.extract_stack() if frame.filename not in (logging.__file__, __file__)
            ]
            record.stack_info = "Stack (most recent call last):\n" + "".join(traceback.format_list(frames))
        return True


def setup(settings: Settings, stream: TextIO | None = None) -> None:
    """Log as ``settings`` say, to stderr unless told otherwise.  Calling it again replaces what it did before."""
    redact = Redactor(secrets(settings))
    verbosity = Verbosity(settings.v, read_vmodule(settings.vmodule))
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.name = "pyflannel"
    handler.setFormatter(JsonFormatter(redact) if settings.log_format is LogFormat.JSON else TextFormatter(redact))
    handler.addFilter(verbosity)
    if settings.log_backtrace_at:
        handler.addFilter(BacktraceAt(settings.log_backtrace_at))
    root = logging.getLogger()
    root.handlers = [other for other in root.handlers if other.name != handler.name] + [handler]
    logging.getLogger("pyflannel").setLevel(verbosity.lowest)
