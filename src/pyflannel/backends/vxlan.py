"""vxlan: Ethernet frames in UDP, forwarded by the kernel (RFC 7348, compat §5.2).

The scheme, for each peer and each address family:

    route      10.2.41.0/24 via 10.2.41.0 dev flannel.1 onlink      the subnet lies behind its own .0 address
    neighbour  10.2.41.0 lladdr 02:..:41 dev flannel.1 permanent    that address answers with the peer's VTEP MAC
    FDB        02:..:41 dev flannel.1 dst 172.16.41.132 permanent   that MAC lives on the peer's host

All three are static, so the kernel never asks anybody anything and traffic goes on while no agent runs.  The two
families have a device each, ``flannel.<VNI>`` over IPv4 and ``flannel-v6.<VNI>`` over IPv6.

With ``DirectRouting`` a peer on the link of the external interface has a route through its host instead, and nothing
else (``backends.direct``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from typing import Final

from pyflannel.backends import direct
from pyflannel.backends.api import AnotherWay, Refused, View, refuse_strangers
from pyflannel.backends.metric import metric
from pyflannel.backends.options import Options
from pyflannel.host import Underlay
from pyflannel.lease.contest import Claim
from pyflannel.lease.fields import Fields, read_object
from pyflannel.lease.model import Attrs, Lease, Subnet
from pyflannel.lease.network import ConfigError, NetworkConfig
from pyflannel.state import (
    Address,
    ChecksumOffload,
    FdbEntry,
    Identity,
    IPAddress,
    IPInterface,
    IPNetwork,
    Item,
    Link,
    Mac,
    Neighbour,
    Route,
    Scope,
    Sysctl,
)
from pyflannel.state import Vxlan as VxlanSpec

DEFAULT_VNI: Final = 1
DEFAULT_PORT: Final = 8472
"""Linux's own default, older than the assigned 4789; every flannel uses it."""
MAX_VNI: Final = 2**24 - 1
MAX_DEVICE_NAME: Final = 15
"""IFNAMSIZ less the closing NUL (linux/if.h)."""
OVERHEAD_V4: Final = 50
"""Outer IPv4 20, UDP 8, VXLAN 8, inner Ethernet 14."""
OVERHEAD_V6: Final = 70
"""The same with an outer IPv6 header of 40.  Go flannel takes 50 here too, and loses full-size packets."""
MIN_MTU_V4: Final = 68
"""RFC 791: what every IPv4 link must carry."""
MIN_MTU_V6: Final = 1280
"""RFC 8200 §5: what every IPv6 link must carry; Linux takes IPv6 off a device below it."""

_PLAIN_DATA: Final = re.compile(r'\{"VNI":(0|[1-9][0-9]{0,6}),"VtepMAC":"([0-9a-f:]{17})"\}')
"""What every flannel of today publishes.  Reading it as JSON comes to the same, and takes four times as long."""
_OLD_VNIS: Final = 2**16
"""flannel from v0.14 to v0.25 publishes the lower 16 bits of its VNI."""
_LONGEST_MAC: Final = 40
"""Characters of a wrong one that a reason repeats."""
_WINDOWS_KEYS: Final = ("MacPrefix", "Name")


@dataclass(frozen=True, slots=True)
class Family:
    """What differs between the two address families."""

    dev: str
    overhead: int
    claim: str


