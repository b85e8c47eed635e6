"""What several suites of this lane are run with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.kernel_worlds import FakeWorld, World, linux_world


@pytest.fixture(
    params=["fake", pytest.param("linux", marks=pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge"))]
)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A kernel, the one in memory and the one of this machine in turn."""
    if request.param == "fake":
        yield FakeWorld()
    else:
        with linux_world() as made:
            yield made
