from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from pyflannel.lease.model import Attrs, Changes, Event, Lease, Removed, Snapshot, Subnet, Unreadable
from pyflannel.lease.table import Delta, LeaseTable, renew_in

PREFIX = "/coreos.com/network/subnets/"
NOTHING = Delta()


def lease(third: int, ip: str = "172.16.41.131", created: int = 1) -> Lease:
    return Lease(Subnet(IPv4Network(f"10.2.{third}.0/24")), Attrs(IPv4Address(ip)), created=created, modified=created)


A, B, C = lease(1, "172.16.41.131"), lease(2, "172.16.41.132"), lease(3, "172.16.41.133")
A_MOVED = lease(1, "172.16.41.231")


def unreadable(of: Lease, reason: str = "not JSON") -> Unreadable:
    return Unreadable(f"{PREFIX}{of.subnet.ipv4}".replace("/24", "-24"), reason)


def table(*leases: Lease) -> LeaseTable:
    """A table at revision 10."""
    made = LeaseTable()
    made.apply_snapshot(Snapshot(10, leases))
    return made


def after(made: LeaseTable, *events: Event) -> Delta:
    return made.apply(Changes(made.revision + 1, events))


def test_the_first_snapshot_puts_every_lease() -> None:
    made = LeaseTable()
    assert made.apply_snapshot(Snapshot(10, (A, B))) == Delta(put=(A, B))
    assert made.revision == 10
    assert made.leases == {A.subnet: A, B.subnet: B}


def test_an_empty_snapshot_removes_everything() -> None:
    assert table(A, B).apply_snapshot(Snapshot(11)) == Delta(gone=(A, B))


def test_a_snapshot_is_compared_by_full_value() -> None:
    made = table(A, B)
    assert made.apply_snapshot(Snapshot(20, (A_MOVED, C))) == Delta(put=(A_MOVED, C), gone=(B,), was={A.subnet: A})


def test_a_second_equal_snapshot_changes_nothing() -> None:
    made = table(A, B)
    assert made.apply_snapshot(Snapshot(20, (B, A))) == NOTHING
    assert made.revision == 20


def test_a_snapshot_from_a_restored_store_counts_though_its_revision_is_lower() -> None:
    made = table(A, B)
    assert made.apply_snapshot(Snapshot(3, (A,))) == Delta(gone=(B,))
    assert made.revision == 3
    assert made.apply(Changes(4, (C,))) == Delta(put=(C,))


def test_changes_put_replace_and_remove() -> None:
    made = table(A, B)
    assert after(made, A_MOVED, Removed(B.subnet), C) == Delta(put=(A_MOVED, C), gone=(B,), was={A.subnet: A})
    assert made.leases == {A.subnet: A_MOVED, C.subnet: C}


def test_what_comes_and_goes_within_one_batch_is_not_mentioned() -> None:
    made = table(A)
    assert after(made, C, Removed(C.subnet), A_MOVED, A) == NOTHING
    assert made.leases == {A.subnet: A}


def test_removing_what_is_not_there_changes_nothing() -> None:
    assert after(table(A), Removed(B.subnet)) == NOTHING


@pytest.mark.parametrize("revision", [9, 10])
def test_changes_up_to_a_known_revision_are_ignored(revision: int) -> None:
    made = table(A)
    assert made.apply(Changes(revision, (Removed(A.subnet),))) == NOTHING
    assert made.leases == {A.subnet: A}
    assert made.revision == 10


def test_a_sign_of_life_moves_the_revision_on() -> None:
    made = table(A)
    assert made.apply(Changes(15)) == NOTHING
    assert made.revision == 15


def test_a_renewal_is_no_change_but_its_bookkeeping_is_kept() -> None:
    made = table(A)
    assert after(made, replace(A, modified=11, lease_id=77, ttl=86400.0)) == NOTHING
    kept = made.leases[A.subnet]
    assert (kept.modified, kept.lease_id, kept.ttl) == (11, 77, 86400.0)


def test_a_record_created_anew_is_reported_because_it_is_younger_now() -> None:
    made = table(A)
    anew = replace(A, created=11)
    (reported,) = after(made, Removed(A.subnet), anew).put
    assert reported.created == 11


def test_a_record_that_becomes_unreadable_keeps_its_last_good_value() -> None:
    made = table(A, B)
    assert after(made, unreadable(A)) == NOTHING
    assert made.leases == {A.subnet: A, B.subnet: B}
    assert made.unreadable == {unreadable(A).key: "not JSON"}


def test_an_unreadable_record_nobody_knew_is_listed_and_harms_nobody() -> None:
    made = table(A)
    junk = Unreadable(f"{PREFIX}junk", "does not name a subnet")
    assert after(made, junk, unreadable(B)) == NOTHING
    assert made.leases == {A.subnet: A}
    assert set(made.unreadable) == {junk.key, unreadable(B).key}


def test_a_record_unreadable_in_a_snapshot_keeps_its_last_good_value() -> None:
    made = table(A, B)
    assert made.apply_snapshot(Snapshot(20, (B,), (unreadable(A), unreadable(C)))) == NOTHING
    assert made.leases == {A.subnet: A, B.subnet: B}
    assert set(made.unreadable) == {unreadable(A).key, unreadable(C).key}


@pytest.mark.parametrize("events", [(A_MOVED,), (A,), (Removed(A.subnet),)])
def test_a_record_written_anew_or_removed_is_no_longer_unreadable(events: tuple[Event, ...]) -> None:
    made = table(A)
    after(made, unreadable(A))
    after(made, *events)
    assert made.unreadable == {}


def test_an_unreadable_record_that_is_removed_takes_the_last_good_value_along() -> None:
    made = table(A)
    after(made, unreadable(A))
    assert after(made, Removed(A.subnet)) == Delta(gone=(A,))


def test_a_snapshot_forgets_unreadable_records_that_are_gone() -> None:
    made = table(A, B)
    after(made, unreadable(A), Unreadable(f"{PREFIX}junk", "no subnet"))
    assert made.apply_snapshot(Snapshot(20, (B,))) == Delta(gone=(A,))
    assert made.unreadable == {}


def test_what_the_table_shows_cannot_be_written_to() -> None:
    made = table(A)
    with pytest.raises(TypeError):
        made.leases[B.subnet] = B  # type: ignore[index]


@pytest.mark.parametrize(
    ("ttl", "margin", "jitter", "wait"),
    [
        (86400, 3600, 0.0, 28800),
        (86400, 3600, 0.5, 27360),
        (86400, 80000, 0.0, 6400),
        (60, 10, 0.0, 20),
        (60, 3600, 0.0, 6),
        (60, 60, 0.0, 6),
        (0, 3600, 0.0, 0),
        (-5, 3600, 0.5, 0),
    ],
)
def test_renewal_is_due_after_a_third_of_the_ttl_or_a_margin_before_its_end(
    ttl: float, margin: float, jitter: float, wait: float
) -> None:
    assert renew_in(ttl, margin, jitter) == pytest.approx(wait)
