"""What has passed, as the kernel counts it: through a device (linux/if_link.h), and to each peer of a wireguard device.

No other kind of device counts for each peer.  The kernel's counters begin when the device, or the peer, is made.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pyflannel.linux import genetlink, links, wireguard
from pyflannel.linux.errors import LinkGone
from pyflannel.linux.netlink import Conversation, Request, attribute, attributes, open_socket
from pyflannel.linux.netns import Netns
from pyflannel.wireguard import PublicKey

IFLA_STATS64: Final = 23
STATS: Final = struct.Struct("=4Q")
"""The first of struct rtnl_link_stats64: packets in, packets out, octets in, octets out."""
WGPEER_A_RX_BYTES, WGPEER_A_TX_BYTES = 7, 8
OCTETS: Final = struct.Struct("=Q")


@dataclass(frozen=True, slots=True)
class Traffic:
    """What has passed; packets are None where only octets are counted."""

    tx_bytes: int
    rx_bytes: int
    tx_packets: int | None = None
    rx_packets: int | None = None
    drops: Mapping[str, int] = field(default_factory=dict)
    """Packets that went no further, by reason, where somebody tells."""


def through(dev: str, netns: Netns = None) -> Traffic | None:
    """What has passed through a device; None if there is none.  ``KernelError`` if the kernel does not say."""
    wanted = links.IFINFOMSG.pack(0, 0, 0, 0, 0) + attribute(links.IFLA_IFNAME, dev.encode() + b"\0")
    with contextlib.closing(Conversation(open_socket(netns))) as conversation:
        try:
            body = conversation.ask(f"looking up device {dev}", Request(links.RTM_GETLINK, wanted))
        except LinkGone:
            return None
    raw = attributes(body, links.IFINFOMSG.size).get(IFLA_STATS64)
    if raw is None:
        return None
    rx_packets, tx_packets, rx_bytes, tx_bytes = STATS.unpack_from(raw)
    return Traffic(tx_bytes, rx_bytes, tx_packets, rx_packets)


def by_peer(dev: str, netns: Netns = None) -> dict[PublicKey, Traffic]:
    """What has passed to and from each peer of a wireguard device; ``KernelError`` if the kernel does not say."""
    with contextlib.closing(Conversation(open_socket(netns))) as conversation:
        index = links.read(conversation.ask(f"looking up device {dev}", links.query(dev))).index
    with genetlink.opened(netns) as conversation:
        family = genetlink.family(conversation, wireguard.FAMILY)
        bodies = conversation.dump(f"listing the peers of {dev}", wireguard.query(family, index))
    found: dict[PublicKey, Traffic] = {}
    for body in bodies:
        peers = attributes(body, genetlink.HEADER.size).get(wireguard.WGDEVICE_A_PEERS, b"")
        for entry in map(attributes, wireguard.elements(peers)):
            if WGPEER_A_TX_BYTES in entry:
                key = PublicKey(entry[wireguard.WGPEER_A_PUBLIC_KEY])
                sent, got = (OCTETS.unpack(entry[each])[0] for each in (WGPEER_A_TX_BYTES, WGPEER_A_RX_BYTES))
                found[key] = Traffic(sent, got)
    return found
