"""Both generations of the etcd API, under the contract suite, each with a real etcd of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TypeVar

from pyflannel.lease.model import Attrs, Changes, Subnet
from pyflannel.store.api import Store
from pyflannel.store.etcd2 import Etcd2Store
from pyflannel.store.etcd3 import Etcd3Store
from tests.support.etcd import Etcd
from tests.support.frail_wire import FrailWire
from tests.support.stores import LEASE, PREFIX, Harness, Maker

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
        self._wires = ExitStack()

    def close(self) -> None:
        self._wires.close()

    def open_unheard(self, name: str) -> Store:
        """A client with two ways to the store; once, on the first, it does the next write of that record unheard."""
        before = self._written(name)
        wire = self._wires.enter_context(FrailWire(self._etcd.port, lambda: self._written(name) != before))
        return self._client(wire.url, self._etcd.url)

    def open(self) -> Store:
        return self._client(self._etcd.url)

    def _client(self, *urls: str) -> Store:
        raise NotImplementedError

    def _written(self, name: str) -> object:
        """When the record was last written; None if there is no such key."""
        raise NotImplementedError

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def stop(self) -> None:
        self._etcd.kill()

    def start(self) -> None:
        self._etcd.start()


class Etcd3Harness(_EtcdHarness):
    """The v3 API; the foreign writer is etcdctl."""

    def _client(self, *urls: str) -> Store:
        return Etcd3Store(urls, PREFIX)

    def _written(self, name: str) -> object:
        found = json.loads(self._etcd.ctl("get", "--write-out=json", f"{PREFIX}/subnets/{name}"))
        return [kv["mod_revision"] for kv in found.get("kvs", ())]

    def write_config(self, text: str) -> None:
        self._etcd.ctl("put", f"{PREFIX}/config", stdin=text)

    def delete_config(self) -> None:
        self._etcd.ctl("del", f"{PREFIX}/config")

    def write_beside(self, key: str) -> None:
        self._etcd.ctl("put", f"{PREFIX}/{key}", stdin=LEASE)

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

    def _client(self, *urls: str) -> Store:
        return Etcd2Store(urls, PREFIX)

    def _written(self, name: str) -> object:
        node = self._node(name)
        return None if node is None else node["modifiedIndex"]

    def write_config(self, text: str) -> None:
        self._etcd.v2("PUT", f"{PREFIX}/config", {"value": text})

    def delete_config(self) -> None:
        self._etcd.v2("DELETE", f"{PREFIX}/config")

    def write_beside(self, key: str) -> None:
        self._etcd.v2("PUT", f"{PREFIX}/{key}", {"value": LEASE})

    def write_raw(self, name: str, value: str) -> None:
        self._etcd.v2("PUT", f"{PREFIX}/subnets/{name}", {"value": value})

    def delete_raw(self, name: str) -> None:
        self._etcd.v2("DELETE", f"{PREFIX}/subnets/{name}")

    def read_raw(self, name: str) -> str | None:
        node = self._node(name)
        return None if node is None else str(node["value"])

    def forget_history(self) -> None:
        for _ in range(_V2_MEMORY + 1):
            self._etcd.v2("PUT", "/elsewhere", {"value": ""})

    def _node(self, name: str) -> dict[str, object] | None:
        node = self._etcd.v2("GET", f"{PREFIX}/subnets/{name}").get("node")
        return node if isinstance(node, dict) else None


@contextmanager
def _etcd3(directory: Path) -> Iterator[Harness]:
    with Etcd(directory) as etcd, closing(Etcd3Harness(etcd)) as harness:
        yield harness


@contextmanager
def _etcd2(directory: Path) -> Iterator[Harness]:
    with Etcd(directory, v2=True) as etcd, closing(Etcd2Harness(etcd)) as harness:
        yield harness


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
