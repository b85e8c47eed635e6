"""A kernel in memory, with the semantics our code relies on; it passes the suite the real one passes.

What it models, because plans depend on it: a device takes all that is on it along; a device that goes down loses its
routes, neighbours and IPv6 addresses, and one that changes its MAC its neighbours; the last IPv4 address takes the IPv4
routes and neighbours along; a route's slot (destination and metric) spans all devices; what a vxlan device can change
while it lives; a device keeps all that is on it when it gets another name; of the wireguard peers of a device one has a
network.

Set ``fault`` to make operations fail; read ``log`` to see what was done, one command a line.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pyflannel.diff import Cut, Op, Put, device, must_rebuild, satisfies
from pyflannel.linux.kernel import KernelError, Report
from pyflannel.linux.netlink import Ack, refusal
from pyflannel.linux.spelling import spell
from pyflannel.state import (
    PROTO_BOOT,
    PROTO_FLANNEL,
    PROTO_KERNEL,
    Address,
    ChecksumOffload,
    Hook,
    Identity,
    Ipip,
    Item,
    Key,
    Likeness,
    Link,
    Mac,
    Misfit,
    Neighbour,
    Route,
    Scope,
    State,
    Sysctl,
    Vxlan,
)
from pyflannel.wireguard import WireguardPeer


@dataclass(frozen=True, slots=True)
class Hardware:
    """A device that is none of ours, up, such as the underlay or somebody's bridge."""

    name: str
    mtu: int = 1500


NOTHING: Mapping[Key, Item] = {}


def no_fault(_op: Op) -> int | None:
    """Everything succeeds."""
    return None


