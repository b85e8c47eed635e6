"""Leases in etcd's v2 API, as flannel kept them there up to v0.17 (compat §3.4).

Rules of this file
  1. Reads ask for a quorum, so that no member answers from the past.
  2. A write happens only under a condition on the index that was read.  Go flanneld overwrites; we never do.
  3. A renewal writes the same value again with a new time to live.  ``refresh=true`` would spare the watchers, but an
     etcd before 2.3 does not know it and would write an empty value.
  4. Values have the form of their time, without ``PublicIPv6`` unless there is one.  Reading takes any form.
  5. There is no revision of the whole: ``X-Etcd-Index`` counts every change of the store, and etcd remembers the last
     1,000 changes only.  So a watch moves its index on also when nothing of ours happened.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from pyflannel.lease.model import Attrs, Changes, Event, Lease, Removed, Snapshot, Subnet, Unreadable
from pyflannel.lease.wire import decode_attrs, encode_attrs, parse_subnet_name, subnet_name
from pyflannel.store.api import ConfigRecord, Conflict, HistoryLost
from pyflannel.store.endpoints import NO_TLS, Credentials, Tls
from pyflannel.store.etcd2_session import Session
from pyflannel.store.etcd2_wire import KEY_NOT_FOUND, Action, Failure, Node
from pyflannel.store.keys import config_key, subnets_key

_QUORUM: Final = {"quorum": "true"}


class Etcd2Store:
    """``store.api.Store`` on one or more members of one etcd whose v2 API is on."""

    def __init__(
        self,
        urls: Sequence[str],
        prefix: str,
        *,
        credentials: Credentials | None = None,
        tls: Tls = NO_TLS,
        quiet_s: float = 20.0,
    ) -> None:
        """Nothing is connected yet; ``ValueError`` for an address that is none.

        A watch asks anew when it heard nothing for ``quiet_s``.
        """
        self._session = Session(urls, credentials, tls)
        self._config = config_key("/" + prefix)
        self._subnets = subnets_key("/" + prefix)
        self._quiet_s = quiet_s

    @property
    def name(self) -> str:
        """API and addresses."""
        return str(self._session)

    async def network_config(self) -> ConfigRecord:
        """The record at ``<prefix>/config``."""
        reply = await self._session.ask("GET", self._config, _QUORUM)
        where = f"{self._config} in etcd v2 at {reply.endpoint}"
        return ConfigRecord(where, reply.content.node.value if isinstance(reply.content, Action) else None)

    async def leases(self) -> Snapshot:
        """Every record in ``<prefix>/subnets``; none if there is no such directory."""
        reply = await self._session.ask("GET", self._subnets, {**_QUORUM, "recursive": "true"})
        nodes = reply.content.node.nodes if isinstance(reply.content, Action) else ()
        records = [self._understood(node) for node in nodes if self._is_record(node)]
        return Snapshot(
            reply.index,
            tuple(record for record in records if isinstance(record, Lease)),
            tuple(record for record in records if isinstance(record, Unreadable)),
        )

    async def watch(self, revision: int) -> AsyncIterator[Changes]:
        """What happens after ``revision``: one request for each event, none of them longer than ``quiet_s``."""
        async with self._session.watching(self._config, _QUORUM) as watching:
            if watching.index < revision:
                # Restored from a backup, or made anew.  A watch from the future would just stay silent.
                raise HistoryLost(f"{self.name} is at index {watching.index}, we have seen {revision}")
            while True:
                query = {"wait": "true", "recursive": "true", "waitIndex": str(revision + 1)}
                index, content = await watching.wait(self._subnets, query, self._quiet_s)
                if isinstance(content, Failure):
                    raise HistoryLost(content.text)
                revision = max(revision, index if content is None else content.node.modified)
                yield Changes(revision, () if content is None else self._events(content))

    async def create(self, subnet: Subnet, attrs: Attrs, ttl: int) -> Lease:
        """Write the key if there is none."""
        node = await self._put(subnet, _value(attrs), ttl, {"prevExist": "false"})
        return Lease(subnet, attrs, node.created, node.modified, ttl=node.ttl)

    async def update(self, lease: Lease, attrs: Attrs, ttl: int) -> Lease:
        """Write ``attrs`` and a new time to live; nothing if a reservation says the same already."""
        return await self._extend(lease, attrs, ttl)

    async def renew(self, lease: Lease, ttl: int) -> Lease:
        """Write what stands there with a new time to live."""
        return await self._extend(lease, lease.attrs, ttl)

    async def release(self, lease: Lease) -> None:
        """Delete the key."""
        reply = await self._session.ask("DELETE", self._key(lease.subnet), {"prevIndex": str(lease.modified)})
        if isinstance(reply.content, Failure) and reply.content.code != KEY_NOT_FOUND:
            raise self._conflict(lease.subnet)

    async def close(self) -> None:
        """Hang up."""
        await self._session.close()

    async def _extend(self, lease: Lease, attrs: Attrs, ttl: int) -> Lease:
        """Let the record live ``ttl`` seconds from now, and say ``attrs``."""
        reply = await self._session.ask("GET", self._key(lease.subnet), _QUORUM)
        if isinstance(reply.content, Failure) or reply.content.node.modified != lease.modified:
            raise self._conflict(lease.subnet)
        there = reply.content.node
        permanent = there.ttl is None
        if permanent and attrs == lease.attrs:
            return replace(lease, reservation=True, ttl=None)
        # What is not to change is handed back as it is: it may say more than we understand.
        value = there.value if attrs == lease.attrs else _value(attrs)
        node = await self._put(lease.subnet, value, None if permanent else ttl, {"prevIndex": str(lease.modified)})
        return Lease(lease.subnet, attrs, node.created, node.modified, ttl=node.ttl, reservation=permanent)

    async def _put(self, subnet: Subnet, value: str, ttl: int | None, condition: Mapping[str, str]) -> Node:
        form = {"value": value} if ttl is None else {"value": value, "ttl": str(ttl)}
        reply = await self._session.ask("PUT", self._key(subnet), condition, form)
        if isinstance(reply.content, Failure):
            raise self._conflict(subnet)
        return reply.content.node

    def _understood(self, node: Node) -> Lease | Unreadable:
        try:
            subnet = parse_subnet_name(node.key.removeprefix(self._subnets))
            attrs = decode_attrs(node.value)
        except ValueError as error:
            return Unreadable(node.key, str(error))
        return Lease(subnet, attrs, node.created, node.modified, ttl=node.ttl, reservation=node.ttl is None)

    def _is_record(self, node: Node) -> bool:
        """Whether the node is a key right in our directory, and not one that etcd hides (``_…``)."""
        name = node.key.removeprefix(self._subnets)
        return not node.directory and name != node.key and "/" not in name and not name.startswith("_")

    def _events(self, action: Action) -> tuple[Event, ...]:
        if action.removal and self._subnets.startswith(action.node.key + "/"):
            # One action for a whole directory; it does not say what was in it.
            raise HistoryLost(f"{action.node.key} was removed with all that was in it")
        if not self._is_record(action.node):
            return ()
        if not action.removal:
            return (self._understood(action.node),)
        try:
            return (Removed(parse_subnet_name(action.node.key.removeprefix(self._subnets))),)
        except ValueError:
            return ()  # a record that was never understood is no loss

    def _key(self, subnet: Subnet) -> str:
        return self._subnets + subnet_name(subnet)

    def _conflict(self, subnet: Subnet) -> Conflict:
        return Conflict(f"{self._key(subnet)} in {self.name}: somebody else was faster, or it is gone")


def _value(attrs: Attrs) -> str:
    return encode_attrs(attrs, null_ipv6=False)
