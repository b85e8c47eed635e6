"""Leases in etcd's v3 API, as flannel keeps them there since v0.18 (compat §3.3).

Rules of this file
  1. A write happens only under a condition on what was read.  Go flanneld overwrites; we never do.
  2. A condition may fail because of our own write, by an attempt whose answer got lost.  The same transaction finds
     that out: the record says what we wrote and hangs on our etcd lease.  So attempts may be repeated.
  3. A renewal is a keepalive: it writes nothing, so it wakes nobody.  Go flanneld puts the key anew.
  4. A record that hangs on no etcd lease is a reservation (compat §3.7) and is written without one.
  5. Configuration and leases are read by one range, and watched by one watch, from the key of the configuration up to
     the last key of a lease.  What else lies in between is passed over.
  6. A watch whose connection is lost goes on at another member from where it was.  Only if that cannot be had at once
     is the store unavailable.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from pyflannel.lease.model import Attrs, Changes, Event, Lease, Removed, Snapshot, Subnet, Unreadable
from pyflannel.lease.wire import decode_attrs, encode_attrs, parse_subnet_name, subnet_name
from pyflannel.store import etcd3_wire as wire
from pyflannel.store.api import ConfigRecord, Conflict, Record, Unavailable
from pyflannel.store.endpoints import NO_TLS, Credentials, Tls
from pyflannel.store.etcd3_session import LeaseGone, Session
from pyflannel.store.keys import config_key, subnets_key

RESUME_AFTER_S: Final = 1.0
"""Seconds a watch must have lived to be resumed at once; members that drop each one are not asked in a loop."""


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
        self._end = wire.after_prefix(self._subnets)
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
        return ConfigRecord(where, _text(answer.kvs[0]) if answer.kvs else None)

    async def leases(self) -> Snapshot:
        """The configuration and every record below ``<prefix>/subnets/``, in one call."""
        answer = await self._session.call(wire.RANGE, wire.RangeRequest(self._config, self._end))
        records = [self._understood(kv) for kv in answer.kvs if self._is_record(kv)]
        return Snapshot(
            _revision(answer.header),
            tuple(record for record in records if isinstance(record, Lease)),
            tuple(record for record in records if isinstance(record, Unreadable)),
            next((_text(kv) for kv in answer.kvs if kv.key == self._config), ""),
        )

    async def watch(self, revision: int) -> AsyncGenerator[Changes, None]:
        """What happens after ``revision``; begins with an empty ``Changes`` once the watch stands."""
        loop = asyncio.get_running_loop()
        while True:
            resume_from = float("inf")
            try:
                async with aclosing(self._watch(revision)) as watch:
                    async for changes in watch:
                        resume_from = min(resume_from, loop.time() + RESUME_AFTER_S)
                        revision = changes.revision
                        yield changes
            except Unavailable:
                if loop.time() < resume_from:
                    raise

    async def create(self, subnet: Subnet, attrs: Attrs, ttl: int | None) -> Lease:
        """Put the key, with an etcd lease granted for it or with none, if there is no such key."""
        key = self._key(subnet)
        if ttl is None and (await self._session.call(wire.RANGE, wire.RangeRequest(key))).kvs:
            # Rule 2 could not tell an equal reservation of somebody else's from ours, so see that there is none before.
            raise Conflict(f"{key.decode()} in {self.name}: exists already")
        lease_id, left = await self._granted_for(ttl)
        absent = wire.Compare(wire.TARGET_CREATE, key, create_revision=0)
        return _lease(subnet, attrs, await self._put(absent, encode_attrs(attrs).encode(), lease_id), left)

    async def update(self, lease: Lease, attrs: Attrs, ttl: int) -> Lease:
        """Write ``attrs`` on the same etcd lease, begun anew.  Nothing is written if nothing changed and it lives."""
        return await self._extend(lease, attrs, ttl)

    async def renew(self, lease: Lease, ttl: int) -> Lease:
        """Begin the etcd lease anew."""
        return await self._extend(lease, lease.attrs, ttl)

    async def set_ttl(self, lease: Lease, ttl: int | None) -> Lease:
        """Put the same value on another etcd lease, or on none."""
        kv = await self._unchanged(lease)
        if ttl is None and kv.lease == 0:
            return _lease(lease.subnet, lease.attrs, kv, None)
        lease_id, left = await self._granted_for(ttl)
        same = wire.Compare(wire.TARGET_MOD, kv.key, mod_revision=kv.mod_revision)
        written = await self._put(same, kv.value, lease_id)
        if kv.lease in self._granted:
            await self._revoke(kv.lease)  # nothing hangs on it any more
        return replace(_lease(lease.subnet, lease.attrs, written, left), created=kv.create_revision)

    async def release(self, lease: Lease) -> None:
        """Delete the key; end its etcd lease if that was made here.  Another client's runs out by itself."""
        key = self._key(lease.subnet)
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

    async def inspect(self, subnet: Subnet) -> Record | None:
        """The record of ``subnet``, and what is left of the life of its etcd lease."""
        found = (await self._session.call(wire.RANGE, wire.RangeRequest(self._key(subnet)))).kvs
        if not found:
            return None
        (kv,) = found
        if kv.lease == 0:
            return Record(_text(kv), None)
        left = await self._session.call(wire.LEASE_TIME_TO_LIVE, wire.LeaseTimeToLiveRequest(kv.lease))
        return Record(_text(kv), max(0, left.ttl))

    async def close(self) -> None:
        """Hang up."""
        await self._session.close()

    async def _watch(self, revision: int) -> AsyncGenerator[Changes, None]:
        """One watch at one member, for as long as it lasts."""
        request = wire.WatchCreateRequest(self._config, self._end, start_revision=revision + 1, progress_notify=True)
        async with self._session.watching(request, self._quiet_s) as watching:
            while True:
                told = await watching.next()
                yield Changes(watching.reached, tuple(self._events(told)), self._config_in(told))

    async def _extend(self, lease: Lease, attrs: Attrs, ttl: int) -> Lease:
        """Let the record live ``ttl`` seconds from now, and say ``attrs``."""
        kv = await self._unchanged(lease)
        lease_id, left = kv.lease, None
        if lease_id != 0 and (left := await self._keep_alive(lease_id)) < ttl:
            # 0: gone, and the record with it, as the put will find.  Else it was made for a shorter life than we want.
            lease_id, left = await self._granted_for(ttl)
        elif attrs == lease.attrs:
            return _lease(lease.subnet, attrs, kv, left)
        value = kv.value if attrs == lease.attrs else encode_attrs(attrs).encode()
        same = wire.Compare(wire.TARGET_MOD, kv.key, mod_revision=kv.mod_revision)
        written = await self._put(same, value, lease_id)
        return replace(_lease(lease.subnet, attrs, written, left), created=kv.create_revision)

    async def _unchanged(self, lease: Lease) -> wire.KeyValue:
        """The record as it is; ``Conflict`` if that is not the one which was read."""
        answer = await self._session.call(wire.RANGE, wire.RangeRequest(self._key(lease.subnet)))
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

    async def _granted_for(self, ttl: int | None) -> tuple[int, int | None]:
        """A new etcd lease and the seconds it lives, which may be more than ``ttl``; none for a reservation."""
        if ttl is None:
            return 0, None
        grant = await self._session.call(wire.LEASE_GRANT, wire.LeaseGrantRequest(ttl))
        self._granted.add(grant.id)
        return grant.id, grant.ttl

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
        return _lease(subnet, attrs, kv, None)

    def _events(self, told: Iterable[wire.Event]) -> Iterator[Event]:
        for event in told:
            if event.kv is None or not self._is_record(event.kv):
                continue
            if event.type != wire.EVENT_DELETE:
                yield self._understood(event.kv)
                continue
            try:
                yield Removed(parse_subnet_name(self._name_in(event.kv)))
            except ValueError:
                continue  # a record that was never understood is no loss

    def _config_in(self, told: Iterable[wire.Event]) -> str | None:
        written = [event for event in told if event.kv is not None and event.kv.key == self._config]
        if not written:
            return None
        last = written[-1]
        return "" if last.kv is None or last.type == wire.EVENT_DELETE else _text(last.kv)

    def _is_record(self, kv: wire.KeyValue) -> bool:
        """Whether it stands where leases stand; in v2 whatever is deeper would be in a directory of its own."""
        return kv.key.startswith(self._subnets) and b"/" not in kv.key[len(self._subnets) :]

    def _name_in(self, kv: wire.KeyValue) -> str:
        return kv.key.removeprefix(self._subnets).decode()

    def _key(self, subnet: Subnet) -> bytes:
        return self._subnets + subnet_name(subnet).encode()

    def _changed(self, lease: Lease) -> Conflict:
        return Conflict(f"{self._key(lease.subnet).decode()} in {self.name}: changed or gone since it was read")


def _lease(subnet: Subnet, attrs: Attrs, kv: wire.KeyValue, left: int | None) -> Lease:
    return Lease(subnet, attrs, kv.create_revision, kv.mod_revision, kv.lease, left, reservation=kv.lease == 0)


def _text(kv: wire.KeyValue) -> str:
    return kv.value.decode(errors="replace")


def _revision(header: wire.ResponseHeader | None) -> int:
    return header.revision if header is not None else 0


def _read(answer: wire.TxnResponse) -> wire.KeyValue | None:
    """What the other branch of our transactions found under the key."""
    found = [kv for response in answer.responses if response.response_range for kv in response.response_range.kvs]
    return found[0] if found else None
