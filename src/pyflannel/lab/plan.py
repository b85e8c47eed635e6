"""What a lab consists of: names, addresses and the commands that build it.

Rules of this file
  1. It is pure: process ids and leased subnets come in as arguments, command lines go out as text.
  2. A plan is small and says everything; the record on disk keeps the plan and recomputes the rest.

The picture is the README's: a switch that joins the hosts on 172.16.41.0/24, each host with ``ens33`` on it and
Docker's ``docker0`` behind it, and containers on that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from typing import Final

from pyflannel.settings import environment_name

SWITCH: Final = "switch"
"""The namespace with the bridge that joins the hosts."""
ETCD: Final = "etcd"
GATEWAY: Final = IPv4Interface("172.16.41.1/24")
"""The switch's own address: every host's default route, so that an interface can be chosen by it."""
INTERFACE: Final = "ens33"
PREFIX: Final = "/coreos.com/network"
"""flannel's default ``-etcd-prefix``."""
ETCD_URL: Final = f"http://{GATEWAY.ip}:2379"
MOST_HOSTS: Final = 100
MOST_CONTAINERS: Final = 200

_FIRST_HOST = 131
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")


def agent_name(host: str) -> str:
    """Under which name the agent of ``host`` is recorded."""
    return f"{host}/flanneld"


def network_config(network: IPv4Network, backend: str) -> str:
    """The JSON an administrator would write for ``network`` (compat §2); ``ValueError`` if our hosts are in it."""
    if network.overlaps(GATEWAY.network):
        raise ValueError(f"network {network} overlaps {GATEWAY.network}, where the lab's hosts are; choose another")
    return json.dumps({"Network": str(network), "Backend": {"Type": backend}})


@dataclass(frozen=True, slots=True)
class Host:
    """One machine of the cluster."""

    name: str
    address: IPv4Interface
    """On ``ens33``."""
    containers: tuple[str, ...]
    """Their names; their addresses follow from the subnet this host leases."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for.  ``ValueError`` if that cannot be built."""

    name: str
    host_count: int
    container_count: int
    """Per host."""
    config: str
    """The network configuration, as it is written to the store."""
    etcd: bool = False
    """A real etcd in place of the embedded store."""

    def __post_init__(self) -> None:
        """Refuse names that make no good file name, and counts our addresses do not suffice for."""
        if _NAME.fullmatch(self.name) is None:
            raise ValueError(f"lab name {self.name!r}: expected up to 31 of a-z, 0-9 and -, not starting with -")
        if not 1 <= self.host_count <= MOST_HOSTS:
            raise ValueError(f"{self.host_count} hosts: expected 1 to {MOST_HOSTS}")
        if not 0 <= self.container_count <= MOST_CONTAINERS:
            raise ValueError(f"{self.container_count} containers per host: expected 0 to {MOST_CONTAINERS}")

    @property
    def hosts(self) -> tuple[Host, ...]:
        """``host1`` with 172.16.41.131, ``host2`` with .132, …, each with containers ``host1-c1``, ``host1-c2``, …"""
        return tuple(self._host(number) for number in range(1, self.host_count + 1))

    def _host(self, number: int) -> Host:
        name = f"host{number}"
        address = GATEWAY.network[_FIRST_HOST + number - 1]
        containers = tuple(f"{name}-c{c}" for c in range(1, self.container_count + 1))
        return Host(name, IPv4Interface((address, GATEWAY.network.prefixlen)), containers)


