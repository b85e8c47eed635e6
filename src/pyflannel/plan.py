"""What an agent would change on this host, found out without changing anything.

Rules of this file
  1. The answer comes from the code that acts: the same choice of interface, subnet and MAC address, the same ``diff``,
     the same rules.  What is decided here and nowhere else is only what to do about chance: where a start would draw
     lots, the answer has an example and says so.
  2. The store is asked once and never written to, and no file is touched.
  3. Whoever starts an agent may wait for a store; whoever asks for a plan gets an answer, or ``CannotTell``.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from pyflannel import identity
from pyflannel.backends import NotSupported
from pyflannel.backends.api import View
from pyflannel.backends.extension import Extension
from pyflannel.backends.wireguard import Wireguard
from pyflannel.daemon import FATAL, refuse_what_cannot_work
from pyflannel.diff import Op, Put, diff
from pyflannel.firewall.iptables import Fault
from pyflannel.footing import (
    Configured,
    StartFailed,
    checksum_offload,
    first_underlay,
    previous_subnet,
    ranges,
    refuse_foreign_devices,
    understand,
)
from pyflannel.forwarding import Forwarders
from pyflannel.guard import Guard, policy
from pyflannel.holders import Joined
from pyflannel.hooks import record
from pyflannel.host import Underlay
from pyflannel.identity import find_devices, new_mac
from pyflannel.keyfile import BadKeyFile, generate, load, place
from pyflannel.lease.alloc import OutOfSubnets, Replace, Reuse, Take, choose, own_lease
from pyflannel.lease.model import Attrs, Snapshot, Subnet
from pyflannel.lease.network import ConfigError, NetworkConfig
from pyflannel.linux.kernel import LinuxKernel
from pyflannel.linux.xtables import FirewallError
from pyflannel.network import Network
from pyflannel.outputs import render_subnet_env
from pyflannel.publisher import subnet_env
from pyflannel.settings import Settings
from pyflannel.state import Hook, Link, State, Sysctl
from pyflannel.store.api import Store, Unavailable
from pyflannel.store.candidates import Candidates, candidates
from pyflannel.store.choose import Missing, find_config

SEED: Final = 0
"""The example of a subnet is the same each time, so that two plans can be compared."""
NEW_MAC: Final = new_mac(bytes)
"""Stands for an address that a start would make up."""
A_NEW_ONE: Final = "a new one"
"""The same, for people."""


class CannotTell(Exception):
    """What an agent would do here is not to be found out, or it could not start; the message says why."""


class AnotherBackend(CannotTell):
    """The network has a backend of flannel's which we do not support: whoever configured it has to take another."""


@dataclass(frozen=True, slots=True)
class LeasePlan:
    """Which subnet an agent would have, and what it would have to write in the store for it."""

    subnet: Subnet
    write: str = ""
    """In words; empty if the store holds already what it should."""
    example: bool = False
    """The subnet is not certain: a start would draw lots."""


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file that would have another text."""

    path: str
    old: str
    """Empty if there is no file, or it cannot be read."""
    new: str


@dataclass(frozen=True, slots=True)
class Survey:
    """Everything that is not as an agent would have it, and what that was found out from."""

    configured: Configured
    underlay: Underlay
    lease: LeasePlan
    ops: tuple[Op, ...] = ()
    """For the kernel, in order."""
    firewall: Mapping[Literal[4, 6], tuple[Fault, ...]] = field(default_factory=dict)
    """By address family; those in order, or that could not be read (see ``warnings``), are not there."""
    files: tuple[FileChange, ...] = ()
    ignored: tuple[tuple[str, str], ...] = ()
    """Leases that have no effect here, and why."""
    warnings: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether an agent would change anything."""
        return bool(self.lease.write or self.ops or self.firewall or self.files)


async def survey(settings: Settings) -> Survey:
    """What an agent with these settings would change on this host right now; ``CannotTell`` otherwise."""
    try:
        refuse_what_cannot_work(settings)
        stores = candidates(settings)
        try:
            store, configured = await _ask(settings, stores)
            snapshot = await store.leases()
        finally:
            await stores.close()
        return await _look(settings, configured, snapshot)
    except (*FATAL, FirewallError, OutOfSubnets, Unavailable) as exc:
        raise CannotTell(str(exc)) from exc


async def network_of(settings: Settings) -> Configured:
    """The network configuration these settings lead to; ``CannotTell`` if it cannot be had."""
    stores = candidates(settings)
    try:
        _, configured = await _ask(settings, stores)
    except Unavailable as exc:
        raise CannotTell(str(exc)) from exc
    finally:
        await stores.close()
    return configured


async def _ask(settings: Settings, stores: Candidates) -> tuple[Store, Configured]:
    path = settings.store.removeprefix("local:")
    if path and not Path(path).exists():
        # Asking would make it.
        raise CannotTell(f"there is no network configuration: no file {path}")
    found = await find_config(stores)
    if isinstance(found, Missing):
        raise CannotTell(f"there is no network configuration: {found}")
    store, record = found
    try:
        return store, understand(record.where, record.text or "")
    except ConfigError as exc:
        kind = AnotherBackend if isinstance(exc, NotSupported) else CannotTell
        raise kind(f"the network configuration at {record.where} cannot be used: {exc}") from exc


