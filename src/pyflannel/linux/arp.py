"""Asking the link who has our address (RFC 5227): if anybody answers, two machines have it.

The question is the one that a machine asks before it takes an address: its sender has no IP address, so it changes
nothing in anybody's tables.
"""

from __future__ import annotations

import socket
import struct
import time
from contextlib import closing
from ipaddress import IPv4Address
from typing import Final

from pyflannel.state import Mac

ETH_P_ARP: Final = 0x0806
PACKET: Final = struct.Struct("!HHBBH6s4s6s4s")
"""Hardware and protocol type, lengths of their addresses, operation, sender's addresses, target's addresses."""
ETHERNET, IPV4 = 1, 0x0800
REQUEST: Final = 1
BROADCAST: Final = bytes([0xFF] * 6)
WAIT: Final = 0.25
"""Seconds; on one link an answer takes milliseconds."""


def claimants(dev: str, mac: Mac, address: IPv4Address, wait: float = WAIT) -> tuple[Mac, ...] | None:
    """Who on the link of ``dev``, whose MAC address is ``mac``, has ``address`` as well; None if we may not ask."""
    try:
        with closing(socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)) as channel:
            channel.bind((dev, ETH_P_ARP))
            channel.sendto(question(mac, address), (dev, ETH_P_ARP, 0, 0, BROADCAST))
            return tuple(_answers(channel, mac, address, time.monotonic() + wait))
    except OSError:
        return None


def question(mac: Mac, address: IPv4Address) -> bytes:
    """Who has ``address``?"""
    return PACKET.pack(ETHERNET, IPV4, 6, 4, REQUEST, mac, bytes(4), bytes(6), address.packed)


def claimant(packet: bytes, address: IPv4Address) -> Mac | None:
    """Who says in ``packet`` that ``address`` is theirs."""
    if len(packet) < PACKET.size:
        return None
    hardware, protocol, *_, sender, claimed, _, _ = PACKET.unpack_from(packet)
    if (hardware, protocol) != (ETHERNET, IPV4) or claimed != address.packed:
        return None
    return Mac(sender)


def _answers(channel: socket.socket, mac: Mac, address: IPv4Address, deadline: float) -> dict[Mac, None]:
    found: dict[Mac, None] = {}
    while (left := deadline - time.monotonic()) > 0:
        channel.settimeout(left)
        try:
            packet = channel.recv(PACKET.size)
        except TimeoutError:
            break
        other = claimant(packet, address)
        if other is not None and other != mac:
            found[other] = None
    return found
