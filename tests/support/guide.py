"""The README as a list of commands, for tests that follow it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PROMPT = re.compile(r"^(\$|#|[a-z0-9]+#) (.*)$")


@dataclass
class Command:
    """One command, and what the README says it prints."""

    section: str
    where: str
    """The prompt: ``host1#``, ``hosts#``, ``#`` for root on any machine, ``$`` for anybody in a checkout."""
    text: str
    output: list[str] = field(default_factory=list)


def commands(readme: str = "README.md") -> list[Command]:
    """Every command of every ``console`` block, in order."""
    return list(_commands((ROOT / readme).read_text()))


def _commands(text: str) -> Iterator[Command]:
    section, inside = "", False
    command: Command | None = None
    for line in text.splitlines():
        if line.startswith("```"):
            inside = line == "```console"
            if command is not None:
                yield command
            command = None
        elif not inside:
            section = line.lstrip("# ") if line.startswith("#") else section
        elif prompt := _PROMPT.match(line):
            if command is not None:
                yield command
            command = Command(section, prompt[1], prompt[2])
        else:
            assert command is not None, f"output before any command: {line}"
            command.output.append(line)
