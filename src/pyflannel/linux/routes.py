"""Unicast routes of the main table (rtnetlink(7), RTM_NEWROUTE).

What the kernel does, and how we live with it (seen on Linux 6.18):
  * NLM_F_REPLACE takes the first route of that destination and metric whatever its device, so it can throw out a route
    of Docker's.  We never use it: a new route is added only where none is, and one that changes is added behind the old
    one, which is then removed.  No packet is lost in between.
  * In a delete, a metric of 0, no gateway, or scope NOWHERE means *any*; device and protocol keep it to what is ours.
    A route without a gateway is told from one that has one by its scope (IPv4), or by the gateway ``::`` (IPv6).
  * IPv6 makes one multipath route of several with a gateway each, and lists them in one message; each hop is a route
    to us.  An IPv4 multipath route is one object over several devices, and nobody's but its maker's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from socket import AF_INET, AF_INET6
from typing import Final

from pyflannel.linux.netlink import INTEGER, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, Request, attribute, attributes
from pyflannel.state import PROTO_KERNEL, IPAddress, IPNetwork, Route

RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTMSG: Final = struct.Struct("=BBBBBBBBI")
"""Family, length of destination and of source, tos, table, protocol, scope, type, flags."""
RTNEXTHOP: Final = struct.Struct("=HBBi")
"""Length with attributes, flags, weight, device index."""
METRIC: Final = struct.Struct("=I")
FAMILY: Final = struct.Struct("=H")

RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS, RTA_MULTIPATH = 1, 4, 5, 6, 7, 8, 9
RTA_FLOW, RTA_TABLE, RTA_VIA, RTA_ENCAP, RTA_NH_ID = 11, 15, 18, 22, 30
RT_TABLE_MAIN: Final = 254
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_NOWHERE = 0, 253, 255
RTN_UNSPEC, RTN_UNICAST = 0, 1
RTNH_F_ONLINK: Final = 0x04
RTM_F_CLONED: Final = 0x200

STRANGE: Final = frozenset((RTA_PREFSRC, RTA_METRICS, RTA_FLOW, RTA_ENCAP))
"""Settings our routes never have."""
LINK_LOCAL: Final = IPv6Network("fe80::/64")
MULTICAST: Final = IPv6Network("ff00::/8")


def add(item: Route, index: int) -> Request:
    """Add the route where no other has its destination and metric; EEXIST otherwise."""
    return Request(RTM_NEWROUTE, _body(item, index, _scope(item), RTN_UNICAST), NLM_F_CREATE | NLM_F_EXCL)


def append(item: Route, index: int) -> Request:
    """Add the route behind those of its destination and metric; EEXIST if the very same is there."""
    return Request(RTM_NEWROUTE, _body(item, index, _scope(item), RTN_UNICAST), NLM_F_CREATE | NLM_F_APPEND)


def cut(item: Route, index: int) -> Request:
    """Remove the first route that has all that ``item`` says."""
    if item.via is not None:
        return Request(RTM_DELROUTE, _body(item, index, RT_SCOPE_NOWHERE, RTN_UNICAST))
    body = _body(item, index, _scope(item), RTN_UNICAST)
    return Request(RTM_DELROUTE, body if item.dst.version == 4 else body + attribute(RTA_GATEWAY, bytes(16)))


def cut_loosely(item: Route, index: int) -> Request:
    """The same whatever its gateway and scope, for a stray without a gateway and of a scope that we never make."""
    return Request(RTM_DELROUTE, _body(replace(item, via=None), index, RT_SCOPE_NOWHERE, RTN_UNICAST))


def query(family: int, index: int = 0) -> Request:
    """List the main table, or what of it goes through one device."""
    body = RTMSG.pack(family, 0, 0, 0, RT_TABLE_MAIN, 0, 0, RTN_UNSPEC, 0)
    # A kernel before 4.20 reads the header alone, hence the table in both places.
    table = attribute(RTA_TABLE, INTEGER.pack(RT_TABLE_MAIN))
    return Request(RTM_GETROUTE, body + table + (attribute(RTA_OIF, INTEGER.pack(index)) if index else b""))


def read(body: bytes, index: int, dev: str) -> Iterator[Route]:
    """The routes through ``dev`` that one entry of the listing stands for; none if they are not for us to judge.

    Left out are the kernel's own, IPv6 link-local and multicast, those for some packets only (by source or TOS), and
    whatever is not a unicast route of the main table.  One with settings we never make comes as a stray.
    """
    family, length, source_length, tos, table, protocol, scope, kind, flags = RTMSG.unpack_from(body)
    if kind != RTN_UNICAST or protocol == PROTO_KERNEL or table != RT_TABLE_MAIN:
        return
    if flags & RTM_F_CLONED or source_length or tos:
        return
    found = attributes(body, RTMSG.size)
    if RTA_NH_ID in found:
        return
    dst = network(family, found.get(RTA_DST, b""), length)
    if dst in (LINK_LOCAL, MULTICAST):
        return
    stray = bool(found.keys() & STRANGE)
    if RTA_MULTIPATH not in found:
        hops = [(found.get(RTA_OIF, b""), flags, found)]
    elif family == AF_INET6:
        hops = list(_hops(found[RTA_MULTIPATH]))
    else:
        return
    for oif, hop_flags, values in hops:
        if oif == INTEGER.pack(index):
            onlink = bool(hop_flags & RTNH_F_ONLINK)
            via, strange = gateway(values), stray or bool(values.keys() & STRANGE)
            universe = family == AF_INET and via is None and scope == RT_SCOPE_UNIVERSE
            route = Route(dst, dev, via, onlink, metric(found), protocol, strange, universe)
            yield route if scope == _scope(route) else replace(route, stray=True)


def network(family: int, raw: bytes, length: int) -> IPNetwork:
    """The destination of a route; the default route has none on the wire."""
    if family == AF_INET:
        return IPv4Network((raw or bytes(4), length))
    return IPv6Network((raw or bytes(16), length))


def metric(found: Mapping[int, bytes]) -> int:
    """The metric of a route, 0 if it has none."""
    return int(METRIC.unpack(found[RTA_PRIORITY])[0]) if RTA_PRIORITY in found else 0


def gateway(found: Mapping[int, bytes]) -> IPAddress | None:
    """Where a hop goes through; an IPv4 route may name an IPv6 gateway (RTA_VIA)."""
    if RTA_GATEWAY in found:
        return unpack_address(found[RTA_GATEWAY])
    return unpack_address(found[RTA_VIA][FAMILY.size :]) if RTA_VIA in found else None


def unpack_address(raw: bytes) -> IPAddress:
    """Four or sixteen bytes in network order."""
    return IPv4Address(raw) if len(raw) == 4 else IPv6Address(raw)


def _hops(raw: bytes) -> Iterator[tuple[bytes, int, dict[int, bytes]]]:
    start = 0
    while start + RTNEXTHOP.size <= len(raw):
        length, flags, _, index = RTNEXTHOP.unpack_from(raw, start)
        if length < RTNEXTHOP.size:
            return
        yield INTEGER.pack(index), flags, attributes(raw[start : start + length], RTNEXTHOP.size)
        start += (length + 3) & ~3


def _scope(item: Route) -> int:
    """As ``ip route`` chooses: without a gateway the destination is on the link itself, unless told otherwise."""
    on_link = item.via is None and item.dst.version == 4 and not item.universe
    return RT_SCOPE_LINK if on_link else RT_SCOPE_UNIVERSE


def _body(item: Route, index: int, scope: int, kind: int) -> bytes:
    family = AF_INET if item.dst.version == 4 else AF_INET6
    flags = RTNH_F_ONLINK if item.onlink else 0
    parts = [
        RTMSG.pack(family, item.dst.prefixlen, 0, 0, RT_TABLE_MAIN, item.protocol, scope, kind, flags),
        attribute(RTA_DST, item.dst.network_address.packed),
        attribute(RTA_OIF, INTEGER.pack(index)),
    ]
    if item.via is not None:
        parts.append(_gateway(item.via, item.dst.version))
    if item.metric:
        parts.append(attribute(RTA_PRIORITY, METRIC.pack(item.metric)))
    return b"".join(parts)


def _gateway(via: IPAddress, version: int) -> bytes:
    if via.version == version:
        return attribute(RTA_GATEWAY, via.packed)
    return attribute(RTA_VIA, FAMILY.pack(AF_INET6 if via.version == 6 else AF_INET) + via.packed)
