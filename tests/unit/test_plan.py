"""What a plan is made of; whole plans are seen on a real kernel in tests/netns/test_plan.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from pyflannel.diff import Cut, Put
from pyflannel.footing import Configured
from pyflannel.lease.alloc import OutOfSubnets
from pyflannel.lease.model import Attrs, Lease, Snapshot
from pyflannel.network import Network
from pyflannel.plan import CannotTell, FileChange, LeasePlan, Survey, changes, network_of, plan_lease
from pyflannel.settings import Settings
from pyflannel.state import Mac, State, Sysctl
from pyflannel.store.local import LocalStore
from tests.support.builders import backend, config, subnet, underlay, view, vxlan_lease

OURS = vxlan_lease("10.2.71.0/24", "172.16.41.131")
PEER = vxlan_lease()
STRANGER = Mac.parse("02:00:00:00:00:09")


def leased(*leases: Lease) -> Snapshot:
    return Snapshot(1, leases)


def survey(lease: LeasePlan | None = None) -> Survey:
    network = config()
    return Survey(
        Configured("/net/config in a store", "{}", network, backend(network)),
        underlay(),
        lease or LeasePlan(OURS.subnet),
    )


# The lease.


def test_a_lease_that_says_what_it_should_is_left_alone() -> None:
    assert plan_lease(config(), leased(PEER, OURS), OURS.attrs, None) == (LeasePlan(OURS.subnet), leased(PEER, OURS))


def test_a_lease_that_says_something_else_is_written_anew() -> None:
    now = replace(OURS.attrs, backend_data='{"VNI":1,"VtepMAC":"02:00:00:00:00:aa"}')
    planned, counted = plan_lease(config(), leased(PEER, OURS), now, None)
    assert planned == LeasePlan(OURS.subnet, "write our record of 10.2.71.0/24 anew")
    assert counted == leased(PEER, OURS)


def test_the_subnet_we_had_is_certain_and_one_by_lot_is_an_example_that_stays_the_same() -> None:
    planned, _ = plan_lease(config(), leased(PEER), OURS.attrs, subnet("10.2.71.0/24"))
    assert planned == LeasePlan(OURS.subnet, "take 10.2.71.0/24 is free, and was ours before")
    drawn, _ = plan_lease(config(), leased(PEER), OURS.attrs, None)
    assert drawn.example
    assert drawn.write.startswith(f"take {drawn.subnet} drawn by lot")
    assert plan_lease(config(), leased(PEER), OURS.attrs, None)[0] == drawn


def test_a_lease_of_ours_that_fits_no_longer_is_out_of_the_way_before_another_is_taken() -> None:
    outside = vxlan_lease("10.9.0.0/24", "172.16.41.131")
    planned, counted = plan_lease(config(), leased(PEER, outside), OURS.attrs, None)
    assert planned.write.startswith("give 10.9.0.0/24 back, which does not fit the network configuration; take 10.2.")
    assert planned.example
    assert counted == leased(PEER)


def test_a_full_network_has_no_plan() -> None:
    small = config(network="10.2.0.0/23")
    both = [vxlan_lease(f"10.2.{number}.0/24", f"172.16.41.{number + 1}") for number in range(2)]
    with pytest.raises(OutOfSubnets):
        plan_lease(small, leased(*both), Attrs(IPv4Address("172.16.41.9")), None)


# The kernel.


def network() -> Network:
    made = Network(backend(), view())
    made.fold(leased(OURS, PEER))
    return made


def test_an_empty_kernel_is_to_hold_all_and_a_full_one_needs_nothing() -> None:
    made = network()
    wanted = list(made.items())
    assert [op.item for op in changes(made, State())] == wanted
    assert changes(made, State(wanted)) == ()


def test_what_an_audit_would_cut_is_part_of_the_plan() -> None:
    made, stale = network(), backend().peer_items(view(), vxlan_lease("10.2.99.0/24", "172.16.41.99", STRANGER))
    assert {type(op) for op in changes(made, State([*made.items(), *stale]))} == {Cut}


def test_a_setting_this_kernel_has_not_is_no_change_for_ever() -> None:
    made = network()
    without = [item for item in made.items() if not isinstance(item, Sysctl)]
    assert changes(made, State(without)) == ()
    altered = [replace(item, value="1") if isinstance(item, Sysctl) else item for item in made.items()]
    assert [type(op) for op in changes(made, State(altered))] == [Put]


# The whole.


@pytest.mark.parametrize(
    "change",
    [
        lambda found: replace(found, lease=LeasePlan(OURS.subnet, "take it")),
        lambda found: replace(found, ops=changes(network(), State())),
        lambda found: replace(found, firewall={4: ()}),
        lambda found: replace(found, files=(FileChange("/run/flannel/subnet.env", "", "x"),)),
    ],
    ids=["lease", "kernel", "firewall", "files"],
)
def test_each_kind_of_change_counts_and_warnings_do_not(change: Callable[[Survey], Survey]) -> None:
    found = replace(survey(), ignored=(("10.2.9.0/24", "is nonsense"),), warnings=("mind the gap",))
    assert not found.changes
    assert change(found).changes


# The question to the store.


def ask(path: Path) -> Configured:
    return asyncio.run(network_of(Settings(store=f"local:{path}")))


def configure(path: Path, text: str) -> None:
    async def write() -> None:
        store = LocalStore(path, Settings().etcd_prefix)
        await store.write_config(text)
        await store.close()

    asyncio.run(write())


def test_asking_for_the_network_makes_no_store(tmp_path: Path) -> None:
    with pytest.raises(CannotTell, match=r"no file .*store\.db"):
        ask(tmp_path / "store.db")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["{", '{"Network":"10.2.0.0/16","Backend":{"Type":"ipsec"}}'])
def test_a_configuration_that_cannot_be_used_is_named(text: str, tmp_path: Path) -> None:
    configure(tmp_path / "store.db", text)
    with pytest.raises(CannotTell, match=r"the network configuration at /coreos\.com/network/config in .* cannot be"):
        ask(tmp_path / "store.db")


def test_the_devices_of_the_configured_network_are_known(tmp_path: Path) -> None:
    configure(tmp_path / "store.db", '{"Network":"10.2.0.0/16","Backend":{"Type":"vxlan","VNI":7}}')
    assert ask(tmp_path / "store.db").backend.devices == ("flannel.7",)


def test_a_store_out_of_reach_is_not_waited_for() -> None:
    with pytest.raises(CannotTell, match="http://127"):
        asyncio.run(network_of(Settings(etcd_endpoints=("http://127.0.0.1:1",))))
