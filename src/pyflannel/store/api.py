"""What every store promises, and the few ways it can fail.

A store keeps one network's configuration and its leases.  Implementations: ``etcd3``, ``etcd2`` and ``local`` (SQLite).
They and the fake of the tests pass tests/contract/test_store.py; that suite *is* the definition where words are short.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from pyflannel.lease.model import Attrs, Changes, Lease, Snapshot, Subnet


class Unavailable(Exception):
    """The store did not answer, or not in time.  Nothing is known about the request; try again later."""


class Conflict(Exception):
    """Somebody else was faster: the key exists, or is no longer what we read.  Look again, then choose again."""


class HistoryLost(Exception):
    """A watch cannot be served from the asked revision (compacted, index cleared, or gone back): list again."""


@dataclass(frozen=True, slots=True)
class ConfigRecord:
    """What the store holds under the key of the network configuration."""

    where: str
    """For people: which key was asked, in which API, at which address."""
    text: str | None
    """None: there is no such key."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a lease as it stands in the store, for people who want to see it."""

    value: str
    """The text, as its writer spelled it."""
    ttl: float | None
    """Seconds left; None where the store did not say, or for a reservation."""


class Store(Protocol):
    """One network's records.  Every method may raise ``Unavailable``; no method waits without bound."""

    @property
    def name(self) -> str:
        """For log lines, e.g. ``etcd v3 at http://172.16.41.130:2379``.  Holds no secret."""
        ...

    async def network_config(self) -> ConfigRecord:
        """The record at ``<prefix>/config``, as it is."""
        ...

    async def leases(self) -> Snapshot:
        """Every lease and the configuration, and the revision to watch from."""
        ...

    def watch(self, revision: int) -> AsyncIterator[Changes]:
        """What happens to leases and configuration after ``revision``, in order, while the caller iterates.

        Yields at least every ~30 s (an empty ``Changes`` if nothing happened), so silence means trouble.
        ``HistoryLost`` if that revision can no longer be served; ``Unavailable`` if the connection is lost.
        Cancelling the iteration frees the connection.
        """
        ...

    async def create(self, subnet: Subnet, attrs: Attrs, ttl: int | None) -> Lease:
        """Take a free subnet for ``ttl`` seconds, or reserve it (None: for good); ``Conflict`` if its key exists."""
        ...

    async def update(self, lease: Lease, attrs: Attrs, ttl: int) -> Lease:
        """Write ``attrs`` into a lease we read, living ``ttl`` seconds from now.

        A reservation stays one.  ``Conflict`` if the record was changed or removed since ``lease`` was read.
        """
        ...

    async def renew(self, lease: Lease, ttl: int) -> Lease:
        """Let the lease live ``ttl`` seconds from now without changing what it says.

        A reservation is left alone.  ``Conflict`` if the record was changed or removed since ``lease`` was read.
        """
        ...

    async def set_ttl(self, lease: Lease, ttl: int | None) -> Lease:
        """Make a reservation of a lease (None), or a lease that lives ``ttl`` seconds from now of a reservation.

        What the record says stays, byte for byte.  ``Conflict`` if it was changed or removed since ``lease`` was read.
        """
        ...

    async def release(self, lease: Lease) -> None:
        """Give the subnet back.  Gone already is success; ``Conflict`` if the record was changed since it was read."""
        ...

    async def inspect(self, subnet: Subnet) -> Record | None:
        """The record of ``subnet``, None if there is none.  For people: it may take calls which agents do without."""
        ...

    async def close(self) -> None:
        """Drop connections.  Records stay."""
        ...