@dataclass(frozen=True, slots=True)
class Vxlan:
    """The vxlan backend of one network."""

    vni: int
    port: int
    learning: bool
    gbp: bool
    base_mtu: int | None
    """The option ``MTU``: taken for the underlay's MTU when given."""
    ipv4: Family | None
    ipv6: Family | None
    direct: bool = False
    """The option ``DirectRouting``."""
    warnings: tuple[str, ...] = ()

    @property
    def type(self) -> str:
        """As leases have it."""
        return "vxlan"

    @property
    def devices(self) -> tuple[str, ...]:
        """One per enabled address family, IPv4 first."""
        return tuple(family.dev for family in (self.ipv4, self.ipv6) if family is not None)

    def mtu(self, underlay: Underlay) -> int:
        """The smaller of both families' MTU: a container has one interface for both."""
        return min(self._device_mtu(underlay, family) for family in (self.ipv4, self.ipv6) if family is not None)

    def attrs(self, underlay: Underlay, macs: Mapping[str, Mac]) -> Attrs:
        """PublicIP and, for each family, VNI and VTEP MAC (compat §3.2)."""
        return Attrs(
            public_ip=underlay.public_ip if self.ipv4 is not None else None,
            public_ipv6=underlay.public_ipv6 if self.ipv6 is not None else None,
            backend_type=self.type,
            backend_data=self._data(macs, self.ipv4),
            backend_v6_data=self._data(macs, self.ipv6),
        )

    def scope(self, view: View) -> Scope:
        """Our devices, and on them the addresses of our network; and routes that another backend left."""
        ranges = (view.config.ipv4, view.config.ipv6)
        return Scope(
            devices=frozenset(self.devices),
            networks=tuple(item.network for item in ranges if item is not None),
            sysctls=frozenset((dev, "ipv6", "accept_ra") for dev in self.devices),
            offloads=frozenset(self.devices if view.checksum_offload is not None else ()),
            identities=tuple(
                Identity(dev, VxlanSpec(self.vni, view.underlay.name, None, self.port), view.macs[dev], address)
                for dev, address in self._addresses(view.own)
                if dev in view.macs
            ),
            borrowed=frozenset((view.underlay.name,)),
        )

    def self_items(self, view: View) -> tuple[Item, ...]:
        """Each device with its address: the subnet's own, as a host address (compat §5.2)."""
        items: list[Item] = []
        if self.ipv4 is not None and view.own.ipv4 is not None:
            items += self._device(view, self.ipv4, view.underlay.ipv4)
        if self.ipv6 is not None and view.own.ipv6 is not None:
            items += self._device(view, self.ipv6, view.underlay.ipv6)
        return (*items, *(Address(dev, address) for dev, address in self._addresses(view.own)))

    def _addresses(self, own: Subnet) -> Iterator[tuple[str, IPInterface]]:
        """Ours on each device."""
        if self.ipv4 is not None and own.ipv4 is not None:
            yield self.ipv4.dev, IPv4Interface(own.ipv4.network_address)
        if self.ipv6 is not None and own.ipv6 is not None:
            yield self.ipv6.dev, IPv6Interface(own.ipv6.network_address)

    def peer_items(self, view: View, lease: Lease) -> tuple[Item, ...]:
        """Neighbour, FDB entry and route, or a route alone, for each family that both of us have."""
        refuse_strangers(lease, self.type, view.underlay)
        items: list[Item] = []
        for family, subnet, mac, host in self._ends(lease):
            if mac == view.macs.get(family.dev):
                raise Refused(f"publishes {family.claim} {mac}, as {view.own}, which is ours")
            if self.direct and host in view.underlay.on_link:
                items.append(direct.route(view, subnet, host))
                continue
            gateway = subnet.network_address
            items.append(Neighbour(family.dev, gateway, mac))
            items.append(FdbEntry(family.dev, mac, host))
            items.append(Route(subnet, family.dev, via=gateway, onlink=True, metric=metric(subnet, view.spread)))
        if not items:
            raise Refused("has no address family in common with us")
        return tuple(items)

    def claims(self, lease: Lease) -> frozenset[Claim]:
        """A VTEP MAC belongs to one host: a second would take over its FDB entry."""
        return frozenset((family.claim, mac) for family, mac in self._macs(lease))

    def published(self, lease: Lease) -> Mapping[str, Mac]:
        """The VTEP MAC of each device."""
        return {family.dev: mac for family, mac in self._macs(lease)}

    def _macs(self, lease: Lease) -> list[tuple[Family, Mac]]:
        if lease.attrs.backend_type != self.type:
            return []
        try:
            return [(family, mac) for family, _, mac, _ in self._ends(lease)]
        except Refused:
            return []

    def _ends(self, lease: Lease) -> Iterator[tuple[Family, IPNetwork, Mac, IPAddress]]:
        """For each family in common: the peer's subnet, VTEP MAC and host address."""
        subnet, attrs = lease.subnet, lease.attrs
        if self.ipv4 is not None and subnet.ipv4 is not None:
            if attrs.public_ip is None:
                raise Refused("has an IPv4 subnet but no PublicIP")
            yield self.ipv4, subnet.ipv4, self._vtep_mac("BackendData", attrs.backend_data), attrs.public_ip
        if self.ipv6 is not None and subnet.ipv6 is not None:
            if attrs.public_ipv6 is None:
                raise Refused("has an IPv6 subnet but no PublicIPv6")
            yield self.ipv6, subnet.ipv6, self._vtep_mac("BackendV6Data", attrs.backend_v6_data), attrs.public_ipv6

    def _vtep_mac(self, key: str, data: str | None) -> Mac:
        """The VtepMAC of a peer.  Its VNI, if it says one, has to be ours: it hears no other."""
        if data is None:
            raise Refused(f"has no {key}: expected one with a VtepMAC")
        plain = _PLAIN_DATA.fullmatch(data)
        try:
            if plain is not None:
                vni, text = int(plain[1]), plain[2]
            else:
                fields = Fields(read_object(data), f"{key}.")
                vni, text = fields.integer("VNI", self.vni, 0, MAX_VNI), fields.text("VtepMAC", "")
            if len(text) > _LONGEST_MAC or not text.isascii():
                raise ValueError(f"not a MAC address: a text of {len(text)} characters")
            mac = Mac.parse(text)
        except ValueError as exc:
            raise Refused(f"{key} has no usable VtepMAC: {exc}: expected one like c6:d2:32:6f:8f:44") from None
        if not mac.is_unicast:
            raise Refused(f"{key}.VtepMAC {mac} is not the address of one host")
        if vni != self.vni and vni != self.vni % _OLD_VNIS:
            raise AnotherWay(f"publishes VNI {vni}, and ours is {self.vni}: neither would hear the other")
        return mac

    def _device(self, view: View, family: Family, local: IPAddress | None) -> tuple[Item, ...]:
        spec = VxlanSpec(self.vni, view.underlay.name, local, self.port, self.learning, self.gbp)
        link = Link(family.dev, spec, self._device_mtu(view.underlay, family), view.macs.get(family.dev))
        # A router advertisement arriving through the tunnel would hand this host a default route of somebody's.
        items: tuple[Item, ...] = (link, Sysctl(family.dev, "ipv6", "accept_ra", "0"))
        offload = view.checksum_offload
        return items if offload is None else (*items, ChecksumOffload(family.dev, offload))

    def _device_mtu(self, underlay: Underlay, family: Family) -> int:
        base = underlay.mtu if self.base_mtu is None else self.base_mtu
        mtu, least = base - family.overhead, MIN_MTU_V6 if family is self.ipv6 else MIN_MTU_V4
        if mtu < least:
            whose = f"Backend.MTU {base}" if self.base_mtu is not None else f"MTU {base} of {underlay.name}"
            raise ConfigError(
                f"{whose} leaves {mtu} bytes for {family.dev}: it must be at least {least + family.overhead}"
            )
        return mtu

    def _data(self, macs: Mapping[str, Mac], family: Family | None) -> str | None:
        return None if family is None else f'{{"VNI":{self.vni},"VtepMAC":"{macs[family.dev]}"}}'


