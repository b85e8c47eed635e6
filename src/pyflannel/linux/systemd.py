"""Telling systemd how we are (sd_notify(3)): one datagram, no library."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Delivery:
    """Whether a message reached systemd; true in a condition if it did."""

    sent: bool
    reason: str = ""
    """Why not."""

    def __bool__(self) -> bool:
        """Whether it was sent."""
        return self.sent


def notify(state: str, address: str | None = None) -> Delivery:
    """Send ``state``, such as ``READY=1``, to ``address`` or else to ``$NOTIFY_SOCKET``.

    Never raises: an agent that cannot report still does its work, and without systemd there is nobody to report to.
    """
    target = os.environ.get("NOTIFY_SOCKET", "") if address is None else address
    if not target:
        return Delivery(False, "NOTIFY_SOCKET is not set")
    if target[0] not in "/@":
        return Delivery(False, f"NOTIFY_SOCKET is neither a path nor an abstract name: {target!r}")
    # The abstract name space is spelled with an @, on the wire with a NUL (unix(7)).
    name = "\0" + target[1:] if target[0] == "@" else target
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.sendto(state.encode(), name)
    except OSError as error:
        return Delivery(False, f"sending to {target}: {error.strerror or error}")
    return Delivery(True)
