"""The nouns of a trace: a packet, what a host knows of its network and would do with the packet, and the hops.

Each host on the way is one ``Crossing``: the packet comes in by a device, or is made there, and leaves by another, or
is for that host.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum

from pyflannel.backends.api import Refused
from pyflannel.firewall.nft import NftTable
from pyflannel.firewall.verdict import Ruleset
from pyflannel.lease.model import Lease, Subnet
from pyflannel.linux.lookup import Decision, Kind
from pyflannel.linux.surroundings import NOBODY, Answer, Device
from pyflannel.network import Network
from pyflannel.state import Address, IPAddress, IPNetwork, Item, Link, Mac, Route
from pyflannel.wireguard import WireguardPeer


@dataclass(frozen=True, slots=True)
class Flow:
    """The packet that is followed."""

    source: IPAddress
    destination: IPAddress
    protocol: str = "icmp"
    port: int | None = None
    """That of the destination; None for protocols without ports, or where any will do."""
    size: int | None = None
    """Bytes of the whole packet, which may not be fragmented; None: small enough for every way."""
    reply: bool = False
    """Whether it answers another one."""

    def answer(self) -> Flow:
        """The packet that comes back."""
        return replace(self, source=self.destination, destination=self.source, size=None, reply=True)


@dataclass(frozen=True, slots=True)
class Peer:
    """Another host of the network."""

    subnet: Subnet
    hosts: tuple[IPAddress, ...]
    """Where it says that it can be reached: its address of each family."""
    items: tuple[Item, ...] = ()
    """What our kernel should hold for it; nothing if its record is of no use to us."""
    reason: str = ""
    """Why it is of no use."""

    @property
    def name(self) -> str:
        """What people know it by."""
        return str(self.hosts[0]) if self.hosts else str(self.subnet)


@dataclass(frozen=True, slots=True)
class Overlay:
    """The network as this host knows it."""

    backend: str
    networks: tuple[IPNetwork, ...]
    own: Subnet
    underlay: str
    """Name of the external interface."""
    addresses: tuple[IPAddress, ...]
    """Of this host, on that interface."""
    items: tuple[Item, ...] = ()
    """What our kernel should hold for ourselves."""
    peers: tuple[Peer, ...] = ()
    """Those a trace has to do with."""
    leases: int = 0
    """How many there are of all hosts."""

    def peer(self, address: IPAddress) -> Peer | None:
        """The host whose containers have ``address``; of several records that say so, one that counts."""
        found = [peer for peer in self.peers if contains(peer.subnet, address)]
        return next((peer for peer in found if not peer.reason), found[0] if found else None)

    def host(self, address: IPAddress) -> Peer | None:
        """The host that has ``address`` in the underlay."""
        return next((peer for peer in self.peers if address in peer.hosts), None)

    def concerns(self, address: IPAddress) -> bool:
        """Whether ``address`` is of this network: a container's, or that of a host we know."""
        inside = any(net.version == address.version and address in net for net in self.networks)
        return inside or address in self.addresses or self.host(address) is not None

    def tunnel(self, version: int) -> Link | None:
        """The device through which packets of this IP version travel; None if they travel as they are."""
        names = {item.dev for item in self.items if isinstance(item, Address) and item.address.version == version}
        return next((item for item in self.items if isinstance(item, Link) and item.name in names), None)

    def route(self, peer: Peer, destination: IPAddress) -> Route | None:
        """The route of ours by which ``destination`` should be reached."""
        for item in (*peer.items, *self.items):
            if isinstance(item, Route) and destination.version == item.dst.version and destination in item.dst:
                return item
        return None


def contains(subnet: Subnet, address: IPAddress) -> bool:
    """Whether ``address`` is in ``subnet``."""
    return any(net is not None and address.version == net.version and address in net for net in nets(subnet))


def nets(subnet: Subnet) -> Iterator[IPNetwork]:
    """Its networks, one or two."""
    return (net for net in (subnet.ipv4, subnet.ipv6) if net is not None)


def overlay(network: Network, *about: IPAddress) -> Overlay:
    """What ``network`` knows, as of now, of itself and of the hosts that have something to do with ``about``."""
    view = network.view
    return Overlay(
        network.backend.type or view.config.backend_type,
        tuple(each.network for each in (view.config.ipv4, view.config.ipv6) if each is not None),
        view.own,
        view.underlay.name,
        tuple(each for each in (view.underlay.ipv4, view.underlay.ipv6) if each is not None),
        network.self_items(),
        tuple(
            _peer(network, lease)
            for lease in network.table.leases.values()
            if lease.subnet != view.own and any(contains(lease.subnet, each) or each in _hosts(lease) for each in about)
        ),
        len(network.table.leases),
    )


