"""What the kernel would do with a packet: its own answer to ``ip route get`` (rtnetlink(7), RTM_GETROUTE).

The question names the device a packet comes in by, if any, and its source.  So the answer is the one that packet would
get, policy routing included, and with it what the kernel checks on the way in: whether this host forwards at all, and
(IPv4) whether the way back to the source leads out where the packet came in.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from enum import StrEnum
from socket import AF_INET, AF_INET6
from typing import Final

from pyflannel.linux import routes
from pyflannel.linux.errors import KernelError
from pyflannel.linux.netlink import INTEGER, Conversation, Request, attribute, attributes
from pyflannel.state import IPAddress, IPNetwork

RTA_SRC, RTA_IIF = 2, 3
RTAX_MTU: Final = 2
RTM_F_FIB_MATCH: Final = 0x2000
"""Say the route, and not what was made of it (Linux 4.13)."""
NUMBER: Final = struct.Struct("=I")


class Kind(StrEnum):
    """What becomes of it."""

    UNICAST = "unicast"
    LOCAL = "local"
    OTHER = "other"
    """Broadcast, multicast, anycast."""
    NO_ROUTE = "no route"
    UNREACHABLE = "unreachable"
    """There is a route that says so; or, for a packet that came in, this host does not forward."""
    PROHIBITED = "prohibited"
    BLACKHOLE = "blackhole"
    """There is a route that says so; or, for a packet that came in, no such packet may come in there."""
    WRONG_WAY_IN = "wrong way in"
    """Reverse path filtering: its answer would not go out where it came in.  Newer kernels (seen on 6.18) answer as
    for a blackhole."""


_KINDS: Final = {1: Kind.UNICAST, 2: Kind.LOCAL}
"""RTN_UNICAST, RTN_LOCAL."""
_REFUSALS: Final = {
    errno.ENETUNREACH: Kind.NO_ROUTE,
    errno.EHOSTUNREACH: Kind.UNREACHABLE,
    errno.EACCES: Kind.PROHIBITED,
    errno.EINVAL: Kind.BLACKHOLE,
    errno.EXDEV: Kind.WRONG_WAY_IN,
}


@dataclass(frozen=True, slots=True)
class Decision:
    """The kernel's answer."""

    kind: Kind
    index: int = 0
    """Of the device it leaves by; 0 if it does not."""
    gateway: IPAddress | None = None
    source: IPAddress | None = None
    """What this host would take for the source of a packet of its own."""
    network: IPNetwork | None = None
    """The destination of the route that decided; None where the kernel does not tell."""
    mtu: int | None = None
    """Bytes, if the route says or the kernel has learned any; that of the device counts otherwise."""


def look_up(
    conversation: Conversation,
    destination: IPAddress,
    source: IPAddress | None = None,
    came_in: int = 0,
) -> Decision:
    """What would become of a packet for ``destination``.

    ``came_in`` is the index of the device it came in by, 0 for one of this host's own.  ``KernelError`` if the kernel
    refuses the question.
    """
    try:
        body = _ask(conversation, destination, source, came_in, 0)
    except KernelError as error:
        if error.code in _REFUSALS:
            return Decision(_REFUSALS[error.code])
        raise
    kind = routes.RTMSG.unpack_from(body)[7]
    found = attributes(body, routes.RTMSG.size)
    mtu = attributes(found.get(routes.RTA_METRICS, b"")).get(RTAX_MTU)
    chosen = found.get(routes.RTA_PREFSRC)
    return Decision(
        _KINDS.get(kind, Kind.OTHER),
        INTEGER.unpack(found[routes.RTA_OIF])[0] if routes.RTA_OIF in found else 0,
        routes.gateway(found),
        routes.unpack_address(chosen) if chosen else None,
        _matched(conversation, destination, source, came_in),
        NUMBER.unpack(mtu)[0] if mtu else None,
    )


def _matched(
    conversation: Conversation, destination: IPAddress, source: IPAddress | None, came_in: int
) -> IPNetwork | None:
    try:
        body = _ask(conversation, destination, source, came_in, RTM_F_FIB_MATCH)
    except KernelError:
        return None
    family, length, *_ = routes.RTMSG.unpack_from(body)
    return routes.network(family, attributes(body, routes.RTMSG.size).get(routes.RTA_DST, b""), length)


def _ask(
    conversation: Conversation,
    destination: IPAddress,
    source: IPAddress | None,
    came_in: int,
    flags: int,
) -> bytes:
    family = AF_INET if destination.version == 4 else AF_INET6
    bits = destination.max_prefixlen
    parts = [
        routes.RTMSG.pack(family, bits, bits if source else 0, 0, 0, 0, 0, 0, flags),
        attribute(routes.RTA_DST, destination.packed),
    ]
    if source is not None:
        parts.append(attribute(RTA_SRC, source.packed))
    if came_in:
        parts.append(attribute(RTA_IIF, INTEGER.pack(came_in)))
    return conversation.ask(f"looking up the route to {destination}", Request(routes.RTM_GETROUTE, b"".join(parts)))
