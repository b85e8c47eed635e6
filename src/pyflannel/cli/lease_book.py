"""What the store says of a network's leases, judged as an agent would judge it, for ``flannelctl leases``.

Nothing is read or written here: snapshots and addresses come in, findings go out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

from pyflannel import backends
from pyflannel.backends.api import Backend, Refused, View
from pyflannel.host import Underlay
from pyflannel.lease.contest import Contest
from pyflannel.lease.model import Attrs, Lease, Snapshot, Subnet, Unreadable
from pyflannel.lease.network import ConfigError, IPv4Range, IPv6Range, NetworkConfig, parse_network_config
from pyflannel.lease.refusal import refusal, self_reference
from pyflannel.lease.wire import BadRecord, parse_subnet_name, subnet_name

EXAMPLE: Final = "10.2.71.0/24"
_NOWHERE: Final = Underlay("", 0, 0, None, None, None, None, "")
"""Whoever looks at a list may sit on any machine."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One lease."""

    lease: Lease
    here: bool = False
    """It is this host's: what it publishes is one of our addresses."""
    fault: str = ""
    """Why agents leave it out; empty if they do not."""


@dataclass(frozen=True, slots=True)
class Book:
    """All leases of a network, by address."""

    entries: tuple[Entry, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
    config: NetworkConfig | None = None
    remarks: tuple[str, ...] = ()
    """What keeps us from judging as an agent would."""

    def find(self, subnet: Subnet) -> Entry | None:
        """The lease of that subnet; half a name will do where a lease has both address families."""
        return next((entry for entry in self.entries if _names(subnet, entry.lease.subnet)), None)

    def unreadable_at(self, subnet: Subnet) -> Unreadable | None:
        """The record of that subnet which cannot be read."""
        return next((record for record in self.unreadable if _names(subnet, _subnet_of(record))), None)

    def held_by(self, host: IPv4Address | IPv6Address) -> Entry | None:
        """A lease of the host with that address."""
        return next((entry for entry in self.entries if _host(entry.lease.attrs) == host), None)


def open_book(snapshot: Snapshot, addresses: Iterable[IPv4Address | IPv6Address]) -> Book:
    """Judge what the store holds, on a host that has ``addresses``."""
    mine = frozenset(addresses)
    entries = [Entry(lease, here=_host(lease.attrs) in mine) for lease in snapshot.leases]
    entries.sort(key=lambda entry: _place(entry.lease.subnet))
    config: NetworkConfig | None = None
    faults: dict[Subnet, str] = {}
    remarks: tuple[str, ...] = ()
    try:
        config = parse_network_config(snapshot.config)
        own = next((lease for lease in snapshot.leases if _host(lease.attrs) in mine), None)
        faults = _faults(config, backends.from_config(config), snapshot.leases, own)
    except ConfigError as error:
        reason = str(error) if snapshot.config else "there is no network configuration"
        remarks = (f"which subnets and leases are of use cannot be told: {reason}",)
    judged = (replace(entry, fault=faults.get(entry.lease.subnet, "")) for entry in entries)
    return Book(tuple(judged), snapshot.unreadable, config, remarks)


def parse_subnet(text: str) -> Subnet:
    """A subnet as people write it, or as it is in keys; ``ValueError`` if it is neither.

    ``10.2.71.0/24``, ``10.2.71.1/24`` as in subnet.env, ``10.2.71.0-24``, both families with a comma between them.
    """
    if "-" in text:
        return parse_subnet_name(text)
    nets = [_net(part.strip()) for part in text.replace(" and ", ",").replace("&", ",").split(",")]
    ipv4 = [net for net in nets if isinstance(net, IPv4Network)]
    ipv6 = [net for net in nets if isinstance(net, IPv6Network)]
    if len(ipv4) > 1 or len(ipv6) > 1:
        raise ValueError("expected one subnet of each address family at most")
    return Subnet(next(iter(ipv4), None), next(iter(ipv6), None))


def objection(book: Book, subnet: Subnet, attrs: Attrs) -> str | None:
    """Why ``subnet``, for which there is no record, cannot be reserved for the host in ``attrs``; None if it can."""
    config = book.config
    if config is None:
        return "; ".join(book.remarks)
    misfit = _misfit("IPv4", config.ipv4, subnet.ipv4) or _misfit("IPv6", config.ipv6, subnet.ipv6)
    if misfit is not None:
        return misfit
    taken = [entry.lease.subnet for entry in book.entries]
    taken += [named for record in book.unreadable if (named := _subnet_of(record)) is not None]
    if (other := next(filter(subnet.overlaps, taken), None)) is not None:
        return f"it overlaps {other}, which is taken"
    if config.ipv4 is not None:
        if attrs.public_ip is None:
            return "its host must be named by an IPv4 address: by that it finds its subnet"
        # The host adds its IPv6 address when it comes.
        config = replace(config, ipv6=None)
    elif attrs.public_ipv6 is None:
        return "its host must be named by an IPv6 address: by that it finds its subnet"
    flaw = refusal(Lease(subnet, attrs), config)
    return None if flaw is None else f"it {flaw}"


def _faults(config: NetworkConfig, backend: Backend, leases: Iterable[Lease], own: Lease | None) -> dict[Subnet, str]:
    """Which leases have no effect on the agent whose lease is ``own``, and why (see ``pyflannel.network``)."""
    contest = Contest(None if own is None else own.subnet)
    ours = () if own is None else (own.attrs.public_ip, own.attrs.public_ipv6)
    faults: dict[Subnet, str] = {}
    for lease in leases:
        flaw = refusal(lease, config) or (None if lease is own else self_reference(lease, ours))
        if flaw is not None:
            faults[lease.subnet] = flaw
        else:
            contest.put(lease, backend.claims(lease))
    faults |= {loss.lease.subnet: loss.reason for loss in contest.losses()}
    for lease in contest.winners():
        try:
            backend.peer_items(View(config, _NOWHERE, (own or lease).subnet), lease)
        except Refused as refused:
            faults[lease.subnet] = str(refused)
    return faults


def _misfit(family: str, span: IPv4Range | IPv6Range | None, net: IPv4Network | IPv6Network | None) -> str | None:
    """What is wrong with one half of a subnet in this network: a host would give it back."""
    if span is None or net is None:
        if span is not None:
            return f"the network has an {family} range, {span.network}, so name an {family} subnet too, after a comma"
        return None if net is None else f"the network has no {family}"
    if net.network_address not in span.network or net.prefixlen < span.network.prefixlen:
        return f"it lies outside the network {span.network}"
    if net.prefixlen != span.subnet_len:
        return f"it does not fit: IPv{net.version} subnets here have the prefix length {span.subnet_len}"
    if not int(span.subnet_min) <= int(net.network_address) <= int(span.subnet_max):
        return f"it does not fit: IPv{net.version} subnets here begin from {span.subnet_min} to {span.subnet_max}"
    return None


def _net(text: str) -> IPv4Network | IPv6Network:
    if "/" not in text or "%" in text:
        raise ValueError("expected an address, a slash and a prefix length")
    return ip_network(text, strict=False)


def _names(wanted: Subnet, subnet: Subnet | None) -> bool:
    return subnet is not None and wanted.ipv4 in (None, subnet.ipv4) and wanted.ipv6 in (None, subnet.ipv6)


def _subnet_of(record: Unreadable) -> Subnet | None:
    try:
        return parse_subnet_name(record.key)
    except BadRecord:
        return None


def _host(attrs: Attrs) -> IPv4Address | IPv6Address | None:
    return attrs.public_ip or attrs.public_ipv6


def _place(subnet: Subnet) -> tuple[int, int, str]:
    first = subnet.ipv4 or subnet.ipv6
    assert first is not None
    return first.version, int(first.network_address), subnet_name(subnet)
