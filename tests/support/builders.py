"""Values that many tests need, with everything filled in that the test does not care about."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from pyflannel import backends
from pyflannel.backends.api import Backend, View
from pyflannel.host import Underlay
from pyflannel.lease.model import Attrs, Lease, Subnet
from pyflannel.lease.network import NetworkConfig, parse_network_config
from pyflannel.state import Mac

NETWORK = '"Network":"10.2.0.0/16","SubnetLen":24,"SubnetMin":"10.2.50.0","SubnetMax":"10.2.69.0"'
"""For agents that choose a subnet themselves.  No test names a subnet of that range for another host: it would be the
agent's own one time in so many."""
OWN_MAC = Mac.parse("02:00:00:00:00:01")
OWN_MAC_V6 = Mac.parse("02:00:00:00:06:01")
OTHER_MAC = Mac.parse("02:00:00:00:00:02")


def config(
    backend: str = '{"Type":"vxlan"}', network: str = "10.2.0.0/16", ipv6_network: str | None = None
) -> NetworkConfig:
    """A network configuration, read from its JSON as the agent does."""
    ipv6 = "" if ipv6_network is None else f'"EnableIPv6":true,"IPv6Network":"{ipv6_network}",'
    return parse_network_config(f'{{"Network":"{network}",{ipv6}"Backend":{backend}}}')


def underlay(mtu: int = 1500, ipv6: str | None = None) -> Underlay:
    """host2 of the README, on ens33."""
    address, address6 = IPv4Address("172.16.41.131"), IPv6Address(ipv6) if ipv6 else None
    return Underlay("ens33", 2, mtu, address, address6, address, address6, "test")


def subnet(*nets: str) -> Subnet:
    """``subnet("10.2.41.0/24")``, with an IPv6 network beside or instead of it."""
    ipv4 = next((IPv4Network(net) for net in nets if ":" not in net), None)
    ipv6 = next((IPv6Network(net) for net in nets if ":" in net), None)
    return Subnet(ipv4, ipv6)


def view(network: NetworkConfig | None = None, own: Subnet | None = None, under: Underlay | None = None) -> View:
    """host2's view of the network, holding 10.2.71.0/24."""
    return View(
        config=network or config(),
        underlay=under or underlay(),
        own=own or subnet("10.2.71.0/24"),
        macs={"flannel.1": OWN_MAC, "flannel-v6.1": OWN_MAC_V6},
    )


def vxlan_lease(
    net: str = "10.2.41.0/24", ip: str = "172.16.41.132", mac: Mac = OTHER_MAC, *, created: int = 10
) -> Lease:
    """A peer's lease as a vxlan host of today publishes it."""
    attrs = Attrs(IPv4Address(ip), None, "vxlan", f'{{"VNI":1,"VtepMAC":"{mac}"}}')
    return Lease(subnet(net), attrs, created=created, modified=created)


def backend(network: NetworkConfig | None = None) -> Backend:
    """The backend of ``network``."""
    return backends.from_config(network or config())
