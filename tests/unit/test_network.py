"""A network at run time: what each piece of news changes in what the kernel should hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from pyflannel.lease.model import Attrs, Changes, Lease, Removed, Snapshot, Unreadable
from pyflannel.network import LINGER, SPREAD_ABOVE, SPREAD_BELOW, Network, Replan, Way
from pyflannel.state import Address, FdbEntry, Forwarder, Forwarding, Item, Link, Mac, Route, Sysctl, Vxlan
from tests.support.builders import OTHER_MAC, OWN_MAC, backend, config, subnet, underlay, view, vxlan_lease

PEER = vxlan_lease("10.2.41.0/24", "172.16.41.132", OTHER_MAC, created=10)
THIRD_MAC = Mac.parse("02:00:00:00:00:03")
OWN = vxlan_lease("10.2.71.0/24", "172.16.41.131", OWN_MAC, created=5)


def network(*leases: Lease) -> Network:
    """A network that has listed ``leases``."""
    made = Network(backend(), view())
    made.fold(Snapshot(100, leases))
    return made


def routes(items: tuple[Item, ...]) -> set[str]:
    return {str(item.dst) for item in items if isinstance(item, Route)}


def wanted_routes(made: Network) -> set[str]:
    return routes(tuple(made.items()))


def test_a_listed_peer_brings_its_items() -> None:
    made = Network(backend(), view())
    replan = made.fold(Snapshot(100, (PEER, OWN)))
    assert replan.old == ()
    assert replan.new == backend().peer_items(view(), PEER)
    assert replan.added == (PEER,)
    assert set(made.items()) == {*backend().self_items(view()), *replan.new}


def test_our_own_lease_is_no_peer() -> None:
    made = network(OWN)
    assert wanted_routes(made) == set()
    assert made.ignored == {}


def test_a_peer_that_leaves_takes_its_items_along() -> None:
    made = network(PEER)
    replan = made.fold(Changes(101, (Removed(PEER.subnet),)))
    assert replan.new == ()
    assert replan.old == backend().peer_items(view(), PEER)
    assert replan.removed == (PEER,)
    assert wanted_routes(made) == set()


def test_a_peer_whose_record_vanishes_lingers_and_goes_in_the_end() -> None:
    made = network(PEER)
    assert made.fold(Changes(101, (Removed(PEER.subnet),)), 7.0) == Replan()
    assert (wanted_routes(made), made.lingers_until) == ({"10.2.41.0/24"}, 7.0 + LINGER)
    assert made.see_off(7.0) == Replan()
    replan = made.see_off(7.0 + LINGER)
    assert replan.old == backend().peer_items(view(), PEER)
    assert replan.removed == (PEER,)
    assert (wanted_routes(made), made.lingers_until) == (set(), None)


@pytest.mark.parametrize("between", [(), (Snapshot(102),)], ids=["told of both", "listed in between"])
def test_a_record_that_is_written_again_soon_enough_changes_nothing(between: tuple[Snapshot, ...]) -> None:
    made = network(PEER)
    again = Changes(103, (replace(PEER, created=103, modified=103),))
    told: list[Snapshot | Changes] = [Changes(101, (Removed(PEER.subnet),)), *between, again]
    for news in told:
        assert made.fold(news, 7.0) == Replan()
    assert made.lingers_until is None
    assert made.see_off(7.0 + LINGER) == Replan()
    assert wanted_routes(made) == {"10.2.41.0/24"}


@pytest.mark.parametrize(
    "rival",
    [
        vxlan_lease("10.2.41.0/25", "172.16.41.133", THIRD_MAC, created=102),
        vxlan_lease("10.2.42.0/24", "172.16.41.132", OTHER_MAC, created=102),
    ],
    ids=["overlapping subnet", "same host elsewhere"],
)
def test_whoever_lingers_makes_way_for_any_record_that_is_there(rival: Lease) -> None:
    made = network(PEER)
    made.fold(Changes(101, (Removed(PEER.subnet),)), 7.0)
    replan = made.fold(Changes(102, (rival,)), 8.0)
    assert (replan.added, replan.removed) == ((rival,), (PEER,))
    assert wanted_routes(made) == {str(rival.subnet)}
    assert made.ignored == {}
    assert made.lingers_until is None


def test_a_peer_that_is_left_out_does_not_linger() -> None:
    outside = vxlan_lease("192.168.1.0/24", "172.16.41.132", OTHER_MAC)
    made = network(outside)
    made.fold(Changes(101, (Removed(outside.subnet),)), 7.0)
    assert (made.lingers_until, made.ignored) == (None, {})


def test_a_peer_with_a_new_mac_is_replanned_and_no_other() -> None:
    made = network(PEER, vxlan_lease("10.2.5.0/24", "172.16.41.140", THIRD_MAC))
    changed = vxlan_lease("10.2.41.0/24", "172.16.41.132", Mac.parse("02:00:00:00:00:99"))
    replan = made.fold(Changes(101, (changed,)))
    assert routes(replan.old) == routes(replan.new) == {"10.2.41.0/24"}
    assert {item.mac for item in replan.new if isinstance(item, FdbEntry)} == {Mac.parse("02:00:00:00:00:99")}
    assert replan.added == (changed,)
    assert replan.removed == ()


def test_a_renewal_changes_nothing() -> None:
    made = network(PEER)
    replan = made.fold(Changes(101, (replace(PEER, modified=101),)))
    assert (replan.old, replan.new, replan.added, replan.removed) == ((), (), (), ())


def test_of_two_leases_with_one_mac_the_older_counts_whatever_came_first() -> None:
    younger = vxlan_lease("10.2.5.0/24", "172.16.41.140", OTHER_MAC, created=20)
    for order in ((PEER, younger), (younger, PEER)):
        made = Network(backend(), view())
        for revision, lease in enumerate(order, 1):
            made.fold(Changes(revision, (lease,)))
        assert wanted_routes(made) == {"10.2.41.0/24"}
        assert "10.2.41.0/24" in made.ignored[younger.subnet]


def test_the_loser_takes_over_when_the_winner_leaves() -> None:
    younger = vxlan_lease("10.2.5.0/24", "172.16.41.140", OTHER_MAC, created=20)
    made = network(PEER, younger)
    replan = made.fold(Changes(101, (Removed(PEER.subnet),)))
    assert routes(replan.old) == {"10.2.41.0/24"}
    assert routes(replan.new) == {"10.2.5.0/24"}
    assert made.ignored == {}


def test_a_peer_cannot_take_our_subnet() -> None:
    made = network(OWN, vxlan_lease("10.2.71.128/25", "172.16.41.140", THIRD_MAC, created=1))
    assert wanted_routes(made) == set()
    assert subnet("10.2.71.128/25") in made.ignored


def test_a_peer_cannot_take_our_mac() -> None:
    clone = vxlan_lease("10.2.5.0/24", "172.16.41.140", OWN_MAC, created=1)
    made = network(clone, OWN)
    assert wanted_routes(made) == set()
    assert made.ignored[clone.subnet] == "publishes VTEP MAC 02:00:00:00:00:01, as 10.2.71.0/24, which is ours"


def test_a_record_outside_the_network_is_left_out_with_a_reason() -> None:
    stray = vxlan_lease("192.168.0.0/24", "172.16.41.140", THIRD_MAC)
    made = network(PEER, stray)
    assert wanted_routes(made) == {"10.2.41.0/24"}
    assert "10.2.0.0/16" in made.ignored[stray.subnet]


def test_a_peer_of_another_backend_is_left_out_until_it_changes() -> None:
    other = replace(PEER, attrs=Attrs(PEER.attrs.public_ip, None, "host-gw"))
    made = network(other)
    assert "host-gw" in made.ignored[PEER.subnet]
    made.fold(Changes(101, (PEER,)))
    assert wanted_routes(made) == {"10.2.41.0/24"}
    assert made.ignored == {}


def test_a_peer_that_turns_useless_loses_its_items() -> None:
    made = network(PEER)
    replan = made.fold(Changes(101, (replace(PEER, attrs=replace(PEER.attrs, backend_data="{}")),)))
    assert routes(replan.old) == {"10.2.41.0/24"}
    assert replan.new == ()
    assert replan.removed != ()
    assert "VtepMAC" in made.ignored[PEER.subnet]


def test_a_record_that_leaves_is_no_longer_complained_about() -> None:
    made = network(vxlan_lease("192.168.0.0/24"))
    made.fold(Changes(101, (Removed(subnet("192.168.0.0/24")),)))
    assert made.ignored == {}


def test_an_unreadable_record_harms_nobody() -> None:
    made = network(PEER)
    made.fold(Changes(101, (Unreadable("/coreos.com/network/subnets/nonsense", "not a subnet"),)))
    assert wanted_routes(made) == {"10.2.41.0/24"}


def test_coming_and_going_within_one_piece_of_news_leaves_nothing() -> None:
    made = network()
    replan = made.fold(Changes(101, (PEER, Removed(PEER.subnet))))
    assert replan.new == ()
    assert wanted_routes(made) == set()


def test_a_network_of_many_peers_has_three_items_for_each() -> None:
    peers = tuple(
        vxlan_lease(str(net), "172.16.41.132", Mac(number.to_bytes(6)))
        for number, net in enumerate(IPv4Network("10.2.0.0/16").subnets(new_prefix=24))
        if number not in (0, 71)
    )
    made = network(
        *(replace(peer, attrs=replace(peer.attrs, backend_data=data(index))) for index, peer in enumerate(peers))
    )
    assert len(wanted_routes(made)) == len(peers) == 254


def data(number: int) -> str:
    return f'{{"VtepMAC":"02:00:00:01:{number >> 8:02x}:{number & 255:02x}"}}'


def crowd(size: int) -> tuple[Lease, ...]:
    """So many peers; the first of a larger crowd are those of a smaller one."""
    nets = IPv4Network("10.2.80.0/20").subnets(new_prefix=31)
    macs = (Mac(b"\x02\0\0\1" + number.to_bytes(2)) for number in range(size))
    return tuple(vxlan_lease(str(net), "172.16.41.140", mac) for net, mac in zip(nets, macs, strict=False))


def metrics(items: Iterable[Item]) -> set[int]:
    return {item.metric for item in items if isinstance(item, Route)}


def test_metrics_are_spread_from_the_first_list_on_where_there_are_many_peers() -> None:
    made = Network(backend(), view())
    replan = made.fold(Snapshot(100, crowd(SPREAD_ABOVE + 1)))
    assert replan.old == ()
    assert metrics(replan.new) == metrics(made.items())
    assert len(metrics(replan.new) - {0}) == SPREAD_ABOVE + 1


def test_one_peer_too_many_spreads_the_metrics_of_all() -> None:
    *most, last = crowd(SPREAD_ABOVE + 1)
    made = network(*most)
    assert metrics(made.items()) == {0}
    replan = made.fold(Changes(101, (last,)))
    assert metrics(replan.old) == {0}
    assert metrics(replan.new) == metrics(made.items())
    assert len(metrics(replan.new) - {0}) == SPREAD_ABOVE + 1
    assert (replan.added, replan.removed) == ((last,), ())


@pytest.mark.parametrize("size", [SPREAD_BELOW, SPREAD_ABOVE])
def test_between_the_bounds_metrics_stay_as_they_are(size: int) -> None:
    assert metrics(network(*crowd(size)).items()) == {0}
    shrunk = network(*crowd(SPREAD_ABOVE + 1))
    replan = shrunk.fold(Snapshot(101, crowd(size)))
    assert replan.new == ()
    assert 0 not in metrics(shrunk.items())


def test_few_peers_have_no_metrics_again() -> None:
    *most, last = crowd(SPREAD_BELOW)
    made = network(*crowd(SPREAD_ABOVE + 1))
    made.fold(Snapshot(101, (*most, last)))
    replan = made.fold(Changes(102, (Removed(last.subnet),)))
    assert replan.new == tuple(item for lease in most for item in backend().peer_items(view(), lease))
    assert metrics(made.items()) == {0}
    assert (replan.added, replan.removed) == ((), (last,))


def test_records_that_do_not_count_spread_no_metrics() -> None:
    *most, last = crowd(SPREAD_ABOVE + 1)
    assert metrics(network(*most, replace(last, attrs=most[0].attrs)).items()) == {0}


def test_the_reason_for_a_useless_record_goes_with_it_even_if_it_had_just_come_to_count() -> None:
    useless = Attrs(PEER.attrs.public_ip, None, "udp")
    first, second = replace(PEER, attrs=useless), replace(vxlan_lease("10.2.41.0/25", created=20), attrs=useless)
    made = network(first, second)
    made.fold(Changes(101, (Removed(first.subnet), Removed(second.subnet))))
    assert made.ignored == {}


def test_a_peer_at_the_address_we_move_to_is_left_out_and_one_at_the_address_we_left_is_let_in() -> None:
    made = network(PEER)
    here, there = underlay(), PEER.attrs.public_ip
    replan = made.move(replace(here, ipv4=there, public_ip=there))
    assert (routes(replan.old), replan.new, replan.removed) == ({"10.2.41.0/24"}, (), (PEER,))
    assert "which is our own" in made.ignored[PEER.subnet]
    replan = made.move(here)
    assert (replan.old, routes(replan.new), replan.added) == ((), {"10.2.41.0/24"}, (PEER,))
    assert made.ignored == {}


def test_a_move_that_concerns_no_record_changes_none() -> None:
    made = network(OWN, PEER)
    replan = made.move(replace(underlay(), mtu=1400))
    assert (replan.added, replan.removed) == ((), ())
    assert replan.old == replan.new
    assert made.view.underlay.mtu == 1400


HOST_GW = config('{"Type":"host-gw"}')
GONE_OVER = replace(PEER, attrs=Attrs(PEER.attrs.public_ip, None, "host-gw"))


def gone_over(*leases: Lease) -> Network:
    """A network of vxlan that has just become one of host-gw."""
    made = Network(backend(HOST_GW), view(HOST_GW), network(*leases).way())
    made.fold(Snapshot(100, leases))
    made.turn()
    return made


def test_a_peer_that_has_not_gone_over_yet_is_reached_the_former_way_until_it_has() -> None:
    made = gone_over(PEER, OWN)
    assert set(made.items()) == {*backend().self_items(view()), *backend().peer_items(view(), PEER)}
    assert made.scope().devices == {"flannel.1"}
    before = made.outgrown
    assert made.ignored == {
        PEER.subnet: "publishes backend type 'vxlan', and ours is 'host-gw'; it is reached as before"
    }

    replan = made.fold(Changes(101, (GONE_OVER,)))
    assert replan.old == backend().peer_items(view(), PEER)
    (route,) = backend(HOST_GW).peer_items(view(HOST_GW), GONE_OVER)
    assert routes(replan.new) == {"10.2.41.0/24"}
    assert route in replan.new
    assert (before, made.outgrown, made.ignored) == (False, True, {})
    made.forget_former()
    assert (set(made.items()), made.scope().devices) == ({route}, frozenset())


def test_a_peer_that_leaves_without_having_gone_over_needs_the_former_way_no_more() -> None:
    made = gone_over(PEER)
    made.fold(Changes(101, (Removed(PEER.subnet),)))
    assert made.outgrown


def test_a_network_that_never_was_another_has_outgrown_nothing() -> None:
    assert not network(PEER).outgrown


def test_routes_on_a_former_external_interface_stay_ours_to_remove() -> None:
    made = Network(backend(HOST_GW), view(HOST_GW))
    made.move(replace(underlay(), name="ens34"))
    made.move(replace(underlay(), name="ens34", mtu=1400))
    assert made.scope().borrowed == {"ens33", "ens34"}


def test_both_ways_follow_the_external_interface() -> None:
    made = gone_over(PEER)
    made.move(replace(underlay(), name="ens34"))
    assert {item.spec.underlay for item in made.items() if isinstance(item, Link) and isinstance(item.spec, Vxlan)} == {
        "ens34"
    }


@pytest.mark.parametrize(
    "former",
    [
        Way(backend(), view(own=subnet("10.2.99.0/24"))),
        Way(backend(config('{"Type":"vxlan","Port":4789}')), view()),
    ],
    ids=["for another subnet", "with the same device"],
)
def test_a_former_way_that_cannot_stand_beside_the_present_one_is_none(former: Way) -> None:
    made = Network(backend(), view(), former)
    made.fold(Snapshot(100, (PEER,)))
    assert set(made.items()) == {*backend().self_items(view()), *backend().peer_items(view(), PEER)}


def test_a_peer_that_goes_over_before_us_is_reached_as_before() -> None:
    made, before = network(PEER), set(network(PEER).items())
    replan = made.fold(Changes(101, (GONE_OVER,)))
    assert set(replan.old) == set(replan.new)
    assert set(made.items()) == before
    assert made.ignored == {
        PEER.subnet: "publishes backend type 'host-gw', and ours is 'vxlan'; it is reached as before"
    }
    made.fold(Snapshot(102, (GONE_OVER,)))
    assert set(made.items()) == before
    made.fold(Changes(103, (Removed(PEER.subnet),)))
    assert wanted_routes(made) == set()


def test_what_such_a_peer_said_before_stays_its_own() -> None:
    made = network(PEER)
    made.fold(Changes(101, (GONE_OVER,)))
    thief = vxlan_lease("10.2.66.0/24", "172.16.41.166", OTHER_MAC, created=50)
    made.fold(Changes(102, (thief,)))
    assert wanted_routes(made) == {"10.2.41.0/24"}


def test_what_another_host_says_in_its_place_counts_alone() -> None:
    made = network(PEER)
    made.fold(Changes(101, (replace(GONE_OVER, attrs=Attrs(IPv4Address("172.16.41.199"), None, "host-gw")),)))
    assert wanted_routes(made) == set()
    assert made.fold(Changes(102, (PEER,))).added == (PEER,)


UDP = config('{"Type":"udp"}')
ON_UDP = replace(PEER, attrs=Attrs(PEER.attrs.public_ip))


def parts(items: Iterable[Item]) -> tuple[set[Item], set[Item]]:
    """What leads packets to peers, and what else there is for them."""
    found = [item for item in items if not isinstance(item, Link | Address | Sysctl | Forwarder)]
    led: set[Item] = {item for item in found if isinstance(item, Route) and item.dst != IPv4Network("10.2.0.0/16")}
    return led, {item for item in found if not isinstance(item, Route)}


def test_who_has_just_gone_over_takes_packets_either_way_and_sends_the_former_one_for_a_while() -> None:
    led, held = parts(backend().peer_items(view(), PEER))
    made = Network(backend(UDP), view(UDP), network(PEER).way())
    made.fold(Snapshot(100, (ON_UDP,)))
    assert not made.outgrown
    forwarding = Forwarding("flannel0", IPv4Network("10.2.41.0/24"), IPv4Address("172.16.41.132"), 8285)
    assert parts(made.items()) == (led, held | {forwarding})

    replan = made.turn()
    assert parts(made.items()) == (set(), held | {forwarding})
    assert (parts(replan.old)[0], parts(replan.new)[0]) == (led, set())

    made.forget_former()
    assert parts(made.items()) == (set(), {forwarding})


def test_what_a_peer_said_formerly_is_not_held_against_another_host_in_its_place() -> None:
    made = Network(backend(UDP), view(UDP), network(PEER).way())
    other = replace(ON_UDP, attrs=Attrs(IPv4Address("172.16.41.199")))
    made.fold(Snapshot(100, (other,)))
    assert parts(made.items()) == parts(backend(UDP).peer_items(view(UDP), other))
