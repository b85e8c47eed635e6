from __future__ import annotations

from pyflannel.tunnel.counters import Counters
from pyflannel.tunnel.packet import Drop


def test_drops_add_up_by_reason() -> None:
    counters = Counters()
    counters.drop(Drop.TTL)
    counters.drop(Drop.TTL, 44)
    counters.drop(Drop.SHORT)
    assert counters == Counters(drops={Drop.TTL: 45, Drop.SHORT: 1})
