"""What has passed through our devices, and to each peer where somebody counts that.

vxlan, ipip and host-gw leave counting to the kernel, which does so for whole devices.  WireGuard counts octets for each
peer, and the forwarder of the udp backend packets too, and those it dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from pyflannel.lease.model import Subnet
from pyflannel.linux import counters
from pyflannel.linux.counters import Traffic
from pyflannel.linux.kernel import KernelError
from pyflannel.network import Network
from pyflannel.state import Forwarding
from pyflannel.wireguard import PublicKey, WireguardPeer

PATIENCE_S: Final = 1.0
"""For a forwarder that does not answer; a healthy one takes a millisecond."""


def of_devices(network: Network) -> dict[str, Traffic]:
    """Of each device of the network that is there."""
    found: dict[str, Traffic] = {}
    for dev in network.backend.devices:
        with suppress(KernelError, OSError):
            if (traffic := counters.through(dev)) is not None:
                found[dev] = traffic
    return found


async def of_peers(network: Network, directory: Path) -> Mapping[Subnet, Traffic]:
    """Of each peer for which somebody counts; ``directory`` is where forwarders are reached.

    Reading thousands of counters takes a while, so a thread does it, meanwhile the agent goes on.
    """
    match network.view.config.backend_type:
        case "wireguard":
            return await asyncio.to_thread(_of_wireguard, network)
        case "udp":
            return await asyncio.to_thread(_of_forwarders, network, directory)
    return {}


def _of_wireguard(network: Network) -> dict[Subnet, Traffic]:
    counted: dict[PublicKey, Traffic] = {}
    for dev in network.backend.devices:
        # A program in place of the kernel's module is not asked.
        with suppress(KernelError, OSError):
            counted |= counters.by_peer(dev)
    found: dict[Subnet, Traffic] = {}
    for subnet in tuple(network.table.leases):
        for item in network.items_of(subnet):
            if isinstance(item, WireguardPeer) and item.public_key in counted:
                found[subnet] = counted.pop(item.public_key)
    return found


def _of_forwarders(network: Network, directory: Path) -> dict[Subnet, Traffic]:
    from pyflannel.tunnel.control import ControlError, Remote

    counted: dict[tuple[IPv4Address, int], Traffic] = {}
    for dev in network.backend.devices:
        with suppress(ControlError):
            if (remote := Remote.connect(directory / f"{dev}.sock", PATIENCE_S)) is None:
                continue
            with remote:
                for end, had in remote.statistics().peers:
                    drops = {str(reason): packets for reason, packets in had.drops.items()}
                    counted[end.address, end.port] = Traffic(
                        had.bytes_out, had.bytes_in, had.packets_out, had.packets_in, drops
                    )
    found: dict[Subnet, Traffic] = {}
    for subnet in tuple(network.table.leases):
        for item in network.items_of(subnet):
            # Of several subnets of one host the first has all that went there.
            if isinstance(item, Forwarding) and (item.host, item.port) in counted:
                found[subnet] = counted.pop((item.host, item.port))
    return found
