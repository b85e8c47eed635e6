from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from pyflannel.lease.contest import Claim, Contest, Loss, Outcome, refusal
from pyflannel.lease.model import Attrs, Lease, Subnet
from pyflannel.lease.network import NetworkConfig, parse_network_config

HOST, HOST6 = IPv4Address("172.16.41.131"), IPv6Address("fd00:41::131")


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
    contest.put(lease("10.2.1.0/24", created=1), mac("a"))
    outcome = contest.put(ours, mac("a"))
    assert outcome.won == (ours,)
    assert [loss.reason for loss in outcome.lost] == ["publishes VTEP MAC a, as 10.2.71.0/24, which is ours"]


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


V4 = parse_network_config('{"Network":"10.2.0.0/16","Backend":{"Type":"vxlan"}}')
DUAL = parse_network_config(
    '{"Network":"10.2.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10::/48","Backend":{"Type":"vxlan"}}'
)


@pytest.mark.parametrize(
    ("config", "nets", "attrs"),
    [
        (V4, ["10.2.1.0/24"], Attrs(HOST)),
        (V4, ["10.2.0.0/17"], Attrs(HOST)),
        (V4, ["10.2.1.0/24"], Attrs(IPv4Address("169.254.3.4"))),
        # Hosts may live in a part of the network that no subnet is taken from.
        (V4, ["10.2.1.0/24"], Attrs(IPv4Address("10.2.250.9"))),
        # While IPv6 is switched on or off, host by host, the IPv4 halves are as good as ever.
        (DUAL, ["10.2.1.0/24"], Attrs(HOST)),
        (V4, ["10.2.1.0/24", "fd00:10::/64"], Attrs(HOST)),
        (DUAL, ["10.2.1.0/24", "fd00:10:0:1::/64"], Attrs(HOST, HOST6)),
        (DUAL, ["fd00:10:0:1::/64"], Attrs(None, HOST6)),
    ],
)
def test_a_sound_record_is_not_refused(config: NetworkConfig, nets: list[str], attrs: Attrs) -> None:
    assert refusal(Lease(subnet(*nets), attrs), config) is None


@pytest.mark.parametrize(
    ("config", "nets", "attrs", "reason"),
    [
        (V4, ["10.3.1.0/24"], Attrs(HOST), "lies outside the network 10.2.0.0/16"),
        (V4, ["10.2.0.0/16"], Attrs(HOST), "covers the whole network 10.2.0.0/16"),
        (V4, ["8.0.0.0/6"], Attrs(HOST), "covers the whole network 10.2.0.0/16"),
        (V4, ["fd00:10::/64"], Attrs(HOST, HOST6), "has no address family in common with the network"),
        (V4, ["10.2.1.0/24"], Attrs(None), "publishes no PublicIP"),
        (
            V4,
            ["10.2.1.0/24"],
            Attrs(IPv4Address("127.0.0.1")),
            "publishes PublicIP 127.0.0.1, a loopback address: expected the address of a host",
        ),
        (
            V4,
            ["10.2.1.0/24"],
            Attrs(IPv4Address("224.0.0.1")),
            "publishes PublicIP 224.0.0.1, a multicast address: expected the address of a host",
        ),
        (
            V4,
            ["10.2.1.0/24"],
            Attrs(IPv4Address("255.255.255.255")),
            "publishes PublicIP 255.255.255.255, the broadcast address: expected the address of a host",
        ),
        (
            V4,
            ["10.2.1.0/24"],
            Attrs(IPv4Address("10.2.1.9")),
            "publishes PublicIP 10.2.1.9, which lies in its own subnet: the tunnel would lead into itself",
        ),
        (DUAL, ["10.2.1.0/24", "fd00:11::/64"], Attrs(HOST, HOST6), "lies outside the network fd00:10::/48"),
        (DUAL, ["10.2.1.0/24", "fd00:10:0:1::/64"], Attrs(HOST), "publishes no PublicIPv6"),
        (
            DUAL,
            ["10.2.1.0/24", "fd00:10:0:1::/64"],
            Attrs(HOST, IPv6Address("::1")),
            "publishes PublicIPv6 ::1, a loopback address: expected the address of a host",
        ),
        (
            DUAL,
            ["fd00:10:0:1::/64"],
            Attrs(None, IPv6Address("fe80::1")),
            "publishes PublicIPv6 fe80::1, a link-local address: expected the address of a host",
        ),
    ],
)
def test_a_record_that_can_never_count_is_refused_with_the_reason(
    config: NetworkConfig, nets: list[str], attrs: Attrs, reason: str
) -> None:
    assert refusal(Lease(subnet(*nets), attrs), config) == reason
