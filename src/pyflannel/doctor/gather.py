"""Looking at a host: every source that is there, all at once, and each for a few seconds at most.

A source that is missing, or refuses, leaves its facts unknown; ``Facts.unseen`` says so where a person can do something
about it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from pyflannel import host, identity
from pyflannel.doctor import files, procfs, programs, records
from pyflannel.doctor.checks_firewall import MOST_PEERS
from pyflannel.doctor.crossings import undecided
from pyflannel.doctor.facts import (
    Agent,
    Clock,
    Count,
    Device,
    Facts,
    Lookup,
    Network,
    member,
    read_address,
    read_network,
)
from pyflannel.doctor.kernel import Kernel
from pyflannel.doctor.procfs import Process
from pyflannel.footing import Configured, wish
from pyflannel.linux import ethtool
from pyflannel.linux.arp import claimants
from pyflannel.linux.errors import KernelError
from pyflannel.linux.facts import gather as host_facts
from pyflannel.settings import Settings
from pyflannel.state import IPAddress, IPNetwork, Mac
from pyflannel.store import cache
from pyflannel.telemetry.address import control_socket
from pyflannel.telemetry.document import Document

ROOT = Path("/")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of asking the agent."""

    status: Document | None
    silence: str | None = None
    """Why there is none."""


async def gather(settings: Settings, answer: Answer, root: Path = ROOT) -> Facts:
    """All that can be found out about this host in a few seconds; files are looked for below ``root``."""
    told, clock = await asyncio.gather(records.ask(settings), _clock(settings))
    configured = records.configured(settings, told.records)
    processes = procfs.processes()
    facts = Facts(
        agent=_agent(settings, answer, processes, root),
        network=_network(answer.status, configured),
        subnet_file=files.subnet_file(Path(settings.subnet_file)),
        cni=files.uses_cni(root),
        release=os.uname().release,
        etcd_api=None if settings.store else str(settings.etcd_api),
        records=told.records,
        clock=clock,
        connections=procfs.count("sys/net/netfilter/nf_conntrack_count", "sys/net/netfilter/nf_conntrack_max"),
        files=procfs.count("sys/fs/file-nr", "sys/fs/file-max"),
        remembered=identity.remembered_macs(Path(settings.state_dir), settings.etcd_prefix),
        unseen=_unseen(answer, processes, told.failures),
    )
    facts = _with_kernel(facts, settings, configured)
    facts = _with_settings(facts, processes, root) if facts.devices is not None else facts
    return await _with_programs(facts, processes, root)


def _agent(settings: Settings, answer: Answer, processes: tuple[Process, ...] | None, root: Path) -> Agent:
    socket = control_socket(settings.subnet_file)
    running = None
    if processes is not None:
        running = tuple(f"{each.name} (process {each.pid})" for each in processes if each.is_agent)
    return Agent(str(socket), answer.status, answer.silence, procfs.is_bound(socket), running, files.unit(root))


def _network(status: Document | None, configured: Configured | None) -> Network | None:
    """As the agent has it; what it does not tell is as the configuration has it."""
    known = None if configured is None else records.network(configured)
    if status is None or status.network.backend is None:
        return known
    said, spans = status.network, [read_network(text) for text in (status.network.ipv4, status.network.ipv6)]
    alike = known if known is not None and known.backend == said.backend else Network()
    return Network(
        next((each for each in spans if each is not None and each.version == 4), None),
        next((each for each in spans if each is not None and each.version == 6), None),
        said.backend,
        tuple(each.name for each in status.devices) or alike.devices,
        said.port,
        alike.direct,
        said.port if said.backend == "vxlan" else alike.port_v6,
    )


def _unseen(answer: Answer, processes: tuple[Process, ...] | None, failures: Iterable[str]) -> tuple[str, ...]:
    rights = [] if processes is not None else ["most of what takes root: run it as root to have that looked at as well"]
    # An agent that runs says it itself where its store does not answer.
    return (*rights, *(failures if answer.status is None else ()))


async def _clock(settings: Settings) -> Clock:
    store = await records.store_time(settings)
    ours = (
        cache.path(Path(settings.state_dir), settings.etcd_prefix),
        Path(settings.state_dir) / identity.FILE,
        Path(settings.subnet_file),
    )
    return Clock(time.time(), store, files.newest(ours), procfs.synchronised())


