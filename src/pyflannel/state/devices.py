"""Network devices, and the addresses that everything is said in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Final, TypeAlias

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network
IPInterface: TypeAlias = IPv4Interface | IPv6Interface
Key: TypeAlias = tuple[object, ...]

_MAC: Final = re.compile("[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}")


class Mac(bytes):
    """A 48-bit Ethernet address."""

    __slots__ = ()

    def __new__(cls, raw: bytes) -> Mac:
        """Six bytes as they stand on the wire; ``ValueError`` for any other length."""
        if len(raw) != 6:
            raise ValueError(f"a MAC address has 6 bytes, not {len(raw)}")
        return super().__new__(cls, raw)

    @classmethod
    def parse(cls, text: str) -> Mac:
        """Read ``aa:bb:cc:dd:ee:ff`` (or with dashes, any case); ``ValueError`` otherwise."""
        if _MAC.fullmatch(text) is None:
            raise ValueError(f"not a MAC address: {text!r}")
        return cls(bytes.fromhex(text.replace("-", "").replace(":", "")))

    def __str__(self) -> str:
        return self.hex(":")

    def __repr__(self) -> str:
        return f"Mac({self})"

    @property
    def is_unicast(self) -> bool:
        """False for group addresses and for the all-zero address, neither of which a host can have."""
        return not self[0] & 1 and any(self)


@dataclass(frozen=True, slots=True)
class Vxlan:
    """The settings of a vxlan device which matter to us (ip-link(8), type vxlan)."""

    vni: int
    underlay: str
    """Name of the device that carries the outer packets (``dev``)."""
    local: IPAddress | None
    port: int
    learning: bool = False
    gbp: bool = False


@dataclass(frozen=True, slots=True)
class Ipip:
    """The settings of an IPv4-in-IPv4 device without a remote end (ip-link(8), type ipip)."""

    underlay: str
    """As with ``Vxlan``; empty if the routing table decides."""
    local: IPv4Address | None


@dataclass(frozen=True, slots=True)
class Wireguard:
    """A wireguard device.  Its key, port and peers are items of their own: nothing about the device depends on them."""


@dataclass(frozen=True, slots=True)
class Tun:
    """A device whose packets a process handles (tuntap: ``ip tuntap add … mode tun``)."""


Spec: TypeAlias = Vxlan | Ipip | Wireguard | Tun


@dataclass(frozen=True, slots=True)
class Link:
    """A network device of ours."""

    name: str
    spec: Spec
    mtu: int
    mac: Mac | None = None
    """None in a desired state: leave whatever address the kernel chose."""
    up: bool = True
    misnamed: str = ""
    """Only ever observed: the name the device goes by, where somebody took ours from it.  It fits no plan, hence
    ``diff`` puts it right, which gives it ``name`` back."""

    @property
    def key(self) -> Key:
        """One device per name."""
        return (Link, self.name)


@dataclass(frozen=True, slots=True)
class Misfit:
    """A device under one of our names which no change can make ours: of another kind, or set up for another use.

    Only ever observed.  It fills the slot of the ``Link`` of that name, so that a plan with such a link replaces it,
    or fails to if it is ``foreign``; where no plan asks for the name it stays as it is.
    """

    name: str
    why: str
    kind: str = ""
    """Its type, as in ``ip link … type``; empty for hardware."""

    @property
    def key(self) -> Key:
        """The slot of the link it stands in for."""
        return (Link, self.name)

    @property
    def foreign(self) -> bool:
        """Whether it is somebody's: a tunnel device under our name is of some flannel, a bridge or a network card not.

        Then it is never deleted, whoever wants its name.
        """
        return self.kind not in ("ipip", "vxlan")
