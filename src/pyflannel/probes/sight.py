"""What is known of a peer by asking: for status, metrics and the page."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reach(StrEnum):
    """Whether packets come through to the containers of a peer, and back."""

    UNKNOWN = "unknown"
    """Not asked yet, or never answered: some hosts answer nobody."""
    REACHED = "reachable"
    LOSSY = "lossy"
    LOST = "unreachable"


@dataclass(frozen=True, slots=True)
class Sight:
    """What is known of one peer."""

    reach: Reach = Reach.UNKNOWN
    reason: str = ""
    """Why it is not reached well, in a few words; empty if it is."""
    rtt: float | None = None
    """Seconds to its end of the overlay and back, smoothed."""
    loss: float | None = None
    """How many of the latest questions had no answer: 0 to 1."""
    mtu: int | None = None
    """Octets of the largest inner packet that has been seen to pass."""
    heard: float | None = None
    """Unix time of its last answer."""
