"""What is wrong with a record on its own, whatever the others say.

Rules of this file
  1. It may have been written by anybody.  A record that passes leads to no route beyond the network, and none over it.
  2. Each reason says what the record holds and what was expected in its place.
  3. Only the address families which both the record and the network have are looked at: while IPv6 is being added to a
     cluster, the leases of the hosts that do not have it yet are as good as ever.
  4. A PublicIP inside the *network* is no fault: hosts in 10.0.0.0/16 may well share out the rest of 10.0.0.0/8.
     Inside a *subnet* it is one; ``lease.contest`` decides which of the two records is in the wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from pyflannel.lease.model import Lease
from pyflannel.lease.network import NetworkConfig

_NO_HOSTS: Final[dict[int, tuple[tuple[IPv4Network | IPv6Network, str], ...]]] = {
    4: (
        (IPv4Network("0.0.0.0/8"), "an address of no host"),
        (IPv4Network("127.0.0.0/8"), "a loopback address"),
        (IPv4Network("224.0.0.0/4"), "a multicast address"),
        (IPv4Network("255.255.255.255"), "the broadcast address"),
        (IPv4Network("240.0.0.0/4"), "a reserved address"),
    ),
    6: (
        (IPv6Network("::1"), "a loopback address"),
        # IPv4 addresses in IPv6 clothes, among others (RFC 4291 §2.5.5).
        (IPv6Network("::/8"), "a reserved address"),
        (IPv6Network("ff00::/8"), "a multicast address"),
        # An IPv4 link-local address works where all hosts share a link; an IPv6 one needs to be told which link.
        (IPv6Network("fe80::/10"), "a link-local address"),
    ),
}


def refusal(lease: Lease, config: NetworkConfig) -> str | None:
    """Why a record can never count in this network; None if nothing is wrong with it."""
    subnet, attrs = lease.subnet, lease.attrs
    flaws: list[str | None] = []
    if config.ipv4 is not None and subnet.ipv4 is not None:
        flaws.append(_misplaced(subnet.ipv4, config.ipv4.network) or _unreachable(attrs.public_ip, subnet.ipv4))
    if config.ipv6 is not None and subnet.ipv6 is not None:
        flaws.append(_misplaced(subnet.ipv6, config.ipv6.network) or _unreachable(attrs.public_ipv6, subnet.ipv6))
    if not flaws:
        return "has no address family in common with the network"
    return next((flaw for flaw in flaws if flaw is not None), None)


def self_reference(lease: Lease, ours: Iterable[IPv4Address | IPv6Address | None]) -> str | None:
    """Why a peer's record would have us send to ourselves, or lose what we reach the others by; None if it does not.

    ``ours`` are the addresses of this host towards the others.
    """
    subnet, attrs = lease.subnet, lease.attrs
    for address in ours:
        if address is None:
            continue
        name, host, net = (
            ("PublicIP", attrs.public_ip, subnet.ipv4)
            if address.version == 4
            else ("PublicIPv6", attrs.public_ipv6, subnet.ipv6)
        )
        if net is None:
            continue
        if host == address:
            return f"publishes {name} {host}, which is our own: expected the address of another host"
        if address in net:
            return f"covers {address}, the address of this host: the tunnel would lead into itself"
    return None


def _misplaced(subnet: IPv4Network | IPv6Network, network: IPv4Network | IPv6Network) -> str | None:
    if network.network_address in subnet and subnet.prefixlen <= network.prefixlen:
        return f"covers the whole network {network}: expected a subnet of it"
    return None if subnet.network_address in network else f"lies outside the network {network}: expected a subnet of it"


def _unreachable(host: IPv4Address | IPv6Address | None, subnet: IPv4Network | IPv6Network) -> str | None:
    name = "PublicIP" if subnet.version == 4 else "PublicIPv6"
    if host is None:
        return f"publishes no {name}: expected the address of a host"
    if host in subnet:
        return f"publishes {name} {host}, which lies in its own subnet: the tunnel would lead into itself"
    for net, what in _NO_HOSTS[host.version]:
        if host in net:
            return f"publishes {name} {host}, {what}: expected the address of a host"
    return None
