"""Which of the kernel's objects are ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from pyflannel.state.devices import IPInterface, IPNetwork, Mac, Spec, Vxlan


@dataclass(frozen=True, slots=True)
class Identity:
    """By what a device of ours is known should it have lost its name.

    A vxlan device by its VNI and MAC; or, where it has lost that one too, by its VNI, its port and our address on it:
    with such a device here there can be no other of ours.  A device without a MAC by its type and our address.
    """

    dev: str
    """The name it should have."""
    spec: Spec
    mac: Mac | None = None
    address: IPInterface | None = None

    def fits(self, spec: Spec, mac: Mac | None, has: Callable[[IPInterface], bool]) -> bool:
        """Whether a device is the one, given how it is set up, its MAC, and which addresses it has."""
        if isinstance(spec, Vxlan) and isinstance(self.spec, Vxlan):
            if spec.vni != self.spec.vni:
                return False
            if self.mac is not None and mac == self.mac:
                return True
            if spec.port != self.spec.port:
                return False
        return type(spec) is type(self.spec) and self.address is not None and has(self.address)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which objects of the kernel are ours.  Nothing outside a scope is ever observed or touched."""

    devices: frozenset[str] = frozenset()
    """Devices that are ours entirely: themselves, and every route, permanent neighbour and FDB entry on them."""
    networks: tuple[IPNetwork, ...] = ()
    """On those devices an IPv4 address inside one of these is ours; others are somebody's and stay (compat §5.0)."""
    sysctls: frozenset[tuple[str, str, str]] = frozenset()
    """Settings we keep: (device, family, name)."""
    offloads: frozenset[str] = frozenset()
    """Devices of which we keep ``ChecksumOffload``."""
    identities: tuple[Identity, ...] = ()
    """Where there is no device of that name, one with this identity is it, renamed by somebody."""
    borrowed: frozenset[str] = frozenset()
    """Devices of somebody else's that carry routes of ours: those of ``PROTO_FLANNEL``, and nothing else on them."""
    hooks: bool = False
    """What an administrator's commands made for peers is ours to take back by the commands for that."""

    def union(self, other: Scope) -> Scope:
        """What is ours by either."""
        both = {each.name: (getattr(self, each.name), getattr(other, each.name)) for each in fields(self)}
        merged: dict[str, Any] = {
            name: tuple(dict.fromkeys(a + b)) if isinstance(a, tuple) else a | b for name, (a, b) in both.items()
        }
        return Scope(**merged)

    def owns(self, address: IPInterface) -> bool:
        """Whether an address on a device of ours is ours as well: of IPv6 all but what every device has by itself."""
        if address.version == 6:
            return not address.is_link_local
        return any(address.ip in network for network in self.networks)
