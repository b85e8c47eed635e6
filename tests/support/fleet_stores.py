"""The stores that a fleet shares: the troubles they can have, and what stands in them by the word of others than us."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import urllib.request
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Final, Protocol, TypeAlias
from urllib.parse import urlencode

from pyflannel.store.local import open_url
from tests.support.allocator import V2
from tests.support.etcd_cluster import EtcdCluster
from tests.support.fleet import Fleet
from tests.support.stores import PREFIX

PATIENCE_S: Final = 60.0

Held: TypeAlias = dict[str, str]
"""Which subnet belongs to which address."""


class Shared(Protocol):
    """One store with a network in it."""

    @property
    def where(self) -> str:
        """For ``tests.support.allocator``."""
        ...

    def leases(self) -> Held:
        """What stands in it."""
        ...

    def begin_in_trouble(self, fleet: Fleet) -> int:
        """Let a fleet set off, with troubles before the last host has its lease; how many members were killed."""
        ...


class Opener(Protocol):
    """Makes one, in a directory, for the network that a text configures."""

    def __call__(self, directory: Path, network: str) -> AbstractContextManager[Shared]: ...


class _Members:
    def __init__(self, etcd: EtcdCluster) -> None:
        self._etcd = etcd

    def begin_in_trouble(self, fleet: Fleet) -> int:
        """The hosts begin without a leader, lose the quorum soon, then the leader, and each member once."""
        etcd = self._etcd
        leader = etcd.leader()
        etcd.kill(leader)
        fleet.begin()
        _until(fleet, 0.01)
        etcd.start()
        leader = etcd.leader()
        etcd.kill(leader, (leader + 1) % 3)
        etcd.start()
        _until(fleet, 0.4)
        etcd.move_leader()
        for member in range(3):
            etcd.kill(member)
            etcd.start(member)
        return 6


class _Etcd3(_Members):
    @property
    def where(self) -> str:
        return ",".join(self._etcd.urls)

    def leases(self) -> Held:
        found = json.loads(self._etcd.ctl("get", "--prefix", "--write-out=json", f"{PREFIX}/subnets/"))
        return _read((b64decode(kv["key"]).decode(), b64decode(kv["value"]).decode()) for kv in found.get("kvs", ()))


class _Etcd2(_Members):
    @property
    def where(self) -> str:
        return V2 + ",".join(self._etcd.urls)

    def leases(self) -> Held:
        found = json.loads(self.request("GET", "subnets?quorum=true"))
        return _read((node["key"], node["value"]) for node in found["node"].get("nodes", ()))

    def request(self, method: str, key: str, form: Mapping[str, str] | None = None) -> bytes:
        url, body = f"{self._etcd.urls[0]}/v2/keys{PREFIX}/{key}", urlencode(form or {}).encode()
        with urllib.request.urlopen(urllib.request.Request(url, body, method=method), timeout=5.0) as answer:
            content: bytes = answer.read()
        return content


class _File:
    def __init__(self, path: Path) -> None:
        self.where = f"local:{path}"
        self.database = sqlite3.connect(path, isolation_level=None, timeout=5.0)

    def leases(self) -> Held:
        return _read(self.database.execute("SELECT name, value FROM lease WHERE prefix = ?", (PREFIX,)))

    def begin_in_trouble(self, fleet: Fleet) -> int:
        """Somebody holds the lock until a host gives up waiting for it."""
        fleet.begin()
        _until(fleet, 0.01)
        self.database.execute("BEGIN IMMEDIATE")
        fleet.until(lambda: "database is locked" in fleet.logs(), "somebody waits in vain for the lock", PATIENCE_S)
        self.database.execute("ROLLBACK")
        return 0


@contextmanager
def etcd3(directory: Path, network: str) -> Iterator[Shared]:
    """Three members."""
    with EtcdCluster(directory) as etcd:
        etcd.ctl("put", f"{PREFIX}/config", network)
        yield _Etcd3(etcd)


@contextmanager
def etcd2(directory: Path, network: str) -> Iterator[Shared]:
    """Three members, by way of the v2 API."""
    with EtcdCluster(directory, arguments=["--enable-v2=true"]) as etcd:
        shared = _Etcd2(etcd)
        shared.request("PUT", "config", {"value": network})
        yield shared


@contextmanager
def local(directory: Path, network: str) -> Iterator[Shared]:
    """One SQLite file."""
    path = directory / "leases.db"
    asyncio.run(_write_config(f"local:{path}", network))
    shared = _File(path)
    with closing(shared.database):
        yield shared


def _until(fleet: Fleet, share: float) -> None:
    """Wait for that share of all to have a lease."""
    fleet.until(lambda: len(fleet.subnets) >= share * fleet.hosts, f"{share:.0%} have a lease", PATIENCE_S)


def _read(records: Iterable[tuple[str, str]]) -> Held:
    """Subnets and addresses as the records spell them."""
    return {key.rpartition("/")[2].replace("-", "/"): json.loads(value)["PublicIP"] for key, value in records}


async def _write_config(where: str, text: str) -> None:
    store = open_url(where, PREFIX)
    await store.write_config(text)
    await store.close()
