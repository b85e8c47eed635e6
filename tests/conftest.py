"""Skips that are accounted for: what a test needs, and what this run promised to have.  And how long laws are tried.

``HYPOTHESIS_PROFILE=soak`` tries every law twenty times as often, with other examples each time (``make laws``).
"""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

from tests.support.capabilities import missing, promised

# A change is judged by what is in it, so the lane has the same examples every time.  A law that fails once in a
# thousand is for the soak to find, which says how to have it fail again.
settings.register_profile("lane", max_examples=100, deadline=None, derandomize=True, print_blob=True)
settings.register_profile("soak", settings.get_profile("lane"), max_examples=2000, derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "lane"))

# A shell without job control has what it runs in the background ignore this signal, and so would all that we start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose needs are not met; fail it instead if the run promised them."""
    for mark in item.iter_markers("needs"):
        for capability in mark.args:
            reason = missing(capability)
            if reason is None:
                continue
            if capability in promised():
                pytest.fail(f"promised capability {capability!r} is missing: {reason}", pytrace=False)
            pytest.skip(f"needs {capability}: {reason}")
