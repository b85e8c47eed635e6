"""Who can be asked, and at which addresses: from what the agent knows of its network.

Rules of this file
  1. A *line* is one peer in one address family.  Its *end* is an address in the peer's subnet that answers there, asked
     through the overlay; its *host* is the peer's public address, asked beside it.
  2. Where the backend gives us a device, every peer has one as well, with the first address of its subnet (.0): that is
     sure to answer.  Where it does not (host-gw, alloc), the best there is is .1, which FLANNEL_SUBNET gives to
     Docker's bridge: whether it answers, it has to show.
  3. A peer whose record says nothing new has the very same lines as before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
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

Key: TypeAlias = tuple[Subnet, int]
"""A peer, and 4 or 6."""

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
        return self.subnet, self.end.version


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
    lines: Mapping[Subnet, tuple[Line, ...]] = field(default_factory=dict)
    leases: Mapping[Subnet, Lease] = field(default_factory=dict, compare=False)
    """What the lines were made of."""
    carrier: Mapping[int, str] = field(default_factory=dict)
    """What carries the overlay's packets, by family."""
    direct_to: Reach = NOBODY
    """Hosts to which packets travel as they are all the same."""

    @property
    def networks(self) -> tuple[IPNetwork, ...]:
        """Ours: what comes in for an address there has come through the overlay."""
        return tuple(net for net in (self.own.ipv4, self.own.ipv6) if net is not None)


def outlook(way: Way, known: Outlook | None = None) -> Outlook:
    """Everything as it is now, on an interface that the network fits through; ``known`` is what it was before."""
    view = way.view
    items = way.backend.self_items(view)
    mtu = way.backend.mtu(view.underlay)
    bare = Outlook(view.own, _hosts(view.underlay), _ends(items, view.own), mtu)
    leases = {subnet: lease for subnet, lease in way.leases.items() if subnet != view.own}
    carrier = carriers(items)
    direct_to = view.underlay.on_link if direct.wanted(view.config) else NOBODY
    was = known if known is not None and (known.ends, known.own) == (bare.ends, bare.own) else bare
    alike = was.carrier == carrier and was.direct_to == direct_to
    lines = {
        subnet: was.lines[subnet]
        if alike and was.leases.get(subnet) is lease
        else tuple(_lines(bare, carrier, lease, direct_to))
        for subnet, lease in leases.items()
    }
    return Outlook(bare.own, bare.host, bare.ends, mtu, lines, leases, carrier, direct_to)


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
    ours = {net.network_address for net in (own.ipv4, own.ipv6) if net is not None}
    addresses = (item.address.ip for item in items if isinstance(item, Address))
    return {address.version: address for address in addresses if address in ours}


def _lines(here: Outlook, carrier: Mapping[int, str], lease: Lease, direct_to: Reach) -> Iterator[Line]:
    for ours, net, public in (
        (here.own.ipv4, lease.subnet.ipv4, lease.attrs.public_ip),
        (here.own.ipv6, lease.subnet.ipv6, lease.attrs.public_ipv6),
    ):
        if ours is None or net is None:
            continue
        sure = net.version in here.ends
        host = public or lease.attrs.public_ip
        carried = "" if public is not None and public in direct_to else carrier.get(net.version, "")
        yield Line(lease.subnet, net.network_address if sure else net[1], host, sure, carried)
