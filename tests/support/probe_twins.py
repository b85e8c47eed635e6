"""Two hosts that ask each other, in a time of their own: what gets lost between them is set by hand.

twins = Twins(seed=1)
twins.run(10)
twins.shut.add((0, Path.OVERLAY))
twins.until(lambda: twins.codes(0) == {"one-way"}, 5.0)
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from ipaddress import IPv4Address, IPv4Network

from pyflannel.lease.model import Attrs, Lease, Subnet
from pyflannel.probes.book import Book, Question
from pyflannel.probes.outlook import Outlook
from pyflannel.probes.schedule import TICK
from pyflannel.probes.track import Means, Path
from pyflannel.probes.wire import Arrivals, Kind, Packet
from pyflannel.state import IPAddress

SUBNETS = tuple(Subnet(IPv4Network(f"10.2.{number}.0/24")) for number in (1, 2))
HOSTS = tuple(IPv4Address(f"172.16.0.{number}") for number in (1, 2))
ENDS = tuple(IPv4Address(f"10.2.{number}.0") for number in (1, 2))
MTU = 1450
LATENCY = {Path.OVERLAY: 0.0012, Path.UNDERLAY: 0.001}
"""Seconds.  Who goes through the tunnel is overtaken by who goes beside it."""


@dataclass(slots=True)
class _Twin:
    """One of the two."""

    book: Book
    wake: float
    """When it has its next look at what is to be done."""


@dataclass(slots=True)
class Twins:
    """Both, numbered 0 and 1."""

    seed: int = 1
    most: int = 9000
    """Octets of the largest packet that gets through the overlay."""
    shut: set[tuple[int, Path]] = field(default_factory=set)
    """From whom nothing gets out, by which way."""
    now: float = 1000.0
    said: list[tuple[float, int, frozenset[str]]] = field(default_factory=list)
    """Every change of what each says."""
    _twins: tuple[_Twin, ...] = ()
    _under_way: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _sent: int = 0

    def __post_init__(self) -> None:
        """Both begin at about the same time, and are well."""
        chance = random.Random(self.seed)
        twins = []
        for number in (0, 1):
            other = 1 - number
            book = Book(random.Random(chance.random()), run=number + 7)
            peers: dict[IPAddress, Lease] = {ENDS[other]: Lease(SUBNETS[other], Attrs(HOSTS[other]))}
            hosts: dict[int, IPAddress] = {4: HOSTS[number]}
            outlook = Outlook(SUBNETS[number], hosts, {4: ENDS[number]}, MTU, peers, {4: "UDP port 8472"})
            book.look(outlook, self.now)
            twins.append(_Twin(book, self.now + TICK * chance.random()))
        self._twins = tuple(twins)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        while self.now < until:
            self._step()

    def until(self, condition: Callable[[], object], limit: float) -> float:
        """Let time pass until that is so, and say how long it took; ``AssertionError`` if it takes longer."""
        began = self.now
        while not condition():
            assert self.now < began + limit, f"{limit} s have passed: {self.codes(0)} and {self.codes(1)}"
            self._step()
        return self.now - began

    def codes(self, number: int) -> frozenset[str]:
        """What one of them says, by code."""
        return frozenset(kind.code for kind, texts in self._twins[number].book.troubles(self.now).items() if texts)

    def _step(self) -> None:
        twin = min(self._twins, key=lambda each: each.wake)
        if self._under_way and self._under_way[0][0] <= twin.wake:
            self.now, _, arrive = heappop(self._under_way)
            arrive()
        else:
            self.now = twin.wake
            self._look(twin)
        for number in (0, 1):
            last = next((codes for _, who, codes in reversed(self.said) if who == number), frozenset())
            if (codes := self.codes(number)) != last:
                self.said.append((self.now, number, codes))

    def _look(self, twin: _Twin) -> None:
        twin.book.expire(self.now)
        self._round(twin)
        twin.wake = self.now + twin.book.pause(self.now, self.now)

    def _round(self, twin: _Twin) -> None:
        for question in twin.book.round(self.now):
            self._ask(self._twins.index(twin), question)

    def _ask(self, sender: int, question: Question) -> None:
        ask, other = question.ask, 1 - sender

        def arrive() -> None:
            source: IPAddress = (ENDS if ask.path is Path.OVERLAY else HOSTS)[sender]
            report: tuple[Arrivals, Arrivals] | None = None
            if ask.means is Means.OWN:
                asked = Packet(Kind.QUESTION, question.nonce, self._twins[sender].book.run, question.number)
                report = self._twins[other].book.hail(source, ask.path, asked, self.now)
                assert report is not None
                if ask.path is Path.UNDERLAY:
                    self._round(self._twins[other])
            self._carry(other, ask.path, ask.size if ask.means is Means.ECHO else 0, lambda: answer(report))

        def answer(report: tuple[Arrivals, Arrivals] | None) -> None:
            said = None if report is None else Packet(Kind.ANSWER, question.nonce, 0, question.number, *report)
            self._twins[sender].book.answered(question.nonce, ask.means, question.target, self.now, said)

        self._carry(sender, ask.path, ask.size, arrive)

    def _carry(self, sender: int, path: Path, size: int, arrive: Callable[[], None]) -> None:
        if (sender, path) in self.shut or (path is Path.OVERLAY and size > self.most):
            return
        self._sent += 1
        heappush(self._under_way, (self.now + LATENCY[path], self._sent, arrive))
