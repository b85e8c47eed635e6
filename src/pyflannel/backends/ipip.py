"""ipip: IPv4 packets in IPv4 packets, with nothing between the headers (RFC 2003, compat §5.4).

For each peer there is one entry, which says it all, since the outer packet goes where the route's gateway says:

    route      10.2.41.0/24 via 172.16.41.132 dev flannel.ipip onlink

It takes 20 bytes of each packet where vxlan takes 50, and what is between the hosts has to let IP protocol 4 through.
``tunl0``, which the kernel makes beside the first device of this type, is none of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface
from typing import Final

from pyflannel.backends import direct
from pyflannel.backends.api import Refused, View, WithoutMacs, refuse_strangers
from pyflannel.backends.metric import metric
from pyflannel.backends.options import Options
from pyflannel.host import Underlay
from pyflannel.lease.model import Attrs, Lease
from pyflannel.lease.network import ConfigError, NetworkConfig
from pyflannel.state import Address, Identity, Item, Link, Mac, Route, Scope
from pyflannel.state import Ipip as IpipSpec

TYPE: Final = "ipip"
DEVICE: Final = "flannel.ipip"
OVERHEAD: Final = 20
"""The outer IPv4 header."""
MIN_MTU: Final = 68
"""RFC 791: what every IPv4 link must carry."""


def from_config(config: NetworkConfig) -> Ipip:
    """Read the backend's options; ``ConfigError`` names the one that is wrong, or that the network has IPv6."""
    if config.ipv6 is not None:
        raise ConfigError('Backend.Type "ipip" carries IPv4 alone, and the network has IPv6: take vxlan or host-gw')
    options = Options(config.backend_options)
    directly = options.flag(direct.OPTION, False)
    return Ipip(directly, tuple(options.complaints()))


@dataclass(frozen=True, slots=True)
class Ipip(WithoutMacs):
    """The ipip backend of one network."""

    direct: bool
    """The option ``DirectRouting``."""
    warnings: tuple[str, ...] = ()

    @property
    def type(self) -> str:
        """As leases have it."""
        return TYPE

    @property
    def devices(self) -> tuple[str, ...]:
        """The one device."""
        return (DEVICE,)

    def mtu(self, underlay: Underlay) -> int:
        """That of the external interface less the outer header."""
        mtu = underlay.mtu - OVERHEAD
        if mtu < MIN_MTU:
            least = MIN_MTU + OVERHEAD
            raise ConfigError(
                f"MTU {underlay.mtu} of {underlay.name} leaves {mtu} bytes for {DEVICE}: it must be at least {least}"
            )
        return mtu

    def attrs(self, underlay: Underlay, macs: Mapping[str, Mac]) -> Attrs:
        """PublicIP alone (compat §3.2)."""
        return Attrs(underlay.public_ip, None, TYPE)

    def scope(self, view: View) -> Scope:
        """Our device, and on it the addresses of our network; and routes on the external interface."""
        assert view.config.ipv4 is not None
        return Scope(
            devices=frozenset((DEVICE,)),
            networks=(view.config.ipv4.network,),
            identities=tuple(Identity(DEVICE, _spec(view), None, address) for address in _addresses(view)),
            borrowed=frozenset((view.underlay.name,)),
        )

    def self_items(self, view: View) -> tuple[Item, ...]:
        """The device with the subnet's own address, as a host address."""
        link = Link(DEVICE, _spec(view), self.mtu(view.underlay))
        return (link, *(Address(DEVICE, address) for address in _addresses(view)))

    def peer_items(self, view: View, lease: Lease) -> tuple[Item, ...]:
        """One route."""
        refuse_strangers(lease, TYPE, view.underlay)
        subnet, host = lease.subnet.ipv4, lease.attrs.public_ip
        if subnet is None:
            raise Refused("has no IPv4 subnet")
        if host is None:
            raise Refused("has no PublicIP")
        if self.direct and host in view.underlay.on_link:
            return (direct.route(view, subnet, host, onlink=True),)
        return (Route(subnet, DEVICE, host, onlink=True, metric=metric(subnet, view.spread)),)


def _spec(view: View) -> IpipSpec:
    """Any way out will do, as with Go flanneld: which one is for the routing table to say."""
    return IpipSpec(underlay="", local=view.underlay.ipv4)


def _addresses(view: View) -> tuple[IPv4Interface, ...]:
    return () if view.own.ipv4 is None else (IPv4Interface(view.own.ipv4.network_address),)
