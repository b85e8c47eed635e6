"""The metric of a route through a tunnel, which decides nothing but how the kernel files it.

Linux files the nexthops of IPv4 routes by device, protocol and metric, but not by gateway (fib_info_hashfn, Linux
6.18): without a metric all of ours are one pile, gone through whenever a route is added, and 10,000 routes take 2 s
instead of 0.1 s.  So where there are thousands of peers (``View.spread``) an IPv4 route gets a metric, a different one
for nearly every peer.  With a single route to each destination its metric means nothing.  IPv6 keeps no such files.
"""

from __future__ import annotations

from typing import Final

from pyflannel.state import IPNetwork

METRICS: Final = 4096
"""How many different ones are used where metrics are spread; more bring nothing up to 30,000 peers."""
IPV6_METRIC: Final = 1024
"""What the kernel gives an IPv6 route that asks for none (IP6_RT_PRIO_USER)."""


def metric(subnet: IPNetwork, spread: bool) -> int:
    """The same on every host and at every start.  Neighbouring subnets, as most are, never share one."""
    if subnet.version == 6:
        return IPV6_METRIC
    return 1 + (int(subnet.network_address) >> (subnet.max_prefixlen - subnet.prefixlen)) % METRICS if spread else 0
