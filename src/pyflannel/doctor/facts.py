"""All that a check may know of a host.  None stands for what could not be found out, wherever it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal

from pyflannel.firewall.nft import NftTable
from pyflannel.state import IPAddress, IPInterface, IPNetwork, Mac
from pyflannel.telemetry.document import Document, PeerPart


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent that keeps this host's network, if there is one."""

    socket: str
    """Where it would answer."""
    status: Document | None = None
    """What it says; None if it did not answer."""
    silence: str | None = None
    """Why it did not, in words; None if it did, or nobody asked."""
    listens: bool | None = None
    """Whether a process holds that socket, answering or not."""
    programs: tuple[str, ...] | None = None
    """Processes in our network namespace that look like an agent, ours or Go flanneld, such as ``flanneld (42)``."""
    unit: str | None = None
    """The systemd unit that would start it; None if there is none."""


@dataclass(frozen=True, slots=True)
class Network:
    """The network as its configuration has it, or as the agent does; of one that has none, nothing is known."""

    ipv4: IPv4Network | None = None
    ipv6: IPv6Network | None = None
    backend: str | None = None
    devices: tuple[str, ...] | None = None
    """Those that are the agent's entirely."""
    port: int | None = None
    """On which the others' packets arrive, UDP; of backends without one there is none."""
    direct: bool | None = None
    """Whether hosts on one link go without the tunnel."""
    port_v6: int | None = None
    """As ``port``, over IPv6; None also where that is not known."""


@dataclass(frozen=True, slots=True)
class SubnetFile:
    """subnet.env, as far as it can be understood."""

    path: str
    there: bool | None = None
    ipv4_network: IPv4Network | None = None
    ipv4: IPv4Network | None = None
    ipv6_network: IPv6Network | None = None
    ipv6: IPv6Network | None = None
    mtu: int | None = None
    masquerades: bool | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """A network device."""

    name: str
    kind: str
    """As in ``ip link … type``; empty for hardware."""
    mtu: int
    up: bool
    mac: Mac | None = None
    addresses: tuple[IPInterface, ...] = ()
    master: str = ""
    """The bridge it is plugged into."""
    vni: int | None = None
    port: int | None = None
    """Of vxlan devices, as ``vni``."""
    external: bool = False
    """A vxlan device that takes packets of every network on its port."""


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the main table that touches the network."""

    dst: IPNetwork
    dev: str
    via: IPAddress | None = None
    protocol: int = 0

    def __str__(self) -> str:
        """As ``ip route`` shows it."""
        return f"{self.dst}{f' via {self.via}' if self.via is not None else ''} dev {self.dev}"


@dataclass(frozen=True, slots=True)
class Lookup:
    """Where the kernel sends a packet for ``target``."""

    target: IPAddress
    dev: str
    comes_in: bool | None = None
    """Whether it takes one from there by the interface towards the other hosts; None if that was not asked."""


@dataclass(frozen=True, slots=True)
class Tables:
    """What one variant of iptables holds for one address family."""

    program: str
    """By which it is changed, such as ``iptables-legacy``."""
    family: Literal[4, 6]
    text: str
    """As its ``-save`` prints it."""
    usual: bool = True
    """It is what plain ``iptables`` changes."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A UDP socket that is bound to a port."""

    port: int
    program: str
    """Which process holds it, such as ``named (42)``; empty if it is the kernel's own."""


@dataclass(frozen=True, slots=True)
class Docker:
    """Docker, if a daemon runs in this network."""

    version: str | None = None
    bridge: str | None = None
    """The device of its default network."""
    subnet: IPv4Network | None = None
    """Of the default network."""
    mtu: int | None = None
    """Of the default network."""


@dataclass(frozen=True, slots=True)
class Record:
    """The network configuration as one API of etcd tells it."""

    text: str | None
    """None: there is none."""
    where: str = ""


@dataclass(frozen=True, slots=True)
class Clock:
    """What tells right time from wrong."""

    now: float
    """Unix time, as this host has it."""
    store: float | None = None
    """The same, as the store has it at that moment."""
    newest_file: float | None = None
    """When the youngest of the agent's files was written."""
    synchronised: bool | None = None
    """Whether the kernel says that somebody keeps the clock (adjtimex(2))."""


@dataclass(frozen=True, slots=True)
class Count:
    """How much of something there is, and may be."""

    used: int
    limit: int


