from __future__ import annotations

import pytest

from pyflannel.tunnel.batch import PYTHON
from tests.support.tunnel_packets import Flow
from tests.support.tunnel_twin import c_twin


def test_the_extension_does_the_same_as_python() -> None:
    compiled = c_twin()
    if compiled is None:
        pytest.skip("neither the extension nor a compiler is there")
    frame = Flow().tcp_super(bytes(range(250)), 100)
    assert compiled.language == "C"
    assert compiled.segment(frame) == PYTHON.segment(frame)
    ((run, size),) = compiled.segment(frame)
    assert compiled.coalesce(run, size) == PYTHON.coalesce(run, size) == [frame]
    assert compiled.checksum(b"abc", 5) == PYTHON.checksum(b"abc", 5)
