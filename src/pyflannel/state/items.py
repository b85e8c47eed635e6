"""What is on a device, goes through it, or belongs to a peer."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from pyflannel import __version__
from pyflannel.state.devices import IPAddress, IPInterface, IPNetwork, Key, Mac

PROTO_KERNEL: Final = 2
"""Route protocol of routes the kernel made itself (rtnetlink(7), RTPROT_KERNEL)."""
PROTO_BOOT: Final = 3
"""Route protocol flannel leaves on its own devices, so that ``ip route`` reads as people know it (RTPROT_BOOT)."""
PROTO_FLANNEL: Final = 70
"""Route protocol by which our routes are known on devices that are not ours.  The kernel gives it no meaning, and none
of the daemons in iproute2's rt_protos has it."""


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
        slot = (Route, self.dst, self.metric, self.dev, self.universe)
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
