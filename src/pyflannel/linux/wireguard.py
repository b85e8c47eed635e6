"""What a wireguard device of the kernel holds: its key and port, and its peers (generic netlink, linux/wireguard.h).

The kernel lists thousands of peers over as many messages as it takes, and a peer with many networks over several as
well, under its key each time.  It takes them in the same way, and carries out a message peer by peer until one fails;
so after a failure each of that message's is tried by itself, to know which ones it was.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from itertools import groupby
from socket import AF_INET, AF_INET6
from typing import Final

from pyflannel.diff import Op, Put
from pyflannel.linux import genetlink
from pyflannel.linux.errors import KernelError
from pyflannel.linux.netlink import ATTRIBUTE, Ack, Conversation, Request, attribute, attributes
from pyflannel.linux.netns import Netns
from pyflannel.linux.routes import unpack_address
from pyflannel.state import IPNetwork, Item, Key
from pyflannel.wireguard import (
    KEY_LENGTH,
    SESSION_S,
    Endpoint,
    PublicKey,
    SecretKey,
    WireguardDevice,
    WireguardPeer,
)

FAMILY: Final = "wireguard"
VERSION: Final = 1
WG_CMD_GET_DEVICE, WG_CMD_SET_DEVICE = 0, 1
NESTED: Final = 0x8000
"""Marks an attribute that holds others; the kernel insists on it here."""
WGDEVICE_A_IFINDEX, WGDEVICE_A_PRIVATE_KEY, WGDEVICE_A_LISTEN_PORT, WGDEVICE_A_PEERS = 1, 3, 6, 8
WGPEER_A_PUBLIC_KEY, WGPEER_A_PRESHARED_KEY, WGPEER_A_FLAGS, WGPEER_A_ENDPOINT = 1, 2, 3, 4
WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, WGPEER_A_LAST_HANDSHAKE_TIME, WGPEER_A_ALLOWEDIPS = 5, 6, 9
WGPEER_F_REMOVE_ME, WGPEER_F_REPLACE_ALLOWEDIPS, WGPEER_F_UPDATE_ONLY = 1, 2, 4
WGALLOWEDIP_A_FAMILY, WGALLOWEDIP_A_IPADDR, WGALLOWEDIP_A_CIDR_MASK = 1, 2, 3
NUMBER: Final = struct.Struct("=I")
SHORT: Final = struct.Struct("=H")
TIMESPEC: Final = struct.Struct("=qq")
SOCKADDR_IN: Final = struct.Struct("=H2s4s8x")
SOCKADDR_IN6: Final = struct.Struct("=H2s4x16s4x")
NO_KEY: Final = bytes(KEY_LENGTH)
ROOM: Final = 16 << 10
"""Bytes of peers in one message; some hundred of them, and far below what an attribute can hold (64 KiB)."""


class Memory:
    """Peers as they were listed last and wanted, so that what has not changed meanwhile need not be decoded again.

    The kernel tells nobody when a peer changes, so they are listed every few seconds, thousands of them.
    """

    def __init__(self) -> None:
        self._seen: dict[str, dict[bytes, WireguardPeer]] = {}

    def seen(self, dev: str) -> Mapping[bytes, WireguardPeer]:
        """By what was listed: the wanted peer it stood for."""
        return self._seen.get(dev, {})

    def learn(self, dev: str, seen: dict[bytes, WireguardPeer]) -> None:
        """Forget all that was known of the device, and know this."""
        self._seen[dev] = seen


def observe(
    dev: str, index: int, netns: Netns, known: Mapping[Key, Item], memory: Memory
) -> Iterator[WireguardDevice | WireguardPeer]:
    """What the device holds; nothing about itself if it has no key.  ``KernelError`` if the kernel does not say.

    What is ``known`` comes as it is known.
    """
    with genetlink.opened(netns) as conversation:
        family = genetlink.family(conversation, FAMILY)
        bodies = conversation.dump(f"listing the peers of {dev}", query(family, index))
    yield from read(bodies, dev, time.time(), known, memory)


def carry_out(ops: Sequence[Op], index: int, netns: Netns) -> list[Ack]:
    """Carry out operations on one device, in their order, each on its own; the answers likewise."""
    try:
        with genetlink.opened(netns) as conversation:
            return _carry_out(ops, index, conversation, genetlink.family(conversation, FAMILY))
    except KernelError as error:
        return [Ack(error.code, error.text)] * len(ops)


def query(family: int, index: int) -> Request:
    """List a device and its peers."""
    return genetlink.message(family, WG_CMD_GET_DEVICE, VERSION, attribute(WGDEVICE_A_IFINDEX, NUMBER.pack(index)))


def read(
    bodies: Iterable[bytes], dev: str, now: float, known: Mapping[Key, Item], memory: Memory
) -> Iterator[WireguardDevice | WireguardPeer]:
    """Decode the listing of a device; ``now`` is the time of day, in seconds since 1970."""
    before, seen = memory.seen(dev), dict[bytes, WireguardPeer]()
    entries: list[bytes] = []
    for body in bodies:
        found = attributes(body, genetlink.HEADER.size)
        private, port = found.get(WGDEVICE_A_PRIVATE_KEY, NO_KEY), found.get(WGDEVICE_A_LISTEN_PORT)
        if private != NO_KEY and port is not None:
            yield WireguardDevice(dev, SecretKey(private), SHORT.unpack(port)[0])
        entries += elements(found.get(WGDEVICE_A_PEERS, b""))
    for _, group in groupby(entries, key=_key_of):
        entry, *more = group
        peer = before.get(entry) if not more else None
        if peer is None or known.get(peer.key) is not peer:
            peer = _joined(_peer(each, dev, now) for each in (entry, *more))
            wanted = known.get(peer.key)
            if isinstance(wanted, WireguardPeer) and wanted == peer:
                peer = wanted
        if not more and known.get(peer.key) is peer:
            seen[entry] = peer
        yield peer
    if known:
        memory.learn(dev, seen)


def put_device(item: WireguardDevice, family: int, index: int) -> Request:
    """Give the device its key and port."""
    return _set(family, index, _identity(item.private_key, item.listen_port))


def cut_device(family: int, index: int) -> Request:
    """Take them away again."""
    return _set(family, index, _identity(NO_KEY, 0))


def put_peer(item: WireguardPeer, old: WireguardPeer | None) -> bytes:
    """The peer for a message, as it is to be where ``old`` is now, if anything.

    Networks are taken from it only where it has some too many: the kernel takes all of them for a moment.
    """
    parts = [
        attribute(WGPEER_A_PUBLIC_KEY, item.public_key),
        attribute(WGPEER_A_PRESHARED_KEY, item.psk or NO_KEY),
        attribute(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, SHORT.pack(item.keepalive)),
    ]
    if old is None or old.allowed - item.allowed:
        parts.append(attribute(WGPEER_A_FLAGS, NUMBER.pack(WGPEER_F_REPLACE_ALLOWEDIPS)))
    if item.endpoint is not None and item.names_endpoint(old):
        parts.append(attribute(WGPEER_A_ENDPOINT, _sockaddr(item.endpoint)))
    allowed = b"".join(_allowed(network) for network in sorted(item.allowed, key=str))
    parts.append(attribute(WGPEER_A_ALLOWEDIPS | NESTED, allowed))
    return attribute(NESTED, b"".join(parts))


def cut_peer(item: WireguardPeer) -> bytes:
    """The peer for a message that removes it; no more than that if it is gone."""
    flags = attribute(WGPEER_A_FLAGS, NUMBER.pack(WGPEER_F_REMOVE_ME))
    return attribute(NESTED, attribute(WGPEER_A_PUBLIC_KEY, item.public_key) + flags)


def greeting(item: WireguardPeer) -> bytes:
    """What has us shake hands with a peer that is there, now and not when there is something to send.

    Where one end has a new key and the other tried it too early, it would wait for seconds before it tries again; so
    each tries when it has learned of the change, and the later one succeeds.  Turning keepalives on sends one.
    """
    return b"".join(
        attribute(
            NESTED,
            attribute(WGPEER_A_PUBLIC_KEY, item.public_key)
            + attribute(WGPEER_A_FLAGS, NUMBER.pack(WGPEER_F_UPDATE_ONLY))
            + attribute(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, SHORT.pack(seconds)),
        )
        for seconds in (0, 1, item.keepalive)
    )


def set_peers(peers: Iterable[bytes], family: int, index: int) -> Request:
    """One message about all of ``peers``."""
    return _set(family, index, attribute(WGDEVICE_A_PEERS | NESTED, b"".join(peers)))


def _carry_out(ops: Sequence[Op], index: int, conversation: Conversation, family: int) -> list[Ack]:
    def told(request: Request) -> Ack:
        # A call for each, so that every one fits the send buffer.
        (ack,) = conversation.batch([request])
        return ack

    acks: list[Ack] = []
    for _, run in groupby(ops, key=lambda op: type(op.item)):
        peers: list[bytes] = []
        for op in run:
            if isinstance(op.item, WireguardDevice):
                acks.append(told(_device_request(op, op.item, family, index)))
                if changes_key(op):
                    bodies = conversation.dump(f"listing the peers of {op.item.dev}", query(family, index))
                    known = read(bodies, op.item.dev, 0.0, {}, Memory())
                    for portion in _portions(greeting(peer) for peer in known if isinstance(peer, WireguardPeer)):
                        told(set_peers(portion, family, index))
            elif isinstance(op.item, WireguardPeer):
                peers.append(_peer_entry(op, op.item))
        for portion in _portions(peers):
            ack = told(set_peers(portion, family, index))
            each = portion if ack.code and len(portion) > 1 else ()
            acks += [told(set_peers([peer], family, index)) for peer in each] or [ack] * len(portion)
    return acks


def _portions(peers: Iterable[bytes]) -> Iterator[list[bytes]]:
    """``peers`` in their order, as many at once as a message takes."""
    portion: list[bytes] = []
    room = ROOM
    for peer in peers:
        if portion and len(peer) > room:
            yield portion
            portion, room = [], ROOM
        portion.append(peer)
        room -= len(peer)
    if portion:
        yield portion


def changes_key(op: Op) -> bool:
    """Whether a device that was somebody becomes somebody else: its peers have to shake hands with it anew."""
    if not isinstance(op, Put) or not isinstance(op.item, WireguardDevice):
        return False
    return isinstance(op.old, WireguardDevice) and op.old.private_key != op.item.private_key


def _device_request(op: Op, item: WireguardDevice, family: int, index: int) -> Request:
    return put_device(item, family, index) if isinstance(op, Put) else cut_device(family, index)


def _peer_entry(op: Op, item: WireguardPeer) -> bytes:
    if not isinstance(op, Put):
        return cut_peer(item)
    if isinstance(op.old, WireguardPeer) and op.old.key != item.key:
        return put_peer(item, None) + greeting(item) + cut_peer(op.old)
    return put_peer(item, op.old if isinstance(op.old, WireguardPeer) else None)


def _set(family: int, index: int, body: bytes) -> Request:
    return genetlink.message(
        family, WG_CMD_SET_DEVICE, VERSION, attribute(WGDEVICE_A_IFINDEX, NUMBER.pack(index)) + body
    )


def _identity(private: bytes, port: int) -> bytes:
    return attribute(WGDEVICE_A_PRIVATE_KEY, private) + attribute(WGDEVICE_A_LISTEN_PORT, SHORT.pack(port))


def _sockaddr(endpoint: Endpoint) -> bytes:
    port = endpoint.port.to_bytes(2, "big")
    if endpoint.host.version == 4:
        return SOCKADDR_IN.pack(AF_INET, port, endpoint.host.packed)
    return SOCKADDR_IN6.pack(AF_INET6, port, endpoint.host.packed)


def _allowed(network: IPNetwork) -> bytes:
    family = AF_INET if network.version == 4 else AF_INET6
    return attribute(
        NESTED,
        attribute(WGALLOWEDIP_A_FAMILY, SHORT.pack(family))
        + attribute(WGALLOWEDIP_A_IPADDR, network.network_address.packed)
        + attribute(WGALLOWEDIP_A_CIDR_MASK, bytes([network.prefixlen])),
    )


def elements(body: bytes) -> Iterator[bytes]:
    """The attributes of an array, which all have one type; what follows a mangled one is left out."""
    start = 0
    while start + ATTRIBUTE.size <= len(body):
        length, _ = ATTRIBUTE.unpack_from(body, start)
        if length < ATTRIBUTE.size:
            return
        yield body[start + ATTRIBUTE.size : start + length]
        start += (length + 3) & ~3


def _key_of(entry: bytes) -> bytes:
    """The first attribute, as the kernel writes them: the public key."""
    return entry[: ATTRIBUTE.size + KEY_LENGTH]


def _peer(entry: bytes, dev: str, now: float) -> WireguardPeer:
    found = attributes(entry)
    psk = found.get(WGPEER_A_PRESHARED_KEY, NO_KEY)
    seconds = TIMESPEC.unpack(found[WGPEER_A_LAST_HANDSHAKE_TIME])[0] if WGPEER_A_LAST_HANDSHAKE_TIME in found else 0
    return WireguardPeer(
        dev=dev,
        public_key=PublicKey(found[WGPEER_A_PUBLIC_KEY]),
        endpoint=_endpoint(found.get(WGPEER_A_ENDPOINT, b"")),
        allowed=frozenset(map(_network, elements(found.get(WGPEER_A_ALLOWEDIPS, b"")))),
        keepalive=SHORT.unpack(found.get(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, bytes(2)))[0],
        psk=SecretKey(psk) if psk != NO_KEY else None,
        live=abs(now - seconds) < SESSION_S,
    )


def _joined(entries: Iterable[WireguardPeer]) -> WireguardPeer:
    """A peer whose networks go on in further entries, where nothing else is said of it."""
    first, *more = entries
    return replace(first, allowed=first.allowed.union(*(each.allowed for each in more))) if more else first


def _endpoint(raw: bytes) -> Endpoint | None:
    if len(raw) == SOCKADDR_IN.size:
        _, port, host = SOCKADDR_IN.unpack(raw)
    elif len(raw) == SOCKADDR_IN6.size:
        _, port, host = SOCKADDR_IN6.unpack(raw)
    else:
        return None
    return Endpoint(unpack_address(host), int.from_bytes(port, "big"))


def _network(entry: bytes) -> IPNetwork:
    found = attributes(entry)
    address, length = unpack_address(found[WGALLOWEDIP_A_IPADDR]), found[WGALLOWEDIP_A_CIDR_MASK][0]
    return IPv4Network((int(address), length)) if address.version == 4 else IPv6Network((int(address), length))
