"""From what is to what should be: an ordered list of operations.

Rules of this file
  1. It compares two states and knows nothing of kernels, leases or clocks.
  2. The order of the result is part of the promise: everything an operation relies on comes before it.
  3. What counts as *the same* is said here and nowhere else: ``satisfies``, and for devices ``must_rebuild``.

Nothing is taken down before its successor stands, so that no packet is lost on the way: first the puts, bottom up, then
the cuts, top down.  What fills a slot that is needed is not cut but handed to the put, as ``old``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final, TypeAlias

from pyflannel.state import (
    ORDER,
    ChecksumOffload,
    IPNetwork,
    Item,
    Key,
    Link,
    Misfit,
    Neighbour,
    Route,
    State,
    Sysctl,
    Vxlan,
)
from pyflannel.wireguard import WireguardPeer


@dataclass(frozen=True, slots=True)
class Put:
    """Make the kernel hold ``item``."""

    item: Item
    old: Item | None = None
    """What fills the slot now, if anything; None means the slot is free and must still be free when we write."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Take ``item`` out of the kernel."""

    item: Item


Op: TypeAlias = Put | Cut

ON_A_DEVICE: Final = tuple(kind for kind in ORDER if kind is not Link)
"""What goes with the device it is on."""
SETTINGS: Final = (Sysctl, ChecksumOffload)
"""What has some value in any case."""


def diff(want: State, have: Mapping[Key, Item]) -> tuple[Op, ...]:
    """The operations that make of ``have`` what ``want`` says, in the order to carry them out.

    A device that must be made anew, or goes, takes all that is on it along, and one that changes its MAC its
    neighbours: those items are not cut one by one, and what is wanted of them is put again as into free slots.
    A setting (``SETTINGS``) that nobody wants any more keeps its value: there is no saying which other one to give it.

    The last IPv4 address of a device takes its IPv4 routes and neighbours along as well, unnoticed by this function:
    where a plan asks for those and for no address at all, it is the next comparison that brings them back.
    """
    losses = dict(_losses(want, have))
    standing = have
    if losses:
        standing = {key: item for key, item in have.items() if type(item) not in losses.get(device(item), ())}
    puts = _succeeding(_led_over(tuple(_puts(want, standing)), want, have), want, standing)
    replaced = {put.old.key for put in puts if put.old is not None}
    return (
        *_clearance(standing.values()),
        *puts,
        *(cut for cut in _cuts(want, standing) if cut.item.key not in replaced),
    )


def satisfies(have: Item, want: Item) -> bool:
    """Whether ``have`` is all that ``want`` asks for."""
    if isinstance(want, Link) and isinstance(have, Link) and want.mac is None:
        return replace(have, mac=None) == want
    if isinstance(want, WireguardPeer) and isinstance(have, WireguardPeer):
        return want.satisfied_by(have)
    return have is want or have == want


def must_rebuild(want: Link, have: Item) -> bool:
    """Whether the kernel cannot change the device ``have`` into ``want``, so that it has to be deleted and made anew.

    The kernel's rules for a vxlan device: VNI, port, GBP and the address family of ``local`` are for life
    (vxlan_changelink, Linux 6.18).  Other kinds take every change of their settings, but none takes another kind.
    """
    if not isinstance(have, Link):
        return True
    new, old = want.spec, have.spec
    if isinstance(new, Vxlan) and isinstance(old, Vxlan):
        return (new.vni, new.port, new.gbp, type(new.local)) != (old.vni, old.port, old.gbp, type(old.local))
    return type(new) is not type(old)


def device(item: Item) -> str:
    """Name of the device an item is, or is on."""
    return item.name if isinstance(item, Link | Misfit) else item.dev


def _losses(want: State, have: Mapping[Key, Item]) -> Iterator[tuple[str, tuple[type[Item], ...]]]:
    """For each device that will lose something by itself: its name, and the kinds of item."""
    for key, item in have.items():
        successor = want.get(key)
        if isinstance(successor, Link):
            if must_rebuild(successor, item):
                yield successor.name, ON_A_DEVICE
            elif isinstance(item, Link) and successor.mac not in (None, item.mac):
                # neigh_changeaddr() flushes permanent neighbours too (Linux 6.18).
                yield successor.name, (Neighbour,)
        elif isinstance(item, Link):
            yield item.name, ON_A_DEVICE


def _clearance(standing: Iterable[Item]) -> Iterator[Op]:
    """Strays go first: cut by what they look like, they could be taken for the routes that come."""
    return (Cut(item) for item in standing if isinstance(item, Route) and item.stray)


def _led_over(puts: tuple[Put, ...], want: State, have: Mapping[Key, Item]) -> tuple[Put, ...]:
    """``puts``, where a route that goes another way from now on takes the place of the one it had.

    The kernel has one slot for both, whatever their devices: the new one must come before the old one goes, or packets
    would be lost in between, and could not come while the old one is there.
    """
    if not any(isinstance(put.item, Route) and put.old is None for put in puts):
        return puts
    leaving = {
        (item.dst, item.metric): item
        for key, item in have.items()
        if isinstance(item, Route) and not item.stray and key not in want
    }
    if not leaving:
        return puts
    return tuple(
        Put(put.item, leaving.get((put.item.dst, put.item.metric)))
        if isinstance(put.item, Route) and put.old is None
        else put
        for put in puts
    )


def _succeeding(puts: tuple[Put, ...], want: State, standing: Mapping[Key, Item]) -> tuple[Put, ...]:
    """``puts``, where a wireguard peer that gets all networks of one that goes takes its place.

    Most often that is a host with a new key: who writes it knows by this that others wait for it to answer.
    """
    leaving = {
        (item.dev, network): item
        for key, item in standing.items()
        if isinstance(item, WireguardPeer) and key not in want
        for network in item.allowed
    }
    return tuple(Put(put.item, _predecessor(put, leaving)) for put in puts) if leaving else puts


def _predecessor(put: Put, leaving: Mapping[tuple[str, IPNetwork], WireguardPeer]) -> Item | None:
    item = put.item
    if put.old is not None or not isinstance(item, WireguardPeer):
        return put.old
    found = (leaving[item.dev, network] for network in item.allowed if (item.dev, network) in leaving)
    return next((peer for peer in found if peer.allowed <= item.allowed), None)


def _puts(want: State, standing: Mapping[Key, Item]) -> Iterator[Put]:
    for kind in ORDER:
        for key, item in want.pairs_of(kind):
            old = standing.get(key)
            if old is None or not satisfies(old, item):
                yield Put(item, old)


def _cuts(want: State, standing: Mapping[Key, Item]) -> Iterator[Cut]:
    surplus: dict[type[Item], list[Cut]] = {kind: [] for kind in ORDER if kind not in SETTINGS}
    for key, item in standing.items():
        if key not in want and not (isinstance(item, Route) and item.stray) and type(item) in surplus:
            surplus[type(item)].append(Cut(item))
    return chain.from_iterable(surplus[kind] for kind in reversed(surplus))
