"""Who reaches whom: which hosts are shown, and what each of them says of the others.  Pure.

Rules of this file
  1. A row is what one host says.  Nothing that another says alters it, and nothing in it alters anything else.
  2. Who is shown stays: a peer that was in trouble keeps its place when it is well again, and gives way only to one
     that is in trouble now.
  3. Every row has the time it was told, and one that is missing says why.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from typing import Final, TypeAlias

from pyflannel.lease.model import Subnet
from pyflannel.probes import rows
from pyflannel.probes.rows import MOST, BadRow, Cell, How
from pyflannel.probes.sight import Reach
from pyflannel.telemetry.document import Document, PeerPart, State

Name: TypeAlias = tuple[str | None, str | None]
"""A host by its subnets, as the status document has them."""

NOT_ASKED: Final = "not asked yet"
SILENT: Final = "no answer comes"
OTHERWISE: Final = "its answer is not understood"
"""Why a host does not tell."""

TROUBLED: Final = frozenset((State.UNREACHABLE, State.FAILED, State.LOSSY))
_REACH: Final[Mapping[str, Reach]] = {
    State.REACHABLE: Reach.REACHED,
    State.LOSSY: Reach.LOSSY,
    State.UNREACHABLE: Reach.LOST,
    # Without what the kernel did not take, nothing comes through.
    State.FAILED: Reach.LOST,
}


@dataclass(frozen=True, slots=True)
class Row:
    """What one host says of others."""

    cells: Mapping[Name, Cell] = field(default_factory=dict)
    at: float | None = None
    """Unix time at which it was told; None: as of now, or never."""
    why: str = ""
    """Why there are no cells, in a few words; empty where it has told."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """All rows that are known."""

    hosts: tuple[Name, ...] = ()
    """In the order of their subnets; none where there are no peers."""
    of: int = 0
    """How many hosts there are in all."""
    rows: Mapping[Name, Row] = field(default_factory=dict)
    """Who is missing has not been asked yet."""

    def row(self, host: Name) -> Row:
        """What that host says."""
        return self.rows.get(host) or Row(why=NOT_ASKED)


def name(of: PeerPart) -> Name:
    """That of a peer."""
    return of.subnet, of.ipv6_subnet


def own_name(document: Document) -> Name:
    """That of this host; two times None while it has no lease."""
    return document.lease.subnet, document.lease.ipv6_subnet


def hosts(document: Document, before: Collection[Name] = ()) -> tuple[Name, ...]:
    """Who is shown: this host and up to 31 peers, in the order of their subnets; ``before`` is who was until now."""
    own = own_name(document)
    if not document.peers or own == (None, None):
        return ()
    return tuple(sorted((own, *_chosen(document.peers, before)), key=_place))


def own_row(document: Document, shown: Iterable[Name]) -> Row:
    """What this host sees of those who are shown."""
    wanted = set(shown)
    cells = {name(peer): _seen(peer) for peer in document.peers if name(peer) in wanted}
    return Row({own_name(document): Cell(How.ITSELF), **cells})


def question(shown: Sequence[Name]) -> bytes:
    """What a peer is asked, so that it can tell its row of those who are shown."""
    return rows.question([found for each in shown if (found := subnet(each)) is not None])


def told(raw: bytes, shown: Sequence[Name], at: float) -> Row:
    """The row in an answer to ``question(shown)``, whatever the answer is."""
    asked = [each for each in shown if subnet(each) is not None]
    try:
        cells = rows.read_answer(raw)
    except BadRow:
        return Row(why=OTHERWISE)
    return Row(dict(zip(asked, cells, strict=True)), at) if len(asked) == len(cells) else Row(why=OTHERWISE)


def subnet(of: Name) -> Subnet | None:
    """The subnet that has this name; None where it is the name of none."""
    ipv4, ipv6 = of
    try:
        return Subnet(None if ipv4 is None else IPv4Network(ipv4), None if ipv6 is None else IPv6Network(ipv6))
    except ValueError:
        return None


def _chosen(peers: Sequence[PeerPart], before: Collection[Name]) -> list[Name]:
    if len(peers) < MOST:
        return [name(peer) for peer in peers]
    was = set(before)
    ranks: tuple[list[Name], ...] = ([], [], [], [])
    for peer in peers:
        each = name(peer)
        ranks[(0 if peer.state in TROUBLED else 2) + (each not in was)].append(each)
    chosen: list[Name] = []
    for rank in ranks:
        room = MOST - 1 - len(chosen)
        # Sorted only where there is a choice: there may be thousands.
        chosen += sorted(rank, key=_place)[:room] if room and len(rank) > room else rank[:room]
    return chosen


def _place(of: Name) -> tuple[int, bytes, str]:
    for text in of:
        try:
            if text:
                address = text.partition("/")[0]
                # There may be thousands, and IPv4Address takes twice as long.
                known = IPv6Address(address).packed if ":" in address else bytes(map(int, address.split(".")))
                return len(known), known, ""
        except ValueError:
            pass
    return 99, b"", str(of)


def _seen(peer: PeerPart) -> Cell:
    if peer.state == State.IGNORED:
        return Cell(How.STRANGER)
    return rows.seen(_REACH.get(peer.state, Reach.UNKNOWN), peer.reason, peer.rtt, peer.loss)
