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

from pyflannel.linux import addresses, ethtool, links, neighbours, routes, sysctls, vxlan, wguapi, wireguard
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
    Wireguard,
)

T = TypeVar("T")

FAMILIES: Final = (AF_INET, AF_INET6)
NOTHING: Final[Mapping[Key, Item]] = MappingProxyType({})
LOOKS: Final = 5
"""How many times in a row a device may go away while we look."""


class Reader:
    """One look at the kernel."""

    def __init__(self, conversation: Conversation, netns: Netns, memory: wireguard.Memory | None = None) -> None:
        """Read through ``conversation``, which is in ``netns``; ``memory`` is of looks before this one."""
        self._conversation, self._netns = conversation, netns
        self._memory = wireguard.Memory() if memory is None else memory
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

    def link(self, device: links.Device, made_as: str = "") -> Link | Misfit:
        """What a device is to us, under the name it goes by; ``made_as`` is the one it had, if that is another."""
        if device.kind == "tun" and wguapi.is_served(made_as or device.name):
            return Link(device.name, Wireguard(), device.mtu, device.mac, device.up)
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
        for identity in (each for each in scope.identities if each.dev == name):
            kinds = [links.kind_of(identity.spec)]
            kinds += ["tun"] if isinstance(identity.spec, Wireguard) and wguapi.is_served(name) else []
            for kind in kinds:
                for body in self._conversation.dump(f"listing {kind} devices", links.query_kind(kind)):
                    device = links.read(body)
                    if device.name in scope.devices or device.kind != kind:
                        continue
                    link = self.link(device, name)
                    if isinstance(link, Link) and identity.fits(link.spec, device.mac, partial(self._has, device)):
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
            link = self.link(device, name)
            if isinstance(link, Misfit):
                yield link
                continue
            yield link if device.name == name else replace(link, name=name, misnamed=device.name)
            yield from self._on(device, name, link.spec, scope, known)
        for name in sorted(scope.borrowed):
            carrier = self._devices.look(name)
            if carrier is not None:
                yield from self._borrowed(carrier.index, name, known)
        if scope.sysctls:
            yield from sysctls.read(sorted(scope.sysctls), self._netns)
        if scope.offloads:
            yield from ethtool.read(sorted(scope.offloads), self._netns)

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

    def _on(self, found: links.Device, dev: str, spec: Spec, scope: Scope, known: Mapping[Key, Item]) -> Iterator[Item]:
        index = found.index
        for body in self._list(f"addresses of {dev}", addresses.query(index)):
            held = addresses.read(body)
            if held is not None and held.index == index and scope.owns(held.address):
                yield Address(dev, held.address)
        if isinstance(spec, Wireguard):
            if found.kind == "wireguard":
                yield from wireguard.observe(dev, index, self._netns, known, self._memory)
            else:
                yield from wguapi.observe(dev)
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
