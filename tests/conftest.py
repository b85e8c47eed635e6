"""Skips that are accounted for: what a test needs, and what this run promised to have."""

from __future__ import annotations

import pytest

from tests.support.capabilities import missing, promised


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
