"""One command run, and what it has to say in the log.

What a command prints is logged, for whoever wrote it needs to see it; the command itself is not, for there may be a
secret in it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

from pyflannel.linux.shell import Outcome

log = logging.getLogger(__name__)

Shell: TypeAlias = Callable[[str, Mapping[str, str], str, float], Awaitable[Outcome]]
"""As ``linux.shell.run_line``."""

MOST_LINES: Final = 20
"""How many lines of one output get into the log."""
LONGEST_LINE: Final = 400
"""Characters of a line that get there."""


def tell(what: str, output: bytes) -> None:
    """Log what a command has printed, each line behind ``what``, within bounds."""
    lines = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
    for line in lines[:MOST_LINES]:
        log.info("%s: %s", what, line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}…")
    if len(lines) > MOST_LINES:
        log.info("%s: and %d more lines", what, len(lines) - MOST_LINES)
