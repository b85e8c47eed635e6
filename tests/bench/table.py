"""Figures as a Markdown table."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from statistics import median


def spread(samples: Sequence[float], digits: int = 3) -> str:
    """The median, with the least and the greatest value beside it."""
    return f"{median(samples):.{digits}f} ({min(samples):.{digits}f}–{max(samples):.{digits}f})"


def show(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table under a heading that says on what it was measured."""
    print(f"\n### {title}\n")
    kernel = platform.release().partition("-")[0]
    print(f"{os.cpu_count()} CPUs, Linux {kernel}, Python {platform.python_version()}\n")
    print(f"| {' | '.join(head)} |")
    print(f"|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(flush=True)
