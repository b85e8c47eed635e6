"""History must not matter: what a network wants depends on the leases there are, not on how they came to be."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pyflannel.lease.model import Changes, Lease, Removed, Snapshot, Subnet
from pyflannel.network import Network
from pyflannel.state import Item, Key, Mac, Route, State
from tests.support.builders import OWN_MAC, backend, subnet, view, vxlan_lease

# Few enough that they collide: subnets that contain each other, ours among them, and MACs that are shared.
SUBNETS = ("10.2.1.0/24", "10.2.1.128/25", "10.2.2.0/24", "10.2.0.0/22", "10.2.71.0/24", "192.168.0.0/24")
MACS = (OWN_MAC, Mac(b"\x02\0\0\0\0\x0a"), Mac(b"\x02\0\0\0\0\x0b"), Mac(b"\xff" * 6))


@st.composite
def histories(draw: st.DrawFn) -> list[Lease | Removed]:
    """What happened to a few leases, each write with a revision of its own, as a store hands them out."""
    events: list[Lease | Removed] = []
    created: dict[str, int] = {}
    for revision in range(1, draw(st.integers(1, 15)) + 1):
        net = draw(st.sampled_from(SUBNETS))
        if draw(st.booleans()):
            mac, host = draw(st.sampled_from(MACS)), draw(st.integers(1, 3))
            first = created.setdefault(net, revision)
            events.append(replace(vxlan_lease(net, f"172.16.41.{host}", mac, created=first), modified=revision))
        elif created.pop(net, None) is not None:
            events.append(Removed(subnet(net)))
    return events


def wanted(network: Network) -> dict[Key, Item]:
    return dict(State(network.items()))


def last_words(events: list[Lease | Removed]) -> dict[Subnet, Lease]:
    records: dict[Subnet, Lease] = {}
    for event in events:
        if isinstance(event, Lease):
            records[event.subnet] = event
        else:
            records.pop(event.subnet, None)
    return records


def small_network() -> Network:
    """One that knows nobody, and spreads metrics from three peers on until there is one."""
    return Network(backend(), view(), spread_above=2, spread_below=2)


def apart_from_metrics(items: Iterable[Item]) -> set[Item]:
    return {replace(item, metric=0) if isinstance(item, Route) else item for item in items}


def listed(records: dict[Subnet, Lease], seed: int = 0) -> Network:
    """A network that saw ``records`` in one list, in some order."""
    leases = list(records.values())
    random.Random(seed).shuffle(leases)
    network = small_network()
    network.fold(Snapshot(1000, tuple(leases)))
    return network


@given(histories(), st.integers())
def test_following_events_leads_where_one_list_leads(events: list[Lease | Removed], seed: int) -> None:
    followed = small_network()
    for revision, event in enumerate(events, 1):
        followed.fold(Changes(revision, (event,)))
    fresh = listed(last_words(events), seed)
    assert apart_from_metrics(followed.items()) == apart_from_metrics(fresh.items())
    assert followed.ignored == fresh.ignored
    if followed.view.spread == fresh.view.spread:
        assert wanted(followed) == wanted(fresh)


@given(histories())
def test_metrics_are_spread_above_one_bound_and_plain_below_the_other(events: list[Lease | Removed]) -> None:
    network = small_network()
    for revision, event in enumerate(events, 1):
        before = network.view.spread
        network.fold(Changes(revision, (event,)))
        routes = [item for item in network.items() if isinstance(item, Route)]
        # A record that no backend can use counts all the same: it keeps others out.
        useless = f"address of one host|publishes VTEP MAC {OWN_MAC}, as 10.2.71.0/24, which is ours"
        losers = [reason for reason in network.ignored.values() if not re.search(useless, reason)]
        counting = len(last_words(events[:revision])) - len(losers)
        assert network.view.spread == (counting > 2 if not before else counting >= 2)
        assert all((route.metric > 0) == network.view.spread for route in routes)


@given(histories(), st.integers(0, 15))
def test_how_events_are_bundled_does_not_matter(events: list[Lease | Removed], cut: int) -> None:
    bundled = small_network()
    bundled.fold(Changes(cut + 1, tuple(events[:cut])))
    bundled.fold(Changes(len(events) + 2, tuple(events[cut:])))
    assert apart_from_metrics(bundled.items()) == apart_from_metrics(listed(last_words(events)).items())


@given(histories(), histories())
def test_each_replan_leads_from_what_was_wanted_to_what_is(
    before: list[Lease | Removed], after: list[Lease | Removed]
) -> None:
    network = listed(last_words(before))
    state = wanted(network)
    replan = network.fold(Snapshot(2000, tuple(last_words(after).values())))
    for item in replan.old:
        assert state.pop(item.key) == item
    for item in replan.new:
        assert item.key not in state
        state[item.key] = item
    assert state == wanted(network)


@given(histories())
def test_hearing_the_same_list_again_changes_nothing(events: list[Lease | Removed]) -> None:
    records = last_words(events)
    network = listed(records)
    replan = network.fold(Snapshot(2000, tuple(records.values())))
    assert (replan.old, replan.new, replan.added, replan.removed) == ((), (), (), ())
