from __future__ import annotations

from pyflannel.probes.sight import Reach, Sight


def test_of_a_peer_that_was_never_asked_nothing_is_known() -> None:
    assert Sight() == Sight(Reach.UNKNOWN, "", None, None, None, None)


def test_the_words_are_those_that_status_shows() -> None:
    assert [str(reach) for reach in Reach] == ["unknown", "reachable", "lossy", "unreachable"]
