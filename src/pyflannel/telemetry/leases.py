"""What the log says of peers that come and go, and of leases that are of no use."""

from __future__ import annotations

import logging
from typing import Final

from pyflannel.conditions import RECORD_IGNORED
from pyflannel.health import Health
from pyflannel.network import Network, Replan

log = logging.getLogger(__name__)

MANY: Final = 50
"""From this many peers in one piece of news on, one line tells of all."""


def announce(health: Health, network: Network, replan: Replan) -> None:
    """Say what a piece of news has changed, and which leases are of no use now."""
    for what, leases in (("added", replan.added), ("removed", replan.removed)):
        if len(leases) >= MANY:
            log.info("Subnets %s: %d", what, len(leases))
            continue
        for lease in leases:
            log.info("Subnet %s: %s via %s", what, lease.subnet, lease.attrs.public_ip or lease.attrs.public_ipv6)
    useless = {str(subnet): reason for subnet, reason in network.ignored.items()} | dict(network.table.unreadable)
    health.set_all(RECORD_IGNORED, {name: f"Ignoring lease {name}: {reason}" for name, reason in useless.items()})
