"""What an agent stands on: configuration, interface, MAC addresses and lease, settled before anything is programmed.

Rules of this file
  1. Nothing in the kernel is changed here, and nothing in the store but our own lease.
  2. A footing comes from the store, which is waited for, or from what was last known of it.  The second kind is good
     for going on as before, and for nothing else: no lease is taken, and none is written.
"""

from __future__ import annotations

import logging
import os
import random
import time
from dataclasses import dataclass, replace
from pathlib import Path

from pyflannel import backends
from pyflannel.backends import direct
from pyflannel.backends.api import Backend, View
from pyflannel.health import Health
from pyflannel.host import Facts, Underlay, Wish, choose, lines
from pyflannel.identity import Devices, find_devices, remember
from pyflannel.keeper import Keeper
from pyflannel.lease.alloc import fits, own_lease
from pyflannel.lease.model import LEASE_TTL, Lease, Snapshot, Subnet
from pyflannel.lease.network import ConfigError, NetworkConfig, parse_network_config
from pyflannel.linux import ethtool
from pyflannel.linux.facts import gather, on_link
from pyflannel.linux.kernel import LinuxKernel
from pyflannel.network import Network, Way
from pyflannel.outputs import read_subnet_env
from pyflannel.settings import Offload, Settings
from pyflannel.state import IPNetwork, Misfit, State
from pyflannel.store import cache
from pyflannel.store.api import Store
from pyflannel.store.candidates import Candidates
from pyflannel.store.lastknown import BadCache, LastKnown
from pyflannel.tenancy import Tenant, acquire, patiently

log = logging.getLogger(__name__)


class StartFailed(Exception):
    """This host cannot run the agent as it is told to; the message says what a person can do about it."""


@dataclass(frozen=True, slots=True)
class Configured:
    """A network configuration that can be used."""

    where: str
    """The record, for people."""
    text: str
    config: NetworkConfig
    backend: Backend


def understand(where: str, text: str) -> Configured:
    """Read the record at ``where``; ``ConfigError`` if it is no use."""
    config = parse_network_config(text)
    return Configured(where, text, config, backends.from_config(config))


def reconsider(configured: Configured, text: str, own: Subnet) -> Configured:
    """What the record means now that it says ``text``; ``ConfigError`` if the one in force has to stay so."""
    if text == configured.text:
        return configured
    try:
        new = understand(configured.where, text)
    except ConfigError as exc:
        reason = f"cannot be used: {exc}" if text else "is gone"
        raise ConfigError(f"{reason}. The one in force stays so") from exc
    if not fits(new.config, own):
        raise ConfigError(
            f"leaves no room for our subnet {own}, so the one in force stays so. Every container here has to move: "
            "systemctl restart flanneld docker"
        )
    return new


async def equipped(settings: Settings, configured: Configured) -> Configured:
    """The same with what its backend needs of this host at each start: keys, or what a command prints.

    ``StartFailed`` if that cannot be had.
    """
    # What only some networks need is loaded there alone.
    match configured.config.backend_type:
        case "wireguard":
            from pyflannel.keyfile import BadKeyFile, keyed

            try:
                backend = keyed(configured.backend, Path(settings.state_dir))
            except BadKeyFile as exc:
                raise StartFailed(str(exc)) from None
        case "extension":
            from pyflannel.hooks.host import CommandFailed, prepare

            try:
                backend = await prepare(configured.backend)
            except CommandFailed as exc:
                raise StartFailed(str(exc)) from None
        case _:
            return configured
    return replace(configured, backend=backend)


@dataclass(frozen=True, slots=True)
class Footing:
    """What a start has found out and settled."""

    configured: Configured
    store: Store
    kind: str
    """Which of the candidates the store is."""
    network: Network
    keeper: Keeper
    """With a lease in hand."""
    listed: Snapshot
    """All leases, ours included, as far as they are known."""
    former: frozenset[str] = frozenset()
    """Devices of ours that go once everything is known: the network had another VNI."""
    from_memory: bool = False
    """The store was not asked: it may know better."""


