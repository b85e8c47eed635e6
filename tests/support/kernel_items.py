"""The items of a small vxlan network: two devices, one per address family, with an address each and two peers."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

from pyflannel.state import Address, FdbEntry, Identity, Item, Link, Mac, Neighbour, Route, Scope, State, Sysctl, Vxlan

DEV, DEV6 = "flannel.1", "flannel-v6.1"
SPEC = Vxlan(vni=1, underlay="eth0", local=ip_address("192.0.2.1"), port=8472)
SPEC6 = replace(SPEC, local=ip_address("2001:db8::1"))
LINK = Link(DEV, SPEC, 1450, Mac.parse("02:00:00:00:00:01"))
LINK6 = Link(DEV6, SPEC6, 1430, Mac.parse("02:00:00:00:06:01"))
SCOPE = Scope(
    devices=frozenset((DEV, DEV6)),
    networks=(ip_network("10.2.0.0/16"), ip_network("fd00:2::/48")),
    sysctls=frozenset(((DEV, "ipv6", "accept_ra"),)),
    identities=tuple(
        Identity(link.name, link.spec, link.mac, ip_interface(address))
        for link, address in ((LINK, "10.2.1.0/32"), (LINK6, "fd00:2:1::/128"))
        if link.mac is not None
    ),
)


def vxlan_of(link: Link) -> Vxlan:
    """Of a vxlan device."""
    assert isinstance(link.spec, Vxlan)
    return link.spec


def peer(number: int) -> tuple[Neighbour, FdbEntry, Route]:
    """What the kernel holds for one peer."""
    gateway, mac = ip_address(f"10.2.{number}.0"), Mac.parse(f"02:00:00:00:01:{number:02x}")
    return (
        Neighbour(DEV, gateway, mac),
        FdbEntry(DEV, mac, ip_address(f"192.0.2.{number}")),
        Route(ip_network(f"10.2.{number}.0/24"), DEV, gateway, onlink=True),
    )


def peer6(number: int) -> tuple[Neighbour, FdbEntry, Route]:
    """The same for IPv6."""
    gateway, mac = ip_address(f"fd00:2:{number}::"), Mac.parse(f"02:00:00:00:06:{number:02x}")
    return (
        Neighbour(DEV6, gateway, mac),
        FdbEntry(DEV6, mac, ip_address(f"2001:db8::{number}")),
        Route(ip_network(f"fd00:2:{number}::/64"), DEV6, gateway, onlink=True),
    )


OURS: tuple[Item, ...] = (
    LINK,
    Sysctl(DEV, "ipv6", "accept_ra", "0"),
    Address(DEV, ip_interface("10.2.1.0/32")),
    *peer(2),
    *peer(3),
    Route(ip_network("10.2.50.0/24"), DEV),
    LINK6,
    Address(DEV6, ip_interface("fd00:2:1::/128")),
    *peer6(2),
    *peer6(3),
)
WANT = State(OURS)
