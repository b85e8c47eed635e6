"""Permanent neighbours and vxlan forwarding entries (rtnetlink(7), RTM_NEWNEIGH, linux/neighbour.h).

One message serves both: a neighbour says which MAC answers for an address, a forwarding entry of family AF_BRIDGE says
which host a MAC lives on.
"""

from __future__ import annotations

import struct
from socket import AF_INET, AF_INET6
from typing import Final

from pyflannel.linux.netlink import (
    INTEGER,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_REPLACE,
    Request,
    attribute,
    attributes,
)
from pyflannel.linux.routes import unpack_address
from pyflannel.state import FdbEntry, Key, Mac, Neighbour

RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
AF_BRIDGE: Final = 7
NDMSG: Final = struct.Struct("=BxxxiHBB")
"""Family, device index, state, flags, type."""
NDA_DST, NDA_LLADDR, NDA_PORT, NDA_VNI, NDA_IFINDEX, NDA_MASTER = 1, 2, 6, 7, 8, 9
NUD_NOARP, NUD_PERMANENT = 0x40, 0x80
NTF_SELF: Final = 0x02


def put_neighbour(item: Neighbour, index: int) -> Request:
    """Add or change it: ``ip neigh replace … nud permanent``."""
    return Request(RTM_NEWNEIGH, _neighbour(item, index), NLM_F_CREATE | NLM_F_REPLACE)


def cut_neighbour(item: Neighbour, index: int) -> Request:
    """Remove it."""
    return Request(RTM_DELNEIGH, _neighbour(item, index))


def query_neighbours(family: int, index: int) -> Request:
    """List the neighbours on one device."""
    return Request(RTM_GETNEIGH, NDMSG.pack(family, 0, 0, 0, 0) + attribute(NDA_IFINDEX, INTEGER.pack(index)))


def read_neighbour(body: bytes, index: int, dev: str) -> Neighbour | None:
    """Decode one entry of the listing of ``dev``; None if it is not a permanent one there."""
    family, where, state, _, _ = NDMSG.unpack_from(body)
    if family == AF_BRIDGE or where != index or not state & NUD_PERMANENT:
        return None
    found = attributes(body, NDMSG.size)
    if len(found.get(NDA_LLADDR, b"")) != 6 or NDA_DST not in found:
        return None
    return Neighbour(dev, unpack_address(found[NDA_DST]), Mac(found[NDA_LLADDR]))


def put_fdb(item: FdbEntry, index: int) -> Request:
    """Add or change it: ``bridge fdb replace … self permanent``; a MAC that may have many hosts gets one more."""
    how = NLM_F_REPLACE if item.mac.is_unicast else NLM_F_APPEND
    return Request(RTM_NEWNEIGH, _fdb(item, index), NLM_F_CREATE | how)


def cut_fdb(item: FdbEntry, index: int) -> Request:
    """Remove it."""
    return Request(RTM_DELNEIGH, _fdb(item, index))


def query_fdb(index: int) -> Request:
    """List the forwarding entries of one device."""
    return Request(RTM_GETNEIGH, NDMSG.pack(AF_BRIDGE, index, 0, 0, 0))


def read_fdb(body: bytes, index: int, dev: str) -> FdbEntry | None:
    """Decode one entry of the listing of ``dev``; None if it was learned, or has no host, or settings we never make.

    The last kind (another port, network or device for one MAC) is passed over because a put replaces it anyway.
    """
    family, where, state, _, _ = NDMSG.unpack_from(body)
    if family != AF_BRIDGE or where != index or not state & (NUD_PERMANENT | NUD_NOARP):
        return None
    found = attributes(body, NDMSG.size)
    if NDA_DST not in found or NDA_LLADDR not in found or found.keys() & {NDA_PORT, NDA_VNI, NDA_IFINDEX}:
        return None
    return FdbEntry(dev, Mac(found[NDA_LLADDR]), unpack_address(found[NDA_DST]))


def slot(body: bytes, dev: str) -> Key | None:
    """Which slot of ``dev`` an event is about; None if it can be none of ours.

    That is an entry of a bridge the device is plugged into, and one that does not say what it is about.
    """
    family, *_ = NDMSG.unpack_from(body)
    found = attributes(body, NDMSG.size)
    dst = unpack_address(found[NDA_DST]) if NDA_DST in found else None
    if family != AF_BRIDGE:
        return None if dst is None else (Neighbour, dev, dst)
    if NDA_MASTER in found or len(found.get(NDA_LLADDR, b"")) != 6:
        return None
    mac = Mac(found[NDA_LLADDR])
    # As ``FdbEntry.key`` has it.
    return (FdbEntry, dev, mac) if mac.is_unicast else (FdbEntry, dev, mac, dst)


def _neighbour(item: Neighbour, index: int) -> bytes:
    family = AF_INET if item.ip.version == 4 else AF_INET6
    return (
        NDMSG.pack(family, index, NUD_PERMANENT, 0, 0)
        + attribute(NDA_DST, item.ip.packed)
        + attribute(NDA_LLADDR, item.mac)
    )


def _fdb(item: FdbEntry, index: int) -> bytes:
    return (
        NDMSG.pack(AF_BRIDGE, index, NUD_PERMANENT | NUD_NOARP, NTF_SELF, 0)
        + attribute(NDA_LLADDR, item.mac)
        + attribute(NDA_DST, item.dst.packed)
    )
