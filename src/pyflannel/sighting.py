"""What the kernel tells while things happen, and whether that is news.  Pure.

Rules of this file
  1. A sighting is a hint.  Whoever acts on one looks at the kernel first, so a false alarm costs one look that finds
     nothing, and a missed alarm costs packets: when in doubt, it is news.
  2. What we did ourselves is never news for long.  After a write of ours and one look at most, there is silence;
     otherwise our own echo would keep us busy for ever.

What the kernel takes away without a word (IPv4 routes when a device goes down, everything on one that is deleted) comes
with a word about the device.  Its last IPv4 address takes IPv4 routes along as well, but that one is ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from pyflannel.diff import device, satisfies
from pyflannel.state import PROTO_FLANNEL, Address, IPNetwork, Item, Key, Link, Misfit, Route, Scope


@dataclass(frozen=True, slots=True)
class Seen:
    """The kernel holds this item now, and nothing else in its slot; but a route may have others beside it."""

    item: Item


@dataclass(frozen=True, slots=True)
class Gone:
    """The kernel holds nothing we can use in this slot; or no longer this route, whatever else may fill its slot."""

    what: Key | Route


@dataclass(frozen=True, slots=True)
class Replaced:
    """A route to this destination took the place of another one of this metric, and that one may have been ours.

    ``ip route replace`` throws out the first such route whatever its device, and tells of the new one alone.
    """

    dst: IPNetwork
    metric: int


@dataclass(frozen=True, slots=True)
class Changed:
    """Something about this device is not what it was, or it was made anew and nobody listened yet: look at it."""

    dev: str


@dataclass(frozen=True, slots=True)
class Lost:
    """Events were lost: look at everything."""


Sighting: TypeAlias = Seen | Gone | Replaced | Changed | Lost


def contradicts(sightings: Iterable[Sighting], want: Mapping[Key, Item], scope: Scope) -> bool:
    """Whether what was sighted, in this order, calls for a look at the kernel, if ``want`` is all it should hold.

    Only the last word on each slot counts, and on each route, since a slot can hold several of them: while one gives
    way to another, both are there for a moment, and a device that changes in two respects is told of twice.  But a
    device that was down is news even if it is up again, for its routes did not come up with it.
    """
    last: dict[Key | Route, Seen | Gone] = {}
    for sighting in sightings:
        match sighting:
            case Lost() | Changed():
                return True
            case Replaced(dst, metric):
                devices = scope.devices | scope.borrowed
                if any((Route, dst, metric, dev, universe) in want for dev in devices for universe in (False, True)):
                    return True
            case Seen(Link(up=False) as item) if item.key in want and _is_news(item, want, scope):
                return True
            case Seen(item):
                last[item if isinstance(item, Route) else item.key] = sighting
            case Gone(what):
                last[what] = sighting
    return any(
        _is_news(sighting.item, want, scope) if isinstance(sighting, Seen) else _is_missed(sighting.what, want)
        for sighting in last.values()
    )


def _is_news(item: Item, want: Mapping[Key, Item], scope: Scope) -> bool:
    dev = device(item)
    if dev in scope.borrowed and isinstance(item, Route):
        return item.protocol == PROTO_FLANNEL and want.get(item.key) != item
    if dev not in scope.devices or (isinstance(item, Address) and not scope.owns(item.address)):
        return False
    wanted = want.get(item.key)
    if wanted is None:
        # A misfit under a name that no plan asks for stays as it is.
        return not isinstance(item, Misfit)
    return not satisfies(item, wanted)


def _is_missed(what: Key | Route, want: Mapping[Key, Item]) -> bool:
    return want.get(what.key) == what if isinstance(what, Route) else what in want
