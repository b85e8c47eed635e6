"""Who holds which subnet: the nouns.

A *lease* says that one host holds one subnet (of one or of both address families), where that host can be reached,
and what its backend wants its peers to know.  All hosts of a network read all leases.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeAlias

LEASE_TTL: int = 24 * 60 * 60
"""Seconds a lease lives without renewal; every flannel uses this value (compat §3.3)."""


@dataclass(frozen=True, slots=True)
class Subnet:
    """What a lease is about: an IPv4 subnet, an IPv6 subnet, or one of each."""

    ipv4: IPv4Network | None = None
    ipv6: IPv6Network | None = None

    def __post_init__(self) -> None:
        """Refuse the subnet that is none."""
        if self.ipv4 is None and self.ipv6 is None:
            raise ValueError("a subnet needs at least one address family")

    def __hash__(self) -> int:
        """By its first address: no two that hosts hold have the same, and what dataclasses do takes thrice as long."""
        net = self.ipv4 if self.ipv4 is not None else self.ipv6
        return 0 if net is None else hash(int(net.network_address))

    def __str__(self) -> str:
        """For people: ``10.1.5.0/24 and fd00:12:13::/56``."""
        return " and ".join(str(net) for net in (self.ipv4, self.ipv6) if net is not None)

    def overlaps(self, other: Subnet) -> bool:
        """Whether some address lies in both.  A missing family overlaps nothing."""
        return _share(self.ipv4, other.ipv4) or _share(self.ipv6, other.ipv6)


def _share(one: IPv4Network | IPv6Network | None, other: IPv4Network | IPv6Network | None) -> bool:
    """Whether two networks of one family overlap: the longer prefix begins with the shorter one."""
    if one is None or other is None:
        return False
    # Their own ``overlaps`` would have each of thousands of them keep its last address for good.
    shift = one.max_prefixlen - min(one.prefixlen, other.prefixlen)
    return int(one.network_address) >> shift == int(other.network_address) >> shift


JSONText: TypeAlias = str
"""A JSON value kept as the text its writer chose: what we do not understand we hand on unchanged."""


@dataclass(frozen=True, slots=True)
class Attrs:
    """What a host tells its peers in its lease (compat §3.2)."""

    public_ip: IPv4Address | None
    """None where the record says 0.0.0.0 or nothing: a host without IPv4."""
    public_ipv6: IPv6Address | None = None
    backend_type: str = ""
    """Empty for the backends which publish no type (udp, alloc and the cloud ones)."""
    backend_data: JSONText | None = None
    backend_v6_data: JSONText | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """One record of the store, understood.

    Equality is about what the record *says*; the bookkeeping of the store is left out, so a renewal is no change.
    """

    subnet: Subnet
    attrs: Attrs
    created: int = field(default=0, compare=False)
    """Store revision at which the key appeared.  Of two leases in conflict the older one is right."""
    modified: int = field(default=0, compare=False)
    """Store revision of the last write; an update compares it, so that nobody's write is lost."""
    lease_id: int = field(default=0, compare=False)
    """The etcd v3 lease that keeps the key alive; 0 elsewhere."""
    ttl: float | None = field(default=None, compare=False)
    """Seconds left when the store answered; None where the store did not say, or for a reservation."""
    reservation: bool = field(default=False, compare=False)
    """True: the key never expires (compat §3.7), and must stay so."""


@dataclass(frozen=True, slots=True)
class Removed:
    """The store no longer has a lease for this subnet: released, deleted or expired."""

    subnet: Subnet


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record of somebody's which we cannot understand.  We skip it, say so, and harm nobody."""

    key: str
    reason: str


Event: TypeAlias = Lease | Removed | Unreadable


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that the store holds of a network, as of one revision."""

    revision: int
    leases: tuple[Lease, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
    config: str = ""
    """The text of the network configuration, as it is; empty where there is none."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened after some revision, oldest first, up to and including ``revision``.

    Neither ``events`` nor ``config`` means: nothing happened, but the store is alive and this is its revision.
    """

    revision: int
    events: tuple[Event, ...] = ()
    config: str | None = None
    """The text of the network configuration if that was written, empty if it was removed; None: neither happened."""
