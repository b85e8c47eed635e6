"""What is known of a peer by asking: for status, metrics and the page."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Reach(StrEnum):
    """Whether packets come through to the containers of a peer, and back."""

    UNKNOWN = "unknown"
    """Not asked yet, or never answered: some hosts answer nobody."""
    REACHED = "reachable"
    LOSSY = "lossy"
    LOST = "unreachable"


OURS_ARRIVE: Final = "one way only: ours arrive there, its answers do not"
THEIRS_ARRIVE: Final = "one way only: its packets arrive, ours do not"
"""The reasons of a peer that is lost in one direction: in such words everybody is told, and so they are the same."""


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