class FakeKernel:
    """One network namespace."""

    def __init__(self, *hardware: Hardware) -> None:
        """With these devices in it, or else an ``eth0``."""
        self.fault: Callable[[Op], int | None] = no_fault
        """Asked before each operation: an errno to fail with, or None."""
        self.log: list[str] = []
        """Every operation attempted, as a command."""
        self._hardware = {item.name: item for item in hardware or (Hardware("eth0"),)}
        self._items: dict[Key, Item] = {}
        self._routes: list[Route] = []
        """Apart from the other items because one slot can hold several, in this order."""
        self._made = 0

    # What the agent sees of it.

    def observe(self, scope: Scope) -> State:
        """As ``Kernel`` promises."""
        return State(self._inside(scope))

    def compare(self, scope: Scope, known: Mapping[Key, Item]) -> Likeness:
        """As ``Kernel`` promises."""
        return Likeness(self._inside(scope, known), known)

    def apply(self, ops: Sequence[Op]) -> Report:
        """As ``Kernel`` promises."""
        done: list[Op] = []
        failed: list[tuple[Op, KernelError]] = []
        for op in ops:
            self.log.append(spell(op))
            code = self.fault(op) or self._carry_out(op)
            if code:
                failed.append((op, refusal(spell(op), Ack(code))))
            else:
                done.append(op)
        return Report(tuple(done), tuple(failed))

    # What others do to it.

    @property
    def items(self) -> tuple[Item, ...]:
        """All there is, ours and others', apart from hardware."""
        return (*self._items.values(), *self._routes)

    def intrude(self, *items: Item) -> None:
        """Somebody puts these, no questions asked; routes come behind those that are there."""
        for item in items:
            if isinstance(item, Route):
                self._routes.append(replace(item, stray=False))
            else:
                self._items[item.key] = item

    def remove(self, item: Item) -> None:
        """Somebody removes it."""
        self._cut(item)

    def plug(self, hardware: Hardware) -> None:
        """A device of somebody else's appears."""
        self._hardware[hardware.name] = hardware

    def unplug(self, name: str) -> None:
        """A device of somebody else's goes, and the vxlan devices over it with it."""
        del self._hardware[name]
        self._lose(lambda item: device(item) == name)
        for link in self._links():
            if isinstance(link.spec, Vxlan) and _underlay(link) == name:
                self.delete_device(link.name)

    def delete_device(self, name: str) -> None:
        """Somebody deletes one of our devices."""
        self._lose(lambda item: device(item) == name)

    def take_down(self, name: str) -> None:
        """Somebody sets one of our devices down."""
        link = self._items[Link, name]
        assert isinstance(link, Link)
        self._items[link.key] = replace(link, up=False)
        self._lose(lambda item: device(item) == name and _needs_up(item))

    def alter(self, link: Link) -> None:
        """Somebody sets one of our devices up differently."""
        self._change_link(link)

    def rename_device(self, old: str, new: str) -> None:
        """Somebody gives one of our devices another name; all that is on it stays."""
        moved = [_on(new, item) if device(item) == old else item for item in self._items.values()]
        self._items = {item.key: item for item in moved}
        self._routes = [replace(route, dev=new) if route.dev == old else route for route in self._routes]

    # How it does it.

    def _inside(self, scope: Scope, known: Mapping[Key, Item] = NOTHING) -> Iterator[Item]:
        for name in sorted(scope.devices & self._hardware.keys()):
            yield Misfit(name, "it is hardware")
        ours = {self._present_name(name, scope): name for name in scope.devices - self._hardware.keys()}
        for item in self._items.values():
            if isinstance(item, Sysctl):
                if (item.dev, item.family, item.name) in scope.sysctls:
                    yield item
            elif isinstance(item, ChecksumOffload):
                continue
            elif device(item) in ours and not (isinstance(item, Address) and not scope.owns(item.address)):
                found = _on(ours[device(item)], item)
                yield replace(found, misnamed=device(item)) if isinstance(found, Link) and found != item else found
        for name in sorted(scope.offloads):
            if self._has_device(name):
                yield self._items.get((ChecksumOffload, name), ChecksumOffload(name, True))
        filled: set[Key] = set()
        routes = (route for route in self._routes if route.dev in ours and route.protocol != PROTO_KERNEL)
        for route in (replace(route, dev=ours[route.dev]) for route in routes):
            yield replace(route, stray=True) if route.key in filled else route
            filled.add(route.key)
        for route in (route for route in self._routes if route.dev in scope.borrowed):
            marked = replace(route, protocol=PROTO_FLANNEL)
            if marked == route or (route.protocol == PROTO_BOOT and known.get(marked.key) == marked):
                yield replace(route, stray=True) if route.key in filled else route
                filled.add(route.key)

    def _present_name(self, name: str, scope: Scope) -> str:
        """What the device goes by that should have this name."""
        if (Link, name) in self._items:
            return name
        marks = [identity for identity in scope.identities if identity.dev == name]
        astray = (link for link in self._links() if link.name not in scope.devices)
        return next((link.name for link in astray if any(self._is_known(link, mark) for mark in marks)), name)

    def _is_known(self, link: Link, mark: Identity) -> bool:
        return mark.fits(link.spec, link.mac, lambda address: Address(link.name, address).key in self._items)

    def _carry_out(self, op: Op) -> int:
        if isinstance(op, Cut):
            self._cut(op.item)
            return 0
        item = op.item
        match item:
            case Link():
                return self._put_link(item, op.old)
            case Sysctl():
                if item.key in self._items:
                    self._items[item.key] = item
                return 0
            case Route():
                return self._put_route(item, op.old)
            case _:
                if not self._has_device(device(item)):
                    return errno.ENODEV
                if isinstance(item, WireguardPeer):
                    self._take_networks(item)
                    if op.old is not None and op.old.key != item.key:
                        self._cut(op.old)
                self._items[item.key] = item
                return 0

    def _take_networks(self, item: WireguardPeer) -> None:
        """A network leads to one peer of a device: what another has of this one's goes over to it."""
        for other in self._items.values():
            if isinstance(other, WireguardPeer) and other.dev == item.dev and other.allowed & item.allowed:
                self._items[other.key] = replace(other, allowed=other.allowed - item.allowed)

    def _put_link(self, item: Link, old: Item | None) -> int:
        if _underlay(item) and _underlay(item) not in self._hardware:
            return errno.ENODEV
        if isinstance(old, Link) and not must_rebuild(item, old):
            return (self._rename(old.misnamed, item.name) if old.misnamed else 0) or self._change_link(item)
        if old is not None and not (isinstance(old, Misfit) and old.foreign):
            self._cut(old)
        present = self._items.get(item.key)
        if present is not None or item.name in self._hardware:
            return 0 if present is not None and satisfies(present, item) else errno.EEXIST
        if any(_claim(other) == _claim(item) for other in self._links()):
            return errno.EEXIST
        self._made += 1
        made_up = Mac(b"\x02\xfa\xce" + self._made.to_bytes(3, "big")) if isinstance(item.spec, Vxlan) else None
        self.intrude(
            replace(item, mac=item.mac or made_up, mtu=min(item.mtu, self._room(item))),
            Sysctl(item.name, "ipv6", "accept_ra", "1"),
        )
        return 0

    def _rename(self, old: str, new: str) -> int:
        if (Link, old) not in self._items:
            return errno.ENODEV
        if self._has_device(new):
            return errno.EEXIST
        self.rename_device(old, new)
        return 0

    def _change_link(self, item: Link) -> int:
        present = self._items.get(item.key)
        if not isinstance(present, Link):
            return errno.ENODEV
        if item.mtu > self._room(item) and item.mtu != present.mtu:
            return errno.EINVAL
        self._items[item.key] = replace(item, mac=item.mac or present.mac)
        if item.mac not in (None, present.mac):
            self._lose(lambda other: isinstance(other, Neighbour) and other.dev == item.name)
        if not item.up:
            self.take_down(item.name)
        return 0

    def _put_route(self, item: Route, old: Item | None) -> int:
        if not self._has_device(item.dev):
            return errno.ENODEV
        link = self._items.get((Link, item.dev))
        if isinstance(link, Link) and not link.up:
            return errno.ENETDOWN
        if item.via is not None and not item.onlink and not self._reaches(item):
            return errno.ENETUNREACH
        moves = isinstance(old, Route) and any(_matches(old, route) for route in self._routes)
        if item not in self._routes:
            if not moves and any((other.dst, other.metric) == (item.dst, item.metric) for other in self._routes):
                return errno.EEXIST
            self._routes.append(item)
        if isinstance(old, Route) and old != item:
            self._cut(old)
        return 0

    def _reaches(self, item: Route) -> bool:
        """Whether the gateway is a neighbour by an address or a route of the same device."""
        addresses = [other for other in self._items.values() if isinstance(other, Address) and other.dev == item.dev]
        near = [other.address.network for other in addresses]
        near += [other.dst for other in self._routes if other.dev == item.dev and other.via is None]
        return any(item.via in network for network in near if item.via is not None)

    def _cut(self, item: Item) -> None:
        match item:
            case Link() | Misfit():
                name = (isinstance(item, Link) and item.misnamed) or item.name
                self._hardware.pop(name, None)
                self.delete_device(name)
            case Sysctl() | ChecksumOffload():
                pass
            case Route():
                matching = (route for route in self._routes if _matches(item, route))
                first = min(matching, key=lambda route: route.metric, default=None)
                if first is not None:
                    self._routes.remove(first)
            case _:
                self._items.pop(item.key, None)
        if isinstance(item, Address) and not any(_is_ipv4_on(other, item.dev) for other in self._items.values()):
            self._lose(lambda other: device(other) == item.dev and _needs_ipv4(other))

    def _lose(self, gone: Callable[[Item], bool]) -> None:
        self._items = {key: item for key, item in self._items.items() if not gone(item)}
        self._routes = [route for route in self._routes if not gone(route)]

    def _has_device(self, name: str) -> bool:
        return name in self._hardware or (Link, name) in self._items

    def _links(self) -> list[Link]:
        return [item for item in self._items.values() if isinstance(item, Link)]

    def _room(self, item: Link) -> int:
        """The largest MTU the underlay leaves a vxlan device, less outer IP, UDP, VXLAN and inner Ethernet headers."""
        if not isinstance(item.spec, Vxlan):
            return 2**16 - 1
        overhead = 70 if _version(item.spec) == 6 else 50
        return self._hardware[item.spec.underlay].mtu - overhead


