"""What several files of tests in namespaces have in common."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.explained import Chronicle


@pytest.fixture(scope="module")
def chronicle() -> Iterator[Chronicle]:
    """How long the faults of one file took to be explained: printed at its end."""
    made = Chronicle()
    yield made
    print(f"\n{made.table()}")
