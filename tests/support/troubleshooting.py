"""docs/troubleshooting.md as the catalogue of conditions has it.

    python -m tests.support.troubleshooting

writes it.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from pyflannel.conditions import ALL
from pyflannel.health import Kind, Severity

FILE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
WIDTH = 120
BADNESS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTICE: "notice"}
HEAD = """\
# What can be amiss

Every trouble the agent can notice has a name here. It says so in its log once when the trouble comes, again when it
changes, and of some that they are over; where very many of a kind come at once, a few lines and a number stand for all.
Whatever happens, the kernel keeps what it has: traffic between hosts that were reached goes on.
"""


def render() -> str:
    """The whole file."""
    return "\n".join([HEAD, *map(_section, ALL)])


def _section(kind: Kind) -> str:
    about = [f"*{BADNESS[kind.severity]}*"]
    if kind.blocks_ready:
        about.append("nobody should rely on this host's network meanwhile")
    if kind.hidden_by:
        about.append(f"a consequence of {', '.join(f'`{each.code}`' for each in kind.hidden_by)} where that is there")
    paragraphs = [", ".join(about), kind.means, f"**What to do.** {kind.remedy}"]
    lines = [textwrap.fill(each, WIDTH, break_long_words=False, break_on_hyphens=False) for each in paragraphs]
    return "\n\n".join([f"## {kind.code}", *lines]) + "\n"


if __name__ == "__main__":
    FILE.write_text(render())