def _with_kernel(facts: Facts, settings: Settings, configured: Configured | None) -> Facts:
    """What the kernel says, if it says anything."""
    try:
        with Kernel() as kernel:
            devices, neighbours = kernel.devices(), kernel.neighbours()
            routes = kernel.routes(facts.ranges) if facts.ranges else None
            found = host_facts(tuple(_targets(facts)))
            underlay = _underlay(facts, found, settings, configured)
            ways = [(target, way.dev) for target, way in found.lookups if way is not None]
            lookups = tuple(
                Lookup(target, dev, kernel.takes(target, underlay) if underlay not in (None, dev) else None)
                for target, dev in ways
            )
    except (KernelError, OSError) as error:
        return replace(facts, unseen=(*facts.unseen, f"devices and routes: {error}"))
    limit = procfs.number("sys/net/ipv4/neigh/default/gc_thresh3")
    return replace(
        facts,
        devices=devices,
        routes=routes,
        underlay=underlay,
        underlay_mtu=next((each.mtu for each in devices if each.name == underlay), None),
        defaults=frozenset(each.dev for each in found.defaults if each.dev is not None),
        lookups=lookups,
        neighbours=None if limit is None else Count(neighbours, limit),
    )


def _underlay(facts: Facts, found: host.Facts, settings: Settings, configured: Configured | None) -> str | None:
    """The interface towards the other hosts, as the agent says, or as it would choose it."""
    if facts.status is not None and facts.status.host.interface is not None:
        return facts.status.host.interface
    try:
        return None if configured is None else host.choose(found, wish(settings, configured.config)).name
    except host.NoInterface:
        return None


def _targets(facts: Facts) -> Iterable[IPAddress]:
    """Where packets for some of the peers should find their way to."""
    for peer in islice(facts.peers, MOST_PEERS):
        for text in (peer.public_ip, peer.public_ipv6):
            if (host := read_address(text)) is not None:
                yield host
        for text in (peer.subnet, peer.ipv6_subnet):
            subnet: IPNetwork | None = read_network(text)
            if subnet is not None:
                yield member(subnet, 1)


def _with_settings(facts: Facts, processes: tuple[Process, ...] | None, root: Path) -> Facts:
    """What depends on which devices there are."""
    tunnels = facts.tunnels or ()
    inner = [each for each in (facts.bridge.name if facts.bridge else None, facts.underlay) if each is not None]
    wanted = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"]
    wanted += [f"net/bridge/bridge-nf-call-{name}" for name in ("iptables", "ip6tables")]
    wanted += [f"net/ipv4/conf/{name}/forwarding" for name in (*tunnels, *inner)]
    wanted += [f"net/ipv4/conf/{name}/rp_filter" for name in ("all", *tunnels, *inner)]
    port = None if facts.network is None else facts.network.port
    try:
        offloads = {each.dev: each.on for each in ethtool.read(tunnels, None)}
    except KernelError:
        offloads = {}
    return replace(
        facts,
        sysctls=procfs.sysctls(wanted),
        listeners=None if port is None or processes is None else procfs.listeners(port, processes),
        offloads=offloads,
        mac_policy=files.mac_policy(root, tunnels[0]) if tunnels else None,
    )


async def _with_programs(facts: Facts, processes: tuple[Process, ...] | None, root: Path) -> Facts:
    """What other programs say, and whoever is on the link."""
    tunnels, network = facts.tunnels or (), facts.network
    there = any(facts.device(name) for name in tunnels)
    runs_docker = any(each.name == procfs.DOCKERD for each in processes or ())
    tables, nft, docker, managed, lacks, others = await asyncio.gather(
        programs.tables(),
        programs.nft_tables(),
        programs.docker() if runs_docker else _nothing(),
        programs.network_manager(tunnels),
        programs.lacks(network.backend) if network is not None and not there else _nothing(),
        asyncio.to_thread(_claimants, facts),
    )
    native = await programs.native(nft or ())
    facts = replace(facts, native=native)
    return replace(
        facts,
        unseen=(*facts.unseen, *undecided(facts)),
        tables=tables,
        nft_tables=nft,
        docker=docker,
        managers=(*managed, *files.networkd(root, tunnels)),
        lacks=lacks,
        claimants=others,
    )


async def _nothing() -> None:
    return None


def _claimants(facts: Facts) -> tuple[Mac, ...] | None:
    device: Device | None = facts.device(facts.underlay)
    if device is None or device.mac is None or not device.up:
        return None
    address = next((each.ip for each in device.addresses if each.version == 4), None)
    others = None if address is None else claimants(device.name, device.mac, address)
    # Of several interfaces on one link each answers for all addresses of its host (ip-sysctl.rst, arp_ignore).
    ours = {each.mac for each in facts.devices or ()}
    return None if others is None else tuple(each for each in others if each not in ours)
