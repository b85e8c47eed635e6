"""A table of nftables that lets in packets of a vxlan tunnel from known hosts alone.

vxlan authenticates nobody: whoever can send a datagram to the host can put a frame into the overlay.  The table drops
what is addressed to this host, is of our VNI and port, and does not come from the address of a known host; nothing
else, not even the packets of another vxlan network on the same port.  The hosts are sets, so that thousands of them
cost a packet no more than one.

It is a table of our own, so nobody's rules are touched, and one transaction replaces it whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, TypeAlias

from pyflannel.state import IPAddress

PREFIX: Final = "flannel-peers-"
"""What the names of such tables begin with."""
SETS: Final = {4: ("hosts", "ipv4_addr", "ip"), 6: ("hosts6", "ipv6_addr", "ip6")}
"""For each address family: the set's name and type, and what the protocol is called."""
VNI_OFFSET, VNI_BITS = 96, 24
"""Where a VNI is: behind the UDP header of 64 bits, and 32 bits into that of vxlan (RFC 7348 §5)."""
_VOLATILE: Final = frozenset(("handle", "elem", "packets", "bytes"))
JSON: TypeAlias = Mapping[str, "JSON"] | list["JSON"] | str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Tunnel:
    """What packets of a network can be known by."""

    vni: int
    port: int

    @property
    def table(self) -> str:
        """The name of its table."""
        return f"{PREFIX}{self.vni}"


@dataclass(frozen=True, slots=True)
class Listing:
    """What there is of a table."""

    hosts: frozenset[IPAddress]
    rest: str
    """All but the hosts and what changes by itself, in a form that can be compared with an earlier one."""


def build(tunnel: Tunnel, hosts: AbstractSet[IPAddress]) -> str:
    """A script for ``nft -f`` that makes the table, whatever there was of it."""
    sets = "".join(
        f"\tset {name} {{\n\t\ttype {kind}\n{_initial(hosts, version)}\t}}\n"
        for version, (name, kind, _) in SETS.items()
    )
    ours = f"udp dport {tunnel.port} @th,{VNI_OFFSET},{VNI_BITS} {tunnel.vni}"
    rules = "".join(f"\t\t{ours} {protocol} saddr != @{name} counter drop\n" for name, _, protocol in SETS.values())
    hook = "\t\ttype filter hook input priority -150; policy accept;\n"
    return f"{removal(tunnel.table)}table inet {tunnel.table} {{\n{sets}\tchain input {{\n{hook}{rules}\t}}\n}}\n"


def change(tunnel: Tunnel, old: AbstractSet[IPAddress], new: AbstractSet[IPAddress]) -> str:
    """A script that makes of a table with the hosts ``old`` one with ``new``; empty if they are the same."""
    return "".join(
        f"{verb} element inet {tunnel.table} {SETS[version][0]} {{ {elements} }}\n"
        for verb, hosts in (("add", new - old), ("delete", old - new))
        for version in SETS
        if (elements := _elements(hosts, version))
    )


def removal(table: str) -> str:
    """A script after which there is no such table, whether or not there was."""
    return f"add table inet {table}\ndelete table inet {table}\n"


def read(text: str) -> Listing:
    """What ``nft -j list table`` printed; ``ValueError`` if it is nothing of the kind."""
    try:
        entries = json.loads(text)["nftables"]
        found = (element for entry in entries for element in entry.get("set", {}).get("elem", ()))
        hosts = frozenset(ip_address(element) for element in found)
        rest = json.dumps([_steady(entry) for entry in entries if "metainfo" not in entry], sort_keys=True)
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"not a listing of nft: {exc!r}") from None
    return Listing(hosts, rest)


def _initial(hosts: Iterable[IPAddress], version: int) -> str:
    elements = _elements(hosts, version)
    return f"\t\telements = {{ {elements} }}\n" if elements else ""


def _elements(hosts: Iterable[IPAddress], version: int) -> str:
    return ", ".join(str(host) for host in sorted(_of(hosts, version), key=int))


def _of(hosts: Iterable[IPAddress], version: int) -> Iterator[IPAddress]:
    return (host for host in hosts if host.version == version)


def _steady(value: JSON) -> JSON:
    if isinstance(value, Mapping):
        return {key: _steady(each) for key, each in value.items() if key not in _VOLATILE}
    return [_steady(each) for each in value] if isinstance(value, list) else value
