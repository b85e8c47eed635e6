"""The other readers of what strangers wrote: each takes any bytes, and answers or raises what it says it raises."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from pyflannel.lease.model import Lease, Unreadable
from pyflannel.outputs import docker_options, parse_env, read_subnet_env
from pyflannel.store import etcd3_wire
from pyflannel.store.etcd2_wire import read_answer
from pyflannel.store.http1 import BadAnswer, Client
from pyflannel.store.local import LocalStore
from pyflannel.store.protobuf import Message, decode, encode
from tests.support.hostile import Record

MESSAGES: Final[tuple[type[Message], ...]] = (
    etcd3_wire.RangeResponse,
    etcd3_wire.WatchResponse,
    etcd3_wire.TxnResponse,
    etcd3_wire.LeaseKeepAliveResponse,
    etcd3_wire.AuthenticateResponse,
)


def read_protobuf(data: bytes) -> None:
    """A message of etcd v3, or ``ValueError``; what was read can be written and reads the same again."""
    for kind in MESSAGES:
        with contextlib.suppress(ValueError):
            message = decode(kind, data)
            assert decode(kind, encode(message)) == message


def read_v2(data: bytes) -> None:
    """An answer of etcd v2, or ``ValueError``."""
    with contextlib.suppress(ValueError):
        read_answer(data)


def read_http(data: bytes) -> None:
    """An answer in HTTP/1.1, or ``OSError`` or ``BadAnswer``."""
    asyncio.run(_asked(data))


async def _asked(data: bytes) -> None:
    async def opened() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        protocol = asyncio.StreamReaderProtocol(reader)
        sink = _Sink(protocol)
        protocol.connection_made(sink)
        return reader, asyncio.StreamWriter(sink, protocol, reader, asyncio.get_running_loop())

    client = Client(opened, "store", body_limit=100_000)
    with contextlib.suppress(OSError, BadAnswer):
        response = await client.request("GET", "/v2/keys/")
        assert 200 <= response.status <= 999
        read_v2(response.body)
    await client.close()


class _Sink(asyncio.Transport):
    """Takes what is sent, to nobody."""

    def __init__(self, protocol: asyncio.BaseProtocol) -> None:
        super().__init__()
        self._protocol, self._closing = protocol, False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Drop it."""

    def is_closing(self) -> bool:
        """Whether it was hung up."""
        return self._closing

    def close(self) -> None:
        """Hang up."""
        if not self._closing:
            self._closing = True
            self._protocol.connection_lost(None)

    def abort(self) -> None:
        """Hang up."""
        self.close()


def read_env(data: bytes) -> None:
    """subnet.env: what is there and makes sense.  Never fails."""
    text = data.decode(errors="replace")
    read_subnet_env(text)
    with contextlib.suppress(ValueError):
        docker_options(parse_env(text))


def read_rows(records: Sequence[Record]) -> None:
    """Rows that somebody put into the SQLite file: what it makes of them is what every store makes of them."""
    with TemporaryDirectory() as folder:
        asyncio.run(_listed(Path(folder) / "leases.db", records))


async def _listed(path: Path, records: Sequence[Record]) -> None:
    store = LocalStore(path, "/coreos.com/network")
    try:
        await store.leases()
        rows = {record.name.decode(errors="replace"): record for record in records}
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            for name, record in rows.items():
                db.execute(
                    "INSERT INTO lease (prefix, name, value) VALUES (?, ?, CAST(? AS TEXT))",
                    ("/coreos.com/network", name, record.value),
                )
        snapshot = await store.leases()
        found: set[object] = {lease.subnet for lease in snapshot.leases} | {each.key for each in snapshot.unreadable}
        for name, record in rows.items():
            understood = Record(name.encode(), record.value.decode(errors="replace").encode()).understood()
            if isinstance(understood, Lease):
                assert understood.subnet in found or "/" in name, f"{record} is not listed"
            else:
                assert isinstance(understood, Unreadable)
                assert understood.key in found or "/" in name or "\0" in name, f"{record} is not listed as unreadable"
    finally:
        await store.close()


READERS: Final[dict[str, Callable[[bytes], None]]] = {
    "protobuf": read_protobuf,
    "v2": read_v2,
    "http": read_http,
    "env": read_env,
}

_KEY = b"/coreos.com/network/subnets/10.1.5.0-24"
_VALUE = b'{"PublicIP":"192.168.64.3","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}'
_KV = etcd3_wire.KeyValue(_KEY, 7, 8, _VALUE, 0x694D7C1)
_HEADER = etcd3_wire.ResponseHeader(9)
_V2 = (
    b'{"action":"get","node":{"key":"/coreos.com/network/subnets","dir":true,"nodes":[{"key":'
    b'"/coreos.com/network/subnets/10.1.5.0-24","value":"{\\"PublicIP\\":\\"1.2.3.4\\"}",'
    b'"expiration":"2017-02-01T00:00:00Z","ttl":86400,"modifiedIndex":9,"createdIndex":9}]}}'
)
SEEDS: Final[dict[str, tuple[bytes, ...]]] = {
    "protobuf": (
        encode(etcd3_wire.RangeResponse(_HEADER, (_KV, _KV))),
        encode(etcd3_wire.WatchResponse(_HEADER, 1, events=(etcd3_wire.Event(0, _KV), etcd3_wire.Event(1, _KV)))),
        encode(etcd3_wire.WatchResponse(_HEADER, 1, canceled=True, compact_revision=5, cancel_reason="compacted")),
        encode(etcd3_wire.AuthenticateResponse("token")),
        b"\x0b\x13\x14\x0c" * 3,
    ),
    "v2": (
        _V2,
        b'{"errorCode":100,"message":"Key not found","cause":"/x","index":17}',
        b'{"action":"expire","node":{"key":"/a/10.1.5.0-24","modifiedIndex":9,"createdIndex":9},"prevNode":{"key":"/a"}}',
    ),
    "http": (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Etcd-Index: 17\r\nContent-Length: %d\r\n\r\n%b"
        % (len(_V2), _V2),
        b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nnope\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nall of it",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    ),
    "env": (
        b"FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.74.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n",
        b"FLANNEL_IPV6_NETWORK=fd00:1::/48\nexport FLANNEL_IPV6_SUBNET='fd00:1:0:5::1/64' # ours\n",
        b'FLANNEL_SUBNET="10.1.74.1/24,10.2.0.1/24"\nDOCKER_OPTS="\\"--x\\"  \n',
    ),
}
"""For each reader what it reads every day."""
