"""What is told of all peers together."""

from __future__ import annotations

from pyflannel.conditions import CUT_OFF, ONE_WAY, PEER_SILENT, PEER_UNREACHABLE, TUNNEL_BLOCKED
from pyflannel.health import Kind
from pyflannel.probes.sight import Reach
from pyflannel.probes.summary import KINDS, NAMED_SILENT, summed_up
from pyflannel.probes.verdict import Verdict
from tests.support.probe_world import subnet


def told(*kinds: Kind, cut_off: bool = False, anybody: bool = True) -> dict[Kind, dict[str, str]]:
    """Of peers of which each is in such a trouble."""
    verdicts = [Verdict(Reach.LOST, "", ((kind, f"trouble {number}"),)) for number, kind in enumerate(kinds)]
    return summed_up(((subnet(number), each) for number, each in enumerate(verdicts)), cut_off, lambda: anybody)


def test_each_peer_in_trouble_is_told_of() -> None:
    found = told(ONE_WAY, TUNNEL_BLOCKED, ONE_WAY)
    assert found[ONE_WAY] == {str(subnet(0)): "trouble 0", str(subnet(2)): "trouble 2"}
    assert found[TUNNEL_BLOCKED] == {str(subnet(1)): "trouble 1"}
    assert found.keys() <= set(KINDS)


def test_of_a_peer_that_is_in_the_same_trouble_in_both_families_it_is_said_once() -> None:
    verdicts = [Verdict(Reach.LOST, "", ((ONE_WAY, text),)) for text in ("in IPv4", "in IPv6")]
    assert summed_up(((subnet(1), each) for each in verdicts), False, lambda: True) == {
        ONE_WAY: {str(subnet(1)): "in IPv4"}
    }


def test_who_is_cut_off_says_that_and_not_who_is_out_of_reach() -> None:
    found = told(PEER_UNREACHABLE, ONE_WAY, PEER_SILENT, cut_off=True)
    assert found.keys() == {CUT_OFF, PEER_SILENT}


def test_a_tunnel_that_is_blocked_to_everybody_is_said_once_and_one_that_is_not_is_not() -> None:
    assert list(told(TUNNEL_BLOCKED, TUNNEL_BLOCKED, anybody=False)[TUNNEL_BLOCKED]) == [""]
    assert len(told(TUNNEL_BLOCKED, TUNNEL_BLOCKED)[TUNNEL_BLOCKED]) == 2
    assert list(told(TUNNEL_BLOCKED, anybody=False)[TUNNEL_BLOCKED]) == [str(subnet(0))]


def test_of_very_many_that_never_answered_some_are_named() -> None:
    assert len(told(*[PEER_SILENT] * NAMED_SILENT)[PEER_SILENT]) == NAMED_SILENT
    (text,) = told(*[PEER_SILENT] * (NAMED_SILENT + 1))[PEER_SILENT].values()
    assert text.startswith(f"more than {NAMED_SILENT} hosts have never answered, among them those of {subnet(0)}")
