"""What is told of all peers together: what is the same with everybody is said once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from pyflannel.conditions import (
    CUT_OFF,
    ONE_WAY,
    PATH_MTU_SMALL,
    PEER_LOSSY,
    PEER_SILENT,
    PEER_UNREACHABLE,
    SUBNET_SILENT,
    TUNNEL_BLOCKED,
)
from pyflannel.health import Kind
from pyflannel.lease.model import Subnet
from pyflannel.probes.verdict import Verdict

KINDS: Final = (
    *(CUT_OFF, PEER_UNREACHABLE, TUNNEL_BLOCKED, ONE_WAY),
    *(SUBNET_SILENT, PEER_LOSSY, PATH_MTU_SMALL, PEER_SILENT),
)
"""All that there may be to tell."""
NAMED_SILENT: Final = 8
"""Peers that never answered are named one by one if they are no more than this."""


def summed_up(
    verdicts: Iterable[tuple[Subnet, Verdict]], cut_off: bool, anybody: Callable[[], bool]
) -> dict[Kind, dict[str, str]]:
    """Of each kind of trouble the words, by subject.

    ``verdicts`` are those of peers in trouble; ``cut_off`` is whether nobody answers that used to, ``anybody`` says
    whether any peer's containers are reached.
    """
    found: dict[Kind, dict[str, str]] = {}
    for subnet, verdict in verdicts:
        for kind, text in verdict.troubles:
            found.setdefault(kind, {}).setdefault(str(subnet), text)
    if cut_off:
        found.pop(PEER_UNREACHABLE, None)
        found.pop(ONE_WAY, None)
        found[CUT_OFF] = {"": "none of the hosts that used to answer does so any more: is this host cut off?"}
    if len(blocked := found.get(TUNNEL_BLOCKED, {})) > 1 and not anybody():
        first = next(iter(blocked.values()))
        found[TUNNEL_BLOCKED] = {"": f"nothing comes through the overlay to any host that answers, as to {first}"}
    if len(silent := found.get(PEER_SILENT, {})) > NAMED_SILENT:
        names = ", ".join(list(silent)[:3])
        text = f"more than {NAMED_SILENT} hosts have never answered, among them those of {names}"
        found[PEER_SILENT] = {"": text}
    return found
