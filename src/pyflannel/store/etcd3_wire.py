"""etcd's v3 API: the calls we make, and as much of their messages as we use.

Numbers and names are those of ``rpc.proto`` and ``kv.proto`` of etcd 3.4, unchanged since 3.0 but where noted.  Fields
we have no use for are not here; the codec skips them.
"""

# ruff: noqa: RUF009 - the calls in the class bodies make dataclass fields

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from pyflannel.store.protobuf import Message, boolean, chosen_integer, integer, many, octets, one, text

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)


@dataclass(frozen=True, slots=True)
class Method(Generic[Q, A]):
    """A remote call: what it is named, what goes there, what comes back."""

    path: str
    request: type[Q]
    answer: type[A]
    streaming: bool = False
    """Whether either side may send more than one message."""


@dataclass(frozen=True, slots=True)
class ResponseHeader(Message):
    """Stands at the front of every answer."""

    revision: int = integer(3)
    """Of the whole store, when the call was carried out."""


@dataclass(frozen=True, slots=True)
class KeyValue(Message):
    """A record."""

    key: bytes = octets(1)
    create_revision: int = integer(2)
    mod_revision: int = integer(3)
    value: bytes = octets(5)
    lease: int = integer(6)
    """The lease it lives and dies with; 0: it stays until somebody deletes it."""


@dataclass(frozen=True, slots=True)
class RangeRequest(Message):
    """Read ``key``, or everything from ``key`` up to but not including ``range_end``."""

    key: bytes = octets(1)
    range_end: bytes = octets(2)
    keys_only: bool = boolean(8)


@dataclass(frozen=True, slots=True)
class RangeResponse(Message):
    """The records, by key."""

    header: ResponseHeader | None = one(1, ResponseHeader)
    kvs: tuple[KeyValue, ...] = many(2, KeyValue)


@dataclass(frozen=True, slots=True)
class PutRequest(Message):
    """Write ``key``."""

    key: bytes = octets(1)
    value: bytes = octets(2)
    lease: int = integer(3)


@dataclass(frozen=True, slots=True)
class DeleteRangeRequest(Message):
    """Remove ``key``."""

    key: bytes = octets(1)


@dataclass(frozen=True, slots=True)
class RequestOp(Message):
    """One of these, inside a transaction."""

    request_range: RangeRequest | None = one(1, RangeRequest)
    request_put: PutRequest | None = one(2, PutRequest)
    request_delete_range: DeleteRangeRequest | None = one(3, DeleteRangeRequest)


@dataclass(frozen=True, slots=True)
class ResponseOp(Message):
    """What came of a ``RequestOp``; of the three we only ever look at what was read."""

    response_range: RangeResponse | None = one(1, RangeResponse)


TARGET_CREATE = 1
TARGET_MOD = 2


@dataclass(frozen=True, slots=True)
class Compare(Message):
    """A condition: that the revision chosen by ``target`` equals the one given (result 0, EQUAL)."""

    target: int = integer(2)
    key: bytes = octets(3)
    create_revision: int | None = chosen_integer(5)
    mod_revision: int | None = chosen_integer(6)


@dataclass(frozen=True, slots=True)
class TxnRequest(Message):
    """If all of ``compare`` hold, do ``success``, else ``failure``; all of it at one revision."""

    compare: tuple[Compare, ...] = many(1, Compare)
    success: tuple[RequestOp, ...] = many(2, RequestOp)
    failure: tuple[RequestOp, ...] = many(3, RequestOp)


@dataclass(frozen=True, slots=True)
class TxnResponse(Message):
    """Which of the two was done."""

    header: ResponseHeader | None = one(1, ResponseHeader)
    succeeded: bool = boolean(2)
    responses: tuple[ResponseOp, ...] = many(3, ResponseOp)


@dataclass(frozen=True, slots=True)
class LeaseGrantRequest(Message):
    """Make an etcd lease of so many seconds; the server chooses its id."""

    ttl: int = integer(1)


@dataclass(frozen=True, slots=True)
class LeaseGrantResponse(Message):
    """The lease made.  ``ttl`` may be more than was asked: etcd has a least one."""

    id: int = integer(2)
    ttl: int = integer(3)


@dataclass(frozen=True, slots=True)
class LeaseRevokeRequest(Message):
    """End an etcd lease, and delete the keys that hang on it."""

    id: int = integer(1)


@dataclass(frozen=True, slots=True)
class LeaseRevokeResponse(Message):
    """Nothing to know."""


