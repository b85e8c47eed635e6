from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network

import pytest

from pyflannel.lease.contest import Claim, Contest, Loss, Outcome
from pyflannel.lease.model import Attrs, Lease, Subnet


def subnet(*nets: str) -> Subnet:
    ipv4 = next((IPv4Network(net) for net in nets if ":" not in net), None)
    ipv6 = next((IPv6Network(net) for net in nets if ":" in net), None)
    return Subnet(ipv4, ipv6)


def lease(*nets: str, created: int = 1, ip: str = "172.16.41.131") -> Lease:
    return Lease(subnet(*nets), Attrs(IPv4Address(ip)), created=created)


def mac(value: str) -> frozenset[Claim]:
    return frozenset({("VTEP MAC", value)})


def subnets(leases: object) -> set[str]:
    assert hasattr(leases, "__iter__")
    return {str(item.subnet) for item in leases}


def test_leases_that_have_nothing_in_common_all_count() -> None:
    contest = Contest()
    one, two = lease("10.2.1.0/24"), lease("10.2.2.0/24")
    assert contest.put(one, mac("a")) == Outcome(won=(one,))
    assert contest.put(two, mac("b")) == Outcome(won=(two,))
    assert list(contest.winners()) == [one, two]
    assert list(contest.losses()) == []


def test_of_two_with_one_claim_the_older_counts() -> None:
    contest = Contest()
    older, younger = lease("10.2.1.0/24", created=5), lease("10.2.2.0/24", created=6)
    contest.put(older, mac("02:00"))
    reason = "publishes VTEP MAC 02:00, as 10.2.1.0/24, which came first"
    assert contest.put(younger, mac("02:00")) == Outcome(lost=(Loss(younger, reason),))
    assert list(contest.losses()) == [Loss(younger, reason)]


def test_an_older_record_that_arrives_later_takes_its_place() -> None:
    contest = Contest()
    older, younger = lease("10.2.1.0/24", created=5), lease("10.2.2.0/24", created=6)
    contest.put(younger, mac("02:00"))
    outcome = contest.put(older, mac("02:00"))
    assert outcome.won == (older,)
    assert [loss.lease for loss in outcome.lost] == [younger]


def test_of_two_created_at_once_the_smaller_key_counts() -> None:
    contest = Contest()
    # As text "10.2.10.0-24" comes before "10.2.9.0-24".
    contest.put(lease("10.2.9.0/24"), mac("a"))
    contest.put(lease("10.2.10.0/24"), mac("a"))
    assert subnets(contest.winners()) == {"10.2.10.0/24"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("10.2.0.0/22",), ("10.2.1.0/24",)),
        (("10.2.1.0/24",), ("10.2.0.0/22",)),
        (("10.2.0.0/16",), ("10.2.1.0/30",)),
        (("10.2.1.0/24",), ("10.2.1.0/24", "fd00::/64")),
        (("10.2.1.0/24", "fd00::/64"), ("10.2.2.0/24", "fd00::/56")),
        (("fd00::/64",), ("10.2.2.0/24", "fd00::/64")),
    ],
)
def test_of_two_that_overlap_in_either_family_the_older_counts(first: tuple[str, ...], second: tuple[str, ...]) -> None:
    contest = Contest()
    older, younger = lease(*first, created=1), lease(*second, created=2)
    contest.put(older)
    (loss,) = contest.put(younger).lost
    assert loss == Loss(younger, f"overlaps {older.subnet}, which came first")


def test_a_wide_lease_is_found_to_overlap_many_small_ones() -> None:
    contest = Contest()
    for third in range(50):
        contest.put(lease(f"10.2.{third}.0/24", created=1))
    contest.put(lease("10.3.0.0/24", created=1))
    assert len(contest.put(lease("10.2.0.0/16", created=0)).lost) == 50
    assert subnets(contest.winners()) == {"10.2.0.0/16", "10.3.0.0/24"}


def test_the_same_number_in_both_families_is_no_overlap() -> None:
    contest = Contest()
    contest.put(lease("0.0.0.0/8", created=1))
    assert contest.put(lease("::/8", created=2)).lost == ()


