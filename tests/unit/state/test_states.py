from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from pyflannel.state import (
    ORDER,
    DuplicateKey,
    Likeness,
    Link,
    Route,
    State,
)
from tests.support.kernel_items import LINK, OURS, WANT, peer

NEIGHBOUR, FDB, ROUTE = peer(2)


def test_a_state_refuses_two_different_items_for_one_slot() -> None:
    rival = replace(FDB, dst=ip_address("192.0.2.9"))
    with pytest.raises(DuplicateKey) as caught:
        State([FDB, rival])
    assert (caught.value.first, caught.value.second) == (FDB, rival)
    assert str(rival) in str(caught.value)


def test_saying_the_same_twice_is_fine() -> None:
    assert State([FDB, FDB]) == State([FDB])


def test_a_state_is_a_mapping_from_slot_to_item() -> None:
    assert WANT[LINK.key] == LINK
    assert list(WANT.values()) == list(OURS)
    assert str(LINK) in repr(WANT)


def test_items_of_a_kind_come_in_the_order_given() -> None:
    assert list(WANT.items_of(Link)) == [item for item in OURS if isinstance(item, Link)]
    assert sum(len(list(WANT.items_of(kind))) for kind in ORDER) == len(OURS)


def test_a_state_over_a_dictionary_follows_it() -> None:
    items = dict(WANT)
    state = State.over(items)
    assert state == WANT
    items.popitem()
    assert len(state) == len(WANT) - 1


def test_items_of_one_kind_come_with_their_keys() -> None:
    for kind in ORDER:
        assert list(WANT.pairs_of(kind)) == [(item.key, item) for item in WANT.items_of(kind)]


def test_a_likeness_is_the_state_it_was_made_of_whatever_was_known() -> None:
    other = replace(ROUTE, metric=5)
    for known in (State(), State([ROUTE]), State([replace(ROUTE, via=None), FDB]), WANT):
        likeness = Likeness([ROUTE, other, NEIGHBOUR], known)
        assert likeness == State([ROUTE, other, NEIGHBOUR])
        assert len(likeness) == len(list(likeness)) == 3
        assert FDB.key not in likeness


def test_a_likeness_holds_the_very_items_that_were_known() -> None:
    assert Likeness([replace(ROUTE)], WANT)[ROUTE.key] is WANT[ROUTE.key]


@pytest.mark.parametrize("known", [State(), State([ROUTE]), State([replace(ROUTE, via=None)])])
@pytest.mark.parametrize("first", [ROUTE, replace(ROUTE, via=None)])
def test_two_items_of_a_likeness_cannot_fill_one_slot(known: State, first: Route) -> None:
    second = replace(ROUTE, via=None) if first is ROUTE else ROUTE
    assert len(Likeness([first, replace(first)], known)) == 1
    with pytest.raises(DuplicateKey):
        Likeness([first, second], known)
