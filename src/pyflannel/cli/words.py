"""Small pieces of what is printed, for commands that have to be quick: nothing is imported here."""

from __future__ import annotations

from typing import Final

UNSUPPORTED: Final = 3
"""Exit status: the network is configured for a backend that we do not support."""


def plain(text: str) -> str:
    """``text`` in one line, with what is no printable character escaped."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def span(seconds: float | None) -> str:
    """A stretch of time in its two largest units; a dash if nobody told."""
    if seconds is None:
        return "-"
    whole = max(0, int(seconds))
    for unit, smaller, size, part in (("d", "h", 86400, 3600), ("h", "m", 3600, 60), ("m", "s", 60, 1)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // part:02}{smaller}"
    return f"{whole}s"
