"""Which subnet a host takes (compat §3.5): the one it has, else the one it had, else a free one by lot.

Rules of this file
  1. It decides, from one list of the leases; writing the decision down, with compare-and-set, is the caller's part.
     A lost race means a new list and a new decision.
  2. Chance comes in as an argument.
  3. No answer overlaps a record of the list, readable or not, whatever its length.
  4. Two hosts which chose at the same moment may still get subnets that overlap under different keys: the IPv6 halves
     of their subnets differ, or their lengths.  A second list shows it to the younger one, which then gives way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, Protocol, TypeAlias

from pyflannel.lease.model import Attrs, Lease, Subnet, Unreadable
from pyflannel.lease.network import IPv4Range, IPv6Range, NetworkConfig
from pyflannel.lease.refusal import refusal
from pyflannel.lease.wire import BadRecord, parse_subnet_name, subnet_name

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
    """The store has a lease of ours which we cannot stay in: release it, list again, choose again.

    Giving its subnet as ``previous`` then keeps the half that still fits.
    """

    lease: Lease
    why: str = field(default="", compare=False)
    """For the log: what is wrong with it, as the end of a sentence about it."""


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
    written: Lease | None = None,
    attrs: Attrs | None = None,
) -> Reuse | Replace | Take:
    """What the host with these addresses should do to get a subnet; ``OutOfSubnets`` if there is none to take.

    Which leases are ours is told by ``own_lease``.  ``previous`` is the subnet we held when we last ran (without it,
    that of ``written``): each half of it that is free and fits is taken again, so a host keeps its IPv4 subnet when
    IPv6 is switched on.
    """
    if previous is None and written is not None:
        previous = written.subnet
    own = own_lease(config, leases, public_ip, public_ipv6, previous=previous, written=written, attrs=attrs)
    if own is not None:
        return _keep(config, own, leases, Attrs(public_ip, public_ipv6))
    taken = [lease.subnet for lease in leases] + list(_named(unreadable))
    ipv4 = ipv6 = None
    why: list[str] = []
    if config.ipv4 is not None:
        nets = [subnet.ipv4 for subnet in taken if subnet.ipv4 is not None]
        hosts = [public_ip, *(lease.attrs.public_ip for lease in leases)]
        number, how = _pick(config.ipv4, nets, hosts, None if previous is None else previous.ipv4, rng)
        ipv4 = IPv4Network((number, config.ipv4.subnet_len))
        why.append(f"{ipv4} {how}")
    if config.ipv6 is not None:
        nets6 = [subnet.ipv6 for subnet in taken if subnet.ipv6 is not None]
        hosts6 = [public_ipv6, *(lease.attrs.public_ipv6 for lease in leases)]
        number, how = _pick(config.ipv6, nets6, hosts6, None if previous is None else previous.ipv6, rng)
        ipv6 = IPv6Network((number, config.ipv6.subnet_len))
        why.append(f"{ipv6} {how}")
    return Take(Subnet(ipv4, ipv6), ", ".join(why))


def own_lease(
    config: NetworkConfig,
    leases: Iterable[Lease],
    public_ip: IPv4Address | None,
    public_ipv6: IPv6Address | None,
    *,
    previous: Subnet | None = None,
    written: Lease | None = None,
    attrs: Attrs | None = None,
) -> Lease | None:
    """The lease that the host with these addresses has, whether or not it fits the network.

    A lease is ours if it bears our address.  If our address changed while we did not run, it bears the former one;
    then it is ours if it is, word for word, what we wrote last (``written``), or if it is about the subnet we held
    (``previous``) and says the backend data which we publish (``attrs``): a VTEP MAC is nobody else's.

    Of several, one that fits comes first, then a reservation for our address, then what we held before, then the oldest
    (by which the others go), then the first in the list, as with Go.
    """
    us = Attrs(public_ip, public_ipv6)
    held = [each for each in (previous, None if written is None else written.subnet) if each is not None]

    def is_ours(lease: Lease) -> bool:
        if bears_our_address(config, lease.attrs, us) or lease == written:
            return True
        return lease.subnet == previous and attrs is not None and _same_backend_data(lease.attrs, attrs)

    def rank(lease: Lease) -> tuple[bool, bool, bool, int]:
        reserved = lease.reservation and bears_our_address(config, lease.attrs, us)
        return not fits(config, lease.subnet), not reserved, lease.subnet not in held, lease.created

    return min(filter(is_ours, leases), key=rank, default=None)


def bears_our_address(config: NetworkConfig, attrs: Attrs, us: Attrs) -> bool:
    """Whether a record names the address of ``us``: the IPv4 one; in a network without IPv4, the IPv6 one."""
    if config.ipv4 is not None:
        return us.public_ip is not None and attrs.public_ip == us.public_ip
    return us.public_ipv6 is not None and attrs.public_ipv6 == us.public_ipv6


def rival(
    config: NetworkConfig, subnet: Subnet, leases: Iterable[Lease], us: Attrs, *, created: int | None = None
) -> Lease | None:
    """A record of another host that overlaps ``subnet`` under another key and is older than ours, which is ``created``.

    Every host goes by that one and leaves ours out (``lease.contest``).  None for ``created``: we have no record, and
    anybody's is older.  Records that never count are nobody's rival.
    """
    for lease in leases:
        if lease.subnet == subnet or not lease.subnet.overlaps(subnet):
            continue
        older = created is None or (lease.created, subnet_name(lease.subnet)) < (created, subnet_name(subnet))
        if older and not bears_our_address(config, lease.attrs, us) and refusal(lease, config) is None:
            return lease
    return None


def _keep(config: NetworkConfig, own: Lease, leases: Iterable[Lease], us: Attrs) -> Reuse | Replace:
    if not fits(config, own.subnet):
        return Replace(own, "does not fit the network configuration any more")
    older = rival(config, own.subnet, leases, us, created=own.created)
    if older is not None:
        whose = older.attrs.public_ip or older.attrs.public_ipv6
        return Replace(own, f"overlaps {older.subnet}, which {whose} leased before us")
    return Reuse(own)


def _same_backend_data(attrs: Attrs, ours: Attrs) -> bool:
    """Whether a record says of the backend what ours does, and that is something of which there are no two."""
    data = (attrs.backend_type, attrs.backend_data, attrs.backend_v6_data)
    return data[1:] != (None, None) and data == (ours.backend_type, ours.backend_data, ours.backend_v6_data)


def fits(config: NetworkConfig, subnet: Subnet) -> bool:
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
    span: Span, taken: Sequence[IPNetwork], hosts: Iterable[IPAddress | None], previous: IPNetwork | None, rng: Lots
) -> tuple[int, str]:
    """The address of the subnet to take in one family, and how it was found."""
    shift = span.network.max_prefixlen - span.subnet_len
    first, last = int(span.subnet_min) >> shift, int(span.subnet_max) >> shift
    # What covers the whole network counts for nobody, and must not keep everybody out.
    nets = (net for net in taken if net.prefixlen > span.network.prefixlen)
    held = [(int(net.network_address) >> shift, _last_address(net) >> shift) for net in nets]
    # A subnet around the address of a host would lead the tunnel to it into itself: every peer would refuse the lease.
    around = (int(host) >> shift for host in hosts if host is not None)
    held += ((block, block) for block in around if first <= block <= last)
    held.sort()
    if previous is not None and _within(span, previous):
        block = int(previous.network_address) >> shift
        if not any(start <= block <= end for start, end in held):
            return block << shift, "is free, and was ours before"
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
