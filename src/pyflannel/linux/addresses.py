"""Addresses on devices, as rtnetlink(7) has them (RTM_NEWADDR, linux/if_addr.h)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from socket import AF_INET, AF_INET6, AF_UNSPEC
from typing import Final

from pyflannel.linux.netlink import NLM_F_CREATE, NLM_F_REPLACE, Request, attribute, attributes
from pyflannel.state import Address, IPInterface

RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
IFADDRMSG: Final = struct.Struct("=BBBBI")
"""Family, prefix length, flags, scope, device index."""
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
FLAGS: Final = struct.Struct("=I")
IFA_F_TEMPORARY, IFA_F_NODAD, IFA_F_DEPRECATED, IFA_F_PERMANENT = 0x01, 0x02, 0x20, 0x80


@dataclass(frozen=True, slots=True)
class Assigned:
    """An address with what the kernel says of it."""

    index: int
    address: IPInterface
    flags: int


def put(item: Address, index: int) -> Request:
    """Add the address, or find it there.

    Duplicate address detection is left out for IPv6: there is no multicast between vxlan hosts, so that it could find
    nothing, and until it has finished the address is of no use.
    """
    flags = attribute(IFA_FLAGS, FLAGS.pack(IFA_F_NODAD)) if item.address.version == 6 else b""
    return Request(RTM_NEWADDR, _body(item, index) + flags, NLM_F_CREATE | NLM_F_REPLACE)


def cut(item: Address, index: int) -> Request:
    """Remove the address."""
    return Request(RTM_DELADDR, _body(item, index))


def query(index: int = 0) -> Request:
    """List the addresses of one device, or of all, both families."""
    return Request(RTM_GETADDR, IFADDRMSG.pack(AF_UNSPEC, 0, 0, 0, index))


def read(body: bytes) -> Assigned | None:
    """Decode one entry of the listing; None for a family we have no use for."""
    family, length, flags, _, index = IFADDRMSG.unpack_from(body)
    found = attributes(body, IFADDRMSG.size)
    # On a point-to-point device IFA_ADDRESS is the other end; IPv6 has no IFA_LOCAL without one.
    raw = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS)
    if raw is None or family not in (AF_INET, AF_INET6):
        return None
    address = IPv4Interface((raw, length)) if family == AF_INET else IPv6Interface((raw, length))
    if IFA_FLAGS in found:
        (flags,) = FLAGS.unpack(found[IFA_FLAGS])
    return Assigned(index, address, flags)


def _body(item: Address, index: int) -> bytes:
    family = AF_INET if item.address.version == 4 else AF_INET6
    raw = item.address.packed
    return (
        IFADDRMSG.pack(family, item.address.network.prefixlen, 0, 0, index)
        + attribute(IFA_LOCAL, raw)
        + attribute(IFA_ADDRESS, raw)
    )
