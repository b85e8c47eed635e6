"""Giving memory back to the host.

The C library keeps what is freed between two blocks still in use, as if it would be wanted again.  After a list of
thousands of leases it will not be, until the next list: of 10,000 it keeps 3 MB.
"""

from __future__ import annotations

import ctypes


def give_back() -> bool:
    """Return freed memory to the kernel (malloc_trim(3)); whether there was some.  Takes a few milliseconds.

    A C library that knows no such call, as musl, is left alone.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim is not None and bool(trim(0))
