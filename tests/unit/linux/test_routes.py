from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from socket import AF_INET, AF_INET6

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflannel.linux import routes
from pyflannel.linux.netlink import INTEGER, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, attribute
from pyflannel.linux.routes import RTMSG
from pyflannel.state import PROTO_KERNEL, Route
from tests.support.kernel_items import DEV, DEV6, peer, peer6
from tests.support.netlink_oracle import understood

INDEX = 7
FOUR, SIX = peer(2)[2], peer6(2)[2]


def entry(
    kind: int = 1, protocol: int = 3, table: int = 254, flags: int = 0, tos: int = 0, source: int = 0, scope: int = 253
) -> bytes:
    """The header of an IPv4 /24 without a gateway, with what a test is about."""
    return RTMSG.pack(AF_INET, 24, source, tos, table, protocol, scope, kind, flags)


def through(index: int = INDEX) -> bytes:
    """Its destination and device."""
    return attribute(routes.RTA_DST, bytes((10, 2, 2, 0))) + attribute(routes.RTA_OIF, INTEGER.pack(index))


def only(body: bytes, dev: str = DEV) -> Route:
    """The one route an entry stands for."""
    (found,) = routes.read(body, INDEX, dev)
    return found


def test_a_route_is_added_only_where_none_is() -> None:
    request = routes.add(FOUR, INDEX)
    assert request.flags == NLM_F_CREATE | NLM_F_EXCL
    said = understood(request)
    assert (said["family"], said["dst_len"], said["RTA_DST"], said["RTA_GATEWAY"]) == (2, 24, "10.2.2.0", "10.2.2.0")
    assert (said["table"], said["proto"], said["scope"], said["type"], said["RTA_OIF"]) == (254, 3, 0, 1, INDEX)
    assert said["flags"] == routes.RTNH_F_ONLINK
    assert "RTA_PRIORITY" not in said


def test_a_route_that_changes_is_added_behind_the_old_one() -> None:
    assert routes.append(FOUR, INDEX).flags == NLM_F_CREATE | NLM_F_APPEND
    assert routes.append(FOUR, INDEX).body == routes.add(FOUR, INDEX).body


def test_an_ipv6_route_names_the_metric_the_kernel_would_choose() -> None:
    said = understood(routes.add(SIX, INDEX))
    assert (said["family"], said["dst_len"], said["RTA_PRIORITY"]) == (AF_INET6, 64, 1024)
    assert (said["RTA_DST"], said["RTA_GATEWAY"]) == ("fd00:2:2::", "fd00:2:2::")


def test_an_ipv4_route_without_a_gateway_is_on_the_link() -> None:
    assert understood(routes.add(Route(FOUR.dst, DEV), INDEX))["scope"] == routes.RT_SCOPE_LINK
    assert understood(routes.add(Route(SIX.dst, DEV6), INDEX))["scope"] == routes.RT_SCOPE_UNIVERSE


def test_an_ipv4_route_may_go_through_an_ipv6_gateway() -> None:
    item = replace(FOUR, via=IPv6Address("fe80::1"))
    assert understood(routes.add(item, INDEX))["RTA_VIA"] == {"family": AF_INET6, "addr": "fe80::1"}
    assert only(routes.add(item, INDEX).body) == item


def test_a_cut_leaves_the_scope_open() -> None:
    assert understood(routes.cut(FOUR, INDEX))["scope"] == routes.RT_SCOPE_NOWHERE


def test_a_cut_of_a_route_without_a_gateway_takes_none_that_has_one() -> None:
    four, six = (replace(item, via=None, onlink=False) for item in (FOUR, SIX))
    assert understood(routes.cut(four, INDEX))["scope"] == routes.RT_SCOPE_LINK
    assert understood(routes.cut(six, INDEX))["RTA_GATEWAY"] == "::"


def test_a_loose_cut_takes_any_gateway_and_scope() -> None:
    said = understood(routes.cut_loosely(FOUR, INDEX))
    assert said["scope"] == routes.RT_SCOPE_NOWHERE
    assert "RTA_GATEWAY" not in said


def test_a_listing_is_of_the_main_table_and_one_device_or_all() -> None:
    said = understood(routes.query(AF_INET, INDEX))
    assert (said["table"], said["RTA_TABLE"], said["RTA_OIF"]) == (254, 254, INDEX)
    assert "RTA_OIF" not in understood(routes.query(AF_INET6))


def networks4() -> st.SearchStrategy[IPv4Network]:
    return st.builds(
        lambda raw, length: IPv4Network((raw, length), strict=False),
        st.binary(min_size=4, max_size=4),
        st.integers(0, 32),
    )


def networks6() -> st.SearchStrategy[IPv6Network]:
    unlisted = (routes.LINK_LOCAL, routes.MULTICAST)
    return st.builds(
        lambda raw, length: IPv6Network((raw, length), strict=False),
        st.binary(min_size=16, max_size=16),
        st.integers(0, 128),
    ).filter(lambda net: net not in unlisted)


