"""Asking the peers, and answering them: the part with sockets and a clock.

Rules of this file
  1. Nothing that comes in, and nothing that the kernel refuses, ends this task: what cannot be done now is a condition
     or a miss, and is tried again.
  2. Whoever is no peer gets no answer.  A datagram belongs to a peer if it comes from its end of the overlay or from
     its host; it has come through the overlay if it was for an address of our subnet.
  3. What has come in is read before anything is given up, so that a host that was busy finds nobody at fault for it.
  4. No more is read in a tick than ``INTAKE``: a flood costs us answers, not the agent.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Final, NoReturn

from pyflannel.conditions import PROBE_PORT_TAKEN
from pyflannel.health import Health
from pyflannel.health import Kind as HealthKind
from pyflannel.lease.model import Subnet
from pyflannel.probes import echo, wire
from pyflannel.probes.book import Book, Chance, Question
from pyflannel.probes.errands import Answerer, Errands, NoAnswer
from pyflannel.probes.outlook import Outlook
from pyflannel.probes.schedule import TICK
from pyflannel.probes.sight import Sight
from pyflannel.probes.sockets import Port, Received
from pyflannel.probes.summary import KINDS
from pyflannel.probes.track import UDP_HEADERS, Means, Path
from pyflannel.probes.wire import BadPacket, Kind, Packet
from pyflannel.state import IPAddress

log = logging.getLogger(__name__)

LOOK_EVERY: Final = 1.0
"""Seconds between two looks at who the peers are, at least."""
OPEN_EVERY: Final = 3.0
"""Seconds between attempts to open a socket."""
INTAKE: Final = 256
"""Datagrams in a tick."""
TOLD_ONE_BY_ONE: Final = 20
"""Troubles that are over, of one kind at once."""


class Prober:
    """Knows which peers answer, once it runs."""

    def __init__(
        self,
        outlook: Callable[[Outlook | None], Outlook],
        port: int,
        health: Health,
        answer: Answerer | None = None,
        now: Callable[[], float] = time.time,
        chance: Chance | None = None,
    ) -> None:
        """Nobody is asked yet.

        ``outlook`` says who the peers are, given what it said before; ``port`` is the UDP port of all agents;
        ``answer`` takes what peers ask by ``ask``, and must raise nothing but ``ValueError`` and ``OSError``.
        """
        self._outlook, self._port, self._health, self._now = outlook, port, health, now
        chance = chance or random.SystemRandom()
        self._seen: Outlook | None = None
        self._stale, self._looked, self._opened = True, -LOOK_EVERY, -OPEN_EVERY
        self._chance = chance
        self._book = Book(chance, run=chance.getrandbits(32) | 1)
        self._errands = Errands(answer)
        self._udp: dict[int, Port] = {}
        self._icmp: dict[int, Port] = {}
        self._deaf: set[int] = set()
        """ICMP of these families is not for us."""
        self._full: list[tuple[Port, Callable[[Port, Received], None]]] = []
        """Sockets that are not listened to any more in this tick."""
        self._left = INTAKE
        self._told: dict[HealthKind, set[str]] = {}
        self._stir = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None

    def update(self) -> None:
        """The peers, or our own addresses, may be others than before."""
        self._stale = True
        self._stir.set()

    def stir(self) -> None:
        """Something was put right here, which may be what kept peers from us."""
        self._book.stir(asyncio.get_running_loop().time())

    def sights(self, of: Iterable[Subnet] | None = None) -> dict[Subnet, Sight]:
        """What is known of each peer, or of those of ``of`` that are peers."""
        return self._book.sights(asyncio.get_running_loop().time(), self._now(), of)

    async def ask(self, subnet: Subnet, question: bytes) -> bytes:
        """What the agent of a peer answers to ``question``; ``NoAnswer`` if it does not.

        Both have at most 1200 octets, else ``ValueError``.  It takes three seconds at most.
        """
        ways = tuple(self._ways(subnet))
        if not ways:
            raise NoAnswer(f"there is no peer {subnet}, or no way to ask it at the moment")
        return await self._errands.ask(self._chance.getrandbits(64), question, ways)

    async def run(self) -> NoReturn:
        """Ask and answer, until cancelled."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                while True:
                    self._step(asyncio.get_running_loop().time())
                    await self._pause()
        finally:
            self._tasks = None
            self._close()
        raise AssertionError("nothing ends this but being cancelled")

    async def _pause(self) -> None:
        if not self._book.empty:
            await asyncio.sleep(self._book.pause(asyncio.get_running_loop().time(), self._now()))
            return
        self._stir.clear()
        if not self._stale:
            with suppress(TimeoutError):
                async with asyncio.timeout(OPEN_EVERY):
                    await self._stir.wait()
        await asyncio.sleep(TICK)

    def _step(self, now: float) -> None:
        if self._stale and now - self._looked >= LOOK_EVERY:
            self._look(now)
        if now - self._opened >= OPEN_EVERY:
            self._open(now)
        self._read_all()
        self._book.expire(now)
        self._ask(now)
        if self._book.news(now):
            self._tell(now)

    def _ask(self, now: float) -> None:
        for question in self._book.round(now):
            self._send(question, now)

    def _look(self, now: float) -> None:
        self._stale, self._looked = False, now
        self._seen = self._outlook(self._seen)
        self._book.look(self._seen, now)
        if self._versions() - self._udp.keys():
            self._opened = now - OPEN_EVERY

    def _versions(self) -> set[int]:
        """The address families that there is somebody to ask in."""
        seen = self._seen
        return set() if seen is None else {*seen.host, *seen.ends, *(network.version for network in seen.networks)}

    def _open(self, now: float) -> None:
        """Open what is not open yet."""
        self._opened = now
        taken: list[str] = []
        for version in sorted(self._versions()):
            if version not in self._udp:
                try:
                    self._listen(self._udp, version, Port(version, self._port), self._heard)
                except OSError as exc:
                    taken.append(f"UDP port {self._port} of IPv{version}: {_explain(exc)}")
            if version not in self._icmp and version not in self._deaf:
                try:
                    self._listen(self._icmp, version, Port(version, None), self._echoed)
                except OSError as exc:
                    self._deaf.add(version)
                    log.info("Hosts without this agent cannot be asked: ICMP of IPv%d: %s", version, exc)
        self._book.own, self._book.echo = frozenset(self._udp), frozenset(self._icmp)
        if taken:
            self._health.set(PROBE_PORT_TAKEN, f"other agents cannot be asked our own way: {'; '.join(taken)}")
        else:
            self._health.clear(PROBE_PORT_TAKEN, said=f"Other agents are asked on UDP port {self._port} now")

    def _listen(self, ports: dict[int, Port], version: int, port: Port, take: Callable[[Port, Received], None]) -> None:
        ports[version] = port
        asyncio.get_running_loop().add_reader(port, self._read, port, take)

    def _read(self, port: Port, take: Callable[[Port, Received], None]) -> None:
        batch = port.receive(self._left)
        self._left -= len(batch)
        for received in batch:
            take(port, received)
        if self._left <= 0 and (port, take) not in self._full:
            # A flood: the rest waits for the next tick, or is lost.
            asyncio.get_running_loop().remove_reader(port)
            self._full.append((port, take))

    def _read_all(self) -> None:
        self._left = INTAKE
        for port, take in self._full:
            asyncio.get_running_loop().add_reader(port, self._read, port, take)
        self._full.clear()
        for port in self._icmp.values():
            self._read(port, self._echoed)
        for port in self._udp.values():
            self._read(port, self._heard)

    def _heard(self, port: Port, received: Received) -> None:
        """A datagram of an agent, perhaps."""
        with suppress(BadPacket, OSError):
            self._take(port, received, wire.decode(received.data))

    def _take(self, port: Port, received: Received, packet: Packet) -> None:
        now = asyncio.get_running_loop().time()
        match packet.kind:
            case Kind.QUESTION:
                self._answer(port, received, packet, now)
            case Kind.ANSWER:
                self._book.answered(packet.nonce, Means.OWN, received.source, now, packet)
            case Kind.ERRAND:
                known = self._book.whose(received.source) is not None
                if known and self._tasks is not None and self._errands.welcome(packet, len(received.data)):
                    deliver = partial(
                        port.send, target=received.source, source=received.destination, port=received.port
                    )
                    self._tasks.create_task(self._errands.serve(packet, deliver), name="question of a peer")
            case Kind.RESULT:
                self._errands.result(packet, received.source)

    def _answer(self, port: Port, received: Received, packet: Packet, now: float) -> None:
        path = Path.OVERLAY if self._is_ours(received) else Path.UNDERLAY
        report = self._book.hail(received.source, path, packet, now)
        if report is None:
            return
        answer = Packet(Kind.ANSWER, packet.nonce, packet.run, packet.number, *report)
        port.send(wire.encode(answer), received.source, received.destination, received.port)
        if path is Path.UNDERLAY:
            # Whoever asks beside the overlay may want to hear from us through it, before it makes up its mind.
            self._ask(now)

    def _is_ours(self, received: Received) -> bool:
        seen, destination = self._seen, received.destination
        return seen is not None and destination is not None and any(destination in net for net in seen.networks)

    def _echoed(self, _port: Port, received: Received) -> None:
        """An answer to ICMP echo, ours or somebody else's."""
        nonce = echo.reply(received.source.version, received.data)
        if nonce is not None:
            self._book.answered(nonce, Means.ECHO, received.source, asyncio.get_running_loop().time())

    def _send(self, question: Question, now: float) -> None:
        version, means = question.target.version, question.ask.means
        size = question.ask.size - UDP_HEADERS[version]
        port = (self._udp if means is Means.OWN else self._icmp).get(version)
        if port is None:
            self._book.refused(question.nonce, f"no socket for IPv{version}", now)
            return
        if means is Means.OWN:
            packet = Packet(Kind.QUESTION, question.nonce, self._book.run, question.number)
            data = wire.encode(packet, max(size, wire.SHORTEST))
        else:
            data = echo.request(version, question.nonce, self._book.run, question.number, size + echo.HEADER)
        try:
            port.send(data, question.target, question.source)
        except OSError as exc:
            self._book.refused(question.nonce, exc.strerror or str(exc), now)

    def _ways(self, subnet: Subnet) -> Iterator[tuple[IPAddress, Callable[[bytes], None]]]:
        """How a peer can be asked in words: beside the overlay first, which may be what the question is about."""
        seen = self._seen
        if seen is None:
            return
        for line in map(seen.line, seen.keys(subnet)):
            for target, sources in ((line.host, seen.host), (line.end, seen.ends)):
                if target is not None and (port := self._udp.get(target.version)) is not None:
                    yield target, partial(port.send, target=target, source=sources.get(target.version))

    def _tell(self, now: float) -> None:
        """The conditions there are, and which are over."""
        troubles = self._book.troubles(now)
        for kind in KINDS:
            texts = troubles.get(kind, {})
            over = self._told.get(kind, set()) - texts.keys()
            if len(over) <= TOLD_ONE_BY_ONE:
                for subject in over:
                    self._health.clear(kind, subject, said=f"{subject or 'This host'}: {kind.code} is over")
            self._health.set_all(kind, texts)
            self._told[kind] = set(texts)

    def _close(self) -> None:
        loop = asyncio.get_running_loop()
        for port in (*self._udp.values(), *self._icmp.values()):
            loop.remove_reader(port)
            port.close()
        self._udp.clear()
        self._icmp.clear()


def _explain(exc: OSError) -> str:
    return "another program has it" if exc.errno == errno.EADDRINUSE else exc.strerror or str(exc)