def test_removing_a_winner_lets_in_whom_it_kept_out() -> None:
    contest = Contest()
    older, younger = lease("10.2.1.0/24", created=5), lease("10.2.2.0/24", created=6)
    contest.put(older, mac("a"))
    contest.put(younger, mac("a"))
    assert contest.remove(older.subnet) == Outcome(won=(younger,), lost=(Loss(older, ""),))
    assert list(contest.losses()) == []


def test_removing_a_loser_or_a_stranger_changes_nothing() -> None:
    contest = Contest()
    older, younger = lease("10.2.1.0/24", created=5), lease("10.2.2.0/24", created=6)
    contest.put(older, mac("a"))
    contest.put(younger, mac("a"))
    assert contest.remove(younger.subnet) == Outcome()
    assert contest.remove(younger.subnet) == Outcome()
    assert list(contest.winners()) == [older]


def test_whoever_is_kept_out_by_a_loser_counts() -> None:
    """Of three in a row, each in conflict with the next, the first and the third count."""
    contest = Contest()
    contest.put(lease("10.2.1.0/24", created=1), mac("a"))
    contest.put(lease("10.2.2.0/24", created=2), mac("a") | mac("b"))
    contest.put(lease("10.2.3.0/24", created=3), mac("b"))
    assert subnets(contest.winners()) == {"10.2.1.0/24", "10.2.3.0/24"}
    outcome = contest.remove(subnet("10.2.1.0/24"))
    assert subnets(outcome.won) == {"10.2.2.0/24"}
    assert {str(loss.lease.subnet): loss.reason for loss in outcome.lost} == {
        "10.2.1.0/24": "",
        "10.2.3.0/24": "publishes VTEP MAC b, as 10.2.2.0/24, which came first",
    }


def test_whoever_was_kept_out_by_one_that_is_pushed_out_counts_now() -> None:
    contest = Contest()
    first, second, third = (lease(f"10.2.{rank}.0/24", created=rank) for rank in (1, 2, 3))
    contest.put(third, mac("b"))
    contest.put(second, mac("a") | mac("b"))
    outcome = contest.put(first, mac("a"))
    assert outcome.won == (first, third)
    assert [loss.lease for loss in outcome.lost] == [second]


def test_a_changed_value_of_a_winner_wins_again() -> None:
    contest = Contest()
    contest.put(lease("10.2.1.0/24"), mac("a"))
    moved = lease("10.2.1.0/24", ip="172.16.41.231")
    assert contest.put(moved, mac("a")) == Outcome(won=(moved,))


def test_an_equal_value_changes_nothing() -> None:
    contest = Contest()
    one = lease("10.2.1.0/24")
    contest.put(one, mac("a"))
    assert contest.put(replace(one, modified=9), mac("a")) == Outcome()


def test_giving_up_a_claim_lets_in_whoever_waits_for_it() -> None:
    contest = Contest()
    older, younger = lease("10.2.1.0/24", created=5), lease("10.2.2.0/24", created=6)
    contest.put(older, mac("a"))
    contest.put(younger, mac("a"))
    assert contest.put(older, mac("b")) == Outcome(won=(younger,))


def test_a_winner_that_takes_on_an_older_ones_claim_no_longer_counts() -> None:
    contest = Contest()
    older, younger = lease("10.2.1.0/24", created=5), lease("10.2.2.0/24", created=6)
    contest.put(older, mac("a"))
    contest.put(younger, mac("b"))
    outcome = contest.put(younger, mac("a"))
    assert outcome.won == ()
    assert [loss.lease for loss in outcome.lost] == [younger]


def test_a_record_created_anew_goes_to_the_end_of_the_queue() -> None:
    contest = Contest()
    first, second = lease("10.2.1.0/24", created=5), lease("10.2.2.0/24", created=6)
    contest.put(first, mac("a"))
    contest.put(second, mac("a"))
    outcome = contest.put(replace(first, created=7), mac("a"))
    assert outcome.won == (second,)
    assert [loss.lease for loss in outcome.lost] == [first]


def test_no_peer_gets_into_our_subnet_even_before_our_lease_is_there() -> None:
    contest = Contest(own=subnet("10.2.71.0/24"))
    intruder = lease("10.2.64.0/20", created=0)
    reason = "overlaps 10.2.71.0/24, which is ours"
    assert contest.put(intruder) == Outcome(lost=(Loss(intruder, reason),))
    assert list(contest.winners()) == []