async def _look(settings: Settings, configured: Configured, snapshot: Snapshot) -> Survey:
    configured, key_file = _with_keys(settings, configured)
    config, backend = configured.config, configured.backend
    underlay = first_underlay(settings, configured)
    with LinuxKernel() as kernel:
        devices = find_devices(kernel, Path(settings.state_dir), settings.etcd_prefix, backend.devices, ranges(config))
        refuse_foreign_devices(devices.held)
        own = own_lease(config, snapshot.leases, underlay.public_ip, underlay.public_ipv6)
        others = (lease for lease in snapshot.leases if lease != own)
        if isinstance(backend, Extension) and own is not None:
            backend = backend.as_published(own)
        macs = devices.macs(backend.published(own) if own is not None else {}, others, bytes)
        attrs = backend.attrs(underlay, macs)
        lease, counted = plan_lease(config, snapshot, attrs, previous_subnet(Path(settings.subnet_file)))
        known = {dev: mac for dev, mac in macs.items() if mac != NEW_MAC}
        network = Network(backend, View(config, underlay, lease.subnet, known, checksum_offload(settings)))
        network.fold(counted)
        scope = backend.scope(network.view)
        forwarders = Forwarders(Path(settings.subnet_file).parent)
        held = Joined(kernel, [forwarders]).observe(replace(scope, devices=scope.devices | devices.former))
        forwarders.close()
        have = State((*held.values(), *_hooks(settings)))
    kept = {dev: A_NEW_ONE if mac == NEW_MAC else str(mac) for dev, mac in macs.items()}
    texts = {
        settings.subnet_file: render_subnet_env(subnet_env(settings, network)),
        str(Path(settings.state_dir) / identity.FILE): identity.record(
            Path(settings.state_dir), settings.etcd_prefix, kept
        ),
    }
    firewall, failures = await Guard(config, lease.subnet, policy(settings)).faults()
    if failures and settings.ip_masq:
        raise StartFailed(f"-ip-masq: {'; '.join(failures)}")
    unreadable = ((key, reason) for key, reason in network.table.unreadable.items())
    return Survey(
        configured=configured,
        underlay=underlay,
        lease=lease,
        ops=changes(network, have),
        firewall=firewall,
        files=tuple(filter(None, (_compare(path, text) for path, text in texts.items()))),
        ignored=(*((str(subnet), reason) for subnet, reason in network.ignored.items()), *unreadable),
        warnings=(*config.warnings, *backend.warnings, *key_file, *failures),
    )


def _with_keys(settings: Settings, configured: Configured) -> tuple[Configured, tuple[str, ...]]:
    """As ``footing.equipped`` does it, but nothing is written or run; and what there is to be said of that."""
    backend = configured.backend
    if not isinstance(backend, Wireguard):
        return configured, ()
    path = place(Path(settings.state_dir), os.environ)
    try:
        kept = load(path)
        keys = kept or generate(bytes)
    except BadKeyFile as exc:
        raise StartFailed(str(exc)) from None
    note = () if kept else (f"a new WireGuard key would be made and kept in {path}; the one shown is an example",)
    return replace(configured, backend=backend.keyed(keys)), note


def _hooks(settings: Settings) -> Iterator[Hook]:
    """Those that have been run, marked where they did not come to a good end."""
    for entry in record.read(record.path(Path(settings.subnet_file).parent, settings.etcd_prefix)).values():
        yield replace(entry.hook, lapsed=not entry.whole)


def plan_lease(
    config: NetworkConfig, snapshot: Snapshot, attrs: Attrs, previous: Subnet | None
) -> tuple[LeasePlan, Snapshot]:
    """Which subnet the host that publishes ``attrs`` would get, and the leases that would be there then.

    ``OutOfSubnets`` if there is none for it.
    """
    choice = choose(
        config,
        snapshot.leases,
        attrs.public_ip,
        attrs.public_ipv6,
        previous,
        random.Random(SEED),
        unreadable=snapshot.unreadable,
    )
    match choice:
        case Reuse(lease):
            write = "" if lease.attrs == attrs else f"write our record of {lease.subnet} anew"
            return LeasePlan(lease.subnet, write), snapshot
        case Replace(lease):
            left = tuple(other for other in snapshot.leases if other is not lease)
            planned, counted = plan_lease(config, replace(snapshot, leases=left), attrs, lease.subnet)
            given_back = f"give {lease.subnet} back, which does not fit the network configuration; {planned.write}"
            return replace(planned, write=given_back), counted
        case Take(subnet, why):
            return LeasePlan(subnet, f"take {why}", example=subnet != previous), snapshot


def changes(network: Network, have: State) -> tuple[Op, ...]:
    """What is to be done in a kernel that holds ``have``."""
    wanted = State({item.key: item for item in network.items()}.values())
    return tuple(op for op in diff(wanted, have) if not _is_idle(op, have))


def _is_idle(op: Op, have: State) -> bool:
    """A setting that the kernel does not have for a device, as where IPv6 is switched off, needs no setting."""
    return isinstance(op, Put) and isinstance(op.item, Sysctl) and op.old is None and (Link, op.item.dev) in have


def _compare(path: str, new: str) -> FileChange | None:
    try:
        old = Path(path).read_text(errors="replace")
    except OSError:
        old = ""
    return None if old == new else FileChange(path, old, new)
