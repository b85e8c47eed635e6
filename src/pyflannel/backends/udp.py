"""udp: each packet in a UDP datagram, carried by a process of our own (compat §5.1).

For where nothing else passes: no module of the kernel is needed but tun, and no protocol of the network but UDP.

    device     flannel0, a TUN device, with the subnet's first address as a host address
    route      10.2.0.0/16 dev flannel0         the whole network; which host has which part the forwarder knows
    forwarder  the process behind the device, bound to our address and port
    forwarding 10.2.41.0/24 to 172.16.41.132    one for each peer, held by the forwarder

A lease does not say which port its host listens on, so all hosts of a network have the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Final

from pyflannel.backends.api import Refused, View, WithoutMacs, refuse_strangers
from pyflannel.backends.options import Options
from pyflannel.host import Underlay
from pyflannel.lease.model import Attrs, Lease
from pyflannel.lease.network import ConfigError, NetworkConfig
from pyflannel.state import (
    Address,
    Forwarder,
    Forwarding,
    Identity,
    Item,
    Link,
    Mac,
    Route,
    Scope,
    Sysctl,
    Tun,
)

DEV: Final = "flannel0"
"""What flannel's pattern ``flannel%d`` comes to on a host with one such network."""
DEFAULT_PORT: Final = 8285
OVERHEAD: Final = 28
"""Outer IPv4 20, UDP 8."""
SETTINGS: Final = (
    # ICMP errors of ours come out of the device with an address of this host as their source.
    Sysctl(DEV, "ipv4", "accept_local", "1"),
    # Else the kernel looks for routers and neighbours there, and each such packet is a drop to be counted.
    Sysctl(DEV, "ipv6", "disable_ipv6", "1"),
)
MIN_MTU: Final = 68
"""RFC 791: what every IPv4 link must carry."""


def from_config(config: NetworkConfig) -> Udp:
    """The backend for ``config``; ``ConfigError`` without an IPv4 network, or with a port that is none."""
    if config.ipv4 is None:
        raise ConfigError("the udp backend carries IPv4 alone, and the network has none: expected a Network")
    options = Options(config.backend_options)
    port = options.integer("Port", DEFAULT_PORT, 0, 65535)
    warnings = list(options.complaints())
    if config.ipv6 is not None:
        warnings.append("the udp backend carries IPv4 alone: nobody reaches the IPv6 subnets of other hosts")
    return Udp(port or DEFAULT_PORT, tuple(warnings))


@dataclass(frozen=True, slots=True)
class Udp(WithoutMacs):
    """The udp backend of one network."""

    port: int
    warnings: tuple[str, ...] = ()

    @property
    def type(self) -> str:
        """None is published: a record without one may be of any backend that publishes nothing."""
        return ""

    @property
    def devices(self) -> tuple[str, ...]:
        """The TUN device."""
        return (DEV,)

    def mtu(self, underlay: Underlay) -> int:
        """What fits into a datagram beside the outer headers."""
        mtu = underlay.mtu - OVERHEAD
        if mtu < MIN_MTU:
            raise ConfigError(
                f"MTU {underlay.mtu} of {underlay.name} leaves {mtu} bytes for {DEV}: "
                f"it must be at least {MIN_MTU + OVERHEAD}"
            )
        return mtu

    def attrs(self, underlay: Underlay, macs: Mapping[str, Mac]) -> Attrs:
        """PublicIP alone, without a type (compat §3.2)."""
        return Attrs(public_ip=underlay.public_ip)

    def scope(self, view: View) -> Scope:
        """Our device, the addresses of our network on it, and routes that another backend left."""
        return Scope(
            devices=frozenset((DEV,)),
            networks=(_network(view),),
            sysctls=frozenset((item.dev, item.family, item.name) for item in SETTINGS),
            identities=(Identity(DEV, Tun(), address=_address(view)),),
            borrowed=frozenset((view.underlay.name,)),
        )

    def self_items(self, view: View) -> tuple[Item, ...]:
        """The device with address and route, and the process behind it; ``ConfigError`` as in ``mtu``."""
        assert view.own.ipv4 is not None
        assert view.underlay.ipv4 is not None
        return (
            Link(DEV, Tun(), self.mtu(view.underlay)),
            *SETTINGS,
            Address(DEV, _address(view)),
            Forwarder(DEV, view.underlay.ipv4, self.port, view.own.ipv4),
            Route(_network(view), DEV, universe=True),
        )

    def peer_items(self, view: View, lease: Lease) -> tuple[Item, ...]:
        """Where the packets for its subnet go."""
        refuse_strangers(lease, self.type, view.underlay)
        subnet, host = lease.subnet.ipv4, lease.attrs.public_ip
        if subnet is None or host is None:
            raise Refused("has no IPv4 subnet and PublicIP, and the udp backend carries nothing else")
        return (Forwarding(DEV, subnet, host, self.port),)


def _network(view: View) -> IPv4Network:
    assert view.config.ipv4 is not None
    return view.config.ipv4.network


def _address(view: View) -> IPv4Interface:
    assert view.own.ipv4 is not None
    return IPv4Interface(IPv4Address(view.own.ipv4.network_address))
