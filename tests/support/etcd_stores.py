"""Both generations of the etcd API, under the contract suite, each with a real etcd of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TypeVar

from pyflannel.lease.model import Attrs, Changes, Subnet
from pyflannel.store.api import Store
from pyflannel.store.etcd2 import Etcd2Store
from pyflannel.store.etcd3 import Etcd3Store
from tests.support.etcd import Etcd
from tests.support.stores import PREFIX, Harness, Maker

S = TypeVar("S", bound=Store)

DAY = 24 * 60 * 60
ONE = Subnet(IPv4Network("10.2.71.0/24"))
TWO = Subnet(IPv4Network("10.2.41.0/24"))
HOST2 = Attrs(IPv4Address("172.16.41.131"), None, "vxlan", '{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}')
HOST3 = Attrs(IPv4Address("172.16.41.132"), None, "vxlan", '{"VNI":1,"VtepMAC":"1a:5f:9b:00:c3:07"}')
KEY = f"{PREFIX}/subnets/10.2.71.0-24"
NOBODY = "http://127.0.0.1:1"
"""Nobody listens there."""

_V2_MEMORY = 1000
"""Changes that the v2 API remembers."""


class _EtcdHarness:
    shortest_ttl = 2
    secrets = ()
    can_forget = True
    can_stop = True

    def __init__(self, etcd: Etcd) -> None:
        self._etcd = etcd

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def stop(self) -> None:
        self._etcd.kill()

    def start(self) -> None:
        self._etcd.start()


class Etcd3Harness(_EtcdHarness):
    """The v3 API; the foreign writer is etcdctl."""

    def open(self) -> Store:
        return Etcd3Store([self._etcd.url], PREFIX)

    def write_config(self, text: str) -> None:
        self._etcd.ctl("put", f"{PREFIX}/config", stdin=text)

    def write_raw(self, name: str, value: str) -> None:
        self._etcd.ctl("put", f"{PREFIX}/subnets/{name}", stdin=value)

    def delete_raw(self, name: str) -> None:
        self._etcd.ctl("del", f"{PREFIX}/subnets/{name}")

    def read_raw(self, name: str) -> str | None:
        text = self._etcd.ctl("get", "--print-value-only", f"{PREFIX}/subnets/{name}")
        return text.removesuffix("\n") or None

    def forget_history(self) -> None:
        self._etcd.ctl("put", "/elsewhere", "what is compacted is what came before the present revision")
        self._etcd.ctl("compact", str(self._etcd.revision()))


class Etcd2Harness(_EtcdHarness):
    """The v2 API; the foreign writer is anybody with curl."""

    def open(self) -> Store:
        return Etcd2Store([self._etcd.url], PREFIX)

    def write_config(self, text: str) -> None:
        self._etcd.v2("PUT", f"{PREFIX}/config", {"value": text})

    def write_raw(self, name: str, value: str) -> None:
        self._etcd.v2("PUT", f"{PREFIX}/subnets/{name}", {"value": value})

    def delete_raw(self, name: str) -> None:
        self._etcd.v2("DELETE", f"{PREFIX}/subnets/{name}")

    def read_raw(self, name: str) -> str | None:
        node = self._etcd.v2("GET", f"{PREFIX}/subnets/{name}").get("node")
        return str(node["value"]) if isinstance(node, dict) else None

    def forget_history(self) -> None:
        for _ in range(_V2_MEMORY + 1):
            self._etcd.v2("PUT", "/elsewhere", {"value": ""})


@contextmanager
def _etcd3(directory: Path) -> Iterator[Harness]:
    with Etcd(directory) as etcd:
        yield Etcd3Harness(etcd)


@contextmanager
def _etcd2(directory: Path) -> Iterator[Harness]:
    with Etcd(directory, v2=True) as etcd:
        yield Etcd2Harness(etcd)


MAKERS = [Maker("etcd3", _etcd3, ("etcd",)), Maker("etcd2", _etcd2, ("etcd",))]


@asynccontextmanager
async def used(store: S) -> AsyncIterator[S]:
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def watched(store: Store, revision: int) -> AsyncIterator[AsyncIterator[Changes]]:
    watch = store.watch(revision)
    assert isinstance(watch, AsyncGenerator)
    try:
        yield watch
    finally:
        await watch.aclose()


async def until_event(watch: AsyncIterator[Changes]) -> AsyncIterator[Changes]:
    async for changes in watch:
        yield changes
        if changes.events:
            return


async def exhausted(watch: AsyncIterator[Changes]) -> None:
    async for _ in watch:
        pass
