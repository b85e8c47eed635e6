"""What has passed, and what has not and why: in all, and for each peer."""

from __future__ import annotations

from dataclasses import dataclass, field

from pyflannel.tunnel.packet import Drop


@dataclass(slots=True)
class Counters:
    """Inner packets and their octets, IP header included; only grows."""

    packets_out: int = 0
    """Handed to the socket; those it refuses are counted among the drops too."""
    bytes_out: int = 0
    packets_in: int = 0
    bytes_in: int = 0
    drops: dict[Drop, int] = field(default_factory=dict)
    """Packets, by reason."""

    def drop(self, reason: Drop, packets: int = 1) -> None:
        """Count packets that went no further."""
        self.drops[reason] = self.drops.get(reason, 0) + packets