def _peer(network: Network, lease: Lease) -> Peer:
    items: tuple[Item, ...] = ()
    reason = network.ignored.get(lease.subnet, "")
    for way in network.ways():
        with suppress(Refused):
            items = items or way.backend.peer_items(way.view, lease)
    return Peer(lease.subnet, _hosts(lease), items, reason)


def _hosts(lease: Lease) -> tuple[IPAddress, ...]:
    return tuple(each for each in (lease.attrs.public_ip, lease.attrs.public_ipv6) if each is not None)


@dataclass(frozen=True, slots=True)
class Outer:
    """How a packet comes to a host: what is around it, as the other end puts it there."""

    source: IPAddress
    """Of the sending host."""
    destination: IPAddress
    """Of the host it is sent to, as far as the sender knows."""
    tunnel: bool
    """Whether there is anything around it at all."""
    vni: int | None = None
    port: int | None = None
    """Of UDP, at the receiving host."""
    mac: Mac | None = None
    """To which the frame inside is addressed."""


@dataclass(frozen=True, slots=True)
class Tables:
    """The firewall of a host, for one address family."""

    rulesets: tuple[Ruleset, ...] = ()
    """One for each variant of iptables that has rules: a packet has to pass all."""
    native: tuple[NftTable, ...] = ()
    """What other programs keep with nftables itself, where iptables does not show it."""
    trouble: str = ""
    """Why nothing is known of them."""


@dataclass(frozen=True, slots=True)
class Underway:
    """The way of the packet around ours, from this host to the next."""

    target: IPAddress
    decision: Decision
    hop: Answer = NOBODY


@dataclass(frozen=True, slots=True)
class Crossing:
    """What a host would do with a packet."""

    devices: Mapping[int, Device]
    decision: Decision
    """As for a packet that comes in by ``entry``."""
    routed: Decision
    """What the routes alone say, whatever it comes in by."""
    back: Decision | None = None
    """Where the routes alone lead a packet for its source."""
    entry: Device | None = None
    """None: the packet is made here."""
    origin: Answer = NOBODY
    """Of a container that sends it: whether it is there."""
    hop: Answer = NOBODY
    """Who takes it on the device it leaves by."""
    behind: IPAddress | None = None
    """By the forwarding entry of a vxlan device: the host it goes to."""
    wireguard: tuple[WireguardPeer, ...] | None = None
    """Of a wireguard device: its peers; None if they cannot be listed."""
    forwards: IPAddress | None = None
    """The host to which the forwarder of the udp backend sends it."""
    forwarder: bool = False
    """Whether there is a process behind the TUN device that answers us."""
    underway: Underway | None = None
    outer_in: Decision | None = None
    """For a packet that arrives: what becomes of the one around it."""
    outer_entry: Device | None = None
    barrier: str = ""
    """The setting that keeps this host from forwarding what comes in by ``entry``; empty if it does forward that."""
    filtered: bool = False
    """Whether iptables sees what only crosses a bridge."""
    tables: Tables = Tables()
    outer_tables: Tables | None = None
    """Of the other address family, where the packet around this one is of that."""

    @property
    def outside(self) -> Crossing:
        """The same, with the firewall that the packet around this one meets."""
        return self if self.outer_tables is None else replace(self, tables=self.outer_tables)

    @property
    def leaves(self) -> Device | None:
        """The device it leaves by; None if it is for this host, or goes nowhere."""
        return self.devices.get(self.decision.index) if self.decision.kind is Kind.UNICAST else None

    @property
    def bridged(self) -> bool:
        """Whether it leaves by the bridge it came in by, which carries it without this host's doing."""
        return self.leaves is not None and self.leaves == self.entry and self.decision.gateway is None

    def device(self, name: str) -> Device | None:
        """The device of that name."""
        return next((device for device in self.devices.values() if device.name == name), None)


class Point(StrEnum):
    """Where on its way a packet is; what the hops of a trace are called."""

    SOURCE = "source"
    BRIDGE = "bridge"
    LEASE = "lease"
    FIREWALL = "firewall"
    FORWARDING = "forwarding"
    REVERSE_PATH = "reverse path"
    ROUTE = "route"
    DEVICE = "device"
    MTU = "mtu"
    NEIGHBOUR = "neighbour"
    FDB = "fdb"
    TUNNEL = "tunnel"
    UNDERLAY = "underlay"
    ARRIVAL = "arrival"
    CONTAINER = "container"
    AGENT = "agent"


class Mood(StrEnum):
    """How it goes there."""

    PASS = "passes"
    NOTE = "note"
    """It passes, and there is something to know."""
    UNSURE = "unsure"
    """It may end here."""
    END = "ends"


@dataclass(frozen=True, slots=True)
class Hop:
    """One step."""

    point: Point
    mood: Mood
    text: str
    remedy: str = ""
    """What to do; empty where there is nothing."""
