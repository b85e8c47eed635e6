from __future__ import annotations

import os

from pyflannel.telemetry.usage import Usage


def test_descriptors_memory_and_time_are_our_own() -> None:
    before = Usage.now()
    with open(os.devnull), open(os.devnull):  # noqa: PTH123
        during = Usage.now()
    assert during.open_fds == before.open_fds + 2
    assert 1 << 20 < during.resident_bytes < 1 << 34
    assert during.cpu_s >= before.cpu_s > 0
