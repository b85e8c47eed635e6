"""Laws of observe, diff and apply: whatever there is and whatever is wanted, a pass brings it about, once."""

from __future__ import annotations

import errno
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pyflannel.diff import ON_A_DEVICE, Cut, Op, Put, device, diff
from pyflannel.state import ORDER, Identity, Link, Route, State
from tests.support.fake_kernel import failing, no_fault
from tests.support.kernel_plans import FOREIGN, SCOPE, kernel_with, lacking, states, surplus


@given(states(), states())
def test_one_pass_brings_about_what_is_wanted_and_nothing_else(have: State, want: State) -> None:
    kernel = kernel_with(have)
    assert kernel.apply(diff(want, kernel.observe(SCOPE))).failed == ()
    assert lacking(kernel, want) == []
    assert surplus(kernel, want) == set()
    assert set(FOREIGN) <= set(kernel.items)


@given(states(), states())
def test_a_second_pass_finds_nothing_to_do(have: State, want: State) -> None:
    kernel = kernel_with(have)
    kernel.apply(diff(want, kernel.observe(SCOPE)))
    assert diff(want, kernel.observe(SCOPE)) == ()


@given(states(), states(), st.integers(0, 20))
def test_a_pass_cut_anywhere_is_finished_by_the_next(have: State, want: State, done: int) -> None:
    kernel = kernel_with(have)
    kernel.fault = failing(errno.ENOMEM, after=done)
    kernel.apply(diff(want, kernel.observe(SCOPE)))
    kernel.fault = no_fault
    assert kernel.apply(diff(want, kernel.observe(SCOPE))).failed == ()
    assert lacking(kernel, want) == []
    assert surplus(kernel, want) == set()


@given(states(), states(), st.sets(st.integers(0, 20)))
def test_refused_operations_hold_up_no_others_for_longer_than_a_pass(have: State, want: State, bad: set[int]) -> None:
    kernel = kernel_with(have)
    place = iter(range(1000))
    kernel.fault = lambda op: errno.ENOMEM if next(place) in bad else None
    kernel.apply(diff(want, kernel.observe(SCOPE)))
    kernel.fault = no_fault
    kernel.apply(diff(want, kernel.observe(SCOPE)))
    assert diff(want, kernel.observe(SCOPE)) == ()


@given(states(), states())
def test_a_change_and_its_reversal_end_where_they_began(have: State, want: State) -> None:
    kernel = kernel_with(have)
    for goal in (want, have):
        kernel.apply(diff(goal, kernel.observe(SCOPE)))
    assert lacking(kernel, have) == []
    assert surplus(kernel, have) == set()


@given(states(), states())
def test_order_respects_what_things_rely_on(have: State, want: State) -> None:
    ops = diff(want, have)
    puts = [ORDER.index(type(op.item)) for op in ops if isinstance(op, Put)]
    cuts = [ORDER.index(type(op.item)) for op in ops if isinstance(op, Cut)]
    assert puts == sorted(puts)
    assert cuts == sorted(cuts, reverse=True)
    assert [type(op) for op in ops] == [Put] * len(puts) + [Cut] * len(cuts)


@given(states(), states())
def test_no_slot_is_touched_twice(have: State, want: State) -> None:
    keys = [op.item.key for op in diff(want, have)]
    assert len(keys) == len(set(keys))


@given(states(), states())
def test_a_pass_touches_nothing_that_is_as_wanted_on_a_device_that_stays(have: State, want: State) -> None:
    def unharmed(op: Op) -> bool:
        link = have.get((Link, device(op.item)))
        return isinstance(link, Link) and want.get(link.key) == link

    touched = {op.item.key for op in diff(want, have) if unharmed(op) and type(op.item) in ON_A_DEVICE}
    assert not [key for key in touched if want.get(key) == have.get(key)]


@given(states())
def test_a_stray_beside_any_route_is_all_that_goes(want: State) -> None:
    kernel = kernel_with(want)
    routes = [item for item in kernel.observe(SCOPE).values() if isinstance(item, Route)]
    kernel.intrude(*(replace(route, protocol=99) for route in routes))
    ops = diff(want, kernel.observe(SCOPE))
    assert {op.item for op in ops} == {replace(route, protocol=99, stray=True) for route in routes}
    kernel.apply(ops)
    assert diff(want, kernel.observe(SCOPE)) == ()


@given(states(), states(), st.sampled_from(("flannel.1", "flannel-v6.1")))
def test_a_renamed_device_is_brought_back_in_one_pass_and_loses_nothing(have: State, want: State, name: str) -> None:
    kernel = kernel_with(have)
    link = kernel.observe(SCOPE).get((Link, name))
    if not isinstance(link, Link) or link.mac is None:
        return
    scope = replace(SCOPE, identities=(Identity(name, link.spec, link.mac),))
    before = kernel.observe(replace(scope, sysctls=frozenset()))
    kernel.rename_device(name, "somebody0")
    after = kernel.observe(replace(scope, sysctls=frozenset()))
    assert after == {**before, link.key: replace(link, misnamed="somebody0")}
    assert kernel.apply(diff(want, kernel.observe(scope))).failed == ()
    assert lacking(kernel, want) == []
    assert surplus(kernel, want) == set()
