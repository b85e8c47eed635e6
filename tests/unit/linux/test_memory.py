"""Seen from another process: the one that runs the tests has a heap of its own history."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
from pathlib import Path
from pyflannel.linux.memory import give_back

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])

# Each too large for Python's own allocator and too small for a mapping of its own; every hundredth stays.
blocks = [bytearray(4096) for _ in range(10_000)]
del blocks[:]
blocks = [bytearray(4096) for _ in range(10_000)]
full = resident()
blocks = blocks[::100]
before = resident()
given = give_back()
print(given, full - before, before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps its memory as it likes")
def test_memory_that_was_freed_goes_back_to_the_host() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    given, kept, returned = done.stdout.split()
    assert given == "True"
    assert int(returned) > int(kept) + 5_000
