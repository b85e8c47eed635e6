"""Who can be asked, and at which addresses: from what the agent knows of its network.

Rules of this file
  1. A *line* is one peer in one address family.  Its *end* is an address in the peer's subnet that answers there, asked
     through the overlay; its *host* is the peer's public address, asked beside it.
  2. Where the backend gives us a device, every peer has one as well, with the first address of its subnet (.0): that is
     sure to answer.  Where it does not (host-gw, alloc), the best there is is .1, which FLANNEL_SUBNET gives to
     Docker's bridge: whether it answers, it has to show.
  3. Leases are kept as they are, and lines are made of them when they are needed: there are thousands of peers, and few
     are asked at a time.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Final, TypeAlias

from pyflannel.backends import direct
from pyflannel.host import Underlay
from pyflannel.lease.model import Lease, Subnet
from pyflannel.network import Way
from pyflannel.reach import NOBODY, Reach
from pyflannel.state import Address, Forwarder, IPAddress, IPNetwork, Item, Link
from pyflannel.state import Ipip as IpipSpec
from pyflannel.state import Vxlan as VxlanSpec
from pyflannel.wireguard import WireguardDevice

Key: TypeAlias = IPAddress
"""What a line is known by: the first address of the peer's subnet.  No two that count overlap (``lease.contest``)."""

_BOTH: Final = (4, 6)


@dataclass(frozen=True, slots=True)
class Line:
    """One peer in one address family."""

    subnet: Subnet
    end: IPAddress
    host: IPAddress | None
    sure: bool = True
    """Whether the end is there on every host that is well."""
    carrier: str = ""
    """What carries the overlay's packets, for people: ``UDP port 8472``.  Empty: they travel as they are."""

    @property
    def key(self) -> Key:
        """What it is known by."""
        return self.end if self.sure else self.end - 1


@dataclass(frozen=True, slots=True)
class Outlook:
    """All peers, as seen from here."""

    own: Subnet
    host: Mapping[int, IPAddress] = field(default_factory=dict)
    """Our address on the underlay, by family."""
    ends: Mapping[int, IPAddress] = field(default_factory=dict)
    """Our end of the overlay, by family, where it is sure to be there."""
    mtu: int = 0
    """What containers may send in one packet."""
    leases: Mapping[Key, Lease] = field(default_factory=dict)
    """What each peer says, in every family that we have as well."""
    carrier: Mapping[int, str] = field(default_factory=dict)
    """What carries the overlay's packets, by family."""
    direct_to: Reach = NOBODY
    """Hosts to which packets travel as they are all the same."""

    @property
    def networks(self) -> tuple[IPNetwork, ...]:
        """Ours: what comes in for an address there has come through the overlay."""
        return tuple(_networks(self.own))

    def keys(self, subnet: Subnet) -> Iterator[Key]:
        """Those of a peer's lines; none for whoever is no peer."""
        for net in _networks(subnet):
            lease = self.leases.get(net.network_address)
            if lease is not None and lease.subnet == subnet:
                yield net.network_address

    def at(self, end: IPAddress) -> Key | None:
        """The line that has this end, if there is one."""
        key = end if end.version in self.ends or not int(end) else end - 1
        return key if key in self.leases else None

    def line(self, key: Key) -> Line:
        """That of a peer."""
        lease, version = self.leases[key], key.version
        public = lease.attrs.public_ip if version == 4 else lease.attrs.public_ipv6
        sure = version in self.ends
        carried = "" if public is not None and public in self.direct_to else self.carrier.get(version, "")
        return Line(lease.subnet, key if sure else key + 1, public or lease.attrs.public_ip, sure, carried)


BLIND: Final = Outlook(Subnet(IPv4Network((0, 32))))
"""Before anything has been seen."""


class Hosts:
    """Which peers have which public address."""

    def __init__(self, leases: Iterable[Lease]) -> None:
        """Those of ``leases``."""
        every = tuple(leases)
        self._in_order = {
            4: sorted((lease for lease in every if lease.attrs.public_ip is not None), key=_ipv4),
            6: sorted((lease for lease in every if lease.attrs.public_ipv6 is not None), key=_ipv6),
        }

    def of(self, address: IPAddress) -> list[Lease]:
        """The leases that name it, some perhaps twice."""
        leases, place = self._in_order[address.version], _ipv4 if address.version == 4 else _ipv6
        first = bisect_left(leases, int(address), key=place)
        return leases[first : bisect_right(leases, int(address), first, key=place)]


def outlook(way: Way, known: Outlook | None = None) -> Outlook:
    """Everything as it is now, on an interface that the network fits through.

    ``known`` is what it was before, and is what it is again if nothing has changed.
    """
    view = way.view
    items = way.backend.self_items(view)
    now = Outlook(
        *(view.own, _hosts(view.underlay), _ends(items, view.own), way.backend.mtu(view.underlay)),
        leases=_peers(view.own, way.leases.values()),
        carrier=carriers(items),
        direct_to=view.underlay.on_link if direct.wanted(view.config) else NOBODY,
    )
    return known if known is not None and known == now else now


def carriers(items: tuple[Item, ...]) -> dict[int, str]:
    """What carries packets of each family, from what the kernel should hold for ourselves."""
    found: dict[int, str] = {}
    for item in items:
        match item:
            case Link(spec=VxlanSpec(port=port, local=local)):
                found.setdefault(4 if local is None else local.version, f"UDP port {port}")
            case Link(spec=IpipSpec()):
                found.setdefault(4, "IP protocol 4 (ipip)")
            case Forwarder(port=port):
                found.setdefault(4, f"UDP port {port}")
            case WireguardDevice(dev=dev, listen_port=port):
                for version in (6,) if dev.endswith("v6") else _BOTH:
                    found[version] = f"UDP port {port}"
            case _:
                pass
    return found


def _hosts(underlay: Underlay) -> dict[int, IPAddress]:
    return {address.version: address for address in (underlay.ipv4, underlay.ipv6) if address is not None}


def _ends(items: tuple[Item, ...], own: Subnet) -> dict[int, IPAddress]:
    ours = {net.network_address for net in _networks(own)}
    addresses = (item.address.ip for item in items if isinstance(item, Address))
    return {address.version: address for address in addresses if address in ours}


def _peers(own: Subnet, leases: Iterable[Lease]) -> dict[Key, Lease]:
    ours = {net.version: net.network_address for net in _networks(own)}
    found = {net.network_address: lease for lease in leases for net in _networks(lease.subnet) if net.version in ours}
    for first in ours.values():
        found.pop(first, None)
    return found


def _networks(subnet: Subnet) -> Iterator[IPNetwork]:
    return (net for net in (subnet.ipv4, subnet.ipv6) if net is not None)


def _ipv4(lease: Lease) -> int:
    return int(lease.attrs.public_ip or 0)


def _ipv6(lease: Lease) -> int:
    return int(lease.attrs.public_ipv6 or 0)
