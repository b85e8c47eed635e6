"""Who is on the link of an interface, so that nobody stands between us and them.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pyflannel.state import IPAddress, IPNetwork


@dataclass(frozen=True, slots=True)
class Reach:
    """Which hosts an interface reaches without a gateway, by the main routing table.

    It says for single addresses what ``ip route get`` would, as far as no rule leads past the main table.
    """

    routes: tuple[tuple[IPNetwork, bool], ...] = ()
    """Longest prefix first: a destination, and whether its hosts are on the link of this interface.  Those that lead
    elsewhere are there only if they cut something out of one that does not."""

    @classmethod
    def of(cls, routes: Iterable[tuple[IPNetwork, bool]]) -> Reach:
        """Sort out ``routes`` of the main table; of several to one destination the first counts, as in the kernel."""
        first: dict[IPNetwork, bool] = {}
        for network, here in routes:
            first.setdefault(network, here)
        near = [network for network, here in first.items() if here]
        kept = [
            (network, here) for network, here in first.items() if here or any(_inside(network, wider) for wider in near)
        ]
        kept.sort(key=lambda route: (route[0].version, -route[0].prefixlen, route[0].network_address.packed))
        return cls(tuple(kept))

    def __contains__(self, address: IPAddress) -> bool:
        return next((here for network, here in self.routes if address in network), False)


NOBODY: Final = Reach()
"""Where nobody asks, or nobody is."""


def _inside(network: IPNetwork, wider: IPNetwork) -> bool:
    return network.prefixlen > wider.prefixlen and network.network_address in wider
