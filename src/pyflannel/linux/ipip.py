"""The settings of an IPv4-in-IPv4 device (linux/if_tunnel.h, IFLA_IPTUN_*).

It can change its local address and underlay while packets flow.  What a change does not name the kernel takes for zero,
not for unchanged (ipip_netlink_parms, Linux 6.1), so a change names all that a creation does.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Final

from pyflannel.linux.netlink import INTEGER, attribute
from pyflannel.state import Ipip, Spec

IFLA_IPTUN_LINK, IFLA_IPTUN_LOCAL, IFLA_IPTUN_REMOTE, IFLA_IPTUN_TTL, IFLA_IPTUN_TOS = 1, 2, 3, 4, 5
IFLA_IPTUN_PROTO, IFLA_IPTUN_PMTUDISC, IFLA_IPTUN_ENCAP_TYPE, IFLA_IPTUN_COLLECT_METADATA = 9, 10, 15, 19
ANY: Final = bytes(4)
IPIP: Final = frozenset((b"\0", b"\4"))
"""Protocols that let IPv4 through: any, and IPPROTO_IPIP."""
NO_ENCAP: Final = struct.pack("=H", 0)
"""TUNNEL_ENCAP_NONE."""


def misuse(settings: Mapping[int, bytes]) -> str | None:
    """What other use a device is set up for, if any."""
    if settings.get(IFLA_IPTUN_REMOTE, ANY) != ANY:
        return "a remote"
    if settings.get(IFLA_IPTUN_ENCAP_TYPE, NO_ENCAP) != NO_ENCAP:
        return "encap"
    if settings.get(IFLA_IPTUN_PROTO, b"\4") not in IPIP:
        return "another mode"
    return "external" if IFLA_IPTUN_COLLECT_METADATA in settings else None


def underlay(settings: Mapping[int, bytes]) -> int:
    """Index of the device below, 0 if the routing table decides."""
    raw = settings.get(IFLA_IPTUN_LINK)
    return INTEGER.unpack(raw)[0] if raw else 0


def read(settings: Mapping[int, bytes], underlay_name: str) -> Ipip:
    """What the kernel says of a device's settings."""
    local = settings.get(IFLA_IPTUN_LOCAL, ANY)
    return Ipip(underlay_name, None if local == ANY else IPv4Address(local))


def create(spec: Spec, underlay_index: int) -> bytes:
    """All settings that a new device is to have.

    TTL and DF of the outer packet are those of the inner one, as Go flanneld has them, which says so in every creation
    (vishvananda/netlink, addIptunAttrs); the kernel by itself would set DF always.
    """
    assert isinstance(spec, Ipip)
    settings = [attribute(kind, b"\0") for kind in (IFLA_IPTUN_TTL, IFLA_IPTUN_TOS, IFLA_IPTUN_PMTUDISC)]
    if underlay_index:
        settings.append(attribute(IFLA_IPTUN_LINK, INTEGER.pack(underlay_index)))
    if spec.local is not None:
        settings.append(attribute(IFLA_IPTUN_LOCAL, spec.local.packed))
    return b"".join(settings)


def change(spec: Spec, old: Spec, underlay_index: int) -> bytes:
    """All settings if one of ours differs; nothing if none does."""
    return b"" if spec == old else create(spec, underlay_index)
