"""What the choice of interface and address is made from (compat §7), as the kernel tells it."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Sequence
from socket import AF_INET, AF_INET6
from typing import Final

from pyflannel.host import DefaultRoute, Facts, Interface, InterfaceAddress, Lookup
from pyflannel.linux import addresses, links, routes
from pyflannel.linux.addresses import IFA_F_DEPRECATED, IFA_F_PERMANENT, IFA_F_TEMPORARY
from pyflannel.linux.errors import KernelError
from pyflannel.linux.netlink import INTEGER, Conversation, Request, attribute, attributes, open_socket
from pyflannel.linux.netns import Netns
from pyflannel.reach import Reach
from pyflannel.state import PROTO_FLANNEL, IPAddress, IPNetwork

LENGTH: Final = 1
"""Where a route message has the length of its destination."""
NO_ROUTE: Final = frozenset((errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL))
"""Answers to a lookup that mean *not reachable*: no route, and routes of type unreachable, prohibit and blackhole."""


def gather(lookups: Sequence[IPAddress] = (), netns: Netns = None) -> Facts:
    """All interfaces, the default routes of the main table, and how each of ``lookups`` would be reached.

    ``KernelError`` if the kernel refuses a listing, ``OSError`` where there is no such namespace.
    """
    with contextlib.closing(Conversation(open_socket(netns))) as conversation:
        devices = [links.read(body) for body in conversation.dump("listing interfaces", links.query_all())]
        held = _addresses(conversation)
        names = {device.index: device.name for device in devices}
        return Facts(
            interfaces=tuple(
                Interface(
                    device.index,
                    device.name,
                    device.mtu,
                    device.up,
                    tuple(held.get(device.index, ())),
                    device.mac,
                )
                for device in devices
            ),
            defaults=(*_defaults(conversation, AF_INET, names), *_defaults(conversation, AF_INET6, names)),
            lookups=tuple((address, _look_up(conversation, address, names)) for address in lookups),
        )


def on_link(index: int, netns: Netns = None) -> Reach:
    """Which hosts the device with this index reaches without a gateway; errors as in ``gather``."""
    with contextlib.closing(Conversation(open_socket(netns))) as conversation:
        led: list[tuple[IPNetwork, bool]] = []
        for family in (AF_INET, AF_INET6):
            own = [_led(body, index) for body in _table(conversation, family, index)]
            # Whatever device it leads through, only a route to a part of one of these makes a difference.
            shortest = min((network.prefixlen for network, here in own if here), default=None)
            if shortest is not None:
                wanted = (body for body in _table(conversation, family) if body[LENGTH] >= shortest)
                led += (_led(body, index) for body in wanted)
        return Reach.of(led)


def _table(conversation: Conversation, family: int, index: int = 0) -> Iterator[bytes]:
    """The main table, as it is for packets of any source and type of service, but default routes and our own."""
    for body in conversation.dump("listing routes", routes.query(family, index)):
        kind, length, source, tos, table, protocol, _, _, flags = routes.RTMSG.unpack_from(body)
        special = source or tos or protocol == PROTO_FLANNEL or flags & routes.RTM_F_CLONED
        if length and kind == family and table == routes.RT_TABLE_MAIN and not special:
            yield body


def _led(body: bytes, index: int) -> tuple[IPNetwork, bool]:
    """Where a route leads, and whether that is the link of this device."""
    family, length, _, _, _, _, _, route_type, _ = routes.RTMSG.unpack_from(body)
    found = attributes(body, routes.RTMSG.size)
    here = found.get(routes.RTA_OIF) == INTEGER.pack(index) and routes.gateway(found) is None
    network = routes.network(family, found.get(routes.RTA_DST, b""), length)
    return network, here and route_type == routes.RTN_UNICAST


def _addresses(conversation: Conversation) -> dict[int, list[InterfaceAddress]]:
    held: dict[int, list[InterfaceAddress]] = {}
    for body in conversation.dump("listing addresses", addresses.query()):
        found = addresses.read(body)
        if found is not None:
            flags = found.flags
            entry = InterfaceAddress(
                found.address,
                deprecated=bool(flags & IFA_F_DEPRECATED),
                # For IPv4 the same bit says that another address of that subnet came first.
                temporary=found.address.version == 6 and bool(flags & IFA_F_TEMPORARY),
                permanent=bool(flags & IFA_F_PERMANENT),
            )
            held.setdefault(found.index, []).append(entry)
    return held


def _defaults(conversation: Conversation, family: int, names: dict[int, str]) -> Iterator[DefaultRoute]:
    version = 4 if family == AF_INET else 6
    for body in conversation.dump(f"listing IPv{version} routes", routes.query(family)):
        kind, length, _, _, table, _, _, route_type, flags = routes.RTMSG.unpack_from(body)
        # A few hundred thousand routes may be listed here: look no further than needed.
        if length or kind != family or table != routes.RT_TABLE_MAIN or flags & routes.RTM_F_CLONED:
            continue
        found = attributes(body, routes.RTMSG.size)
        dev = _device(found, names) if route_type == routes.RTN_UNICAST else None
        yield DefaultRoute(version, dev, routes.metric(found))


def _look_up(conversation: Conversation, address: IPAddress, names: dict[int, str]) -> Lookup | None:
    family = AF_INET if address.version == 4 else AF_INET6
    header = routes.RTMSG.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    request = Request(routes.RTM_GETROUTE, header + attribute(routes.RTA_DST, address.packed))
    try:
        found = attributes(conversation.ask(f"looking up the route to {address}", request), routes.RTMSG.size)
    except KernelError as error:
        if error.code in NO_ROUTE:
            return None
        raise
    dev = _device(found, names)
    if dev is None:
        return None
    source = found.get(routes.RTA_PREFSRC)
    return Lookup(dev, routes.unpack_address(source) if source else None, routes.gateway(found))


def _device(found: dict[int, bytes], names: dict[int, str]) -> str | None:
    raw = found.get(routes.RTA_OIF)
    return names.get(INTEGER.unpack(raw)[0]) if raw else None
