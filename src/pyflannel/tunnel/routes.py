"""Which peer has an inner address: the longest prefix wins, as in any router.

One dictionary for each prefix length that occurs.  All subnets of a flannel network have the same length, so a lookup
is one or two dictionary reads, with ten peers as with ten thousand.  flannel's own list is searched from its start
(compat §5.1), and its first match wins; as leases do not overlap, both find the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from itertools import islice
from typing import Generic, TypeAlias, TypeVar

Network: TypeAlias = IPv4Network | IPv6Network
V = TypeVar("V")


class Routes(Generic[V]):
    """Networks of both families, each with a value."""

    def __init__(self) -> None:
        self._families: dict[int, _Family[V]] = {4: _Family(32), 6: _Family(128)}

    def add(self, network: Network, value: V) -> None:
        """From now on ``network`` leads to ``value``, whatever it led to before."""
        self._families[network.version].add(network.prefixlen, int(network.network_address), value)

    def remove(self, network: Network) -> V | None:
        """Forget exactly this network, not those inside it; what it led to, None if it was not there."""
        return self._families[network.version].remove(network.prefixlen, int(network.network_address))

    def find(self, version: int, address: int) -> V | None:
        """The value of the longest prefix that holds the address, None if there is none; ``version`` is 4 or 6."""
        for shift, prefixes in self._families[version].by_length:
            value = prefixes.get(address >> shift)
            if value is not None:
                return value
        return None

    def items(self, first: int = 0, count: int | None = None) -> Iterator[tuple[Network, V]]:
        """So many networks, from one of them on, and what they lead to; the order is the same until they change."""
        every = (
            (kind, prefix << shift, bits - shift, value)
            for kind, bits, family in ((IPv4Network, 32, self._families[4]), (IPv6Network, 128, self._families[6]))
            for shift, prefixes in family.by_length
            for prefix, value in prefixes.items()
        )
        # Making a network of a number takes far longer than passing over it.
        for kind, address, length, value in islice(every, first, None if count is None else first + count):
            yield kind((address, length)), value

    def __len__(self) -> int:
        return sum(len(prefixes) for family in self._families.values() for _, prefixes in family.by_length)


class _Family(Generic[V]):
    """``by_length``: how far an address is shifted to be a key, and the values by key; the longest prefix first."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self.by_length: list[tuple[int, dict[int, V]]] = []

    def add(self, length: int, first: int, value: V) -> None:
        shift = self._bits - length
        prefixes = self._with(shift)
        if prefixes is None:
            prefixes = {}
            self.by_length.append((shift, prefixes))
            self.by_length.sort(key=lambda entry: entry[0])
        prefixes[first >> shift] = value

    def remove(self, length: int, first: int) -> V | None:
        shift = self._bits - length
        prefixes = self._with(shift)
        if prefixes is None:
            return None
        value = prefixes.pop(first >> shift, None)
        if not prefixes:
            self.by_length.remove((shift, prefixes))
        return value

    def _with(self, shift: int) -> dict[int, V] | None:
        return next((prefixes for other, prefixes in self.by_length if other == shift), None)
