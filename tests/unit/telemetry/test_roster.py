from __future__ import annotations

from pyflannel.network import Replan
from pyflannel.telemetry.roster import Roster
from tests.support.builders import vxlan_lease


def test_a_peer_is_known_since_it_came_or_last_said_something_else_and_no_more_once_it_is_gone() -> None:
    now = 10.0
    roster = Roster(lambda: now)
    one, other = vxlan_lease("10.2.41.0/24"), vxlan_lease("10.2.42.0/24")
    roster.learn(Replan(added=(one, other)))
    now = 20.0
    roster.learn(Replan(added=(other,)))
    assert roster.changed == {one.subnet: 10.0, other.subnet: 20.0}
    roster.learn(Replan(removed=(one,)))
    assert list(roster.changed) == [other.subnet]
