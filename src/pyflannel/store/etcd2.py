"""Leases in etcd's v2 API, as flannel kept them there up to v0.17 (compat §3.4).

Rules of this file
  1. Reads ask for a quorum, so that no member answers from the past.
  2. A write happens only under a condition on the index that was read.  Go flanneld overwrites; we never do.
  3. A condition may fail because of our own write, whose answer got lost.  The record tells: it says what we wrote, and
     was created when we read that it was; who overwrites without a condition creates it anew.  A record that we create
     counts as ours only if an earlier attempt may have had its effect and its time to live is as fresh as that attempt.
  4. A renewal writes the same value again with a new time to live.  ``refresh=true`` would spare the watchers, but an
     etcd before 2.3 does not know it and would write an empty value.
  5. Values have the form of their time, without ``PublicIPv6`` unless there is one.  Reading takes any form.
  6. There is no revision of the whole: ``X-Etcd-Index`` counts every change of the store, and etcd remembers the last
     1,000 changes only.  So a watch moves its index on also when nothing of ours happened.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from pyflannel.lease.model import Attrs, Changes, Lease, Removed, Snapshot, Subnet, Unreadable
from pyflannel.lease.wire import decode_attrs, encode_attrs, parse_subnet_name, subnet_name
from pyflannel.store.api import ConfigRecord, Conflict, HistoryLost, Record
from pyflannel.store.endpoints import CALL_S, NO_TLS, Credentials, Tls
from pyflannel.store.etcd2_member import QUORUM, Member
from pyflannel.store.etcd2_session import Session
from pyflannel.store.etcd2_wire import KEY_NOT_FOUND, Action, Failure, Node
from pyflannel.store.keys import config_key, subnets_key

_QUIETS: Final = 3
"""How often a watch is quiet before it is begun anew: every 30 s, sooner than load balancers cut an idle connection,
and not oftener, because looking at a password takes etcd 60 ms each time."""
_AGE_S: Final = 60
"""Seconds that the attempts at one write may take all in all."""


class Etcd2Store:
    """``store.api.Store`` on one or more members of one etcd whose v2 API is on."""

    def __init__(
        self,
        urls: Sequence[str],
        prefix: str,
        *,
        credentials: Credentials | None = None,
        tls: Tls = NO_TLS,
        quiet_s: float = 10.0,
        call_s: float = CALL_S,
    ) -> None:
        """Nothing is connected yet; ``ValueError`` for an address that is none.

        A watch that heard nothing for ``quiet_s`` asks whether the member is still there.  An answer may stall for
        ``call_s``.
        """
        self._session = Session(urls, credentials, tls, call_s=call_s)
        self._config = config_key("/" + prefix)
        self._subnets = subnets_key("/" + prefix)
        # With its last slash: etcd gives a user with permission for /coreos.com/network/* this, but not the bare name.
        self._prefix = self._config.removesuffix("config")
        self._quiet_s = quiet_s

    @property
    def name(self) -> str:
        """API and addresses."""
        return str(self._session)

    async def network_config(self) -> ConfigRecord:
        """The record at ``<prefix>/config``."""
        reply = await self._session.ask("GET", self._config, QUORUM)
        where = f"{self._config} in etcd v2 at {reply.endpoint}"
        node = reply.content.node if isinstance(reply.content, Action) else None
        return ConfigRecord(where, None if node is None or node.directory else node.value)

    async def leases(self) -> Snapshot:
        """Every record in ``<prefix>/subnets`` and the configuration; none if there is no such directory."""
        reply = await self._session.ask("GET", self._prefix, {**QUORUM, "recursive": "true"})
        nodes = reply.content.node.nodes if isinstance(reply.content, Action) else ()
        found = {node.key: node for node in nodes}
        config, subnets = (found.get(key, Node(key)) for key in (self._config, self._subnets.rstrip("/")))
        records = [self._understood(node) for node in subnets.nodes if self._is_record(node)]
        return Snapshot(
            reply.index,
            tuple(record for record in records if isinstance(record, Lease)),
            tuple(record for record in records if isinstance(record, Unreadable)),
            config.value,
        )

    async def watch(self, revision: int) -> AsyncIterator[Changes]:
        """What happens after ``revision``, with one request for each event."""
        async with self._session.watching(self._config) as member:
            while True:
                async with member.wait(self._prefix, revision + 1) as waiting:
                    if waiting.index < revision:
                        await self._assert_behind(member, revision)
                    for _ in range(_QUIETS):
                        action = await waiting.news(self._quiet_s)
                        if action is not None:
                            break
                        revision = max(revision, waiting.index)
                        yield Changes(revision)
                if action is None:
                    continue
                if action.node.modified <= revision:
                    raise HistoryLost(f"{self.name} tells of index {action.node.modified} after {revision}")
                revision = action.node.modified
                yield self._changes(action)

    async def create(self, subnet: Subnet, attrs: Attrs, ttl: int | None) -> Lease:
        """Write the key if there is none."""
        return _lease(subnet, attrs, await self._put(subnet, _value(attrs), ttl, None))

    async def update(self, lease: Lease, attrs: Attrs, ttl: int) -> Lease:
        """Write ``attrs`` and a new time to live; nothing if a reservation says the same already."""
        there = await self._unchanged(lease, attrs)
        permanent = there.ttl is None
        # What is not to change is handed back as it is: it may say more than we understand.
        value = there.value if _says(there, attrs) else _value(attrs)
        if not permanent or value != there.value:
            there = await self._put(lease.subnet, value, None if permanent else ttl, there)
        return _lease(lease.subnet, attrs, there)

    async def renew(self, lease: Lease, ttl: int) -> Lease:
        """Write what stands there with a new time to live."""
        return await self.update(lease, lease.attrs, ttl)

    async def set_ttl(self, lease: Lease, ttl: int | None) -> Lease:
        """Write what stands there with another time to live, or with none."""
        there = await self._unchanged(lease, lease.attrs)
        if ttl is not None or there.ttl is not None:
            there = await self._put(lease.subnet, there.value, ttl, there)
        return _lease(lease.subnet, lease.attrs, there)

    async def release(self, lease: Lease) -> None:
        """Delete the key."""
        there = await self._there(lease.subnet)
        if there is None:
            return
        if not _is_same(there, lease, lease.attrs):
            raise self._conflict(lease.subnet)
        reply = await self._session.ask("DELETE", self._key(lease.subnet), {"prevIndex": str(there.modified)})
        if isinstance(reply.content, Failure) and reply.content.code != KEY_NOT_FOUND:
            raise self._conflict(lease.subnet)

    async def inspect(self, subnet: Subnet) -> Record | None:
        """The record as it stands there."""
        there = await self._there(subnet)
        return None if there is None else Record(there.value, there.ttl)

    async def close(self) -> None:
        """Hang up."""
        await self._session.close()

    async def _assert_behind(self, member: Member, revision: int) -> None:
        """``HistoryLost`` unless ``member`` was but slower than the one that told us of ``revision``."""
        reply = await member.ask("GET", self._config, QUORUM)
        if reply.index < revision:
            # Restored from a backup, or made anew.  A watch from the future would just stay silent.
            raise HistoryLost(f"{self.name} is at index {reply.index}, we have seen {revision}")

    async def _there(self, subnet: Subnet) -> Node | None:
        """The record as it is."""
        reply = await self._session.ask("GET", self._key(subnet), QUORUM)
        return reply.content.node if isinstance(reply.content, Action) else None

    async def _unchanged(self, lease: Lease, wanted: Attrs) -> Node:
        """The record, if it still is what we read or what we once tried to make of that."""
        there = await self._there(lease.subnet)
        if there is None or not _is_same(there, lease, wanted):
            raise self._conflict(lease.subnet)
        return there

    async def _put(self, subnet: Subnet, value: str, ttl: int | None, before: Node | None) -> Node:
        """Write a record, if what stands there is still ``before``; what stands there then."""
        condition: Mapping[str, str] = {"prevIndex": str(before.modified)} if before else {"prevExist": "false"}
        form = {"value": value} if ttl is None else {"value": value, "ttl": str(ttl)}
        reply = await self._session.ask("PUT", self._key(subnet), condition, form)
        if isinstance(reply.content, Action):
            return reply.content.node
        there = await self._there(subnet) if reply.repeated else None
        if there is None or not _is_written(there, value, ttl, before):
            raise self._conflict(subnet)
        return there

    def _understood(self, node: Node) -> Lease | Unreadable:
        try:
            return _lease(parse_subnet_name(node.key.removeprefix(self._subnets)), decode_attrs(node.value), node)
        except ValueError as error:
            return Unreadable(node.key, str(error))

    def _is_record(self, node: Node) -> bool:
        """Whether the node is a key right in our directory, and not one that etcd hides (``_…``)."""
        name = node.key.removeprefix(self._subnets)
        return not node.directory and name != node.key and "/" not in name and not name.startswith("_")

    def _changes(self, action: Action) -> Changes:
        node, revision = action.node, action.node.modified
        if action.removal and self._subnets.startswith(node.key + "/"):
            # One action for a whole directory; it does not say what was in it.
            raise HistoryLost(f"{node.key} was removed with all that was in it")
        if node.key == self._config:
            return Changes(revision, config="" if action.removal else node.value)
        if not self._is_record(node):
            return Changes(revision)
        if not action.removal:
            return Changes(revision, (self._understood(node),))
        try:
            return Changes(revision, (Removed(parse_subnet_name(node.key.removeprefix(self._subnets))),))
        except ValueError:
            return Changes(revision)  # a record that was never understood is no loss

    def _key(self, subnet: Subnet) -> str:
        return self._subnets + subnet_name(subnet)

    def _conflict(self, subnet: Subnet) -> Conflict:
        return Conflict(f"{self._key(subnet)} in {self.name}: somebody else was faster, or it is gone")


def _value(attrs: Attrs) -> str:
    return encode_attrs(attrs, null_ipv6=False)


def _lease(subnet: Subnet, attrs: Attrs, node: Node) -> Lease:
    return Lease(subnet, attrs, node.created, node.modified, ttl=node.ttl, reservation=node.ttl is None)


def _says(node: Node, attrs: Attrs) -> bool:
    try:
        return decode_attrs(node.value) == attrs
    except ValueError:
        return False


def _is_same(there: Node, lease: Lease, wanted: Attrs) -> bool:
    """Whether the record is what we read, or what a write of ours made of it without our hearing of that."""
    untouched = there.modified == lease.modified or there.created == lease.created
    return untouched and (_says(there, lease.attrs) or _says(there, wanted))


def _is_written(there: Node, value: str, ttl: int | None, before: Node | None) -> bool:
    """Whether the record is what an attempt of ours, begun when it was ``before``, has made of it."""
    left = there.ttl is None if ttl is None else there.ttl is not None and ttl - _AGE_S <= there.ttl <= ttl
    return left and there.value == value and there.created == (before.created if before else there.modified)
