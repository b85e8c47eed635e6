"""The table of the forwarder: which networks lead to which peers, and who may send to us."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

from pyflannel.tunnel.counters import Counters
from pyflannel.tunnel.routes import Network, Routes


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the datagrams of a peer go: its public address, and the port all nodes share."""

    address: IPv4Address
    port: int


class Peer:
    """An endpoint in use, with its counters; there is one for each, compared by identity."""

    __slots__ = ("address", "counters", "endpoint", "socket_address")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.address = int(endpoint.address)
        self.socket_address = (str(endpoint.address), endpoint.port)
        """As sockets want it."""
        self.counters = Counters()


class Table:
    """Routes to peers, and the peers by address.

    A new table is filled beside the one in use, however long that takes, and put in its place by one assignment.
    """

    def __init__(self, before: Table | None = None) -> None:
        """Empty; a peer that ``before`` has too keeps its counters."""
        self._before = {} if before is None else {peer.endpoint: peer for peer in before.peers}
        self._routes: Routes[Peer] = Routes()
        self._peers: dict[Endpoint, Peer] = {}
        self._uses: dict[Endpoint, int] = {}
        self._senders: dict[int, Peer] = {}
        self.find = self._routes.find
        """The peer that has an inner address, by IP version and address; None if none has."""
        self.sender = self._senders.get
        """The peer with this outer address; None if there is none."""

    def __len__(self) -> int:
        return len(self._routes)

    def routes(self, first: int, count: int) -> Iterable[tuple[Network, Endpoint]]:
        """Some of all, in an order that stays as it is until the table changes."""
        return ((network, peer.endpoint) for network, peer in self._routes.items(first, count))

    @property
    def peers(self) -> Iterable[Peer]:
        """All that a route leads to, in the order in which they came."""
        return self._peers.values()

    def add(self, network: Network, endpoint: Endpoint) -> None:
        """``network`` leads to ``endpoint``, whatever it led to before."""
        self.remove(network)
        peer = self._peers.get(endpoint)
        if peer is None:
            peer = self._peers[endpoint] = self._before.get(endpoint) or Peer(endpoint)
            self._uses[endpoint] = 0
            self._senders[peer.address] = peer
        self._uses[endpoint] += 1
        self._routes.add(network, peer)

    def remove(self, network: Network) -> None:
        """``network`` leads nowhere; a peer to which nothing leads is forgotten, and its counters with it."""
        peer = self._routes.remove(network)
        if peer is None:
            return
        self._uses[peer.endpoint] -= 1
        if self._uses[peer.endpoint]:
            return
        del self._uses[peer.endpoint], self._peers[peer.endpoint]
        if self._senders[peer.address] is peer:
            del self._senders[peer.address]
            # The same host may be a peer on another port too.
            self._senders.update({one.address: one for one in self.peers if one.address == peer.address})

    def sealed(self) -> Table:
        """Itself, no longer holding on to the peers of the table before."""
        self._before = {}
        return self
