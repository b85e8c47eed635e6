"""What a backend is asked, and what it answers with.

Rules of this file
  1. A backend sees values only: no kernel, no store, no clock.  Same question, same answer.
  2. The items of one peer depend on our own view and on that peer's lease alone, so a lease event re-plans one lease.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pyflannel.host import Underlay
from pyflannel.lease.contest import Claim
from pyflannel.lease.model import Attrs, Lease, Subnet
from pyflannel.lease.network import NetworkConfig
from pyflannel.lease.refusal import self_reference
from pyflannel.state import Item, Mac, Scope


class Refused(ValueError):
    """A peer's record which this backend cannot use; the message says what in it is wrong."""


class AnotherWay(Refused):
    """A peer's record which is fit for another backend, or for this one with other options."""


def refuse_strangers(lease: Lease, kind: str, under: Underlay) -> None:
    """``AnotherWay`` for a peer of another backend, and ``Refused`` for one that would have us send to ourselves.

    Every backend whose leases bear its type, ``kind``, asks so before it looks any closer.
    """
    if lease.attrs.backend_type != kind:
        raise AnotherWay(f"publishes backend type {lease.attrs.backend_type or 'none'!r}, and ours is {kind!r}")
    flaw = self_reference(lease, (under.ipv4, under.public_ip, under.ipv6, under.public_ipv6))
    if flaw is not None:
        raise Refused(flaw)


@dataclass(frozen=True, slots=True)
class View:
    """The network as this host sees it, apart from its peers."""

    config: NetworkConfig
    underlay: Underlay
    own: Subnet
    macs: Mapping[str, Mac] = field(default_factory=dict)
    """For each device in ``Backend.devices``: the address peers know it by."""
    checksum_offload: bool | None = None
    """Whether tunnel devices may leave checksums for later; None: as they do."""
    spread: bool = False
    """There are so many peers that IPv4 routes through one device must not all have one metric (see ``vxlan``)."""


class Backend(Protocol):
    """One way to reach the other hosts."""

    @property
    def type(self) -> str:
        """As published in leases; empty for the backends which publish none."""
        ...

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of the devices that are ours entirely."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know about the options."""
        ...

    def mtu(self, underlay: Underlay) -> int:
        """What containers may send in one packet; ``ConfigError`` if that is too little to work with."""
        ...

    def attrs(self, underlay: Underlay, macs: Mapping[str, Mac]) -> Attrs:
        """What to publish in our lease."""
        ...

    def published(self, lease: Lease) -> Mapping[str, Mac]:
        """By which address peers know each of our devices if ``lease`` is ours; empty if it is of no use."""
        ...

    def scope(self, view: View) -> Scope:
        """Which objects of the kernel are this network's, whichever backend made them."""
        ...

    def self_items(self, view: View) -> tuple[Item, ...]:
        """What the kernel should hold for ourselves: devices and their addresses."""
        ...

    def peer_items(self, view: View, lease: Lease) -> tuple[Item, ...]:
        """What the kernel should hold for one peer; ``Refused`` if its record is of no use to us."""
        ...

    def claims(self, lease: Lease) -> frozenset[Claim]:
        """What a peer's record claims for itself alone, beside its subnet; empty if the record is of no use."""
        ...


class WithoutMacs:
    """What is alike in backends without a MAC on any device: a record claims nothing for itself but the subnet."""

    __slots__ = ()

    def published(self, lease: Lease) -> Mapping[str, Mac]:
        """Nothing."""
        return {}

    def claims(self, lease: Lease) -> frozenset[Claim]:
        """Nothing: a host may well have several subnets."""
        return frozenset()