def failing(code: int, *, after: int = 0, when: Callable[[Op], bool] = lambda op: True) -> Callable[[Op], int | None]:
    """A fault: all operations for which ``when`` holds fail with ``code``, but for the first ``after`` of them."""
    spared = iter(range(after))

    def fault(op: Op) -> int | None:
        return code if when(op) and next(spared, None) is None else None

    return fault


def holding(items: Iterable[Item], *hardware: Hardware) -> FakeKernel:
    """A kernel that holds ``items``, put there in an order that works."""
    kernel = FakeKernel(*hardware)
    kernel.apply([Put(item) for item in items])
    kernel.log.clear()
    return kernel


def _underlay(item: Link) -> str:
    return item.spec.underlay if isinstance(item.spec, Vxlan | Ipip) else ""


def _version(spec: Vxlan) -> int:
    return 4 if spec.local is None else spec.local.version


def _claim(item: Link) -> tuple[object, ...]:
    """What no two devices can have in common."""
    match item.spec:
        case Vxlan() as spec:
            return Vxlan, spec.vni, spec.port, _version(spec)
        case Ipip() as spec:
            return Ipip, spec.underlay, spec.local
        case _:
            return (item.name,)


def _needs_up(item: Item) -> bool:
    return isinstance(item, Route | Neighbour) or (isinstance(item, Address) and item.address.version == 6)


def _needs_ipv4(item: Item) -> bool:
    """Whether it goes when the device has no IPv4 address any more."""
    return (isinstance(item, Route) and item.dst.version == 4) or (isinstance(item, Neighbour) and item.ip.version == 4)


def _is_ipv4_on(item: Item, dev: str) -> bool:
    return isinstance(item, Address) and item.dev == dev and item.address.version == 4


def _on(dev: str, item: Item) -> Item:
    """The item as it is if its device has this name."""
    if isinstance(item, Hook):
        return item
    return replace(item, name=dev) if isinstance(item, Link | Misfit) else replace(item, dev=dev)


def _matches(pattern: Route, route: Route) -> bool:
    """Whether a delete of ``pattern`` takes ``route``: no metric means any."""
    return (
        (pattern.dst, pattern.dev, pattern.protocol) == (route.dst, route.dev, route.protocol)
        and pattern.via == route.via
        and pattern.metric in (0, route.metric)
    )
