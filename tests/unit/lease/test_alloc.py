"""The steps of compat §3.5, and the scenarios of §10.4."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from random import Random

import pytest

from pyflannel.lease.alloc import CANDIDATES, OutOfSubnets, Replace, Reuse, Take, choose, own_lease, rival
from pyflannel.lease.model import Attrs, Lease, Subnet, Unreadable
from pyflannel.lease.network import NetworkConfig, parse_network_config

US, US6 = IPv4Address("1.2.3.4"), IPv6Address("fd00:41::4")
OTHER = IPv4Address("1.1.1.1")


def network(members: str) -> NetworkConfig:
    return parse_network_config(f'{{{members},"Backend":{{"Type":"vxlan"}}}}')


V4 = network('"Network":"10.3.0.0/16","SubnetMin":"10.3.1.0","SubnetMax":"10.3.25.0"')
DUAL = network('"Network":"10.3.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:3::/48"')
V6 = network('"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:3::/48"')


def subnet(*nets: str) -> Subnet:
    ipv4 = next((IPv4Network(net) for net in nets if ":" not in net), None)
    ipv6 = next((IPv6Network(net) for net in nets if ":" in net), None)
    return Subnet(ipv4, ipv6)


def lease(*nets: str, ip: IPv4Address | None = OTHER, ip6: IPv6Address | None = None) -> Lease:
    return Lease(subnet(*nets), Attrs(ip, ip6))


EXISTING = [lease(f"10.3.{third}.0/24") for third in (1, 2, 4, 5, 31)]


def pick(
    config: NetworkConfig = V4,
    leases: list[Lease] | None = None,
    previous: Subnet | None = None,
    seed: int = 1,
    unreadable: tuple[Unreadable, ...] = (),
) -> Reuse | Replace | Take:
    held = EXISTING if leases is None else leases
    return choose(config, held, US, US6, previous, Random(seed), unreadable=unreadable)


def taken(choice: Reuse | Replace | Take) -> Subnet:
    assert isinstance(choice, Take)
    return choice.subnet


def test_the_first_acquire_takes_a_free_subnet_in_range() -> None:
    free = {f"10.3.{third}.0/24" for third in range(1, 26)} - {
        "10.3.1.0/24",
        "10.3.2.0/24",
        "10.3.4.0/24",
        "10.3.5.0/24",
    }
    assert {str(taken(pick(seed=seed))) for seed in range(300)} == free


def test_the_second_acquire_finds_the_lease_of_the_first() -> None:
    ours = lease("10.3.9.0/24", ip=US)
    assert pick(leases=[*EXISTING, ours]) == Reuse(ours)


def test_of_two_leases_of_ours_the_first_listed_is_meant() -> None:
    one, two = lease("10.3.9.0/24", ip=US), lease("10.3.8.0/24", ip=US)
    assert pick(leases=[one, two]) == Reuse(one)


@pytest.mark.parametrize(
    ("config", "nets"),
    [
        (V4, ["10.4.1.0/24"]),
        (V4, ["10.3.26.0/24"]),
        (V4, ["10.3.9.0/25"]),
        (V4, ["10.3.9.0/24", "fd00:3:0:1::/64"]),
        (V4, ["fd00:3:0:1::/64"]),
        (DUAL, ["10.3.9.0/24"]),
        (DUAL, ["10.3.9.0/24", "fd00:4:0:1::/64"]),
        (DUAL, ["10.3.9.0/24", "fd00:3:0:1::/65"]),
    ],
)
def test_a_lease_of_ours_that_no_longer_fits_is_to_be_replaced(config: NetworkConfig, nets: list[str]) -> None:
    ours = lease(*nets, ip=US)
    assert pick(config, [ours]) == Replace(ours)


def test_a_dual_lease_that_fits_is_reused() -> None:
    ours = lease("10.3.9.0/24", "fd00:3:0:1::/64", ip=US)
    assert pick(DUAL, [ours]) == Reuse(ours)


def test_the_previous_subnet_is_taken_again() -> None:
    assert taken(pick(previous=subnet("10.3.6.0/24"))) == subnet("10.3.6.0/24")


@pytest.mark.parametrize("previous", ["10.4.1.0/24", "10.3.26.0/24", "10.3.0.0/24", "10.3.6.0/25", "10.3.2.0/24"])
def test_a_previous_subnet_that_does_not_fit_or_is_leased_is_not(previous: str) -> None:
    got = taken(pick(previous=subnet(previous)))
    assert got != subnet(previous)
    assert not any(got.overlaps(item.subnet) for item in EXISTING)


def test_a_previous_subnet_that_a_lease_of_another_length_overlaps_is_not_taken() -> None:
    assert taken(pick(leases=[lease("10.3.6.64/26")], previous=subnet("10.3.6.0/24"))) != subnet("10.3.6.0/24")


def test_a_host_keeps_its_ipv4_subnet_when_ipv6_is_switched_on() -> None:
    got = taken(pick(DUAL, previous=subnet("10.3.6.0/24")))
    assert got.ipv4 == IPv4Network("10.3.6.0/24")
    assert got.ipv6 is not None
    assert got.ipv6.subnet_of(IPv6Network("fd00:3::/48"))


def test_after_a_change_of_the_network_the_new_range_is_used() -> None:
    ours = lease("10.3.9.0/24", ip=US)
    changed = network('"Network":"10.4.0.0/16"')
    assert pick(changed, [ours]) == Replace(ours)
    got = taken(pick(changed, [], previous=ours.subnet))
    assert got.ipv4 is not None
    assert got.ipv4.subnet_of(IPv4Network("10.4.0.0/16"))


def test_ipv4_leases_without_an_ipv6_half_are_in_nobodys_way_in_ipv6() -> None:
    got = taken(pick(DUAL, EXISTING))
    assert got.ipv4 is not None
    assert got.ipv6 is not None


def test_ipv6_halves_are_respected() -> None:
    small = network('"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:3::/48","IPv6SubnetMax":"fd00:3:0:2::"')
    held = [lease("10.3.9.0/24", "fd00:3:0:1::/64")]
    assert taken(pick(small, held)) == subnet("fd00:3:0:2::/64")


def test_in_a_network_without_ipv4_a_lease_is_known_by_its_ipv6_address() -> None:
    ours = lease("fd00:3:0:1::/64", ip=None, ip6=US6)
    assert pick(V6, [lease("fd00:3:0:2::/64", ip=US), ours]) == Reuse(ours)


def test_hosts_without_an_address_do_not_share_a_lease() -> None:
    nobody = lease("10.3.9.0/24", ip=None)
    assert isinstance(choose(V4, [nobody], None, None, None, Random(1)), Take)
    nobody6 = lease("fd00:3:0:1::/64", ip=None)
    assert isinstance(choose(V6, [nobody6], None, None, None, Random(1)), Take)


@pytest.mark.parametrize("everything", ["0.0.0.0/1", "10.3.0.0/16", "10.0.0.0/8"])
def test_a_record_that_covers_the_whole_network_keeps_nobody_out(everything: str) -> None:
    assert isinstance(pick(leases=[lease(everything)]), Take)


def test_no_subnet_around_the_address_of_a_host_is_taken() -> None:
    inside = [lease(f"10.3.{third}.0/24", ip=IPv4Address(f"10.3.{third + 1}.9")) for third in range(1, 24, 2)]
    free = {str(taken(pick(leases=inside, seed=seed))) for seed in range(100)}
    assert free == {"10.3.25.0/24"}
    assert str(taken(pick(leases=inside, previous=subnet("10.3.2.0/24")))) == "10.3.25.0/24"


def test_a_full_range_is_an_error_that_names_it() -> None:
    full = [lease(f"10.3.{third}.0/24") for third in range(1, 26)]
    with pytest.raises(OutOfSubnets) as caught:
        pick(leases=full)
    assert str(caught.value) == (
        "out of subnets: none of the 25 subnets of length /24 from 10.3.1.0 to 10.3.25.0 is free; "
        "the store has 25 records"
    )


def test_one_wide_lease_can_fill_the_range() -> None:
    with pytest.raises(OutOfSubnets):
        pick(leases=[lease("10.3.0.0/17")])


def test_the_lot_is_drawn_among_the_first_hundred_free_ones() -> None:
    wide = network('"Network":"10.0.0.0/8"')
    held = [lease(f"10.0.{third}.0/24") for third in range(1, 11)]
    got = {str(taken(pick(wide, held, seed=seed))) for seed in range(2000)}
    assert got == {f"10.0.{third}.0/24" for third in range(11, 11 + CANDIDATES)}


def test_the_subnet_around_our_own_address_is_not_taken() -> None:
    small = network('"Network":"1.2.0.0/16","SubnetMin":"1.2.2.0","SubnetMax":"1.2.4.0"')
    assert {str(taken(pick(small, [], seed=seed))) for seed in range(50)} == {"1.2.2.0/24", "1.2.4.0/24"}


def test_a_subnet_whose_record_is_unreadable_is_not_taken() -> None:
    small = network('"Network":"10.3.0.0/16","SubnetMax":"10.3.2.0"')
    records = (
        Unreadable("/coreos.com/network/subnets/10.3.1.0-24", "not JSON"),
        Unreadable("/coreos.com/network/subnets/junk", "names no subnet"),
    )
    previous = subnet("10.3.1.0/24")
    assert taken(pick(small, [], previous, unreadable=records)) == subnet("10.3.2.0/24")


def test_the_log_line_says_how_each_half_was_found() -> None:
    choice = pick(DUAL, [], previous=subnet("10.3.6.0/24"))
    assert isinstance(choice, Take)
    assert choice.why.startswith("10.3.6.0/24 is free, and was ours before, fd00:3:0:")
    assert choice.why.endswith("drawn by lot among the first 100 free subnets")


# Which lease is ours

FORMER = IPv4Address("1.2.3.99")
OUR_DATA = '{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}'
NOW = Attrs(US, None, "vxlan", OUR_DATA)
THEN = Attrs(FORMER, None, "vxlan", OUR_DATA)
X, Y = subnet("10.3.9.0/24"), subnet("10.3.8.0/24")


def test_of_two_leases_of_ours_the_one_we_held_is_meant() -> None:
    one, two = lease("10.3.9.0/24", ip=US), lease("10.3.8.0/24", ip=US)
    assert pick(leases=[one, two], previous=two.subnet) == Reuse(two)


def test_of_two_leases_of_ours_the_older_one_is_meant_as_all_others_go_by_it() -> None:
    young, old = (Lease(net, NOW, created=created) for net, created in ((X, 7), (Y, 3)))
    assert pick(leases=[young, old]) == Reuse(old)


def test_a_subnet_reserved_for_us_goes_before_the_one_we_held() -> None:
    held, reserved = Lease(X, NOW, created=1), Lease(Y, Attrs(US), created=2, reservation=True)
    assert pick(leases=[held, reserved], previous=X) == Reuse(reserved)


def test_a_lease_that_fits_goes_before_any_that_does_not() -> None:
    misfit, fit = lease("10.4.1.0/24", ip=US), lease("10.3.9.0/24", ip=US)
    assert pick(leases=[misfit, fit], previous=misfit.subnet) == Reuse(fit)


@pytest.mark.parametrize("attrs", [THEN, Attrs(FORMER, None, "host-gw")], ids=["vxlan", "host-gw"])
def test_a_lease_that_says_exactly_what_we_wrote_is_ours_whatever_our_address(attrs: Attrs) -> None:
    written = Lease(X, attrs)
    assert own_lease(V4, [*EXISTING, written], US, None, written=written) == written


@pytest.mark.parametrize(
    "record",
    [
        Lease(Y, THEN),
        Lease(X, Attrs(FORMER, None, "vxlan", '{"VNI":1,"VtepMAC":"02:00:00:00:00:02"}')),
        Lease(X, Attrs(OTHER, None, "vxlan", OUR_DATA)),
    ],
    ids=["another subnet", "another MAC", "another address"],
)
def test_a_lease_that_says_anything_else_than_what_we_wrote_is_anothers(record: Lease) -> None:
    assert own_lease(V4, [record], US, None, written=Lease(X, THEN)) is None


def test_the_subnet_we_held_is_ours_if_its_record_bears_our_vtep_mac() -> None:
    assert own_lease(V4, [Lease(X, THEN)], US, None, previous=X, attrs=NOW) == Lease(X, THEN)


@pytest.mark.parametrize(
    ("record", "ours"),
    [
        (Lease(Y, THEN), NOW),
        (Lease(X, Attrs(FORMER, None, "vxlan", '{"VNI":1,"VtepMAC":"02:00:00:00:00:02"}')), NOW),
        (Lease(X, Attrs(FORMER, None, "host-gw")), Attrs(US, None, "host-gw")),
    ],
    ids=["another subnet", "another MAC", "nothing to know it by"],
)
def test_the_subnet_we_held_is_anothers_if_nothing_in_its_record_is_ours_alone(record: Lease, ours: Attrs) -> None:
    assert own_lease(V4, [record], US, None, previous=X, attrs=ours) is None


def test_the_subnet_of_what_we_wrote_is_taken_again_if_its_record_is_gone() -> None:
    choice = choose(V4, EXISTING, US, None, None, Random(1), written=Lease(X, THEN))
    assert taken(choice) == X


# Whom we make room for


def test_a_lease_of_ours_that_overlaps_an_older_one_is_given_back_and_a_part_that_is_free_kept() -> None:
    ours = Lease(subnet("10.3.9.0/24", "fd00:3:0:1::/64"), Attrs(US, US6), created=8)
    older = Lease(subnet("10.3.7.0/24", "fd00:3:0:1::/64"), Attrs(OTHER, IPv6Address("fd00:41::9")), created=7)
    choice = pick(DUAL, [ours, older])
    assert choice == Replace(ours)
    assert isinstance(choice, Replace)
    assert choice.why == "overlaps 10.3.7.0/24 and fd00:3:0:1::/64, which 1.1.1.1 leased before us"
    after = taken(pick(DUAL, [older], previous=ours.subnet))
    assert after.ipv4 == ours.subnet.ipv4
    assert after.ipv6 != ours.subnet.ipv6


@pytest.mark.parametrize(
    "other",
    [
        Lease(subnet("10.3.9.64/26"), Attrs(OTHER), created=9),
        Lease(subnet("10.3.9.64/26"), Attrs(US), created=7),
        Lease(subnet("10.3.9.64/26"), Attrs(None), created=7),
        Lease(subnet("10.0.0.0/8"), Attrs(OTHER), created=7),
        Lease(subnet("10.3.10.0/24"), Attrs(OTHER), created=7),
        Lease(subnet("fd00:3::/64"), Attrs(OTHER), created=7),
    ],
    ids=["younger", "our own", "without address", "covers the network", "beside it", "other family"],
)
def test_no_other_record_takes_a_lease_of_ours(other: Lease) -> None:
    ours = Lease(X, NOW, created=8)
    assert pick(leases=[other, ours]) == Reuse(ours)


def test_while_we_have_no_record_whoever_overlaps_the_subnet_was_first() -> None:
    young = Lease(subnet("10.3.8.0/23"), Attrs(OTHER), created=99)
    assert rival(V4, X, [*EXISTING, young], NOW) == young
    assert rival(V4, X, [*EXISTING, young], NOW, created=98) is None
