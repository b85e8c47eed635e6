"""Where nobody can listen.  What the kernel tells is in tests/netns."""

from __future__ import annotations

import pytest

from pyflannel.linux.events import KernelEvents


def test_a_namespace_that_is_not_there_is_an_os_error_that_names_it() -> None:
    with pytest.raises(OSError, match="no-such-namespace"):
        KernelEvents("no-such-namespace")


def test_closing_twice_is_fine() -> None:
    events = KernelEvents()
    events.close()
    events.close()
    assert events.fileno() == -1
