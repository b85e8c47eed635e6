"""The stage of the stories about etcd's v2 API in trouble: two subnets taken, and somebody who follows the store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Network

from pyflannel.lease.model import Subnet
from pyflannel.store.endpoints import NO_TLS, Credentials, Tls
from pyflannel.store.etcd2 import Etcd2Store
from tests.support.etcd_stores import DAY, HOST2, ONE, TWO, used
from tests.support.followed import Followed, following
from tests.support.stores import PREFIX

THREE = Subnet(IPv4Network("10.2.90.0/24"))


def hasty(*urls: str, prefix: str = PREFIX) -> Etcd2Store:
    """A client that loses patience soon."""
    return Etcd2Store(urls, prefix, quiet_s=0.1, call_s=0.5)


def patient(*urls: str, prefix: str = PREFIX, credentials: Credentials | None = None, tls: Tls = NO_TLS) -> Etcd2Store:
    """A client that looks after its watch as often, but waits for an answer however busy the machine is."""
    return Etcd2Store(urls, prefix, credentials=credentials, tls=tls, quiet_s=0.1)


async def take(store: Etcd2Store, subnet: Subnet) -> None:
    """Let HOST2 have it, if it has not."""
    if subnet not in {lease.subnet for lease in (await store.leases()).leases}:
        await store.create(subnet, HOST2, DAY)


async def change(store: Etcd2Store) -> None:
    """Give TWO back, and take THREE."""
    for lease in (await store.leases()).leases:
        if lease.subnet == TWO:
            await store.release(lease)
    await take(store, THREE)


@asynccontextmanager
async def stage(direct: Etcd2Store, store: Etcd2Store) -> AsyncIterator[Followed]:
    """ONE and TWO are taken, and somebody follows ``store``."""
    async with used(direct), used(store):
        for subnet in (ONE, TWO):
            await take(direct, subnet)
        async with following(store) as seen:
            await seen.settled(direct)
            await seen.until(lambda: seen.watches)
            yield seen