async def find(
    settings: Settings,
    stores: Candidates,
    store: Store,
    configured: Configured,
    health: Health,
    former: Way | None = None,
) -> Footing:
    """Choose interface and MAC addresses, and acquire a lease with them; ``former`` is the way we took until now.

    ``health`` is told what keeps us from a lease.
    """
    configured = await equipped(settings, configured)
    config, backend = configured.config, configured.backend
    underlay, devices = _survey(settings, configured)
    listed = await patiently("list the leases", store.leases, health=health)
    own = own_lease(config, listed.leases, underlay.public_ip, underlay.public_ipv6)
    written = _last_written(settings, underlay) if own is None else None
    mine = (own, written)
    macs = devices.macs(
        backend.published(own) if own is not None else {},
        (lease for lease in listed.leases if lease not in mine),
        os.urandom,
    )
    remember(Path(settings.state_dir), settings.etcd_prefix, {**devices.remembered, **macs})
    attrs, rng = backend.attrs(underlay, macs), random.Random()
    tenant = Tenant(config, attrs, previous_subnet(Path(settings.subnet_file)), _margin(settings), written)
    if own is not None and former is not None and own.subnet == former.view.own:
        # Peers are told of the new way once it is there: the agent looks after the record when it has listed it.
        lease = own
    else:
        lease = await acquire(store, tenant, rng, listed, health)
        log.info("Lease acquired: %s", lease.subnet)
    network = Network(backend, View(config, underlay, lease.subnet, macs, checksum_offload(settings)), former)
    # The list is older than our record, and must not make that look like somebody's who took it from us.
    others = tuple(other for other in listed.leases if other.subnet != lease.subnet)
    return Footing(
        configured=configured,
        store=store,
        kind=stores.kind(store),
        network=network,
        keeper=Keeper(store, tenant, lease, rng),
        listed=replace(listed, leases=(*others, lease)),
        former=devices.former - network.devices,
    )


async def recall(settings: Settings, stores: Candidates) -> Footing | None:
    """Go on as we were, while no store answers; None, with a line that says why, if we do not know how that was."""
    file = cache.path(Path(settings.state_dir), settings.etcd_prefix)
    known = _load(file, settings)
    if known is None or known.own is None:
        return None
    try:
        configured = await equipped(settings, understand(f"{file}, as last known", known.snapshot.config))
    except ConfigError as exc:
        log.warning("Ignoring %s: the network configuration in it cannot be used: %s", file, exc)
        return None
    store = stores.of_kind(known.store)
    underlay, devices = _survey(settings, configured)
    if store is None or (doubt := _doubt(file, known, known.own, configured.config, underlay)):
        why = f"it is about a store of another kind, {known.store}" if store is None else doubt
        log.warning("Not going by %s: %s", file, why)
        return None
    backend, own = configured.backend, known.own
    published = backend.published(own)
    macs = replace(devices, remembered={**devices.remembered, **published}).macs(published, (), os.urandom)
    attrs, rng = backend.attrs(underlay, macs), random.Random()
    tenant = Tenant(configured.config, attrs, own.subnet, _margin(settings), own)
    return Footing(
        configured=configured,
        store=store,
        kind=known.store,
        network=Network(backend, View(configured.config, underlay, own.subnet, macs, checksum_offload(settings))),
        keeper=Keeper(store, tenant, own, rng),
        listed=known.snapshot,
        from_memory=True,
    )


def _doubt(file: Path, known: LastKnown, own: Lease, config: NetworkConfig, underlay: Underlay) -> str:
    """Why our subnet may be another host's by now; empty if there is no reason to think so."""
    if not fits(config, own.subnet):
        return f"our subnet in it, {own.subnet}, is none of the network"
    ours = own_lease(config, [own], underlay.public_ip, underlay.public_ipv6) is not None
    if not ours and known.host != str(underlay.mac):
        return f"the lease in it is that of {own.attrs.public_ip or own.attrs.public_ipv6}, and this is another machine"
    age = time.time() - file.stat().st_mtime
    if age > LEASE_TTL and not own.reservation:
        return f"it is {age / 3600:.0f} hours old, and a lease that is not renewed lives for {LEASE_TTL // 3600}"
    return ""