@dataclass(frozen=True, slots=True)
class Bridge:
    """``docker0`` as Docker makes it from subnet.env: ``--bip=$FLANNEL_SUBNET --mtu=$FLANNEL_MTU``."""

    address: IPv4Interface
    mtu: int

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Bridge:
        """From the assignments in subnet.env; ``ValueError`` if there is no IPv4 subnet or MTU among them."""
        try:
            return cls(IPv4Interface(env["FLANNEL_SUBNET"]), int(env["FLANNEL_MTU"]))
        except KeyError as error:
            raise ValueError(f"subnet.env has no {error.args[0]}") from error

    def container(self, number: int) -> IPv4Interface:
        """The address of a host's container ``number``, counted from 1; ``ValueError`` if the subnet is too small."""
        address = self.address.ip + number
        if address not in self.address.network or address == self.address.network.broadcast_address:
            raise ValueError(f"subnet {self.address.network} has no room for {number} containers")
        return IPv4Interface((address, self.address.network.prefixlen))


def switch_batch(plan: Plan, pids: Mapping[str, int]) -> list[str]:
    """``ip -batch`` lines for the switch; ``pids`` names a process in each host's network namespace."""
    lines = [
        "link set lo up",
        "link add name switch0 type bridge",
        f"addr add {GATEWAY} brd + dev switch0",
        "link set switch0 up",
    ]
    for host in plan.hosts:
        lines += [
            f"link add name {host.name} type veth peer name {INTERFACE} netns {pids[host.name]}",
            f"link set {host.name} master switch0 up",
        ]
    return lines


def host_batch(host: Host) -> list[str]:
    """``ip -batch`` lines for a host plugged into the switch."""
    return [
        "link set lo up",
        f"addr add {host.address} brd + dev {INTERFACE}",
        f"link set {INTERFACE} up",
        f"route add default via {GATEWAY.ip} dev {INTERFACE}",
    ]


def docker_batch(host: Host, bridge: Bridge, pids: Mapping[str, int]) -> list[str]:
    """``ip -batch`` lines for what Docker makes on a host; ``pids`` names a process in each container."""
    lines = [
        "link add name docker0 type bridge",
        f"link set docker0 mtu {bridge.mtu}",
        f"addr add {bridge.address} brd + dev docker0",
        "link set docker0 up",
    ]
    for number, name in enumerate(host.containers, start=1):
        peer = f"peer name eth0 mtu {bridge.mtu} netns {pids[name]}"
        lines += [
            f"link add name veth{number} mtu {bridge.mtu} type veth {peer}",
            f"link set veth{number} master docker0 up",
        ]
    return lines


def container_batch(bridge: Bridge, number: int) -> list[str]:
    """``ip -batch`` lines inside a host's container ``number``."""
    return [
        "link set lo up",
        f"addr add {bridge.container(number)} brd + dev eth0",
        "link set eth0 up",
        f"route add default via {bridge.address.ip} dev eth0",
    ]


def agent_command(plan: Plan, agent: Sequence[str], store: str) -> list[str]:
    """How a host's agent is started; with etcd, in the words every flanneld understands, Go's too."""
    return [*agent, *(f"-{flag}={value}" for flag, value in _agent_flags(plan, store))]


def agent_environment(plan: Plan, store: str) -> dict[str, str]:
    """The same as variables, for programs that look at what the agent does."""
    return {environment_name(flag): value for flag, value in _agent_flags(plan, store)}


def _agent_flags(plan: Plan, store: str) -> list[tuple[str, str]]:
    where = ("etcd-endpoints", ETCD_URL) if plan.etcd else ("store", f"local:{store}")
    return [("iface", INTERFACE), ("etcd-prefix", PREFIX), where]


def etcd_command(data: str) -> list[str]:
    """How etcd is started on the switch, with its data in the directory ``data``."""
    return ["etcd", f"--data-dir={data}", f"--listen-client-urls={ETCD_URL}", f"--advertise-client-urls={ETCD_URL}"]


def etcd_put_command() -> list[str]:
    """Writes standard input as the network configuration; waits up to 10 s for etcd to answer."""
    return [
        "etcdctl", f"--endpoints={ETCD_URL}", "--dial-timeout=10s", "--command-timeout=10s", "put", f"{PREFIX}/config",
    ]  # fmt: skip
