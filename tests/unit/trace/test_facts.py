"""What a host knows of its network, as far as a trace needs it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from pyflannel.state import FdbEntry, Neighbour, Route
from pyflannel.trace.facts import Flow, contains, overlay
from tests.support.builders import subnet
from tests.support.crossings import FLOW, HERE, HOST, LEAVING, PEER, THERE, known, network


def test_only_the_hosts_a_packet_has_to_do_with_are_looked_at() -> None:
    found = known()
    assert [str(peer.subnet) for peer in found.peers] == ["10.2.41.0/24"]
    assert found.leases == 2
    assert [peer.name for peer in overlay(network(), PEER).peers] == [str(PEER)]
    assert overlay(network(), ip_address("192.0.2.1")).peers == ()


def test_a_peer_comes_with_what_the_kernel_should_hold_for_it() -> None:
    peer = known().peer(THERE)
    assert peer is not None
    assert {type(item) for item in peer.items} == {Route, Neighbour, FdbEntry}
    assert (peer.hosts, peer.reason) == ((PEER,), "")


def test_a_record_that_is_left_out_comes_with_the_reason() -> None:
    peer = known(replace(FLOW, destination=ip_address("10.2.50.9"))).peer(ip_address("10.2.50.9"))
    assert peer is not None
    assert peer.items == ()
    assert "VtepMAC" in peer.reason


def test_the_tunnel_is_the_device_with_our_address_of_that_family() -> None:
    tunnel = known().tunnel(4)
    assert tunnel is not None
    assert tunnel.name == "flannel.1"
    assert known().tunnel(6) is None


def test_the_route_of_ours_is_that_which_holds_the_address() -> None:
    found = known()
    peer = found.peer(THERE)
    assert peer is not None
    route = found.route(peer, THERE)
    assert route is not None
    assert str(route.dst) == "10.2.41.0/24"
    assert found.route(peer, ip_address("10.2.42.1")) is None


def test_hosts_are_known_by_their_own_addresses() -> None:
    found = overlay(network(), PEER)
    host = found.host(PEER)
    assert host is not None
    assert host.name == str(PEER)
    assert found.host(ip_address("192.0.2.9")) is None
    assert found.addresses == (HOST,)


def test_an_answer_goes_the_other_way_and_is_small() -> None:
    assert replace(FLOW, size=1400).answer() == Flow(THERE, HERE, reply=True)


def test_an_address_is_in_a_subnet_of_its_own_family_alone() -> None:
    both = subnet("10.2.41.0/24", "fd00:12::/64")
    assert contains(both, THERE)
    assert contains(both, ip_address("fd00:12::9"))
    assert not contains(subnet("10.2.41.0/24"), ip_address("fd00:12::9"))


def test_a_crossing_names_the_device_it_leaves_by() -> None:
    leaves = LEAVING.leaves
    assert leaves is not None
    assert leaves.name == "flannel.1"
    assert LEAVING.device("docker0") == LEAVING.entry
    assert LEAVING.device("nothing") is None


def test_a_network_is_concerned_with_its_containers_and_hosts() -> None:
    found = overlay(network(), PEER)
    assert all(map(found.concerns, (HERE, THERE, HOST, PEER, ip_address("10.2.200.1"))))
    assert not any(map(found.concerns, map(ip_address, ("192.0.2.1", "172.16.41.99", "fd00::1"))))
