"""The ways of the overlay's packets across this host, and the rules which each of them has to pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from pyflannel.doctor.checks_network import UNTOUCHED
from pyflannel.doctor.facts import Facts, member, read_network
from pyflannel.firewall import nft
from pyflannel.firewall.verdict import Packet, Verdict, parse, walk
from pyflannel.state import IPAddress, IPNetwork

NATIVE: Final = "nftables"
"""The tables which programs keep there without iptables, all together."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """A way of packets between a container of ours and one elsewhere."""

    packet: Packet
    leaves: bool
    """It goes from here to there."""

    def __str__(self) -> str:
        """For people."""
        ends = ("here", "elsewhere") if self.leaves else ("elsewhere", "here")
        return f"a packet from {self.packet.source} ({ends[0]}) to {self.packet.destination} ({ends[1]})"


def crossings(facts: Facts, family: int) -> Iterator[Crossing]:
    """The ways of one address family, in and out; none where too little is known."""
    network, bridge = facts.network, facts.bridge
    own = next((each for each in facts.subnets if each.version == family), None)
    there = None if own is None else elsewhere(facts, own)
    if network is None or own is None or there is None or network.backend in (None, *UNTOUCHED):
        return
    here = member(own, 2)
    inner = bridge.name if bridge is not None else "docker0"
    for outer in outer_devices(facts, family):
        yield Crossing(Packet(there, here, outer, inner), leaves=False)
        yield Crossing(Packet(here, there, inner, outer), leaves=True)


@dataclass(frozen=True, slots=True)
class Judge:
    """A set of rules that each packet of an address family has to pass."""

    name: str
    """The program by which it is changed, such as ``iptables-legacy``; or ``NATIVE``."""
    family: int
    ask: Callable[[str, str, Packet], Verdict]
    """What becomes of a packet in a table (``filter``) at a hook (``FORWARD``)."""


def judges(facts: Facts) -> Iterator[Judge]:
    """All there are."""
    for tables in facts.tables or ():
        yield Judge(tables.program, tables.family, partial(walk, parse(tables.text)))
    if facts.native:
        yield from (Judge(NATIVE, family, partial(_native, facts.native)) for family in (4, 6))


def _native(tables: tuple[nft.NftTable, ...], table: str, hook: str, packet: Packet) -> Verdict:
    return nft.walk(tables, hook.lower(), packet, "nat" if table == "nat" else "filter")


def undecided(facts: Facts) -> Iterator[str]:
    """What would take packets between containers if it applies, which cannot be told from its rules; for people."""
    for family in (4, 6):
        verdicts = (_native(facts.native or (), "filter", "FORWARD", each.packet) for each in crossings(facts, family))
        doubts = [doubt for verdict in verdicts for doubt in verdict.uncertain]
        if doubts:
            yield f"whether nftables lets pass what is forwarded between containers, which depends on: {doubts[0]}"


def outer_devices(facts: Facts, family: int) -> tuple[str, ...]:
    """By which devices packets of other hosts' containers come."""
    network, tunnels = facts.network, facts.tunnels
    if network is None or tunnels is None:
        return ()
    fit = [name for name in tunnels if ("-v6" in name) == (family == 6)] or list(tunnels)
    beside = [facts.underlay] if facts.underlay is not None and (not tunnels or network.direct) else []
    return (*fit[:1], *beside)


def elsewhere(facts: Facts, own: IPNetwork) -> IPAddress | None:
    """A container elsewhere: of a peer if there is one, else at an end of the network which is not ours."""
    for peer in facts.peers:
        for text in (peer.subnet, peer.ipv6_subnet):
            subnet = read_network(text)
            if subnet is not None and subnet.version == own.version:
                return member(subnet, 2)
    for whole in facts.ranges:
        if whole.version == own.version and whole.prefixlen < own.prefixlen:
            ends = (member(whole, 2), whole[-1])
            return next((each for each in ends if not any(each in mine for mine in (own, *facts.subnets))), None)
    return None
