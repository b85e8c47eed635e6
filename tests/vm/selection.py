"""What of the tests is run on the stock kernel: a plugin of pytest that leaves the rest out.

Whatever needs something that other kernels may lack (``ELSEWHERE``) is picked up by itself, wherever it is.  Beside it
runs a choice of what passes everywhere (``ALSO``), so that agent and netlink are seen at work on two kernels.  It is no
more than a choice, as every start of an agent takes some five seconds there.

All that takes a quarter of an hour.  With PYFLANNEL_VM_BRIEF set, as in ``make test``, it is ``BRIEF`` alone: of each
data path that it carries packets, that it heals, and that the kernel takes and tells what we write.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import pytest

ELSEWHERE = frozenset(("ipip", "wireguard", "netem", "dummy", "flowtable"))
_UNDONE = "tests/netns/test_healing.py::test_what_somebody_did_is_undone"
_CONTRACT = "tests/contract/test_kernel.py::test"
ALSO = (
    "tests/netns/test_agent.py::test_a_start_programs_the_device_and_says_what_docker_needs",
    f"{_UNDONE}[device-deleted]",
    f"{_UNDONE}[device-renamed]",
    f"{_UNDONE}[addresses-flushed]",
    f"{_UNDONE}[all-routes-deleted]",
    f"{_UNDONE}[route-appended-to]",
    f"{_UNDONE}[neighbours-flushed]",
    f"{_UNDONE}[FDB-entry-altered]",
    f"{_UNDONE}[our-chain-deleted]",
    "tests/netns/test_hostgw.py::test_hosts_are_gateways_to_each_others_containers",
    "tests/netns/test_hostgw.py::test_what_somebody_does_to_a_route_is_undone[deleted]",
    "tests/netns/test_zero_loss.py::test_a_violent_end_and_a_new_start_lose_nothing",
    f"{_CONTRACT}_what_was_put_is_what_is_observed[linux]",
    f"{_CONTRACT}_nothing_foreign_is_touched_from_the_first_put_to_the_last_cut[linux]",
    f"{_CONTRACT}_routes_move_to_another_metric_and_back_and_are_never_missing[linux]",
    f"{_CONTRACT}_a_renamed_device_is_changed_and_named_at_once[linux]",
    f"{_CONTRACT}_a_second_device_with_the_same_vni_is_refused[linux]",
)
"""Names of tests, each standing for all its parameters, or one set of them."""
_PEERS = "tests/contract/test_wireguard_peers.py::test"
BRIEF = (
    "tests/netns/test_stock_kernel.py::test_a_dummy_swallows_what_it_is_sent",
    "tests/netns/test_stock_kernel.py::test_netem_delays_and_loses",
    "tests/netns/test_lossy_underlay.py::test_hosts_get_their_leases_and_containers_reach_each_other",
    "tests/netns/test_ipip.py::test_hosts_reach_each_others_containers_through_one_route_each",
    "tests/netns/test_ipip.py::test_what_somebody_does_is_undone[deleted]",
    "tests/netns/test_ipip.py::test_what_somebody_does_is_undone[route led elsewhere]",
    "tests/contract/test_ipip_devices.py::test_what_was_put_is_what_is_observed_and_nothing_foreign_is_touched[linux]",
    "tests/netns/test_wireguard.py::test_two_hosts_know_each_other_by_key_and_carry_traffic_both_ways[kernel]",
    "tests/netns/test_wireguard.py::test_what_somebody_does_to_it_is_undone[kernel-device deleted]",
    "tests/netns/test_wireguard.py::test_what_somebody_does_to_it_is_undone[kernel-peer removed]",
    f"{_PEERS}_what_was_put_is_what_is_observed[kernel]",
    f"{_PEERS}_a_peer_that_comes_with_a_new_key_takes_over[kernel]",
    f"{_CONTRACT}_what_was_put_is_what_is_observed[linux]",
)
"""Likewise."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep what runs on the stock kernel."""
    brief = bool(os.environ.get("PYFLANNEL_VM_BRIEF"))
    names = BRIEF if brief else ALSO
    stale = [name for name in names if not any(_is(item.nodeid, name) for item in items)]
    if stale:
        raise pytest.UsageError(f"no such tests any more: {', '.join(stale)} (see {__name__})")
    chosen = [
        item
        for item in items
        if any(_is(item.nodeid, name) for name in names) or (needs(item) & ELSEWHERE and not brief)
    ]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


def needs(item: pytest.Item) -> frozenset[str]:
    """The capabilities without which a test is skipped."""
    marks: Iterable[pytest.Mark] = item.iter_markers("needs")
    return frozenset(capability for mark in marks for capability in mark.args)


def _is(nodeid: str, name: str) -> bool:
    return nodeid == name or nodeid.startswith(f"{name}[")
