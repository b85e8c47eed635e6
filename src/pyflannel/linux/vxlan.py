"""The settings of a vxlan device (linux/if_link.h, IFLA_VXLAN_*).

It can change its local address, learning and underlay while packets flow (seen on Linux 6.18); for the rest it has to
be made anew: ``pyflannel.diff.must_rebuild`` is the rule.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Final

from pyflannel.linux.netlink import INTEGER, attribute
from pyflannel.linux.routes import unpack_address
from pyflannel.state import IPAddress, Spec, Vxlan

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
SWITCHES: Final = frozenset((IFLA_VXLAN_PROXY, IFLA_VXLAN_RSC, IFLA_VXLAN_L2MISS, IFLA_VXLAN_COLLECT_METADATA))
"""Those of them that the kernel always lists, with 0 or 1."""


def misuse(settings: Mapping[int, bytes]) -> str | None:
    """What other use a device is set up for, if any."""
    for setting, word in OTHER_USES.items():
        if setting in settings and (setting not in SWITCHES or any(settings[setting])):
            return word
    return None


def underlay(settings: Mapping[int, bytes]) -> int:
    """Index of the device below, 0 if there is none."""
    raw = settings.get(IFLA_VXLAN_LINK)
    return INTEGER.unpack(raw)[0] if raw else 0


def read(settings: Mapping[int, bytes], underlay_name: str) -> Vxlan:
    """What the kernel says of a device's settings."""
    local = settings.get(IFLA_VXLAN_LOCAL) or settings.get(IFLA_VXLAN_LOCAL6)
    return Vxlan(
        vni=VNI.unpack(settings[IFLA_VXLAN_ID])[0],
        underlay=underlay_name,
        local=unpack_address(local) if local else None,
        port=PORT.unpack(settings[IFLA_VXLAN_PORT])[0],
        learning=any(settings.get(IFLA_VXLAN_LEARNING, b"")),
        gbp=IFLA_VXLAN_GBP in settings,
    )


def create(spec: Spec, underlay_index: int) -> bytes:
    """All settings that a new device is to have.

    What we do not name stays as the kernel has it: TTL, TOS, UDP checksums, source ports (compat §5.2).
    """
    assert isinstance(spec, Vxlan)
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
    return b"".join(settings)


def change(spec: Spec, old: Spec, underlay_index: int) -> bytes:
    """The settings that differ, as they are to be; nothing if none does."""
    assert isinstance(spec, Vxlan)
    assert isinstance(old, Vxlan)
    settings = []
    if spec.underlay != old.underlay:
        settings.append(attribute(IFLA_VXLAN_LINK, INTEGER.pack(underlay_index)))
    if spec.local != old.local and spec.local is not None:
        settings.append(_local(spec.local))
    if spec.learning != old.learning:
        settings.append(attribute(IFLA_VXLAN_LEARNING, bytes([spec.learning])))
    return b"".join(settings)


def _local(address: IPAddress) -> bytes:
    kind = IFLA_VXLAN_LOCAL if isinstance(address, IPv4Address) else IFLA_VXLAN_LOCAL6
    return attribute(kind, address.packed)
