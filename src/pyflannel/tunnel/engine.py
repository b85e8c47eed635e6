"""What becomes of each packet: octets in, octets and where to out (compat §5.1).

Rules of this file
  1. Pure: no socket, no clock, no log.  ``pump`` reads and writes, and says through ``answers`` how many ICMP messages
     may be sent until it says so again.
  2. Every packet that comes in is forwarded, or counted under the reason why not.
  3. TTL goes down by one on both sides, as flannel's does.  Beyond flannel, and unnoticed by it: a datagram from a host
     that is no peer is dropped, and so is a packet from outside its sender's subnet or to an address that is not ours;
     TTL exceeded is answered.
  4. A super-packet is judged once: all segments in it have the same addresses and TTL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from pyflannel.tunnel import icmp
from pyflannel.tunnel.batch import Batch
from pyflannel.tunnel.counters import Counters
from pyflannel.tunnel.outbox import Datagrams, Outbox
from pyflannel.tunnel.packet import (
    MAX_DATAGRAM,
    PLAIN,
    VNET,
    Buffer,
    Drop,
    Header,
    Malformed,
    decrement_ttl,
    may_fragment,
    read_header,
    read_virtio_header,
)
from pyflannel.tunnel.peers import Peer, Table
from pyflannel.tunnel.routes import Network, Routes


@dataclass(frozen=True, slots=True)
class Own:
    """This host in the overlay."""

    subnets: tuple[Network, ...] = ()
    """Whatever else comes in is dropped."""
    ipv4: IPv4Address | None = None
    """The address of the TUN device, from which ICMP errors are sent; None: none are."""
    ipv6: IPv6Address | None = None


class Output(NamedTuple):
    """What is to be written; in order for each peer, and for the device."""

    datagrams: Sequence[Datagrams[Peer]]
    frames: Sequence[Buffer]
    """For the TUN device, virtio header first."""


class Engine:
    """The forwarder between one TUN device and one socket."""

    def __init__(self, batch: Batch, *, merge: bool = True) -> None:
        self._batch = batch
        self.merge = merge
        """Whether the device takes super-packets (IFF_VNET_HDR)."""
        self.answers = 0
        """ICMP messages that may still be sent; whoever has a clock fills it up."""
        self.counters = Counters()
        """Drops that no peer can be charged with; the rest is counted with the peers."""
        self.table = Table()
        """Where packets go; may be replaced, and changed, between two calls."""
        self.set_own(Own())

    def set_own(self, own: Own) -> None:
        """From now on this is our place in the overlay."""
        self.own = own
        self._addresses = {4: own.ipv4, 6: own.ipv6}
        self._ours: Routes[bool] = Routes()
        for subnet in own.subnets:
            self._ours.add(subnet, True)

    def outbound(self, frames: Sequence[memoryview]) -> Output:
        """Frames read from the TUN device, each with its virtio header; their TTL is changed in place."""
        outbox: Outbox[Peer] = Outbox()
        answers: list[bytes] = []
        for frame in frames:
            self._send(frame, outbox, answers)
        return Output(outbox.datagrams(), answers)

    def inbound(self, datagrams: Buffer, size: int, sender: int) -> Output:
        """What one read of the socket has brought from the host ``sender``: packets of ``size`` octets, or one if 0."""
        peer = self.table.sender(sender)
        if peer is None:
            self.counters.drop(Drop.UNKNOWN_SENDER, _count(len(datagrams), size))
            return Output((), ())
        if not datagrams:
            peer.counters.drop(Drop.SHORT)
        answers: list[Datagrams[Peer]] = []
        frames = self._batch.coalesce(datagrams, size) if self.merge else _separate(datagrams, size)
        return Output(answers, [frame for frame in frames if self._receive(frame, peer, answers)])

    def _send(self, frame: memoryview, outbox: Outbox[Peer], answers: list[bytes]) -> None:
        packet = frame[VNET:]
        try:
            header = read_header(packet)
        except Malformed as error:
            self.counters.drop(error.reason)
            return
        peer = self.table.find(header.version, header.destination)
        if peer is None:
            self.counters.drop(Drop.NO_ROUTE)
            self._answer(icmp.network_unreachable(packet, self._address(header)), answers)
            return
        if header.ttl <= 1:
            peer.counters.drop(Drop.TTL)
            self._answer(icmp.time_exceeded(packet, self._address(header)), answers)
            return
        decrement_ttl(packet, header)
        # Neither partial nor to be segmented, as all small packets are.
        runs = [(bytes(packet), len(packet))] if not frame[0] and not frame[1] else self._batch.segment(frame)
        if not runs:
            peer.counters.drop(Drop.OFFLOAD)
        elif runs[0][1] > MAX_DATAGRAM:
            peer.counters.drop(Drop.TOO_BIG)
            if not may_fragment(packet, header):
                self._answer(icmp.too_big(packet, self._address(header), MAX_DATAGRAM), answers)
        else:
            for payload, size in runs:
                peer.counters.packets_out += _count(len(payload), size)
                peer.counters.bytes_out += len(payload)
                outbox.add(payload, size, peer)

    def _receive(self, frame: bytearray, peer: Peer, answers: list[Datagrams[Peer]]) -> bool:
        """Whether the frame may go to the device."""
        packet = memoryview(frame)[VNET:]
        packets, octets = _weigh(frame)
        try:
            header = read_header(packet)
        except Malformed as error:
            peer.counters.drop(error.reason, packets)
            return False
        reason = self._objection(header, peer)
        if reason is not None:
            peer.counters.drop(reason, packets)
            if reason is Drop.TTL:
                self._answer_peer(icmp.time_exceeded(packet, self._address(header)), peer, answers)
            return False
        decrement_ttl(packet, header)
        peer.counters.packets_in += packets
        peer.counters.bytes_in += octets
        return True

    def _objection(self, header: Header, sender: Peer) -> Drop | None:
        owner = self.table.find(header.version, header.source)
        if owner is None or owner.address != sender.address:
            return Drop.FOREIGN_SOURCE
        if self._ours.find(header.version, header.destination) is None:
            return Drop.FOREIGN_DESTINATION
        return Drop.TTL if header.ttl <= 1 else None

    def _address(self, header: Header) -> int | None:
        address = self._addresses[header.version]
        return None if address is None or self.answers <= 0 else int(address)

    def _answer(self, message: bytes | None, answers: list[bytes]) -> None:
        if message is not None:
            self.answers -= 1
            answers.append(PLAIN + message)

    def _answer_peer(self, message: bytes | None, peer: Peer, answers: list[Datagrams[Peer]]) -> None:
        if message is not None:
            self.answers -= 1
            peer.counters.packets_out += 1
            peer.counters.bytes_out += len(message)
            answers.append((message, len(message), peer))


def _count(length: int, size: int) -> int:
    """Of packets of ``size`` octets in ``length``; an empty datagram counts too."""
    return max(1, -(-length // size)) if size > 0 else 1


def _weigh(frame: bytearray) -> tuple[int, int]:
    """Packets in a frame of ``coalesce``, and their octets."""
    length = len(frame) - VNET
    if not frame[1]:
        return 1, length
    virtio = read_virtio_header(frame)
    packets = _count(length - virtio.header_size, virtio.gso_size)
    return packets, length + (packets - 1) * virtio.header_size


def _separate(datagrams: Buffer, size: int) -> list[bytearray]:
    step = size if size > 0 else len(datagrams) or 1
    return [bytearray(PLAIN + bytes(datagrams[at : at + step])) for at in range(0, len(datagrams), step)]
