"""Packets to the same peer gathered into as few sends as the socket allows."""

from __future__ import annotations

from typing import Generic, TypeAlias, TypeVar

from pyflannel.tunnel.packet import MAX_DATAGRAM
from pyflannel.tunnel.segments import MOST_SEGMENTS

P = TypeVar("P")
Datagrams: TypeAlias = tuple[bytes, int, P]
"""Packets one after another, the size of each but the last, which may be smaller, and to whom."""


class Outbox(Generic[P]):
    """Runs of packets, each as long as UDP_SEGMENT takes; the order is kept for each peer, not between peers."""

    def __init__(self) -> None:
        self._all: list[_Open[P]] = []
        self._open: dict[P, _Open[P]] = {}

    def add(self, payload: bytes, size: int, peer: P) -> None:
        """Packets of ``size`` octets, the last maybe shorter."""
        last = self._open.get(peer)
        if last is None or not last.takes(payload, size):
            last = self._open[peer] = _Open(size, peer)
            self._all.append(last)
        last.payloads.append(payload)
        last.length += len(payload)

    def datagrams(self) -> list[Datagrams[P]]:
        """All that was added."""
        return [
            (one.payloads[0] if len(one.payloads) == 1 else b"".join(one.payloads), one.size, one.peer)
            for one in self._all
        ]


class _Open(Generic[P]):
    __slots__ = ("length", "payloads", "peer", "size")

    def __init__(self, size: int, peer: P) -> None:
        self.payloads: list[bytes] = []
        self.length = 0
        self.size = size
        self.peer = peer

    def takes(self, payload: bytes, size: int) -> bool:
        """Whether nothing but the last packet would be shorter, and the limits would hold."""
        length = self.length + len(payload)
        return (
            (size == self.size or len(payload) == size < self.size)
            and self.length % self.size == 0
            and length <= min(MAX_DATAGRAM, MOST_SEGMENTS * self.size)
        )
