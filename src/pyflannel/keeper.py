"""Getting our lease, and keeping it.

Rules of this file
  1. Every write compares: we never overwrite a record that changed since we read it (compat §11.4).
  2. A store that does not answer is waited for, however long; only another owner of our subnet is final.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar

from pyflannel.lease.alloc import Replace, Reuse, Take, choose
from pyflannel.lease.model import LEASE_TTL, Attrs, Lease, Snapshot, Subnet
from pyflannel.lease.network import NetworkConfig
from pyflannel.lease.table import LeaseTable, renew_in
from pyflannel.store.api import Conflict, Store, Unavailable

log = logging.getLogger(__name__)
T = TypeVar("T")

PAUSES: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds to wait after the 1st, 2nd, … time the store did not answer."""


class LeaseLost(Exception):
    """Our subnet belongs to another host now; whoever starts again gets another subnet."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who asks for a lease, and on what terms."""

    config: NetworkConfig
    attrs: Attrs
    previous: Subnet | None
    """The subnet we held when we last ran, if we know."""
    margin: float
    """Seconds before expiry at which a renewal is due at the latest (``-subnet-lease-renew-margin``)."""


async def patiently(what: str, call: Callable[[], Awaitable[T]]) -> T:
    """Make a call to the store until it answers, saying what is wrong when that changes."""
    said, failures = "", 0
    while True:
        try:
            answer = await call()
        except Unavailable as exc:
            if str(exc) != said:
                said = str(exc)
                log.error("Couldn't %s, and go on trying: %s", what, exc)
            await asyncio.sleep(PAUSES[min(failures, len(PAUSES) - 1)])
            failures += 1
        else:
            if said:
                log.info("The store answers again")
            return answer


async def acquire(store: Store, tenant: Tenant, rng: random.Random, listed: Snapshot | None = None) -> Lease:
    """Our lease: the one we have, else the subnet we had, else a free one (compat §3.5).

    ``listed`` is what the caller read of the store a moment ago; the store is asked again only if that is too old to
    act upon.  Races with other hosts are lost and run again.  ``OutOfSubnets`` if the network is full.
    """
    while True:
        attempt = partial(_attempt, store, tenant, tenant.previous, rng, listed)
        try:
            return await patiently("acquire a lease", attempt)
        except Conflict as exc:
            log.info("Another host was faster (%s); choosing again", exc)
            # So that hosts which collided once do not march on in step.
            await asyncio.sleep(rng.uniform(0.0, 0.1))
            listed = None


async def _attempt(
    store: Store, tenant: Tenant, previous: Subnet | None, rng: random.Random, listed: Snapshot | None
) -> Lease:
    attrs = tenant.attrs
    listed = listed or await store.leases()
    choice = choose(
        tenant.config,
        listed.leases,
        attrs.public_ip,
        attrs.public_ipv6,
        previous,
        rng,
        unreadable=listed.unreadable,
    )
    match choice:
        case Reuse(lease):
            address = attrs.public_ip or attrs.public_ipv6
            log.info("Found lease (%s) for current IP (%s), reusing", lease.subnet, address)
            return await store.update(lease, attrs, LEASE_TTL)
        case Replace(lease):
            log.warning("Our lease %s does not fit the network configuration any more; giving it back", lease.subnet)
            await store.release(lease)
            return await _attempt(store, tenant, lease.subnet, rng, None)
        case Take(subnet, why):
            log.info("Taking subnet %s", why)
            return await store.create(subnet, attrs, LEASE_TTL)


class Keeper:
    """Renews one lease, and re-creates it should it vanish."""

    def __init__(self, store: Store, tenant: Tenant, lease: Lease, rng: random.Random) -> None:
        """Keep ``lease``, which was just written."""
        self.lease = lease
        self._store, self._tenant, self._rng = store, tenant, rng
        self._doubt = asyncio.Event()

    def publish(self, attrs: Attrs) -> None:
        """Say ``attrs`` in our lease from now on; the subnet stays."""
        if attrs != self._tenant.attrs:
            self._tenant = replace(self._tenant, attrs=attrs)
            self.look_again()

    def look_again(self) -> None:
        """The store said something about our own record: see whether it is still ours."""
        self._doubt.set()

    def recognises(self, table: LeaseTable) -> bool:
        """Whether the store's record of our lease says what we wrote."""
        held = table.leases.get(self.lease.subnet)
        return held is not None and held.attrs == self._tenant.attrs

    async def run(self) -> None:
        """Renew in good time, for ever; ``LeaseLost`` when another host holds our subnet."""
        while True:
            pause = renew_in(self.lease.ttl or LEASE_TTL, self._tenant.margin, self._rng.random())
            log.debug("Waiting for %.0f s to renew lease", pause)
            try:
                async with asyncio.timeout(pause):
                    await self._doubt.wait()
            except TimeoutError:
                pass
            if self._doubt.is_set():
                self._doubt.clear()
                await patiently("look after our lease", self._reclaim)
            else:
                await patiently("renew our lease", self._renew)

    async def _renew(self) -> None:
        try:
            self.lease = await self._store.renew(self.lease, LEASE_TTL)
            log.info("Lease renewed: %s", self.lease.subnet)
        except Conflict:
            await self._reclaim()

    async def _reclaim(self) -> None:
        """Make our record what it should be, unless it is another's now."""
        mine, attrs = self.lease.subnet, self._tenant.attrs
        snapshot = await self._store.leases()
        held = next((lease for lease in snapshot.leases if lease.subnet == mine), None)
        try:
            if held is None:
                log.warning("Our lease %s has vanished from the store; writing it again", mine)
                self.lease = await self._store.create(mine, attrs, LEASE_TTL)
            elif not self._is_ours(held.attrs):
                raise LeaseLost(
                    f"subnet {mine} now belongs to {held.attrs.public_ip or held.attrs.public_ipv6}; "
                    "starting again will lease another one, and Docker must then be restarted"
                )
            elif held.attrs != attrs:
                log.warning("Our lease %s does not say what it should; writing it again", mine)
                self.lease = await self._store.update(held, attrs, LEASE_TTL)
            else:
                # Somebody renewed or copied it; from now on compare with what stands there.
                self.lease = await self._store.renew(held, LEASE_TTL)
        except Conflict:
            self.look_again()

    def _is_ours(self, attrs: Attrs) -> bool:
        """Whether a record of our subnet bears the address we have, or the one we had when we last wrote it."""
        return any(
            (attrs.public_ip, attrs.public_ipv6) == (own.public_ip, own.public_ipv6)
            for own in (self._tenant.attrs, self.lease.attrs)
        )
