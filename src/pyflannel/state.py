"""What the kernel holds, as values.

Rules of this file
  1. An item is one object of the kernel: frozen, compared by value, with nothing in it that only the kernel knows
     (an interface is its *name*; the index behind it is the business of ``linux/``).
  2. ``key`` names the slot in the kernel which the item fills.  Two items with one key cannot both be there, so a
     ``State`` refuses them: a plan with such a pair would be rewritten for ever and never converge.
  3. ``ORDER`` is the order in which items can be built; they are torn down in reverse.

Kernel words for kernel things: see ip-link(8), ip-route(8), ip-neighbour(8), bridge(8).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any, Final, TypeAlias

from pyflannel import __version__
from pyflannel.wireguard import WireguardDevice, WireguardPeer

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network
IPInterface: TypeAlias = IPv4Interface | IPv6Interface
Key: TypeAlias = tuple[object, ...]

PROTO_KERNEL: Final = 2
"""Route protocol of routes the kernel made itself (rtnetlink(7), RTPROT_KERNEL)."""
PROTO_BOOT: Final = 3
"""Route protocol flannel leaves on its own devices, so that ``ip route`` reads as people know it (RTPROT_BOOT)."""
PROTO_FLANNEL: Final = 70
"""Route protocol by which our routes are known on devices that are not ours.  The kernel gives it no meaning, and none
of the daemons in iproute2's rt_protos has it."""

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

    Only ever observed.  It fills the slot of the ``Link`` of that name, so that a plan with such a link replaces it;
    where no plan asks for the name it stays as it is.
    """

    name: str
    why: str
    kind: str = ""
    """Its type, as in ``ip link … type``; empty for hardware."""

    @property
    def key(self) -> Key:
        """The slot of the link it stands in for."""
        return (Link, self.name)


@dataclass(frozen=True, slots=True)
class Sysctl:
    """A per-device kernel setting under ``/proc/sys/net/{family}/conf/{dev}/``."""

    dev: str
    family: str
    """``ipv4`` or ``ipv6``."""
    name: str
    value: str

    @property
    def key(self) -> Key:
        """One value per setting."""
        return (Sysctl, self.dev, self.family, self.name)


@dataclass(frozen=True, slots=True)
class ChecksumOffload:
    """Whether the checksums of what a device sends are left for later: to hardware, mostly (``ethtool -K … tx``)."""

    dev: str
    on: bool

    @property
    def key(self) -> Key:
        """One per device."""
        return (ChecksumOffload, self.dev)


@dataclass(frozen=True, slots=True)
class Address:
    """An address on a device."""

    dev: str
    address: IPInterface

    @property
    def key(self) -> Key:
        """An address with another prefix length is another address to the kernel."""
        return (Address, self.dev, self.address)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A permanent neighbour: which MAC answers for an address (``ip neigh … nud permanent``)."""

    dev: str
    ip: IPAddress
    mac: Mac

    @property
    def key(self) -> Key:
        """One MAC per address and device."""
        return (Neighbour, self.dev, self.ip)


@dataclass(frozen=True, slots=True)
class FdbEntry:
    """A permanent vxlan forwarding entry: which host a MAC lives on (``bridge fdb … self permanent dst``)."""

    dev: str
    mac: Mac
    dst: IPAddress

    @property
    def key(self) -> Key:
        """One host per unicast MAC and device; a group address, or the all-zero one, may have many."""
        return (FdbEntry, self.dev, self.mac) if self.mac.is_unicast else (FdbEntry, self.dev, self.mac, self.dst)


@dataclass(frozen=True, slots=True)
class Forwarder:
    """The process that carries packets between a TUN device and the other hosts (``pyflannel.tunnel``)."""

    dev: str
    listen: IPv4Address
    """Where the datagrams of the others arrive."""
    port: int
    subnet: IPv4Network
    """Ours: it takes in nothing else, and answers from its first address."""
    release: str = __version__
    """Of pyflannel, whose code the process runs: after an upgrade another one takes its place."""

    @property
    def key(self) -> Key:
        """A TUN device is served by one process."""
        return (Forwarder, self.dev)


@dataclass(frozen=True, slots=True)
class Forwarding:
    """What a forwarder does with the packets for a subnet: they go to that host and port, one in each datagram."""

    dev: str
    subnet: IPv4Network
    host: IPv4Address
    port: int

    @property
    def key(self) -> Key:
        """One host for each subnet."""
        return (Forwarding, self.dev, self.subnet)


@dataclass(frozen=True, slots=True)
class Route:
    """A unicast route in the main table."""

    dst: IPNetwork
    dev: str
    via: IPAddress | None = None
    onlink: bool = False
    metric: int = 0
    """IPv6 has no metric 0: there the kernel reads it as 1024, and so do we."""
    protocol: int = PROTO_BOOT
    stray: bool = False
    """Only ever observed: a second route in the slot of another, or one with settings we never make (``src``, ``mtu``
    and so on).  It fits no plan, hence ``diff`` cuts it."""
    universe: bool = False
    """IPv4 without a gateway: of scope global, as flannel's udp backend makes its route, instead of scope link."""

    def __post_init__(self) -> None:
        """Write the metric the way the kernel reads it."""
        if not self.metric and self.dst.version == 6:
            object.__setattr__(self, "metric", 1024)

    @property
    def key(self) -> Key:
        """The kernel tells routes to one destination apart by metric; in a plan a device never has two of them."""
        slot = (Route, self.dst, self.metric, self.dev)
        return (*slot, self.via, self.onlink, self.protocol) if self.stray else slot


@dataclass(frozen=True, slots=True)
class Commands:
    """Lines for ``sh -c`` which an administrator wrote, to be run for each peer; empty where there is none."""

    add: str
    remove: str = ""
    check: str = field(default="", compare=False)
    """Answers with status 0 if what ``add`` made is there.  Asking otherwise changes nothing of it."""
    limit: float = field(default=60.0, compare=False)
    """Seconds that one run may take."""


@dataclass(frozen=True, slots=True)
class Hook:
    """A peer for which an administrator's command was run, and not yet the one that undoes it."""

    commands: Commands
    subnet: IPv4Network | None
    subnet_v6: IPv6Network | None
    host: IPv4Address | None
    host_v6: IPv6Address | None
    data: str = ""
    """What the peer publishes for us to read on standard input.  Anybody may have written it."""
    lapsed: bool = False
    """Only ever observed: what the command made may not be there any more, or was never made.  It fits no plan, hence
    ``diff`` puts it again."""

    @property
    def key(self) -> Key:
        """One for each peer."""
        return (Hook, self.subnet, self.subnet_v6)

    @property
    def dev(self) -> str:
        """On no device that we know of."""
        return ""


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
