"""A cluster as one host's probes see it, in a time of its own: who answers what, and what gets lost, is set by hand.

world = World(3)
world.run(10)
world.dead.add(world.host(1))
world.run(5)
assert world.troubles() == {"peer-unreachable": [...]}
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from heapq import heappop, heappush
from ipaddress import IPv4Address, IPv4Network

from pyflannel.lease.model import Attrs, Lease, Subnet
from pyflannel.probes.book import Book, Question
from pyflannel.probes.outlook import Line, Outlook
from pyflannel.probes.sight import Sight
from pyflannel.probes.tally import Tally
from pyflannel.probes.track import Means, Path
from pyflannel.probes.wire import Kind, Packet
from pyflannel.state import IPAddress

OWN = Subnet(IPv4Network("10.2.0.0/24"))
HERE = IPv4Address("172.16.0.1")
MTU = 1450
CARRIER = "UDP port 8472"


def subnet(number: int) -> Subnet:
    return Subnet(IPv4Network((int(IPv4Address("10.2.0.0")) + 256 * number, 24)))


def host(number: int) -> IPv4Address:
    return IPv4Address("172.16.0.1") + number


def end(number: int) -> IPv4Address:
    return IPv4Address("10.2.0.0") + 256 * number


@cache
def line(number: int, *, sure: bool = True, carrier: str = CARRIER) -> Line:
    """The peer of that number, in IPv4."""
    there = end(number) if sure else end(number) + 1
    return Line(subnet(number), there, host(number), sure, carrier)


@cache
def lease(number: int, *, on: int | None = None, said: str = "") -> Lease:
    """That of the peer of that number; ``on`` is another one's host, ``said`` anything that its backend may say."""
    return Lease(subnet(number), Attrs(host(number if on is None else on), None, "vxlan", said))


def outlook(*leases: Lease, mtu: int = MTU, sure: bool = True) -> Outlook:
    """Who sees these, and, unless ``sure``, has no device that they would have as well."""
    ends: dict[int, IPAddress] = {4: end(0)} if sure else {}
    peers: dict[IPAddress, Lease] = {
        each.subnet.ipv4.network_address: each for each in leases if each.subnet.ipv4 is not None
    }
    return Outlook(OWN, {4: HERE}, ends, mtu, peers, {4: CARRIER})


def question(run: int, number: int) -> Packet:
    """As an agent asks."""
    return Packet(Kind.QUESTION, 1, run, number)


class World:
    """One ``Book`` and its peers, numbered from 1."""

    def __init__(self, peers: int, *, sure: bool = True, seed: int = 1) -> None:
        """All are well, have agents, and have been heard of just now."""
        self.now, self.latency = 1000.0, 0.001
        self.chance = random.Random(seed)
        self.book = Book(self.chance, run=7)
        self.outlook = outlook(*map(lease, range(1, peers + 1)), sure=sure)
        self.book.look(self.outlook, self.now)
        self.dead: set[IPAddress] = set()
        """Addresses from which nothing comes back."""
        self.without_agent: set[IPAddress] = set()
        """Hosts and ends that speak ICMP alone."""
        self.deaf_for: set[tuple[IPAddress, Means]] = set()
        """Who answers nothing that is asked so."""
        self.answers_lost: set[IPAddress] = set()
        """From there nothing comes back, though questions arrive."""
        self.loss = 0.0
        self.most = 9000
        """Octets of the largest packet that gets through."""
        self.sent: list[tuple[float, Question]] = []
        self.arrived: defaultdict[IPAddress, Tally] = defaultdict(Tally)
        """Which of our questions each address has got."""
        self._under_way: list[tuple[float, int, Callable[[], object]]] = []

    def look(self, *leases: Lease, mtu: int = MTU) -> None:
        """These are the peers now."""
        self.outlook = outlook(*leases, mtu=mtu)
        self.book.look(self.outlook, self.now)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        while self.now < until:
            self.tick()

    def until(self, condition: Callable[[], object], limit: float) -> float:
        """Let time pass until that is so, and say how long it took; ``AssertionError`` if it takes longer."""
        began = self.now
        while not condition():
            assert self.now < began + limit, f"{limit} s have passed: {self.troubles()}"
            self.tick()
        return self.now - began

    def tick(self) -> None:
        """One round."""
        until = self.now + self.book.pause(self.now, self.now)
        while self._under_way and self._under_way[0][0] <= until:
            self.now, _, answer = heappop(self._under_way)
            answer()
        self.now = until
        self.book.expire(self.now)
        for asked in self.book.round(self.now):
            self.sent.append((self.now, asked))
            self._cross(asked)

    def _cross(self, asked: Question) -> None:
        means, size = asked.ask.means, asked.ask.size
        agent = asked.target not in self.without_agent
        if (
            asked.target in self.dead
            or size > self.most
            or (means is Means.OWN and not agent)
            or (asked.target, means) in self.deaf_for
            or self.chance.random() < self.loss
        ):
            return
        if means is Means.OWN and asked.number:
            self.arrived[asked.target].note(self.book.run, asked.number)
        if asked.target in self.answers_lost or self.chance.random() < self.loss:
            return
        heappush(self._under_way, (self.now + self.latency, asked.nonce, lambda: self._answer(asked)))

    def _answer(self, asked: Question) -> None:
        report = None
        if asked.ask.means is Means.OWN:
            number = (int(asked.target) - int(HERE if asked.ask.path is Path.UNDERLAY else end(0))) >> (
                0 if asked.ask.path is Path.UNDERLAY else 8
            )
            over, under = (self.arrived[address].of(self.book.run) for address in (end(number), host(number)))
            report = Packet(Kind.ANSWER, asked.nonce, 7, asked.number, over, under)
        self.book.answered(asked.nonce, asked.ask.means, asked.target, self.now, report)

    def hail(self, number: int, path: Path, count: int = 1) -> None:
        """A question of a peer comes in."""
        self.book.hail(end(number) if path is Path.OVERLAY else host(number), path, question(5, count), self.now)

    def troubles(self) -> dict[str, list[str]]:
        """By code, the subjects."""
        return {kind.code: sorted(texts) for kind, texts in self.book.troubles(self.now).items()}

    def text(self, code: str) -> str:
        """What is said of the only trouble of that kind."""
        found = {kind.code: texts for kind, texts in self.book.troubles(self.now).items()}
        (text,) = found[code].values()
        return text

    def sight(self, number: int) -> Sight:
        """What is known of a peer."""
        return self.book.sights(self.now, self.now)[subnet(number)]