@dataclass(frozen=True, slots=True)
class Manager:
    """A program that wants to manage devices."""

    program: str
    device: str
    """One of ours which it manages."""
    why: str
    """By what: a file, or what the program says of the device."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything."""

    agent: Agent | None = None
    network: Network | None = None
    subnet_file: SubnetFile | None = None
    underlay: str | None = None
    """The interface towards the other hosts."""
    underlay_mtu: int | None = None
    devices: tuple[Device, ...] | None = None
    routes: tuple[Route, ...] | None = None
    defaults: frozenset[str] | None = None
    """Devices of default routes."""
    lookups: tuple[Lookup, ...] | None = None
    """For some of the peers: their hosts, and their subnets."""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    """By path below /proc/sys, such as ``net/ipv4/ip_forward``; absent if unknown, empty if the kernel has no such."""
    tables: tuple[Tables, ...] | None = None
    nft_tables: tuple[str, ...] | None = None
    """Such as ``ip flannel-ipv4``."""
    native: tuple[NftTable, ...] | None = None
    """What other programs keep with nftables itself, where iptables does not show it."""
    listeners: tuple[Listener, ...] | None = None
    docker: Docker | None = None
    cni: bool | None = None
    """Whether a CNI plug-in, and not Docker, is told to put containers into the subnet."""
    release: str | None = None
    """Of the kernel, as ``uname -r`` has it."""
    lacks: str | None = None
    """What kind of device the kernel was asked for and refused, with its words."""
    offloads: Mapping[str, bool] = field(default_factory=dict)
    """Devices that leave checksums for later, or not."""
    remembered: Mapping[str, Mac] = field(default_factory=dict)
    """The MAC addresses peers know our devices by."""
    mac_policy: str | None = None
    """The .link file by which udev gives new devices another MAC address."""
    managers: tuple[Manager, ...] | None = None
    claimants: tuple[Mac, ...] | None = None
    """Who else on the link answers for our address."""
    etcd_api: str | None = None
    """The API that the agent is told to speak: ``2``, ``3`` or ``auto``."""
    records: Mapping[str, Record] = field(default_factory=dict)
    """By API."""
    clock: Clock | None = None
    neighbours: Count | None = None
    connections: Count | None = None
    files: Count | None = None
    unseen: tuple[str, ...] = ()
    """What could not be looked at, and why: for people."""

    @property
    def ranges(self) -> tuple[IPNetwork, ...]:
        """What the network spans, IPv4 first; empty if that is unknown."""
        network, file = self.network or Network(), self.subnet_file or SubnetFile("")
        return tuple(each for each in (network.ipv4 or file.ipv4_network, network.ipv6 or file.ipv6_network) if each)

    @property
    def subnets(self) -> tuple[IPNetwork, ...]:
        """This host's share of them, as its agent says or, failing that, subnet.env; empty if that is unknown."""
        status, file = self.status, self.subnet_file or SubnetFile("")
        if status is not None and (status.lease.subnet or status.lease.ipv6_subnet):
            return tuple(filter(None, map(read_network, (status.lease.subnet, status.lease.ipv6_subnet))))
        return tuple(each for each in (file.ipv4, file.ipv6) if each)

    @property
    def status(self) -> Document | None:
        """What the agent says, if it does."""
        return None if self.agent is None else self.agent.status

    @property
    def peers(self) -> tuple[PeerPart, ...]:
        """The other hosts, as far as the agent names them."""
        return () if self.status is None else self.status.peers

    @property
    def tunnels(self) -> tuple[str, ...] | None:
        """The agent's own devices; empty for a backend without any."""
        return None if self.network is None else self.network.devices

    @property
    def bridge(self) -> Device | None:
        """The device by which our subnet is on this host: the one that has an address inside it."""
        tunnels = self.tunnels or ()
        for device in self.devices or ():
            if device.name not in tunnels and not device.name.startswith("flannel"):
                for subnet in self.subnets:
                    if any(each.version == subnet.version and each.ip in subnet for each in device.addresses):
                        return device
        return None

    def device(self, name: str | None) -> Device | None:
        """The device of that name."""
        return next((each for each in self.devices or () if each.name == name), None)


def read_network(text: str | None) -> IPNetwork | None:
    """The network that ``text`` names, if it names one."""
    try:
        return ip_network(text, strict=False) if text else None
    except ValueError:
        return None


def member(network: IPNetwork, number: int) -> IPAddress:
    """The address of that number in ``network``, or its last one where it has no more."""
    return network[min(number, network.num_addresses - 1)]


def read_address(text: str | None) -> IPv4Address | IPv6Address | None:
    """The address that ``text`` is, if it is one."""
    try:
        return ip_address(text) if text else None
    except ValueError:
        return None
