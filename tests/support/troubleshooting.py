"""docs/troubleshooting.md as the catalogue of conditions and the doctor's checks have it.

    python -m tests.support.troubleshooting

writes it.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from pyflannel.conditions import ALL
from pyflannel.doctor.checks import CHECKS
from pyflannel.doctor.findings import Check
from pyflannel.health import Kind, Severity

FILE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
WIDTH = 120
BADNESS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTICE: "notice"}
HEAD = """\
# What can be amiss

Begin with `flannelctl doctor`: it looks at the whole host, says what is wrong and how it knows, and what to do. This
page has all that it can say, so that a name found in a log can be looked up.

Whatever happens, the kernel keeps what it has: traffic between hosts that were reached goes on.
"""
NOTICED = """\
## What the agent notices

Every trouble the agent can notice has a name here. It says so in its log once when the trouble comes, again when it
changes, and of some that they are over; where very many of a kind come at once, a few lines and a number stand for all.
`flannelctl status` shows those that are there now, and `flannelctl doctor` those of them that are more than a notice.
"""
FOUND = """\
## What the doctor finds

These are looked for when `flannelctl doctor` is run, whether an agent runs or not, in what the kernel, the firewall,
Docker and the store say. What could not be looked at is no finding, and a host where all is well hears of nothing. With
`--fix` it offers to run the commands that it shows under some of them, and asks before each.
"""


def render() -> str:
    """The whole file."""
    return "\n".join([HEAD, NOTICED, *map(_condition, ALL), FOUND, *map(_check, CHECKS)])


def _condition(kind: Kind) -> str:
    about = [f"*{BADNESS[kind.severity]}*"]
    if kind.blocks_ready:
        about.append("nobody should rely on this host's network meanwhile")
    if kind.hidden_by:
        about.append(f"a consequence of {', '.join(f'`{each.code}`' for each in kind.hidden_by)} where that is there")
    return _section(kind.code, ", ".join(about), kind.means, kind.remedy)


def _check(check: Check) -> str:
    return _section(check.code, f"*{BADNESS[check.severity]}*: {check.title}", check.means, check.remedy)


def _section(code: str, about: str, means: str, remedy: str) -> str:
    paragraphs = [about, means, f"**What to do.** {remedy}"]
    lines = [textwrap.fill(each, WIDTH, break_long_words=False, break_on_hyphens=False) for each in paragraphs]
    return "\n\n".join([f"### {code}", *lines]) + "\n"


if __name__ == "__main__":
    FILE.write_text(render())