@given(
    st.builds(
        Route,
        dst=networks4() | networks6(),
        dev=st.just(DEV),
        via=st.none() | st.ip_addresses(),
        onlink=st.booleans(),
        metric=st.integers(0, 2**32 - 1),
        protocol=st.integers(3, 255),
    ).filter(lambda item: item.via is None or item.dst.version == 4 or item.via.version == 6)
)
def test_any_route_reads_as_it_was_written(item: Route) -> None:
    assert only(routes.add(item, INDEX).body) == item


@pytest.mark.parametrize(
    "body",
    [
        entry(protocol=PROTO_KERNEL) + through(),
        entry(kind=2) + through(),
        entry(table=255) + through(),
        entry(flags=routes.RTM_F_CLONED) + through(),
        entry(tos=4) + through(),
        entry(source=8) + through(),
        entry() + through(8),
        entry() + attribute(routes.RTA_DST, bytes((10, 2, 2, 0))),
        entry() + through() + attribute(routes.RTA_NH_ID, INTEGER.pack(1)),
    ],
    ids=[
        "kernel's own",
        "local",
        "other table",
        "cached",
        "tos",
        "from",
        "other device",
        "no device",
        "nexthop object",
    ],
)
def test_routes_that_are_not_for_us_to_judge_are_passed_over(body: bytes) -> None:
    assert list(routes.read(body, INDEX, DEV)) == []


@pytest.mark.parametrize("text", ["fe80::/64", "ff00::/8"])
def test_what_every_ipv6_device_has_is_passed_over(text: str) -> None:
    assert list(routes.read(routes.add(Route(ip_network(text), DEV6), INDEX).body, INDEX, DEV6)) == []


@pytest.mark.parametrize(
    "body",
    [
        entry() + through() + attribute(routes.RTA_PREFSRC, bytes(4)),
        entry() + through() + attribute(routes.RTA_METRICS, b""),
    ],
    ids=["src", "mtu"],
)
def test_a_route_with_settings_we_never_make_is_a_stray(body: bytes) -> None:
    assert only(body).stray
    assert not only(entry() + through()).stray


def test_the_default_route_has_no_destination_on_the_wire() -> None:
    body = RTMSG.pack(AF_INET, 0, 0, 0, 254, 3, 0, 1, 0) + attribute(routes.RTA_OIF, INTEGER.pack(INDEX))
    assert only(body).dst == ip_network("0.0.0.0/0")
    body = RTMSG.pack(AF_INET6, 0, 0, 0, 254, 3, 0, 1, 0) + attribute(routes.RTA_OIF, INTEGER.pack(INDEX))
    assert only(body).dst == ip_network("::/0")


def hop(index: int, gateway: str) -> bytes:
    """One next hop of a multipath route (struct rtnexthop)."""
    via = attribute(routes.RTA_GATEWAY, ip_address(gateway).packed)
    return routes.RTNEXTHOP.pack(routes.RTNEXTHOP.size + len(via), routes.RTNH_F_ONLINK, 0, index) + via


def test_each_hop_of_an_ipv6_multipath_route_is_a_route() -> None:
    hops = hop(INDEX, "fd00::1") + hop(8, "fd00::2") + hop(INDEX, "fd00::3")
    body = (
        RTMSG.pack(AF_INET6, 64, 0, 0, 254, 3, 0, 1, 0)
        + attribute(routes.RTA_DST, SIX.dst.network_address.packed)
        + attribute(routes.RTA_PRIORITY, struct.pack("=I", 1024))
        + attribute(routes.RTA_MULTIPATH, hops)
    )
    want = [replace(SIX, via=ip_address("fd00::1")), replace(SIX, via=ip_address("fd00::3"))]
    assert list(routes.read(body, INDEX, DEV6)) == want


def test_an_ipv4_multipath_route_is_its_makers() -> None:
    body = entry() + through() + attribute(routes.RTA_MULTIPATH, hop(INDEX, "10.0.0.1"))
    assert list(routes.read(body, INDEX, DEV)) == []


def test_a_mangled_hop_ends_the_list() -> None:
    hops = hop(INDEX, "fd00::1") + routes.RTNEXTHOP.pack(2, 0, 0, INDEX)
    body = RTMSG.pack(AF_INET6, 64, 0, 0, 254, 3, 0, 1, 0) + attribute(routes.RTA_MULTIPATH, hops)
    assert len(list(routes.read(body, INDEX, DEV6))) == 1


def test_an_address_is_known_by_its_length() -> None:
    assert routes.unpack_address(bytes((192, 0, 2, 1))) == IPv4Address("192.0.2.1")
    assert routes.unpack_address(bytes(15) + b"\1") == IPv6Address("::1")
