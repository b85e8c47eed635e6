"""The network as this host's agent knows it, found out without asking the agent: it may be stopped, or be the trouble.

Rules of this file
  1. The store is asked, as ``plan`` does it, and nothing is written to it.  Where it does not answer, what the agent
     last saved of it counts; and where it has no configuration, or none that can be used here, the one that was in
     force before, to which agents keep as well.  A note says so.
  2. Only what it takes to know the ways to other hosts is settled here: interface, subnet, leases.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from pyflannel.backends.api import View
from pyflannel.backends.wireguard import Wireguard
from pyflannel.daemon import FATAL, refuse_what_cannot_work
from pyflannel.footing import Configured, first_underlay, previous_subnet, understand
from pyflannel.keyfile import BadKeyFile, generate, load, place
from pyflannel.lease.alloc import own_lease
from pyflannel.lease.model import Snapshot
from pyflannel.lease.network import ConfigError
from pyflannel.linux.errors import KernelError
from pyflannel.network import Network
from pyflannel.settings import Settings
from pyflannel.store import cache
from pyflannel.store.api import Unavailable
from pyflannel.store.candidates import Candidates, candidates
from pyflannel.store.choose import Missing, find_config
from pyflannel.store.lastknown import BadCache, LastKnown


class NotKnown(Exception):
    """What the network is cannot be found out; the message says why."""


async def known_network(settings: Settings) -> tuple[Network, str]:
    """The network that an agent with these settings is in, and a note where that is from memory; or ``NotKnown``."""
    note = ""
    try:
        refuse_what_cannot_work(settings)
        try:
            configured, snapshot, note = await _asked(settings)
        except Unavailable as exc:
            configured, snapshot = _remembered(settings, exc)
            note = f"the store does not answer ({exc}): going by what was last known of it"
        return _assembled(settings, configured, snapshot), note
    except (*FATAL, ConfigError, BadKeyFile, KernelError) as exc:
        raise NotKnown(str(exc)) from exc


async def _asked(settings: Settings) -> tuple[Configured, Snapshot, str]:
    file = settings.store.removeprefix("local:")
    if file and not Path(file).exists():
        # Asking would make it.
        raise NotKnown(f"there is no network configuration: no file {file}")
    stores = candidates(settings)
    try:
        found = await find_config(stores)
        if isinstance(found, Missing):
            return await _in_force(settings, stores, f"there is no network configuration: {found}")
        store, record = found
        try:
            configured = understand(record.where, record.text or "")
        except ConfigError as exc:
            return await _in_force(settings, stores, f"the network configuration cannot be used: {exc}")
        snapshot = await store.leases()
        if _has_stayed(settings, configured, snapshot):
            why = f"this host has not gone over to the network configuration at {record.where}"
            return await _in_force(settings, stores, why)
        return configured, snapshot, ""
    finally:
        await stores.close()


def _has_stayed(settings: Settings, configured: Configured, snapshot: Snapshot) -> bool:
    """Whether our record is still that of another way to the peers: one that is gone over to writes another."""
    known = _saved(settings)
    if known is None or known.own is None or not known.snapshot.config:
        return False
    try:
        former = understand("", known.snapshot.config)
    except ConfigError:
        return False
    if (former.backend.type, former.backend.devices) == (configured.backend.type, configured.backend.devices):
        return False
    return any((each.subnet, each.attrs) == (known.own.subnet, known.own.attrs) for each in snapshot.leases)


async def _in_force(settings: Settings, stores: Candidates, why: str) -> tuple[Configured, Snapshot, str]:
    """The configuration to which agents keep that knew one before, with the leases as they are now."""
    known = _saved(settings)
    store = None if known is None else stores.of_kind(known.store)
    if known is None or store is None:
        raise NotKnown(why)
    note = f"{why}; going by the one that was in force before"
    return understand(str(_file(settings)), known.snapshot.config), await store.leases(), note


def _saved(settings: Settings) -> LastKnown | None:
    """What the agent last saved, if that is of any use."""
    try:
        return cache.load(_file(settings), settings.etcd_prefix)
    except BadCache:
        return None


def _file(settings: Settings) -> Path:
    return cache.path(Path(settings.state_dir), settings.etcd_prefix)


def _remembered(settings: Settings, why: Unavailable) -> tuple[Configured, Snapshot]:
    file = _file(settings)
    try:
        known = cache.load(file, settings.etcd_prefix)
    except BadCache as exc:
        raise NotKnown(f"the store does not answer ({why}), and {file} cannot be used: {exc}") from exc
    if known is None:
        raise NotKnown(f"the store does not answer ({why}), and nothing was ever saved of it") from why
    return understand(str(file), known.snapshot.config), known.snapshot


def _assembled(settings: Settings, configured: Configured, snapshot: Snapshot) -> Network:
    configured = _keyed(settings, configured)
    underlay = first_underlay(settings, configured)
    lease = own_lease(configured.config, snapshot.leases, underlay.public_ip, underlay.public_ipv6)
    own = previous_subnet(Path(settings.subnet_file)) if lease is None else lease.subnet
    if own is None:
        raise NotKnown("this host has no subnet: no lease names its address, and there is no subnet file")
    network = Network(configured.backend, View(configured.config, underlay, own))
    network.fold(snapshot)
    return network


def _keyed(settings: Settings, configured: Configured) -> Configured:
    """With the keys of this host, or, where it has none yet, with some: nothing but the peers' is looked at."""
    backend = configured.backend
    if not isinstance(backend, Wireguard):
        return configured
    keys = load(place(Path(settings.state_dir), os.environ)) or generate(os.urandom)
    return replace(configured, backend=backend.keyed(keys))
