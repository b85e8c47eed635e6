"""Getting a lease: who asks for it, and the way from a list of the store to a record in it.

Rules of this file
  1. Every write compares: we never overwrite a record that changed since we read it (compat §11.4).
  2. A store that does not answer is waited for, however long.
  3. A request without an answer may have been done, or be done yet.  So whatever failed begins with a new list.
  4. A new record is looked at once more before it is relied on: only then is it known that nobody was before us.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

from pyflannel.conditions import LEASE_MISSING
from pyflannel.health import Health
from pyflannel.lease.alloc import OutOfSubnets, Replace, Reuse, Take, bears_our_address, choose
from pyflannel.lease.model import LEASE_TTL, Attrs, Lease, Snapshot, Subnet
from pyflannel.lease.network import NetworkConfig
from pyflannel.store.api import Conflict, Store, Unavailable

log = logging.getLogger(__name__)
T = TypeVar("T")

PAUSES: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds to wait after the 1st, 2nd, … time the store did not answer, or another was faster."""
FULL_PAUSE: Final = 30.0
"""The longest wait, in seconds, for a subnet to become free."""


class ConfigChanged(Exception):
    """While we waited for a free subnet, the network configuration was written anew: start again with that."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who asks for a lease, and on what terms."""

    config: NetworkConfig
    attrs: Attrs
    previous: Subnet | None
    """The subnet we held when we last ran, if we know."""
    margin: float
    """Seconds before expiry at which a renewal is due at the latest (``-subnet-lease-renew-margin``)."""
    written: Lease | None = None
    """Our record as we last wrote it: what lets us know it again after our address changed while we did not run.

    None if that may be somebody else's: a disk that was copied brings along what the original wrote.
    """


async def patiently(
    what: str, call: Callable[[], Awaitable[T]], rng: random.Random | None = None, health: Health | None = None
) -> T:
    """Make a call for a lease to the store until it answers, telling ``health`` what is wrong.

    ``rng`` spreads the attempts, so that hosts which lost the store together do not come back in step.
    """
    health, failures = health or Health(), 0
    while True:
        try:
            answer = await call()
        except Unavailable as exc:
            health.set(LEASE_MISSING, f"Couldn't {what}, and go on trying: {exc}")
            spread = 1.0 if rng is None else rng.uniform(0.8, 1.2)
            await asyncio.sleep(PAUSES[min(failures, len(PAUSES) - 1)] * spread)
            failures += 1
        else:
            if failures:
                health.clear(LEASE_MISSING, said="The store answers again")
            return answer


async def acquire(
    store: Store, tenant: Tenant, rng: random.Random, listed: Snapshot | None = None, health: Health | None = None
) -> Lease:
    """Our lease: the one we have, else the subnet we had, else a free one (compat §3.5).

    ``listed`` is what the caller read of the store a moment ago; ``health`` is told what keeps us from a lease.  Races
    with other hosts are lost and run again; a full network is waited out, since subnets become free; ``ConfigChanged``
    if meanwhile the network becomes another one.
    """
    health, search = health or Health(), _Search(store, tenant, rng, listed)
    pause = 1.0
    while True:
        try:
            lease = await patiently("acquire a lease", search.step, rng, health)
        except Conflict as exc:
            log.info("Another host was faster (%s); choosing again", exc)
            # So that hosts which collided once do not march on in step.
            await asyncio.sleep(rng.uniform(0.0, 0.1))
        except OutOfSubnets as exc:
            if search.config_changed:
                health.clear(LEASE_MISSING)
                raise ConfigChanged("the network configuration was changed while no subnet was free") from None
            health.set(
                LEASE_MISSING, f"Couldn't acquire a lease, and wait for a free subnet or a larger network: {exc}"
            )
            await asyncio.sleep(pause * rng.uniform(0.8, 1.2))
            pause = min(2 * pause, FULL_PAUSE)
        else:
            if lease is not None:
                health.clear(LEASE_MISSING)
                return lease


class _Search:
    """One host's way to a lease, one list of the store and one write at a time."""

    def __init__(self, store: Store, tenant: Tenant, rng: random.Random, listed: Snapshot | None) -> None:
        self.config_changed = False
        self._store, self._tenant, self._rng, self._listed = store, tenant, rng, listed
        self._previous = tenant.previous
        self._created: Lease | None = None
        self._config = ""

    async def step(self) -> Lease | None:
        """The lease; None if another step is needed."""
        tenant, attrs = self._tenant, self._tenant.attrs
        listed, self._listed = self._listed, None
        if listed is None:
            listed = await self._store.leases()
        self.config_changed = bool(self._config and listed.config and listed.config != self._config)
        self._config = self._config or listed.config
        choice = choose(
            tenant.config,
            listed.leases,
            attrs.public_ip,
            attrs.public_ipv6,
            self._previous,
            self._rng,
            unreadable=listed.unreadable,
            written=tenant.written,
            attrs=attrs,
        )
        match choice:
            case Reuse(lease):
                return await self._reuse(lease, listed)
            case Replace(lease, why):
                kind = "reservation" if lease.reservation else "lease"
                log.warning("Our %s %s %s; giving it back", kind, lease.subnet, why)
                self._previous = lease.subnet
                await self._store.release(lease)
            case Take(subnet, why):
                log.info("Taking subnet %s", why)
                try:
                    self._created = await self._store.create(subnet, attrs, LEASE_TTL)
                except Unavailable:
                    # Should it be done yet, it is to be the subnet we hold, not one more.
                    self._previous = subnet
                    raise
        return None

    async def _reuse(self, lease: Lease, listed: Snapshot) -> Lease:
        tenant, attrs, made = self._tenant, self._tenant.attrs, self._created
        if made is not None and (made, made.modified) == (lease, lease.modified):
            # What we made a moment ago is there, and nobody was before us.
            got = made
        else:
            if bears_our_address(tenant.config, lease.attrs, attrs):
                log.info("Found lease (%s) for current IP (%s), reusing", lease.subnet, address_of(attrs))
            else:
                was = address_of(lease.attrs)
                log.info("Found lease (%s), which we wrote when our address was %s, reusing", lease.subnet, was)
            got = await self._store.update(lease, attrs, LEASE_TTL)
        said = {attrs} if tenant.written is None else {attrs, tenant.written.attrs}
        await release_surplus(self._store, listed, got.subnet, said, attrs)
        return got


async def release_surplus(store: Store, listed: Snapshot, kept: Subnet, said: Collection[Attrs], now: Attrs) -> None:
    """Give back what only we can have leased beside ``kept``: by a request that seemed lost, or before a reservation.

    Peers take one VTEP MAC from one record, the oldest, so any other may cut us off.  Ours is what says a thing in
    ``said``; but an address without backend data proves nothing once it is not the one that we publish ``now``.
    """
    for lease in listed.leases:
        attrs = lease.attrs
        telling = attrs == now or attrs.backend_data is not None or attrs.backend_v6_data is not None
        if lease.subnet != kept and not lease.reservation and telling and attrs in said:
            log.warning("Giving back %s, which is leased to us as well: we hold %s", lease.subnet, kept)
            with suppress(Conflict):
                await store.release(lease)


def address_of(attrs: Attrs) -> str:
    """For people: by which address a record's host is reached."""
    return str(attrs.public_ip or attrs.public_ipv6 or "nobody")
