"""The vxlan backend: what it publishes, and what it wants the kernel to hold."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_interface, ip_network

import pytest

from pyflannel.backends.api import Backend, Refused, View
from pyflannel.backends.vxlan import from_config
from pyflannel.lease.model import Attrs, Lease
from pyflannel.lease.network import ConfigError
from pyflannel.reach import Reach
from pyflannel.state import (
    PROTO_FLANNEL,
    Address,
    ChecksumOffload,
    FdbEntry,
    Identity,
    Link,
    Neighbour,
    Route,
    Sysctl,
    Vxlan,
)
from tests.support.builders import (
    OTHER_MAC,
    OWN_MAC,
    OWN_MAC_V6,
    backend,
    config,
    subnet,
    underlay,
    view,
    vxlan_lease,
)
from tests.support.kernel_items import vxlan_of

DUAL = config(ipv6_network="fd00:2::/48")
DUAL_VIEW = view(DUAL, own=subnet("10.2.71.0/24", "fd00:2:0:71::/64"), under=underlay(ipv6="fd00:41::131"))


def options(text: str) -> Backend:
    return backend(config(f'{{"Type":"vxlan",{text}}}'))


def test_a_peer_is_a_neighbour_an_fdb_entry_and_an_onlink_route() -> None:
    peer = vxlan_lease("10.2.41.0/24", "172.16.41.132", OTHER_MAC)
    gateway = IPv4Address("10.2.41.0")
    assert peer.subnet.ipv4 is not None
    assert backend().peer_items(view(), peer) == (
        Neighbour("flannel.1", gateway, OTHER_MAC),
        FdbEntry("flannel.1", OTHER_MAC, IPv4Address("172.16.41.132")),
        Route(peer.subnet.ipv4, "flannel.1", via=gateway, onlink=True),
    )


def test_we_ourselves_are_a_device_with_the_subnets_own_address() -> None:
    spec = Vxlan(1, "ens33", IPv4Address("172.16.41.131"), 8472)
    assert backend().self_items(view()) == (
        Link("flannel.1", spec, 1450, OWN_MAC),
        Sysctl("flannel.1", "ipv6", "accept_ra", "0"),
        Address("flannel.1", ip_interface("10.2.71.0/32")),
    )


def test_a_dual_stack_network_has_a_device_for_each_family() -> None:
    items = backend(DUAL).self_items(DUAL_VIEW)
    links = {item.name: item for item in items if isinstance(item, Link)}
    assert vxlan_of(links["flannel.1"]).local == IPv4Address("172.16.41.131")
    assert links["flannel.1"].mtu == 1450
    assert vxlan_of(links["flannel-v6.1"]).local == IPv6Address("fd00:41::131")
    assert links["flannel-v6.1"].mtu == 1430
    assert links["flannel-v6.1"].mac == OWN_MAC_V6
    assert Address("flannel-v6.1", ip_interface("fd00:2:0:71::/128")) in items


def test_a_dual_stack_peer_is_reached_in_both_families() -> None:
    attrs = Attrs(
        IPv4Address("172.16.41.132"),
        IPv6Address("fd00:41::132"),
        "vxlan",
        f'{{"VtepMAC":"{OTHER_MAC}"}}',
        f'{{"VtepMAC":"{OWN_MAC}"}}',
    )
    items = backend(DUAL).peer_items(DUAL_VIEW, Lease(subnet("10.2.41.0/24", "fd00:2:0:41::/64"), attrs))
    assert FdbEntry("flannel-v6.1", OWN_MAC, IPv6Address("fd00:41::132")) in items
    routes = [item for item in items if isinstance(item, Route)]
    assert [(route.dev, route.via, route.metric) for route in routes] == [
        ("flannel.1", IPv4Address("10.2.41.0"), 0),
        ("flannel-v6.1", IPv6Address("fd00:2:0:41::"), 1024),
    ]


def test_an_old_peer_without_an_ipv6_part_is_reached_over_ipv4_alone() -> None:
    items = backend(DUAL).peer_items(DUAL_VIEW, vxlan_lease())
    assert {type(item) for item in items} == {Neighbour, FdbEntry, Route}
    assert len(items) == 3


def test_a_peer_with_no_family_in_common_is_refused() -> None:
    attrs = Attrs(None, IPv6Address("fd00:41::132"), "vxlan", None, f'{{"VtepMAC":"{OTHER_MAC}"}}')
    with pytest.raises(Refused, match="no address family in common"):
        backend().peer_items(view(), Lease(subnet("fd00:2:0:41::/64"), attrs))


def metrics(spread: bool, *nets: str) -> list[int]:
    """The metrics of the IPv4 routes to these subnets."""
    seen = replace(view(), spread=spread)
    items = [item for net in nets for item in backend().peer_items(seen, vxlan_lease(net))]
    return [item.metric for item in items if isinstance(item, Route)]


def test_routes_have_no_metric_unless_they_are_to_be_spread() -> None:
    assert metrics(False, "10.2.41.0/24", "10.2.42.0/24") == [0, 0]


def test_spread_metrics_differ_between_neighbours_and_repeat_after_4096() -> None:
    assert metrics(True, "10.0.0.0/24", "10.0.1.0/24", "10.15.255.0/24", "10.16.0.0/24") == [1, 2, 4096, 1]
    assert metrics(True, "10.2.0.0/28", "10.2.0.16/28") == [1, 2]


def test_spreading_changes_no_ipv6_route_and_nothing_but_metrics() -> None:
    peer = Lease(
        subnet("10.2.41.0/24", "fd00:2:0:41::/64"),
        Attrs(
            IPv4Address("172.16.41.132"),
            IPv6Address("fd00:41::132"),
            "vxlan",
            f'{{"VtepMAC":"{OTHER_MAC}"}}',
            f'{{"VtepMAC":"{OWN_MAC}"}}',
        ),
    )
    plain = backend(DUAL).peer_items(DUAL_VIEW, peer)
    spread = backend(DUAL).peer_items(replace(DUAL_VIEW, spread=True), peer)
    assert [one.key for one in plain if one not in spread] == [(Route, peer.subnet.ipv4, 0, "flannel.1", False)]
    assert [one.key for one in spread if one not in plain] == [(Route, peer.subnet.ipv4, 554, "flannel.1", False)]


def test_a_lease_publishes_vni_and_mac() -> None:
    attrs = backend().attrs(underlay(), {"flannel.1": OWN_MAC})
    assert attrs == Attrs(IPv4Address("172.16.41.131"), None, "vxlan", '{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}')


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (None, "has no BackendData"),
        ("[]", "a list instead of an object"),
        ("{", "BackendData has no usable VtepMAC"),
        ('{"VNI":1}', "not a MAC address: ''"),
        ('{"VtepMAC":7}', "holds an integer: expected a text"),
        ('{"VtepMAC":"02:00:00"}', "not a MAC address"),
        ('{"VtepMAC":"zz:00:00:00:00:01"}', "not a MAC address"),
        ('{"VtepMAC":"ff:ff:ff:ff:ff:ff"}', "not the address of one host"),
        ('{"VtepMAC":"00:00:00:00:00:00"}', "not the address of one host"),
        ("[" * 100_000, "nested too deeply"),
        ('{"VtepMAC":"' + "0" * 60_000 + '"}', "a text of 60000 characters: expected one like c6:d2:32:6f:8f:44"),
        ('{"VtepMAC":"' + "\U000e0001" * 17 + '"}', "a text of 17 characters: expected one like"),
        ('{"VNI":"1","VtepMAC":"02:00:00:00:00:02"}', "BackendData.VNI holds a text"),
        ('{"VNI":16777216,"VtepMAC":"02:00:00:00:00:02"}', "BackendData.VNI 16777216 is out of range"),
        ('{"VNI":2,"VtepMAC":"02:00:00:00:00:02"}', "publishes VNI 2, and ours is 1"),
        ('{"vni":2,"VtepMAC":"02:00:00:00:00:02"}', "publishes VNI 2, and ours is 1"),
    ],
)
def test_a_peer_with_a_broken_mac_is_refused_and_claims_nothing(data: str | None, complaint: str) -> None:
    peer = vxlan_lease()
    broken = replace(peer, attrs=replace(peer.attrs, backend_data=data))
    with pytest.raises(Refused, match=complaint):
        backend().peer_items(view(), broken)
    assert backend().claims(broken) == frozenset()


@pytest.mark.parametrize("data", ['{"VtepMAC":"%s"}', '{"VNI":null,"VtepMAC":"%s"}', '{"VNI":70000,"VtepMAC":"%s"}'])
def test_a_peer_that_says_no_vni_or_ours_is_reached(data: str) -> None:
    peer = vxlan_lease()
    said = replace(peer, attrs=replace(peer.attrs, backend_data=data % OTHER_MAC))
    assert options('"VNI":70000').claims(said) == {("VTEP MAC", OTHER_MAC)}


def test_the_lower_half_of_a_large_vni_is_what_older_flannels_publish() -> None:
    peer = vxlan_lease()
    said = replace(peer, attrs=replace(peer.attrs, backend_data=f'{{"VNI":4464,"VtepMAC":"{OTHER_MAC}"}}'))
    assert options('"VNI":70000').claims(said) == {("VTEP MAC", OTHER_MAC)}
    assert options('"VNI":70001').claims(said) == frozenset()


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        (vxlan_lease(mac=OWN_MAC), "publishes VTEP MAC 02:00:00:00:00:01, as 10.2.71.0/24, which is ours"),
        (vxlan_lease(ip="172.16.41.131"), "publishes PublicIP 172.16.41.131, which is our own"),
        (vxlan_lease("172.16.40.0/22", "192.0.2.1"), "covers 172.16.41.131, the address of this host"),
    ],
)
def test_a_peer_that_gives_itself_out_for_us_is_refused(peer: Lease, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        backend().peer_items(view(), peer)


def test_a_peer_of_another_backend_is_refused_and_claims_nothing() -> None:
    peer = vxlan_lease()
    other = replace(peer, attrs=replace(peer.attrs, backend_type="host-gw"))
    with pytest.raises(Refused, match="'host-gw', and ours is 'vxlan'"):
        backend().peer_items(view(), other)
    assert backend().claims(other) == frozenset()


def test_a_peer_without_a_public_ip_is_refused() -> None:
    peer = vxlan_lease()
    with pytest.raises(Refused, match="no PublicIP"):
        backend().peer_items(view(), replace(peer, attrs=replace(peer.attrs, public_ip=None)))


def test_a_peers_mac_is_its_claim_in_either_spelling() -> None:
    peer = vxlan_lease()
    loud = replace(peer, attrs=replace(peer.attrs, backend_data='{"vtepmac":"02-00-00-00-00-02"}'))
    assert backend().claims(peer) == backend().claims(loud) == {("VTEP MAC", OTHER_MAC)}


def test_our_own_lease_tells_by_which_address_peers_know_our_device() -> None:
    assert backend().published(vxlan_lease(mac=OWN_MAC)) == {"flannel.1": OWN_MAC}
    assert backend().published(replace(vxlan_lease(), attrs=replace(vxlan_lease().attrs, backend_data="{"))) == {}


def test_the_options_shape_the_device() -> None:
    chosen = options('"VNI":42,"Port":4789,"GBP":true,"Learning":true,"MTU":9000')
    assert chosen.devices == ("flannel.42",)
    link = chosen.self_items(replace(view(), macs={"flannel.42": OWN_MAC}))[0]
    spec = Vxlan(42, "ens33", IPv4Address("172.16.41.131"), 4789, learning=True, gbp=True)
    assert link == Link("flannel.42", spec, 8950, OWN_MAC)
    assert chosen.mtu(underlay()) == 8950


def test_port_nought_is_the_kernels_default() -> None:
    link = options('"Port":0').self_items(view())[0]
    assert isinstance(link, Link)
    assert vxlan_of(link).port == 8472


def test_containers_get_the_mtu_that_suits_both_families() -> None:
    assert backend().mtu(underlay()) == 1450
    assert backend(DUAL).mtu(underlay(ipv6="fd00:41::131")) == 1430


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('"VNI":16777216', "Backend.VNI"),
        ('"VNI":-1', "Backend.VNI"),
        ('"Port":65536', "Backend.Port"),
        ('"Learning":"yes"', "Backend.Learning"),
        ('"VNI":10000000', "16 characters"),
    ],
)
def test_an_option_out_of_range_is_named(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        options(text)


def test_an_underlay_too_narrow_to_carry_the_tunnel_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"MTU 100 of ens33 leaves 50 bytes for flannel.1: it must be at least 118"):
        backend().mtu(underlay(mtu=100))
    with pytest.raises(ConfigError, match=r"Backend.MTU 1300 leaves 1230 bytes for flannel-v6.1"):
        from_config(config('{"Type":"vxlan","MTU":1300}', ipv6_network="fd00:2::/48")).mtu(underlay())


def test_an_option_nobody_knows_is_mentioned() -> None:
    assert any("Prot" in warning for warning in options('"Prot":4789').warnings)
    assert options('"Port":4789').warnings == ()


def test_the_scope_is_our_devices_and_our_networks() -> None:
    scope = backend(DUAL).scope(DUAL_VIEW)
    assert scope.devices == {"flannel.1", "flannel-v6.1"}
    assert [str(network) for network in scope.networks] == ["10.2.0.0/16", "fd00:2::/48"]
    assert scope.sysctls == {("flannel.1", "ipv6", "accept_ra"), ("flannel-v6.1", "ipv6", "accept_ra")}
    addresses = {item.dev: item.address for item in backend(DUAL).self_items(DUAL_VIEW) if isinstance(item, Address)}
    assert set(scope.identities) == {
        Identity(dev, Vxlan(1, "ens33", None, 8472), DUAL_VIEW.macs[dev], addresses[dev])
        for dev in ("flannel.1", "flannel-v6.1")
    }


ON_LINK = Reach.of([(ip_network("172.16.41.0/24"), True), (ip_network("fd00:41::/64"), True)])


def near(seen: View) -> View:
    """The same view, where others are on the link."""
    return replace(seen, underlay=replace(seen.underlay, on_link=ON_LINK))


def test_with_direct_routing_a_peer_on_the_link_is_a_route_through_its_host_alone() -> None:
    peer = vxlan_lease("10.2.41.0/24", "172.16.41.132")
    (item,) = options('"DirectRouting":true').peer_items(near(view()), peer)
    assert item == Route(
        ip_network("10.2.41.0/24"), "ens33", IPv4Address("172.16.41.132"), onlink=False, protocol=PROTO_FLANNEL
    )


def test_with_direct_routing_a_peer_beyond_a_router_is_reached_through_the_tunnel() -> None:
    made, far = options('"DirectRouting":true'), vxlan_lease("10.2.41.0/24", "172.16.42.132")
    assert made.peer_items(near(view()), far) == backend().peer_items(view(), far)
    close = vxlan_lease("10.2.41.0/24", "172.16.41.132")
    assert made.peer_items(view(), close) == backend().peer_items(view(), close)
    assert backend().peer_items(near(view()), close) == backend().peer_items(view(), close)


def test_each_family_of_a_peer_goes_its_own_way() -> None:
    made = from_config(config('{"Type":"vxlan","DirectRouting":true}', ipv6_network="fd00:2::/48"))
    data = f'{{"VNI":1,"VtepMAC":"{OTHER_MAC}"}}'
    peer = Lease(
        subnet("10.2.41.0/24", "fd00:2:0:41::/64"),
        Attrs(IPv4Address("172.16.42.132"), IPv6Address("fd00:41::132"), "vxlan", data, data),
    )
    routes = [item for item in made.peer_items(near(DUAL_VIEW), peer) if isinstance(item, Route)]
    assert [(route.dev, str(route.via)) for route in routes] == [("flannel.1", "10.2.41.0"), ("ens33", "fd00:41::132")]


def test_a_direct_route_has_no_metric_even_where_they_are_spread() -> None:
    spread = replace(near(view()), spread=True)
    (item,) = options('"DirectRouting":true').peer_items(spread, vxlan_lease())
    assert isinstance(item, Route)
    assert item.metric == 0


def test_direct_routing_leaves_the_mtu_as_the_tunnel_has_it() -> None:
    assert options('"DirectRouting":true').mtu(underlay()) == 1450
    assert options('"DirectRouting":true').warnings == ()


@pytest.mark.parametrize("on", [True, False])
def test_checksums_are_left_for_later_on_each_device_as_the_command_line_says(on: bool) -> None:
    made, seen = backend(DUAL), replace(DUAL_VIEW, checksum_offload=on)
    offloads = [item for item in made.self_items(seen) if isinstance(item, ChecksumOffload)]
    assert offloads == [ChecksumOffload("flannel.1", on), ChecksumOffload("flannel-v6.1", on)]
    assert made.scope(seen).offloads == {"flannel.1", "flannel-v6.1"}


def test_otherwise_nobody_minds_how_checksums_are_made() -> None:
    assert not any(isinstance(item, ChecksumOffload) for item in backend(DUAL).self_items(DUAL_VIEW))
    assert backend(DUAL).scope(DUAL_VIEW).offloads == frozenset()
