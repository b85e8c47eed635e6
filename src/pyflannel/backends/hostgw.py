"""Routes to the other hosts' subnets through the hosts themselves, with nothing around the packets (compat §5.3).

The fastest way there is, where all hosts share a link.  A host beyond a router cannot be a gateway: the kernel refuses
such a route, and only a tunnel helps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyflannel.backends.api import Refused, View, WithoutMacs, refuse_strangers
from pyflannel.backends.options import Options
from pyflannel.host import Underlay
from pyflannel.lease.model import Attrs, Lease
from pyflannel.lease.network import ConfigError, NetworkConfig
from pyflannel.state import PROTO_FLANNEL, Item, Mac, Route, Scope

TYPE = "host-gw"


def from_config(config: NetworkConfig) -> HostGateway:
    """The backend for ``config``; there are no options."""
    options = Options(config.backend_options)
    return HostGateway(config.ipv4 is not None, config.ipv6 is not None, tuple(options.complaints()))


@dataclass(frozen=True, slots=True)
class HostGateway(WithoutMacs):
    """host-gw in the families the network has."""

    ipv4: bool
    ipv6: bool
    warnings: tuple[str, ...] = ()

    @property
    def type(self) -> str:
        """As leases have it."""
        return TYPE

    @property
    def devices(self) -> tuple[str, ...]:
        """None: packets leave through the external interface as they are."""
        return ()

    def mtu(self, underlay: Underlay) -> int:
        """That of the external interface; ``ConfigError`` if others cannot use it as a gateway by what we publish."""
        for ours, published in ((underlay.ipv4, underlay.public_ip), (underlay.ipv6, underlay.public_ipv6)):
            if published is not None and published != ours:
                raise ConfigError(
                    f"host-gw needs a gateway on the link of all hosts, and {published} is not the address of "
                    f"{underlay.name}, which is {ours}: leave -public-ip out, or take vxlan"
                )
        return underlay.mtu

    def attrs(self, underlay: Underlay, macs: Mapping[str, Mac]) -> Attrs:
        """PublicIP alone (compat §3.2)."""
        return Attrs(
            public_ip=underlay.public_ip if self.ipv4 else None,
            public_ipv6=underlay.public_ipv6 if self.ipv6 else None,
            backend_type=TYPE,
        )

    def scope(self, view: View) -> Scope:
        """Our routes on the external interface."""
        return Scope(borrowed=frozenset((view.underlay.name,)))

    def self_items(self, view: View) -> tuple[Item, ...]:
        """Nothing."""
        return ()

    def peer_items(self, view: View, lease: Lease) -> tuple[Item, ...]:
        """A route for each family that both of us have."""
        refuse_strangers(lease, TYPE, view.underlay)
        items: list[Item] = []
        for wanted, subnet, host in (
            (self.ipv4, lease.subnet.ipv4, lease.attrs.public_ip),
            (self.ipv6, lease.subnet.ipv6, lease.attrs.public_ipv6),
        ):
            if wanted and subnet is not None and host is not None:
                items.append(Route(subnet, view.underlay.name, host, protocol=PROTO_FLANNEL))
        if not items:
            raise Refused("has no address family in common with us")
        return tuple(items)
