"""The records in an etcd as an administrator sees them from a machine of his own, by way of etcdctl and either API."""

from __future__ import annotations

import json
import os
import subprocess
import time
from base64 import b64decode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pyflannel.lease.model import Lease
from pyflannel.lease.wire import decode_attrs, parse_subnet_name
from tests.support.namespaces import Namespace
from tests.support.pair import PREFIX, Peer, Records

Api = Literal["v2", "v3"]


class EtcdRecords(Records):
    """The store as an administrator sees it from a machine of his own."""

    def __init__(self, urls: Sequence[str], console: Namespace, api: Api, identity: Sequence[str]) -> None:
        """``identity``: options with which etcdctl proves who he is.  Nothing is written yet."""
        self._urls, self._console, self._api, self._identity = urls, console, api, identity
        self.path = Path("none")

    def open(self) -> None:
        """There is no file to open."""

    def close(self) -> None:
        """There is no file to close."""

    def configure(self, text: str | None) -> None:
        """Write the network configuration, or remove it."""
        self._write(f"{PREFIX}/config", text)

    def write(self, records: Mapping[str, str | None]) -> None:
        """Write these values, or remove where there is none, one by one."""
        for name, value in records.items():
            self._write(key_of(name), value)

    def insist(self, peer: Peer) -> float:
        """Write a record, asking until some member takes it; when that attempt began, as ``time.time`` counts."""
        return self._ctl("set" if self._api == "v2" else "put", key_of(peer.name), peer.record)[1]

    def leases(self) -> dict[str, Lease]:
        """Every lease, by its subnet."""
        names = {key.removeprefix(key_of("")): value for key, value in self._values().items() if key_of("") in key}
        leases = [Lease(parse_subnet_name(name), decode_attrs(value)) for name, value in names.items()]
        return {str(lease.subnet): lease for lease in leases}

    def etcd_lease(self, name: str) -> str:
        """The id of the etcd lease on which the record of that name hangs."""
        (kv,) = json.loads(self.ctl("get", "--write-out=json", key_of(name)))["kvs"]
        return f"{kv['lease']:x}"

    def ctl(self, *arguments: str) -> str:
        """What etcdctl prints, asking one member after the other until one does what it is asked."""
        return self._ctl(*arguments)[0]

    def _ctl(self, *arguments: str) -> tuple[str, float]:
        failures: list[str] = []
        give_up = time.monotonic() + 60.0
        while time.monotonic() < give_up:
            began = time.time()
            done = self._attempt(self._urls[len(failures) % len(self._urls)], *arguments)
            if done.returncode == 0:
                return done.stdout, began
            failures.append(done.stderr.strip())
            time.sleep(0.02)
        raise AssertionError(f"etcdctl {arguments}: {failures[-3:]}")

    def _write(self, key: str, value: str | None) -> None:
        if value is not None:
            self.ctl("set" if self._api == "v2" else "put", key, value)
        elif self._api == "v3" or key in self._values():
            self.ctl("rm" if self._api == "v2" else "del", key)

    def _values(self) -> dict[str, str]:
        if self._api == "v3":
            found = json.loads(self.ctl("get", "--prefix", "--write-out=json", PREFIX)).get("kvs", ())
            return {b64decode(kv["key"]).decode(): b64decode(kv["value"]).decode() for kv in found}
        keys = [line for line in self.ctl("ls", "--recursive", "-p", "/").split() if not line.endswith("/")]
        return {key: self.ctl("get", key).removesuffix("\n") for key in keys}

    def _attempt(self, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        timing = ["--command-timeout=400ms", "--dial-timeout=400ms"]
        if self._api == "v2":
            timing = ["--timeout=400ms", "--total-timeout=800ms", "--no-sync"]
        return subprocess.run(
            [*inside(self._console), "etcdctl", f"--endpoints={url}", *timing, *self._identity, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "ETCDCTL_API": self._api[1]},
        )


def key_of(name: str) -> str:
    """Where the lease of that name stands."""
    return f"{PREFIX}/subnets/{name}"


def inside(space: Namespace) -> list[str]:
    """What makes of a command one that sees the network of ``space``."""
    return ["nsenter", f"--net={space.path}", "--"]