def _last_written(settings: Settings, underlay: Underlay) -> Lease | None:
    """Our record as this very machine last wrote it: what lets us know it again after our address has changed."""
    known = _load(cache.path(Path(settings.state_dir), settings.etcd_prefix), settings)
    return known.own if known is not None and underlay.mac is not None and known.host == str(underlay.mac) else None


def _load(file: Path, settings: Settings) -> LastKnown | None:
    try:
        return cache.load(file, settings.etcd_prefix)
    except BadCache as exc:
        log.warning("Ignoring %s: %s", file, exc)
        return None


def _survey(settings: Settings, configured: Configured) -> tuple[Underlay, Devices]:
    """The interface to start with, and our devices as they are; ``StartFailed`` or ``NoInterface``."""
    backend = configured.backend
    underlay = first_underlay(settings, configured)
    with LinuxKernel() as kernel:
        devices = find_devices(
            kernel, Path(settings.state_dir), settings.etcd_prefix, backend.devices, ranges(configured.config)
        )
    refuse_foreign_devices(devices.held)
    return underlay, devices


def ranges(config: NetworkConfig) -> tuple[IPNetwork, ...]:
    """The network's own."""
    return tuple(each.network for each in (config.ipv4, config.ipv6) if each is not None)


def first_underlay(settings: Settings, configured: Configured) -> Underlay:
    """The interface to start with, and the log lines about it; ``NoInterface`` or ``StartFailed`` if none fits."""
    underlay = choose(facts(settings), wish(settings, configured.config))
    underlay = surroundings(underlay, configured.config)
    for line in lines(underlay):
        log.info("%s", line)
    log.info("Interface %s was chosen because: %s", underlay.name, underlay.why)
    try:
        configured.backend.mtu(underlay)
    except ConfigError as exc:
        raise StartFailed(f"the network does not fit through {underlay.name}: {exc}") from None
    return underlay


def refuse_foreign_devices(held: State) -> None:
    """``StartFailed`` if there is one."""
    for item in held.items_of(Misfit):
        if isinstance(item, Misfit) and item.foreign:
            raise StartFailed(
                f"there is a device {item.name} already, and {item.why}: remove it, or rename it; should it be that of "
                "another flanneld, stop that one"
            )


def previous_subnet(path: Path) -> Subnet | None:
    """What we held when we last ran, as far as the subnet file tells."""
    try:
        return read_subnet_env(path.read_text(errors="replace")).subnet
    except OSError:
        return None


def surroundings(underlay: Underlay, config: NetworkConfig) -> Underlay:
    """The same with the hosts around it, where that matters to the network; ``KernelError`` if it cannot be told."""
    return replace(underlay, on_link=on_link(underlay.index)) if direct.wanted(config) else underlay


def facts(settings: Settings) -> Facts:
    """What an interface is chosen from."""
    return gather([settings.iface_can_reach] if settings.iface_can_reach is not None else [])


def wish(settings: Settings, config: NetworkConfig) -> Wish:
    """What the command line and the network ask of the interface."""
    return Wish(
        iface=settings.iface,
        iface_regex=settings.iface_regex,
        can_reach=settings.iface_can_reach,
        public_ip=settings.public_ip,
        public_ipv6=settings.public_ipv6,
        ipv4=config.ipv4 is not None,
        ipv6=config.ipv6 is not None,
    )


def checksum_offload(settings: Settings) -> bool | None:
    """Whether tunnel devices may leave checksums for later, as ``-vxlan-checksum-offload`` says; None: as they do."""
    match settings.vxlan_checksum_offload:
        case Offload.AUTO:
            return False if ethtool.is_harmful(os.uname().release) else None
        case given:
            return given is Offload.ON


def _margin(settings: Settings) -> float:
    return settings.subnet_lease_renew_margin * 60.0
