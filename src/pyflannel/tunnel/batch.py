"""The three functions that touch every octet, in Python or in C.

The C extension gives the same octets (tests/property/test_tunnel.py holds both to it), several times quicker.  Wheels
without it, for machines without a compiler, work with the Python functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pyflannel.tunnel.checksums import checksum
from pyflannel.tunnel.packet import Buffer
from pyflannel.tunnel.runs import coalesce
from pyflannel.tunnel.segments import Run, segment


class Batch(NamedTuple):
    """One of the twins."""

    language: str
    checksum: Callable[[Buffer, int], int]
    """As ``checksums.checksum``."""
    segment: Callable[[Buffer], list[Run]]
    """As ``segments.segment``."""
    coalesce: Callable[[Buffer, int], list[bytearray]]
    """As ``runs.coalesce``."""


PYTHON = Batch("Python", checksum, segment, coalesce)


def compiled() -> Batch | None:
    """The C twin; None if the extension is not there."""
    try:
        from pyflannel.tunnel import _fast
    except ImportError:
        return None
    return Batch("C", _fast.checksum, _fast.segment, _fast.coalesce)
