"""Which subnet a host takes (compat §3.5): the one it has, else the one it had, else a free one by lot.

Rules of this file
  1. It decides, from one list of the leases; writing the decision down, with compare-and-set, is the caller's part.
     A lost race means a new list and a new decision.
  2. Chance comes in as an argument.
  3. No answer overlaps a record of the list, readable or not, whatever its length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, Protocol, TypeAlias

from pyflannel.lease.model import Attrs, Lease, Subnet, Unreadable
from pyflannel.lease.network import IPv4Range, IPv6Range, NetworkConfig
from pyflannel.lease.wire import BadRecord, parse_subnet_name

Span: TypeAlias = IPv4Range | IPv6Range
IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network

CANDIDATES: Final = 100
"""How many free subnets, counted from SubnetMin, the lot is drawn among; every flannel uses this number."""


class OutOfSubnets(Exception):
    """No subnet is free; the message says in which range, and how many leases there are."""


@dataclass(frozen=True, slots=True)
class Reuse:
    """The store has a lease of ours: update it."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Replace:
    """The store has a lease of ours which does not fit the network any more: release it, list again, choose again.

    Giving its subnet as ``previous`` then keeps the half that still fits.
    """

    lease: Lease


@dataclass(frozen=True, slots=True)
class Take:
    """Create a lease for this subnet."""

    subnet: Subnet
    why: str
    """For the log."""


class Lots(Protocol):
    """What ``choose`` needs of a ``random.Random``."""

    def randrange(self, start: int, /) -> int:
        """A number from 0 up to ``start``, which is left out; all of them equally likely."""
        ...


def choose(
    config: NetworkConfig,
    leases: Sequence[Lease],
    public_ip: IPv4Address | None,
    public_ipv6: IPv6Address | None,
    previous: Subnet | None,
    rng: Lots,
    *,
    unreadable: Iterable[Unreadable] = (),
) -> Reuse | Replace | Take:
    """What the host with these addresses should do to get a subnet; ``OutOfSubnets`` if there is none to take.

    A lease is ours if it bears our IPv4 address; in a network without IPv4, if it bears our IPv6 address.  Of several
    such leases the first in the list is meant, as with Go.  ``previous`` is the subnet we held when we last ran: each
    half of it that is free and fits is taken again, so a host keeps its IPv4 subnet when IPv6 is switched on.
    """
    own = own_lease(config, leases, public_ip, public_ipv6)
    if own is not None:
        return Reuse(own) if _fits(config, own.subnet) else Replace(own)
    taken = [lease.subnet for lease in leases] + list(_named(unreadable))
    ipv4 = ipv6 = None
    why: list[str] = []
    if config.ipv4 is not None:
        nets = [subnet.ipv4 for subnet in taken if subnet.ipv4 is not None]
        number, how = _pick(config.ipv4, nets, public_ip, None if previous is None else previous.ipv4, rng)
        ipv4 = IPv4Network((number, config.ipv4.subnet_len))
        why.append(f"{ipv4} {how}")
    if config.ipv6 is not None:
        nets6 = [subnet.ipv6 for subnet in taken if subnet.ipv6 is not None]
        number, how = _pick(config.ipv6, nets6, public_ipv6, None if previous is None else previous.ipv6, rng)
        ipv6 = IPv6Network((number, config.ipv6.subnet_len))
        why.append(f"{ipv6} {how}")
    return Take(Subnet(ipv4, ipv6), ", ".join(why))


def own_lease(
    config: NetworkConfig, leases: Iterable[Lease], public_ip: IPv4Address | None, public_ipv6: IPv6Address | None
) -> Lease | None:
    """The lease that the host with these addresses has, whether or not it fits the network."""

    def is_ours(attrs: Attrs) -> bool:
        if config.ipv4 is not None:
            return public_ip is not None and attrs.public_ip == public_ip
        return public_ipv6 is not None and attrs.public_ipv6 == public_ipv6

    return next((lease for lease in leases if is_ours(lease.attrs)), None)


def _fits(config: NetworkConfig, subnet: Subnet) -> bool:
    """Whether the subnet is one this network could hand out: of the right families, lengths and ranges."""
    return _within(config.ipv4, subnet.ipv4) and _within(config.ipv6, subnet.ipv6)


def _within(span: Span | None, net: IPNetwork | None) -> bool:
    if span is None or net is None:
        return span is None and net is None
    number = int(net.network_address)
    return net.prefixlen == span.subnet_len and int(span.subnet_min) <= number <= int(span.subnet_max)


def _named(records: Iterable[Unreadable]) -> Iterator[Subnet]:
    """The subnets which records hold that nobody can read: their keys are in the way all the same."""
    for record in records:
        try:
            yield parse_subnet_name(record.key)
        except BadRecord:
            continue


def _pick(
    span: Span, taken: Sequence[IPNetwork], host: IPAddress | None, previous: IPNetwork | None, rng: Lots
) -> tuple[int, str]:
    """The address of the subnet to take in one family, and how it was found."""
    shift = span.network.max_prefixlen - span.subnet_len
    held = [(int(net.network_address) >> shift, _last_address(net) >> shift) for net in taken]
    if host is not None:
        # A subnet around our own address would lead the tunnel into itself, and every peer would refuse the lease.
        held.append((int(host) >> shift, int(host) >> shift))
    held.sort()
    if previous is not None and _within(span, previous):
        block = int(previous.network_address) >> shift
        if not any(start <= block <= end for start, end in held):
            return block << shift, "is free, and was ours before"
    first, last = int(span.subnet_min) >> shift, int(span.subnet_max) >> shift
    free = _free(first, last, held)
    if not free:
        raise OutOfSubnets(
            f"out of subnets: none of the {last - first + 1} subnets of length /{span.subnet_len} "
            f"from {span.subnet_min} to {span.subnet_max} is free; the store has {len(taken)} records"
        )
    return free[rng.randrange(len(free))] << shift, f"drawn by lot among the first {len(free)} free subnets"


def _last_address(net: IPNetwork) -> int:
    # broadcast_address would be kept by the network object for good, one more object for each of thousands of leases.
    return int(net.network_address) | ((1 << (net.max_prefixlen - net.prefixlen)) - 1)


def _free(first: int, last: int, held: Iterable[tuple[int, int]]) -> list[int]:
    """The first ``CANDIDATES`` numbers from ``first`` to ``last`` that lie in none of the sorted intervals."""
    free: list[int] = []
    at = first
    for start, end in (*held, (last + 1, last + 1)):
        room = CANDIDATES - len(free)
        free.extend(range(at, min(start, last + 1, at + room)))
        if len(free) == CANDIDATES:
            break
        at = max(at, end + 1)
    return free
