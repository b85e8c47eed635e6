"""All items together: what there is, or should be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final, TypeAlias

from pyflannel.state.devices import Key, Link, Misfit
from pyflannel.state.items import (
    Address,
    ChecksumOffload,
    FdbEntry,
    Forwarder,
    Forwarding,
    Hook,
    Neighbour,
    Route,
    Sysctl,
)
from pyflannel.wireguard import WireguardDevice, WireguardPeer

Item: TypeAlias = (
    Link
    | Misfit
    | Sysctl
    | ChecksumOffload
    | Address
    | WireguardDevice
    | WireguardPeer
    | Neighbour
    | FdbEntry
    | Forwarder
    | Forwarding
    | Route
    | Hook
)

ORDER: Final[tuple[type[Item], ...]] = (
    Link,
    Sysctl,
    ChecksumOffload,
    Address,
    WireguardDevice,
    WireguardPeer,
    Neighbour,
    FdbEntry,
    Forwarder,
    Forwarding,
    Route,
    Hook,
)
"""Each kind may rely on those before it: build in this order, tear down in reverse."""


class DuplicateKey(ValueError):
    """Two different items claim one slot of the kernel."""

    def __init__(self, first: Item, second: Item) -> None:
        super().__init__(f"{first} and {second} claim one slot")
        self.first, self.second = first, second


class State(Mapping[Key, Item]):
    """A set of items, at most one per key."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[Item] = ()) -> None:
        """Collect ``items``; ``DuplicateKey`` if two *different* ones have one key."""
        self._items: dict[Key, Item] = {}
        for item in items:
            if (held := self._items.setdefault(item.key, item)) != item:
                raise DuplicateKey(held, item)

    @classmethod
    def over(cls, items: dict[Key, Item]) -> State:
        """What a dictionary says, whose keys are those of its items: not copied, so it follows what becomes of it."""
        state = cls()
        state._items = items
        return state

    def __getitem__(self, key: Key) -> Item:
        return self._items[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def items_of(self, kind: type[Item]) -> Iterator[Item]:
        """The items of one kind, in the order they were given."""
        return (item for item in self._items.values() if type(item) is kind)

    def pairs_of(self, kind: type[Item]) -> Iterator[tuple[Key, Item]]:
        """The same, each with its key."""
        return (pair for pair in self._items.items() if type(pair[1]) is kind)

    def __repr__(self) -> str:
        return "State(\n" + "".join(f"  {item}\n" for item in self._items.values()) + ")"


class Likeness(Mapping[Key, Item]):
    """A state told by how it differs from a known one, so that of thousands of items in both none is held twice.

    Good for as long as the known state does not change.
    """

    __slots__ = ("_absent", "_known", "_others")

    def __init__(self, items: Iterable[Item], known: Mapping[Key, Item]) -> None:
        """Collect ``items``; ``DuplicateKey`` if two *different* ones have one key."""
        self._known = known
        self._absent: AbstractSet[Key] = known.keys()
        self._others: dict[Key, Item] = {}
        absent: set[Key] = set()
        for item in items:
            key = item.key
            if (held := self.get(key)) is not None:
                if held != item:
                    raise DuplicateKey(held, item)
            elif known.get(key) != item:
                self._others[key] = item
            else:
                if self._absent is not absent:
                    # Not before it is needed: of a kernel that holds nothing yet it would be as large as it gets.
                    self._absent = absent = set(known)
                absent.discard(key)

    def __getitem__(self, key: Key) -> Item:
        return self._others[key] if key in self._absent or key not in self._known else self._known[key]

    def __iter__(self) -> Iterator[Key]:
        yield from (key for key in self._known if key not in self._absent)
        yield from self._others

    def __len__(self) -> int:
        return len(self._known) - len(self._absent) + len(self._others)
