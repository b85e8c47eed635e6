"""Reading what the kernel holds inside a scope.

The kernel filters its listings by device, so that thousands of somebody else's routes cost next to nothing.  Before
Linux 4.20 it does not, hence every entry is checked once more here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from socket import AF_INET, AF_INET6
from types import MappingProxyType
from typing import Final, TypeVar

from pyflannel.linux import addresses, links, neighbours, routes, sysctls, vxlan
from pyflannel.linux.devices import Devices
from pyflannel.linux.errors import LinkGone
from pyflannel.linux.netlink import Conversation, Request
from pyflannel.linux.netns import Netns
from pyflannel.state import (
    PROTO_BOOT,
    PROTO_FLANNEL,
    Address,
    IPInterface,
    Item,
    Key,
    Likeness,
    Link,
    Misfit,
    Route,
    Scope,
    Spec,
    State,
    Vxlan,
)

T = TypeVar("T")

FAMILIES: Final = (AF_INET, AF_INET6)
NOTHING: Final[Mapping[Key, Item]] = MappingProxyType({})
LOOKS: Final = 5
"""How many times in a row a device may go away while we look."""


class Reader:
    """One look at the kernel."""

    def __init__(self, conversation: Conversation, netns: Netns) -> None:
        """Read through ``conversation``, which is in ``netns``."""
        self._conversation, self._netns = conversation, netns
        self._devices = Devices(conversation)

    def observe(self, scope: Scope) -> State:
        """All that is inside ``scope``; a device that goes away meanwhile is as if it had never been there."""
        return self._steadily(lambda: State(self._items(scope)))

    def compare(self, scope: Scope, known: Mapping[Key, Item]) -> Likeness:
        """The same, told by how it differs from ``known``; and routes on borrowed devices that Go flanneld left."""
        return self._steadily(lambda: Likeness(self._items(scope, known), known))

    def devices(self, names: Iterable[str]) -> State:
        """The devices of these names, without what is on them."""
        found = (self._devices.look(name) for name in names)
        return State(self.link(device) for device in found if device is not None)

    def routes(self, index: int, dev: str, family: int) -> Iterator[Route]:
        """The routes through a device; all but the first that fill one slot are strays."""
        filled: set[Key] = set()
        for body in self._list(f"routes of {dev}", routes.query(family, index), family):
            for route in routes.read(body, index, dev):
                yield replace(route, stray=True) if route.key in filled else route
                filled.add(route.key)

    def device(self, name: str, scope: Scope) -> links.Device | None:
        """The device of this name, or else the one it was taken from; None if it is not there."""
        return self._devices.look(name) or self._misnamed(name, scope)

    def link(self, device: links.Device) -> Link | Misfit:
        """What a device is to us, under the name it goes by."""
        why = links.misfit(device)
        if why is not None:
            return Misfit(device.name, why, device.kind)
        below = links.underlay(device)
        found = self._devices.look(below) if below else None
        return links.as_item(device, "" if found is None else found.name)

    def rival(self, item: Link) -> str:
        """The device of another name that has what only one can have, VNI and port; empty if there is none."""
        if isinstance(item.spec, Vxlan):
            for body in self._conversation.dump("listing vxlan devices", links.query_kind("vxlan")):
                device = links.read(body)
                if device.kind == "vxlan" and device.name != item.name:
                    found = vxlan.read(device.settings, "")
                    if (found.vni, found.port) == (item.spec.vni, item.spec.port):
                        return device.name
        return ""

    def _misnamed(self, name: str, scope: Scope) -> links.Device | None:
        identities = [identity for identity in scope.identities if identity.dev == name]
        if not identities:
            return None
        for identity in identities:
            kind = links.kind_of(identity.spec)
            for body in self._conversation.dump(f"listing {kind} devices", links.query_kind(kind)):
                device = links.read(body)
                if device.name in scope.devices or links.misfit(device) is not None:
                    continue
                if identity.fits(links.as_item(device, "").spec, device.mac, partial(self._has, device)):
                    return device
        return None

    def _has(self, device: links.Device, address: IPInterface) -> bool:
        bodies = self._list(f"addresses of {device.name}", addresses.query(device.index))
        held = [found.address for found in map(addresses.read, bodies) if found and found.index == device.index]
        return address in held

    def _steadily(self, look: Callable[[], T]) -> T:
        """``look`` until no device goes away meanwhile: the next time it is not there from the beginning."""
        for _ in range(LOOKS - 1):
            try:
                return look()
            except LinkGone:
                continue
        return look()

    def _items(self, scope: Scope, known: Mapping[Key, Item] = NOTHING) -> Iterator[Item]:
        for name in sorted(scope.devices):
            device = self.device(name, scope)
            if device is None:
                continue
            link = self.link(device)
            if isinstance(link, Misfit):
                yield link
                continue
            yield link if device.name == name else replace(link, name=name, misnamed=device.name)
            yield from self._on(device.index, name, link.spec, scope)
        for name in sorted(scope.borrowed):
            carrier = self._devices.look(name)
            if carrier is not None:
                yield from self._borrowed(carrier.index, name, known)
        if scope.sysctls:
            yield from sysctls.read(sorted(scope.sysctls), self._netns)

    def _borrowed(self, index: int, dev: str, known: Mapping[Key, Item]) -> Iterator[Route]:
        """Our routes through somebody's device, and those just like a wanted one but for their protocol: Go's."""
        for family in FAMILIES:
            filled: set[Key] = set()
            for body in self._list(f"routes of {dev}", routes.query(family, index), family):
                for route in routes.read(body, index, dev):
                    ours = route if route.protocol == PROTO_FLANNEL else replace(route, protocol=PROTO_FLANNEL)
                    if ours is route or (route.protocol == PROTO_BOOT and known.get(ours.key) == ours):
                        yield replace(route, stray=True) if route.key in filled else route
                        filled.add(route.key)

    def _on(self, index: int, dev: str, spec: Spec, scope: Scope) -> Iterator[Item]:
        for body in self._list(f"addresses of {dev}", addresses.query(index)):
            found = addresses.read(body)
            if found is not None and found.index == index and scope.owns(found.address):
                yield Address(dev, found.address)
        for family in FAMILIES:
            listing = self._list(f"neighbours on {dev}", neighbours.query_neighbours(family, index), family)
            yield from _present(neighbours.read_neighbour(body, index, dev) for body in listing)
        if isinstance(spec, Vxlan):
            listing = self._list(f"forwarding entries of {dev}", neighbours.query_fdb(index))
            yield from _present(neighbours.read_fdb(body, index, dev) for body in listing)
        for family in FAMILIES:
            yield from self.routes(index, dev, family)

    def _list(self, what: str, request: Request, family: int | None = None) -> Iterator[bytes]:
        # Where the kernel was built without a family it answers with all it has.
        bodies = self._conversation.dump(f"listing {what}", request)
        return (body for body in bodies if family is None or body[0] == family)


def _present(items: Iterable[Item | None]) -> Iterator[Item]:
    return (item for item in items if item is not None)