def test_our_own_lease_goes_before_older_ones() -> None:
    ours = lease("10.2.71.0/24", created=9)
    contest = Contest(own=ours.subnet)
    contest.put(lease("10.2.70.0/23", created=1), mac("a"))
    assert contest.put(ours, mac("a")).won == (ours,)
    assert [loss.reason for loss in contest.losses()] == ["overlaps 10.2.71.0/24, which is ours"]


def test_a_record_under_our_key_turns_our_rank_against_nobody() -> None:
    contest = Contest(own=subnet("10.2.71.0/24"))
    peer = lease("10.2.1.0/24", created=5)
    contest.put(peer, mac("a"))
    forged = lease("10.2.71.0/24", created=9, ip="10.2.1.9")
    assert contest.put(forged, mac("a")) == Outcome(won=(forged,))
    assert set(contest.winners()) == {peer, forged}
    younger = lease("10.2.2.0/24", created=10)
    assert contest.put(younger, mac("b")).won == (younger,)


def test_our_subnet_stays_ours_when_our_record_is_removed() -> None:
    ours = lease("10.2.71.0/24", created=9)
    contest = Contest(own=ours.subnet)
    intruder = lease("10.2.71.0/25", created=1)
    contest.put(ours)
    contest.put(intruder)
    assert contest.remove(ours.subnet) == Outcome(lost=(Loss(ours, ""),))
    assert contest.remove(ours.subnet) == Outcome()
    assert list(contest.losses()) == [Loss(intruder, "overlaps 10.2.71.0/24, which is ours")]
    assert contest.put(ours) == Outcome(won=(ours,))


def test_of_a_host_and_the_subnet_it_lies_in_the_older_counts() -> None:
    contest = Contest()
    older, younger = lease("10.2.1.0/24", created=5, ip="10.2.40.7"), lease("10.2.40.0/25", created=6)
    contest.put(older)
    reason = "covers 10.2.40.7, the address of the host of 10.2.1.0/24, which came first"
    assert contest.put(younger).lost == (Loss(younger, reason),)
    contest.put(replace(older, created=7))
    assert list(contest.winners()) == [younger]
    (loss,) = contest.losses()
    assert loss.reason == "publishes the address 10.2.40.7 of a host, but that lies in 10.2.40.0/25, which came first"


def test_a_host_in_our_own_subnet_does_not_count() -> None:
    contest = Contest(own=subnet("10.2.71.0/24"))
    contest.put(lease("10.2.1.0/24", created=0, ip="10.2.71.255"))
    contest.put(lease("10.2.2.0/24", created=0, ip="10.2.72.0"))
    assert subnets(contest.winners()) == {"10.2.2.0/24"}


def test_several_hosts_at_one_address_are_told_apart() -> None:
    contest = Contest()
    for third in (1, 2, 3):
        contest.put(lease(f"10.2.{third}.0/24", created=third, ip="10.2.40.7"))
    wide = lease("10.2.40.0/24", created=9)
    for third in (2, 1):
        contest.put(wide)
        contest.remove(subnet(f"10.2.{third}.0/24"))
        assert wide not in contest.winners()
    assert contest.remove(subnet("10.2.3.0/24")).won == (wide,)


def test_of_several_hosts_at_one_address_the_first_is_named_whatever_came_first() -> None:
    hosts = [lease(f"10.2.{third}.0/24", created=third, ip="10.2.40.7") for third in (1, 2, 3)]
    for order in (hosts, hosts[::-1]):
        contest = Contest()
        for each in order:
            contest.put(each)
        (loss,) = contest.put(lease("10.2.40.0/24", created=9)).lost
        assert loss.reason == "covers 10.2.40.7, the address of the host of 10.2.1.0/24, which came first"


def test_the_reason_names_a_winner_that_is_better_and_does_not_depend_on_the_order_of_arrival() -> None:
    first, wide, small = (
        lease("10.2.9.0/24", created=1),
        lease("10.2.0.0/20", created=2),
        lease("10.2.1.0/24", created=3),
    )
    for order in ((first, wide, small), (small, wide, first), (wide, small, first)):
        contest = Contest()
        for each in order:
            contest.put(each)
        assert [loss.reason for loss in contest.losses()] == ["overlaps 10.2.9.0/24, which came first"]
