"""Network devices, and vxlan devices in particular (rtnetlink(7), RTM_NEWLINK, linux/if_link.h).

A vxlan device can change its local address, learning and underlay while packets flow, and like any device its MTU, MAC
and being up (seen on Linux 6.18); for the rest it has to be made anew: ``pyflannel.diff.must_rebuild`` is the rule.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from pyflannel.linux.netlink import INTEGER, NLM_F_CREATE, NLM_F_EXCL, Request, attribute, attributes
from pyflannel.linux.routes import unpack_address
from pyflannel.state import IPAddress, Link, Mac, Vxlan

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
IFINFOMSG: Final = struct.Struct("=BxHiII")
"""Family, hardware type, index, flags, mask of the flags to change."""
IFF_UP: Final = 0x1
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO, IFLA_EXT_MASK, IFLA_LINK_NETNSID = 1, 3, 4, 18, 29, 37
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
RTEXT_FILTER_SKIP_STATS: Final = 0x8
MTU: Final = struct.Struct("=I")

IFLA_VXLAN_ID, IFLA_VXLAN_GROUP, IFLA_VXLAN_LINK, IFLA_VXLAN_LOCAL, IFLA_VXLAN_LEARNING = 1, 2, 3, 4, 7
IFLA_VXLAN_PROXY, IFLA_VXLAN_RSC, IFLA_VXLAN_L2MISS = 11, 12, 13
IFLA_VXLAN_PORT, IFLA_VXLAN_GROUP6, IFLA_VXLAN_LOCAL6, IFLA_VXLAN_GBP = 15, 16, 17, 23
IFLA_VXLAN_COLLECT_METADATA, IFLA_VXLAN_GPE, IFLA_VXLAN_VNIFILTER = 25, 27, 30
VNI: Final = struct.Struct("=I")
PORT: Final = struct.Struct("!H")

OTHER_USES: Final[Mapping[int, str]] = {
    IFLA_VXLAN_GROUP: "a group or default remote",
    IFLA_VXLAN_GROUP6: "a group or default remote",
    IFLA_VXLAN_PROXY: "proxy",
    IFLA_VXLAN_RSC: "rsc",
    IFLA_VXLAN_L2MISS: "l2miss",
    IFLA_VXLAN_COLLECT_METADATA: "external",
    IFLA_VXLAN_GPE: "gpe",
    IFLA_VXLAN_VNIFILTER: "vnifilter",
}
"""Settings which send packets other ways than our forwarding entries say, and what ip-link(8) calls them."""
_SWITCHES: Final = frozenset((IFLA_VXLAN_PROXY, IFLA_VXLAN_RSC, IFLA_VXLAN_L2MISS, IFLA_VXLAN_COLLECT_METADATA))
"""Those of them that the kernel always lists, with 0 or 1."""


@dataclass(frozen=True, slots=True)
class Device:
    """What the kernel says of a device, still with its index."""

    index: int
    name: str
    mtu: int
    up: bool
    mac: Mac | None
    """None for a device without an Ethernet address."""
    kind: str
    """As in ``ip link … type``; empty for hardware."""
    settings: Mapping[int, bytes]
    """Raw attributes of that kind (IFLA_INFO_DATA)."""
    underlay_elsewhere: bool
    """True if the device below is in another network namespace, where its index means something else."""


def query(target: str | int) -> Request:
    """Ask for one device, by name or index."""
    if isinstance(target, int):
        return Request(RTM_GETLINK, IFINFOMSG.pack(0, 0, target, 0, 0) + _WITHOUT_STATS)
    return Request(RTM_GETLINK, IFINFOMSG.pack(0, 0, 0, 0, 0) + _name(target) + _WITHOUT_STATS)


def query_all() -> Request:
    """List every device."""
    return Request(RTM_GETLINK, IFINFOMSG.pack(0, 0, 0, 0, 0) + _WITHOUT_STATS)


def query_kind(kind: str) -> Request:
    """List the devices of one type; a kernel before 4.6 lists all there are."""
    wanted = attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, kind.encode() + b"\0"))
    return Request(RTM_GETLINK, IFINFOMSG.pack(0, 0, 0, 0, 0) + wanted + _WITHOUT_STATS)


def read(body: bytes) -> Device:
    """Decode an answer to ``query``, or one entry of a listing."""
    _, _, index, flags, _ = IFINFOMSG.unpack_from(body)
    found = attributes(body, IFINFOMSG.size)
    info = attributes(found.get(IFLA_LINKINFO, b""))
    mac = found.get(IFLA_ADDRESS, b"")
    return Device(
        index=index,
        name=found[IFLA_IFNAME].rstrip(b"\0").decode(errors="surrogateescape"),
        mtu=MTU.unpack(found[IFLA_MTU])[0] if IFLA_MTU in found else 0,
        up=bool(flags & IFF_UP),
        mac=Mac(mac) if len(mac) == 6 else None,
        kind=info.get(IFLA_INFO_KIND, b"").rstrip(b"\0").decode(errors="replace"),
        settings=attributes(info.get(IFLA_INFO_DATA, b"")),
        underlay_elsewhere=IFLA_LINK_NETNSID in found,
    )


def misfit(device: Device) -> str | None:
    """Why ``device`` can be none of ours, or None if it can."""
    if device.kind != "vxlan":
        return f"it is of type {device.kind or 'hardware'}, not vxlan"
    for setting, word in OTHER_USES.items():
        if setting in device.settings and (setting not in _SWITCHES or any(device.settings[setting])):
            return f"it is a vxlan device with {word}"
    return None


def underlay(device: Device) -> int:
    """Index of the device below, 0 if there is none here."""
    raw = device.settings.get(IFLA_VXLAN_LINK)
    return INTEGER.unpack(raw)[0] if raw and not device.underlay_elsewhere else 0


def vxlan_ends(device: Device) -> tuple[int, int]:
    """VNI and port of a vxlan device."""
    return VNI.unpack(device.settings[IFLA_VXLAN_ID])[0], PORT.unpack(device.settings[IFLA_VXLAN_PORT])[0]


def as_item(device: Device, underlay_name: str) -> Link:
    """The item a vxlan device is."""
    settings = device.settings
    local = settings.get(IFLA_VXLAN_LOCAL) or settings.get(IFLA_VXLAN_LOCAL6)
    spec = Vxlan(
        vni=VNI.unpack(settings[IFLA_VXLAN_ID])[0],
        underlay=underlay_name,
        local=unpack_address(local) if local else None,
        port=PORT.unpack(settings[IFLA_VXLAN_PORT])[0],
        learning=any(settings.get(IFLA_VXLAN_LEARNING, b"")),
        gbp=IFLA_VXLAN_GBP in settings,
    )
    return Link(device.name, spec, device.mtu, device.mac, device.up)


def create(item: Link, underlay_index: int) -> Request:
    """Make the device, complete, in one step; EEXIST if its name or its VNI and port are taken.

    What we do not name stays as the kernel has it: TTL, TOS, UDP checksums, source ports (compat §5.2).
    """
    spec = item.spec
    settings = [
        attribute(IFLA_VXLAN_ID, VNI.pack(spec.vni)),
        attribute(IFLA_VXLAN_LINK, INTEGER.pack(underlay_index)),
        attribute(IFLA_VXLAN_PORT, PORT.pack(spec.port)),
        attribute(IFLA_VXLAN_LEARNING, bytes([spec.learning])),
    ]
    if spec.local is not None:
        settings.append(_local(spec.local))
    if spec.gbp:
        # A flag: its presence counts, whatever its value.
        settings.append(attribute(IFLA_VXLAN_GBP, b""))
    parts = [_header(0, item.up), _name(item.name), attribute(IFLA_MTU, MTU.pack(item.mtu))]
    if item.mac is not None:
        parts.append(attribute(IFLA_ADDRESS, item.mac))
    parts.append(_vxlan(*settings))
    return Request(RTM_NEWLINK, b"".join(parts), NLM_F_CREATE | NLM_F_EXCL)


def change(item: Link, old: Link, index: int, underlay_index: int) -> tuple[Request, ...]:
    """Make of the device that is ``old`` what ``item`` says, naming only what differs.

    Two requests, for the kernel refuses an MTU together with settings of the kind; and in this order, for a larger MTU
    may need the new underlay.
    """
    settings = []
    if item.spec.underlay != old.spec.underlay:
        settings.append(attribute(IFLA_VXLAN_LINK, INTEGER.pack(underlay_index)))
    if item.spec.local != old.spec.local and item.spec.local is not None:
        settings.append(_local(item.spec.local))
    if item.spec.learning != old.spec.learning:
        settings.append(attribute(IFLA_VXLAN_LEARNING, bytes([item.spec.learning])))
    parts = [_header(index, item.up)]
    if item.mtu != old.mtu:
        parts.append(attribute(IFLA_MTU, MTU.pack(item.mtu)))
    if item.mac is not None and item.mac != old.mac:
        parts.append(attribute(IFLA_ADDRESS, item.mac))
    common = Request(RTM_NEWLINK, b"".join(parts))
    if not settings:
        return (common,)
    return Request(RTM_NEWLINK, IFINFOMSG.pack(0, 0, index, 0, 0) + _vxlan(*settings)), common


def rename(index: int, name: str) -> Request:
    """Give the device this name; EBUSY if the kernel (before 6.2) renames only what is down."""
    return Request(RTM_NEWLINK, IFINFOMSG.pack(0, 0, index, 0, 0) + _name(name))


def set_down(index: int) -> Request:
    """Stop the device, which costs its routes, neighbours and IPv6 addresses."""
    return Request(RTM_NEWLINK, _header(index, up=False))


def delete(index: int) -> Request:
    """Remove the device, and with it all that is on it."""
    return Request(RTM_DELLINK, IFINFOMSG.pack(0, 0, index, 0, 0))


def _header(index: int, up: bool) -> bytes:
    return IFINFOMSG.pack(0, 0, index, IFF_UP if up else 0, IFF_UP)


def _name(name: str) -> bytes:
    return attribute(IFLA_IFNAME, name.encode(errors="surrogateescape") + b"\0")


def _local(address: IPAddress) -> bytes:
    kind = IFLA_VXLAN_LOCAL if isinstance(address, IPv4Address) else IFLA_VXLAN_LOCAL6
    return attribute(kind, address.packed)


def _vxlan(*settings: bytes) -> bytes:
    info = attribute(IFLA_INFO_KIND, b"vxlan\0") + attribute(IFLA_INFO_DATA, b"".join(settings))
    return attribute(IFLA_LINKINFO, info)


_WITHOUT_STATS: Final = attribute(IFLA_EXT_MASK, INTEGER.pack(RTEXT_FILTER_SKIP_STATS))
