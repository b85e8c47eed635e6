"""Why no machine can be had."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path


class Impossible(Exception):
    """There is no machine to run anything on; the message says what to do about it."""


def executed(argv: Sequence[str], place: Path | None = None) -> str:
    """Run a program in ``place`` to its end and return what it printed; ``Impossible`` if it fails."""
    try:
        done = subprocess.run(argv, cwd=place, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Impossible(f"{argv[0]} is not installed here") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise Impossible(f"{' '.join(argv)}: exit status {done.returncode}: {said}")
    return done.stdout
