from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from pyflannel.linux.netns import inside
from tests.support.namespaces import Namespace


def here() -> int:
    """Which namespace this thread is in."""
    return Path("/proc/thread-self/ns/net").stat().st_ino


def test_no_namespace_means_this_one_and_this_thread() -> None:
    assert inside(None, threading.get_ident) == threading.get_ident()


@pytest.mark.needs("root", "netns")
def test_a_namespace_goes_by_name_path_or_descriptor() -> None:
    with Namespace("netns") as space:
        there = space.path.stat().st_ino
        descriptor = os.open(space.path, os.O_RDONLY)
        try:
            assert [inside(way, here) for way in (space.name, str(space.path), descriptor)] == [there] * 3
        finally:
            os.close(descriptor)


@pytest.mark.needs("root", "netns")
def test_the_caller_stays_where_it_is() -> None:
    before = here()
    with Namespace("netns") as space:
        assert inside(space.name, here) != before
        assert here() == before


@pytest.mark.needs("root", "netns")
def test_what_goes_wrong_there_is_raised_here() -> None:
    def fail() -> None:
        raise LookupError("there")

    with Namespace("netns") as space, pytest.raises(LookupError, match="there"):
        inside(space.name, fail)


def test_a_namespace_that_is_not_there_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="pfl-no-such"):
        inside("pfl-no-such", here)


def test_something_that_is_no_namespace_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "plain"
    file.touch()
    with pytest.raises(OSError, match="entering network namespace"):
        inside(str(file), here)
