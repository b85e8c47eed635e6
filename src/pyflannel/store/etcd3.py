"""Leases in etcd's v3 API, as flannel keeps them there since v0.18 (compat §3.3).

Rules of this file
  1. A write happens only under a condition on what was read.  Go flanneld overwrites; we never do.
  2. A condition may fail because of our own write, by an attempt whose answer got lost.  The same transaction finds
     that out: the record says what we wrote and hangs on our etcd lease.  So attempts may be repeated.
  3. A renewal is a keepalive: it writes nothing, so it wakes nobody.  Go flanneld puts the key anew.
  4. A record that hangs on no etcd lease is a reservation (compat §3.7) and is written without one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace

from pyflannel.lease.model import Attrs, Changes, Event, Lease, Removed, Snapshot, Subnet, Unreadable
from pyflannel.lease.wire import decode_attrs, encode_attrs, parse_subnet_name, subnet_name
from pyflannel.store import etcd3_wire as wire
from pyflannel.store.api import ConfigRecord, Conflict, HistoryLost, Unavailable
from pyflannel.store.endpoints import NO_TLS, Credentials, Tls
from pyflannel.store.etcd3_session import LeaseGone, Session
from pyflannel.store.keys import config_key, subnets_key


class Etcd3Store:
    """``store.api.Store`` on one or more members of one etcd."""

    def __init__(
        self,
        urls: Sequence[str],
        prefix: str,
        *,
        credentials: Credentials | None = None,
        tls: Tls = NO_TLS,
        quiet_s: float = 10.0,
    ) -> None:
        """Nothing is connected yet; ``ValueError`` for an address that is none.

        A watch that heard nothing for ``quiet_s`` asks whether the server is still there.
        """
        self._session = Session(urls, credentials, tls)
        self._config = config_key(prefix).encode()
        self._subnets = subnets_key(prefix).encode()
        self._granted: set[int] = set()
        self._quiet_s = quiet_s

    @property
    def name(self) -> str:
        """API and addresses."""
        return str(self._session)

    async def network_config(self) -> ConfigRecord:
        """The record at ``<prefix>/config``."""
        endpoint, answer = await self._session.call_at(wire.RANGE, wire.RangeRequest(self._config))
        where = f"{self._config.decode()} in etcd v3 at {endpoint}"
        return ConfigRecord(where, answer.kvs[0].value.decode(errors="replace") if answer.kvs else None)

    async def leases(self) -> Snapshot:
        """Every record below ``<prefix>/subnets/``, in one call."""
        request = wire.RangeRequest(self._subnets, wire.after_prefix(self._subnets))
        answer = await self._session.call(wire.RANGE, request)
        records = [self._understood(kv) for kv in answer.kvs]
        return Snapshot(
            _revision(answer.header),
            tuple(record for record in records if isinstance(record, Lease)),
            tuple(record for record in records if isinstance(record, Unreadable)),
        )

    async def watch(self, revision: int) -> AsyncIterator[Changes]:
        """What happens after ``revision``; begins with an empty ``Changes`` once the watch stands."""
        probe = wire.RangeRequest(self._config, keys_only=True)
        request = wire.WatchCreateRequest(
            self._subnets, wire.after_prefix(self._subnets), start_revision=revision + 1, progress_notify=True
        )
        async with self._session.watching(probe, self._quiet_s) as watching:
            if watching.revision < revision:
                # Restored from a backup, or made anew.  A watch from the future would just stay silent.
                raise HistoryLost(f"{self.name} is at revision {watching.revision}, we have seen {revision}")
            await watching.begin(wire.WatchRequest(create_request=request))
            while True:
                answer = await watching.next()
                if answer is not None:
                    revision = max(revision, _reached(answer))
                yield Changes(revision, tuple(self._events(answer)) if answer is not None else ())

    async def create(self, subnet: Subnet, attrs: Attrs, ttl: int) -> Lease:
        """Grant an etcd lease and put the key with it, if there is no such key."""
        key = self._subnets + subnet_name(subnet).encode()
        grant = await self._grant(ttl)
        absent = wire.Compare(wire.TARGET_CREATE, key, create_revision=0)
        kv = await self._put(absent, encode_attrs(attrs).encode(), grant.id)
        return Lease(subnet, attrs, kv.create_revision, kv.mod_revision, grant.id, ttl=grant.ttl)

    async def update(self, lease: Lease, attrs: Attrs, ttl: int) -> Lease:
        """Write ``attrs`` on the same etcd lease, begun anew.  Nothing is written if nothing changed and it lives."""
        return await self._extend(lease, attrs, ttl)

    async def renew(self, lease: Lease, ttl: int) -> Lease:
        """Begin the etcd lease anew."""
        return await self._extend(lease, lease.attrs, ttl)

    async def release(self, lease: Lease) -> None:
        """Delete the key; end its etcd lease if that was made here.  Another client's runs out by itself."""
        key = self._key(lease)
        request = wire.TxnRequest(
            (wire.Compare(wire.TARGET_MOD, key, mod_revision=lease.modified),),
            (wire.RequestOp(request_delete_range=wire.DeleteRangeRequest(key)),),
            (wire.RequestOp(request_range=wire.RangeRequest(key)),),
        )
        answer = await self._session.call(wire.TXN, request)
        if not answer.succeeded and _read(answer) is not None:
            raise self._changed(lease)
        if lease.lease_id in self._granted:
            await self._revoke(lease.lease_id)

    async def close(self) -> None:
        """Hang up."""
        await self._session.close()

    async def _extend(self, lease: Lease, attrs: Attrs, ttl: int) -> Lease:
        """Let the record live ``ttl`` seconds from now, and say ``attrs``."""
        kv = await self._unchanged(lease)
        lease_id, left = kv.lease, None
        if lease_id != 0 and (left := await self._keep_alive(lease_id)) < ttl:
            # 0: gone, and the record with it, as the put will find.  Else it was made for a shorter life than we want.
            grant = await self._grant(ttl)
            lease_id, left = grant.id, grant.ttl
        elif attrs == lease.attrs:
            return replace(lease, lease_id=lease_id, ttl=left, reservation=lease_id == 0)
        value = kv.value if attrs == lease.attrs else encode_attrs(attrs).encode()
        same = wire.Compare(wire.TARGET_MOD, kv.key, mod_revision=kv.mod_revision)
        written = await self._put(same, value, lease_id)
        return Lease(
            lease.subnet, attrs, kv.create_revision, written.mod_revision, lease_id, left, reservation=lease_id == 0
        )

    async def _unchanged(self, lease: Lease) -> wire.KeyValue:
        """The record as it is; ``Conflict`` if that is not the one which was read."""
        answer = await self._session.call(wire.RANGE, wire.RangeRequest(self._key(lease)))
        if not answer.kvs or answer.kvs[0].mod_revision != lease.modified:
            raise self._changed(lease)
        return answer.kvs[0]

    async def _put(self, condition: wire.Compare, value: bytes, lease_id: int) -> wire.KeyValue:
        """Write a record if the condition holds; what stands there then.  ``Conflict`` if it does not."""
        key = condition.key
        request = wire.TxnRequest(
            (condition,),
            (wire.RequestOp(request_put=wire.PutRequest(key, value, lease_id)),),
            (wire.RequestOp(request_range=wire.RangeRequest(key)),),
        )
        conflict = Conflict(f"{key.decode()} in {self.name}: somebody else was faster")
        try:
            answer = await self._session.call(wire.TXN, request)
        except LeaseGone as gone:
            raise conflict from gone  # the etcd lease ran out this moment, and the record with it
        if answer.succeeded:
            revision = _revision(answer.header)
            return wire.KeyValue(key, revision, revision, value, lease_id)
        there = _read(answer)
        if there is not None and there.value == value and there.lease == lease_id:
            return there
        if lease_id in self._granted and (there is None or there.lease != lease_id):
            await self._revoke(lease_id)
        raise conflict

    async def _grant(self, ttl: int) -> wire.LeaseGrantResponse:
        grant = await self._session.call(wire.LEASE_GRANT, wire.LeaseGrantRequest(ttl))
        self._granted.add(grant.id)
        return grant

    async def _keep_alive(self, lease_id: int) -> int:
        """Seconds the etcd lease now lives; 0 if there is none."""
        return (await self._session.call(wire.LEASE_KEEP_ALIVE, wire.LeaseKeepAliveRequest(lease_id))).ttl

    async def _revoke(self, lease_id: int) -> None:
        """End an etcd lease.  If that cannot be done now, it ends by itself."""
        self._granted.discard(lease_id)
        try:
            await self._session.call(wire.LEASE_REVOKE, wire.LeaseRevokeRequest(lease_id))
        except (LeaseGone, Unavailable):
            return

    def _understood(self, kv: wire.KeyValue) -> Lease | Unreadable:
        try:
            subnet = parse_subnet_name(self._name_in(kv))
            attrs = decode_attrs(kv.value.decode())
        except ValueError as error:
            return Unreadable(kv.key.decode(errors="backslashreplace"), str(error))
        return Lease(subnet, attrs, kv.create_revision, kv.mod_revision, lease_id=kv.lease, reservation=kv.lease == 0)

    def _events(self, answer: wire.WatchResponse) -> Iterator[Event]:
        for event in answer.events:
            if event.kv is None:
                continue
            if event.type != wire.EVENT_DELETE:
                yield self._understood(event.kv)
                continue
            try:
                yield Removed(parse_subnet_name(self._name_in(event.kv)))
            except ValueError:
                continue  # a record that was never understood is no loss

    def _name_in(self, kv: wire.KeyValue) -> str:
        return kv.key.removeprefix(self._subnets).decode()

    def _key(self, lease: Lease) -> bytes:
        return self._subnets + subnet_name(lease.subnet).encode()

    def _changed(self, lease: Lease) -> Conflict:
        return Conflict(f"{self._key(lease).decode()} in {self.name}: changed or gone since it was read")


def _revision(header: wire.ResponseHeader | None) -> int:
    return header.revision if header is not None else 0


def _read(answer: wire.TxnResponse) -> wire.KeyValue | None:
    """What the other branch of our transactions found under the key."""
    found = [kv for response in answer.responses if response.response_range for kv in response.response_range.kvs]
    return found[0] if found else None


def _reached(answer: wire.WatchResponse) -> int:
    """The revision up to which everything was told (see ``WatchResponse``); 0 if this answer says nothing about it."""
    if answer.events:
        return max((event.kv.mod_revision for event in answer.events if event.kv is not None), default=0)
    return 0 if answer.created or answer.watch_id < 0 else _revision(answer.header)
