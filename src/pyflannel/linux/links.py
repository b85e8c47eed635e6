"""Network devices (rtnetlink(7), RTM_NEWLINK, linux/if_link.h), of all the types that we make.

Any device can change its MTU, MAC and being up while packets flow.  What is peculiar to a type is in its ``Kind``.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from pyflannel.linux import ipip, tuntap, vxlan
from pyflannel.linux.netlink import INTEGER, NLM_F_CREATE, NLM_F_EXCL, Request, attribute, attributes
from pyflannel.state import Ipip, Link, Mac, Spec, Tun, Vxlan, Wireguard

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
IFINFOMSG: Final = struct.Struct("=BxHiII")
"""Family, hardware type, index, flags, mask of the flags to change."""
IFF_UP: Final = 0x1
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO, IFLA_EXT_MASK, IFLA_LINK_NETNSID = 1, 3, 4, 18, 29, 37
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
RTEXT_FILTER_SKIP_STATS: Final = 0x8
MTU: Final = struct.Struct("=I")


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
    kind = _KINDS.get(device.kind)
    if kind is None:
        return f"it is of type {device.kind or 'hardware'}, not {' or '.join(sorted(_KINDS))}"
    use = kind.misuse(device.settings)
    return None if use is None else f"it is a {device.kind} device with {use}"


def underlay(device: Device) -> int:
    """Index of the device below, 0 if there is none here."""
    return 0 if device.underlay_elsewhere else _KINDS[device.kind].underlay(device.settings)


def as_item(device: Device, underlay_name: str) -> Link:
    """The item a device is that is no ``misfit``."""
    spec = _KINDS[device.kind].read(device.settings, underlay_name)
    return Link(device.name, spec, device.mtu, device.mac, device.up)


def kind_of(spec: Spec) -> str:
    """The type of such a device, as in ``ip link … type``."""
    return _NAMES[type(spec)]


def create(item: Link, underlay_index: int) -> Request:
    """Make the device, complete, in one step; EEXIST if its name, or what its kind has but once, is taken."""
    parts = [_header(0, item.up), _name(item.name), attribute(IFLA_MTU, MTU.pack(item.mtu))]
    if item.mac is not None:
        parts.append(attribute(IFLA_ADDRESS, item.mac))
    parts.append(_info(item.spec, _KINDS[kind_of(item.spec)].create(item.spec, underlay_index)))
    return Request(RTM_NEWLINK, b"".join(parts), NLM_F_CREATE | NLM_F_EXCL)


def change(item: Link, old: Link, index: int, underlay_index: int) -> tuple[Request, ...]:
    """Make of the device that is ``old`` what ``item`` says, naming only what differs.

    Two requests, for the kernel refuses an MTU together with settings of the kind; and in this order, for a larger MTU
    may need the new underlay.
    """
    settings = _KINDS[kind_of(item.spec)].change(item.spec, old.spec, underlay_index)
    parts = [_header(index, item.up)]
    if item.mtu != old.mtu or settings:
        # With another underlay the kernel gives an ipip device another MTU.
        parts.append(attribute(IFLA_MTU, MTU.pack(item.mtu)))
    if item.mac is not None and item.mac != old.mac:
        parts.append(attribute(IFLA_ADDRESS, item.mac))
    common = Request(RTM_NEWLINK, b"".join(parts))
    if not settings:
        return (common,)
    return Request(RTM_NEWLINK, IFINFOMSG.pack(0, 0, index, 0, 0) + _info(item.spec, settings)), common


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


def _info(spec: Spec, settings: bytes) -> bytes:
    info = attribute(IFLA_INFO_KIND, kind_of(spec).encode() + b"\0") + attribute(IFLA_INFO_DATA, settings)
    return attribute(IFLA_LINKINFO, info)


_WITHOUT_STATS: Final = attribute(IFLA_EXT_MASK, INTEGER.pack(RTEXT_FILTER_SKIP_STATS))


class Kind(Protocol):
    """What is peculiar to one type of device; ``settings`` are raw attributes of that type (IFLA_INFO_DATA)."""

    def misuse(self, settings: Mapping[int, bytes]) -> str | None:
        """What other use than ours such a device is set up for, if any."""

    def underlay(self, settings: Mapping[int, bytes]) -> int:
        """Index of the device below, 0 if there is none."""

    def read(self, settings: Mapping[int, bytes], underlay_name: str) -> Spec:
        """The settings as a value."""

    def create(self, spec: Spec, underlay_index: int) -> bytes:
        """The settings of a new device."""

    def change(self, spec: Spec, old: Spec, underlay_index: int) -> bytes:
        """The settings that differ; nothing if none does."""


class _Plain:
    """A type of device with no settings that matter to us."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec

    def misuse(self, settings: Mapping[int, bytes]) -> str | None:
        return None

    def underlay(self, settings: Mapping[int, bytes]) -> int:
        return 0

    def read(self, settings: Mapping[int, bytes], underlay_name: str) -> Spec:
        return self._spec

    def create(self, spec: Spec, underlay_index: int) -> bytes:
        return b""

    def change(self, spec: Spec, old: Spec, underlay_index: int) -> bytes:
        return b""


_KINDS: Final[Mapping[str, Kind]] = {
    "vxlan": vxlan,
    "ipip": ipip,
    "wireguard": _Plain(Wireguard()),
    "tun": tuntap,
}
_NAMES: Final[Mapping[type[Spec], str]] = {Vxlan: "vxlan", Ipip: "ipip", Wireguard: "wireguard", Tun: "tun"}