@dataclass(frozen=True, slots=True)
class LeaseKeepAliveRequest(Message):
    """Begin the time of an etcd lease anew."""

    id: int = integer(1)


@dataclass(frozen=True, slots=True)
class LeaseKeepAliveResponse(Message):
    """Seconds it lives from now; 0: there is no such lease (any more)."""

    ttl: int = integer(3)


@dataclass(frozen=True, slots=True)
class LeaseTimeToLiveRequest(Message):
    """How long does an etcd lease live?  From etcd 3.1 on."""

    id: int = integer(1)


@dataclass(frozen=True, slots=True)
class LeaseTimeToLiveResponse(Message):
    """Seconds left; -1: there is no such lease (any more)."""

    ttl: int = integer(3)


@dataclass(frozen=True, slots=True)
class WatchCreateRequest(Message):
    """Tell us everything about the range from ``start_revision`` on."""

    key: bytes = octets(1)
    range_end: bytes = octets(2)
    start_revision: int = integer(3)
    progress_notify: bool = boolean(4)
    """Send an empty answer now and then (every ten minutes, unless the server was told otherwise)."""


@dataclass(frozen=True, slots=True)
class WatchProgressRequest(Message):
    """Say that you are still there.  From etcd 3.4 on; servers before that keep silent."""


@dataclass(frozen=True, slots=True)
class WatchRequest(Message):
    """One of these."""

    create_request: WatchCreateRequest | None = one(1, WatchCreateRequest)
    progress_request: WatchProgressRequest | None = one(3, WatchProgressRequest)


EVENT_DELETE = 1


@dataclass(frozen=True, slots=True)
class Event(Message):
    """A put (type 0) or a delete (1) of a key; of a deleted one only ``key`` and ``mod_revision`` are set."""

    type: int = integer(1)
    kv: KeyValue | None = one(2, KeyValue)


@dataclass(frozen=True, slots=True)
class WatchResponse(Message):
    """Events; or none, when it is about the watch itself.

    ``header.revision`` is not how far the events go: a watch that catches up gets 1,000 revisions at a time, each
    answer under the newest revision.  And the answer to a progress request (``watch_id`` -1) may overtake events (etcd
    issue 15220, up to 3.4.24 and 3.5.7).  Only the events themselves and progress of our own ``watch_id`` move us on.
    """

    header: ResponseHeader | None = one(1, ResponseHeader)
    watch_id: int = integer(2)
    created: bool = boolean(3)
    canceled: bool = boolean(4)
    compact_revision: int = integer(5)
    """Not 0: canceled because the revisions before this one are gone."""
    cancel_reason: str = text(6)
    events: tuple[Event, ...] = many(11, Event)


@dataclass(frozen=True, slots=True)
class AuthenticateRequest(Message):
    """Who we are."""

    name: str = text(1)
    password: str = text(2, secret=True)


@dataclass(frozen=True, slots=True)
class AuthenticateResponse(Message):
    """The token to show with every call."""

    token: str = text(2, secret=True)


RANGE = Method("/etcdserverpb.KV/Range", RangeRequest, RangeResponse)
TXN = Method("/etcdserverpb.KV/Txn", TxnRequest, TxnResponse)
LEASE_GRANT = Method("/etcdserverpb.Lease/LeaseGrant", LeaseGrantRequest, LeaseGrantResponse)
LEASE_REVOKE = Method("/etcdserverpb.Lease/LeaseRevoke", LeaseRevokeRequest, LeaseRevokeResponse)
LEASE_KEEP_ALIVE = Method(
    "/etcdserverpb.Lease/LeaseKeepAlive", LeaseKeepAliveRequest, LeaseKeepAliveResponse, streaming=True
)
LEASE_TIME_TO_LIVE = Method("/etcdserverpb.Lease/LeaseTimeToLive", LeaseTimeToLiveRequest, LeaseTimeToLiveResponse)
WATCH = Method("/etcdserverpb.Watch/Watch", WatchRequest, WatchResponse, streaming=True)
AUTHENTICATE = Method("/etcdserverpb.Auth/Authenticate", AuthenticateRequest, AuthenticateResponse)


def after_prefix(prefix: bytes) -> bytes:
    """The ``range_end`` which makes a range of all keys that begin with ``prefix``."""
    head = prefix.rstrip(b"\xff")
    return head[:-1] + bytes([head[-1] + 1]) if head else b"\0"