def from_config(config: NetworkConfig) -> Vxlan:
    """Read the backend's options (compat §5.2); ``ConfigError`` names the option that is wrong."""
    options = Options(config.backend_options)
    vni = options.integer("VNI", DEFAULT_VNI, 0, MAX_VNI)
    port = options.integer("Port", 0, 0, 65535)
    base_mtu = options.integer("MTU", 0, 0, 65535)
    learning = options.flag("Learning", False)
    gbp = options.flag("GBP", False)
    directly = options.flag(direct.OPTION, False)
    for key in _WINDOWS_KEYS:
        options.ignore(key)
    return Vxlan(
        vni=vni,
        port=port or DEFAULT_PORT,
        learning=learning,
        gbp=gbp,
        base_mtu=base_mtu or None,
        ipv4=Family(_name("flannel", vni), OVERHEAD_V4, "VTEP MAC") if config.ipv4 is not None else None,
        ipv6=Family(_name("flannel-v6", vni), OVERHEAD_V6, "VTEP MAC of IPv6") if config.ipv6 is not None else None,
        direct=directly,
        warnings=tuple(options.complaints()),
    )


def _name(stem: str, vni: int) -> str:
    name = f"{stem}.{vni}"
    if len(name) > MAX_DEVICE_NAME:
        raise ConfigError(
            f"Backend.VNI {vni} makes the device name {name!r}, which has {len(name)} characters: "
            f"the kernel allows {MAX_DEVICE_NAME}"
        )
    return name
