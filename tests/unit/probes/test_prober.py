"""A prober on the loopback device that is its own peer; what it says of faults is tested with the book."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from pyflannel.health import Health
from pyflannel.lease.model import Attrs, Lease, Subnet
from pyflannel.probes.errands import NoAnswer
from pyflannel.probes.outlook import Outlook
from pyflannel.probes.prober import INTAKE, Prober
from pyflannel.probes.sight import Reach
from pyflannel.probes.wire import LARGEST_ERRAND, Kind, Packet, decode, encode
from tests.support.loops import run
from tests.support.udp_ports import free_udp_port

HOST, END, STRANGER = IPv4Address("127.0.0.2"), IPv4Address("127.1.0.0"), "127.0.0.9"
OWN = Subnet(IPv4Network("127.1.0.0/24"))
MIRROR = Outlook(OWN, {4: HOST}, {4: END}, 1450, {END: Lease(OWN, Attrs(HOST))}, {4: "UDP port 8472"})
"""The peer has all the addresses that we have."""


def question(nonce: int, number: int = 1) -> bytes:
    return encode(Packet(Kind.QUESTION, nonce, 77, number))


async def backwards(words: bytes) -> bytes:
    return words[::-1]


class Stage:
    """A prober that runs, and what it is told."""

    def __init__(self, outlook: Outlook = MIRROR) -> None:
        self.port, self.health, self.outlook = free_udp_port(), Health(), outlook
        self.prober = Prober(lambda _: self.outlook, self.port, self.health, backwards)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self.prober.run())
            yield
            task.cancel()

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():  # noqa: ASYNC110 - what changes is in the prober, which sets no asyncio.Event
            await asyncio.sleep(0.01)

    def reach(self) -> Reach:
        return self.prober.sights()[OWN].reach if self.prober.sights() else Reach.UNKNOWN

    def codes(self) -> list[str]:
        return [each.kind.code for each in self.health.present()]

    async def exchange(self, *datagrams: bytes, target: IPv4Address = HOST) -> Packet:
        """What comes back first to a peer that sends these, one after another."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind((str(HOST), 0))
            peer.setblocking(False)
            for data in datagrams:
                peer.sendto(data, (str(target), self.port))
            return decode(await asyncio.get_running_loop().sock_recv(peer, 2048))


def play(scenario: Callable[[Stage], Awaitable[None]], outlook: Outlook = MIRROR) -> None:
    async def staged() -> None:
        stage = Stage(outlook)
        async with stage.running():
            await scenario(stage)

    run(staged())


def test_a_peer_that_is_there_is_reached() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.until(lambda: stage.reach() is Reach.REACHED)
        sight = stage.prober.sights()[OWN]
        assert sight.rtt is not None
        assert stage.codes() == []

    play(scenario)


def test_a_question_in_words_is_answered_by_the_peer() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.until(lambda: stage.reach() is Reach.REACHED)
        assert await stage.prober.ask(OWN, b"drawer") == b"reward"
        with pytest.raises(NoAnswer, match=r"no peer 10\.9\.0\.0/24"):
            await stage.prober.ask(Subnet(IPv4Network("10.9.0.0/24")), b"?")
        with pytest.raises(ValueError, match="at most 1200"):
            await stage.prober.ask(OWN, bytes(1201))

    play(scenario)


def test_before_it_runs_nobody_can_be_asked() -> None:
    async def scenario() -> None:
        stage = Stage()
        assert stage.prober.sights() == {}
        with pytest.raises(NoAnswer):
            await stage.prober.ask(OWN, b"?")

    run(scenario())


def test_a_peer_hears_which_of_its_questions_came_in_by_which_way() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.until(lambda: stage.reach() is Reach.REACHED)
        for number, target in ((1, END), (3, END), (1, HOST)):
            read = await stage.exchange(question(5, number), target=target)
        assert (read.kind, read.nonce, read.number) == (Kind.ANSWER, 5, 1)
        assert (read.overlay.newest, read.overlay.seen, read.underlay.newest) == (3, 0b101, 1)

    play(scenario)


@pytest.mark.parametrize(
    "data",
    [
        encode(Packet(Kind.ANSWER, 5, 77, 1)),
        encode(Packet(Kind.RESULT, 5, 77, 1, body=b"?")),
        encode(Packet(Kind.ERRAND, 5, 77, 1, body=b"small")),
        b"",
        b"pflp\x02\x01" + bytes(34),
        bytes(1400),
    ],
    ids=["an answer", "a result", "a short errand", "nothing", "another version", "zeros"],
)
def test_what_asks_for_nothing_gets_nothing_and_ends_nothing(data: bytes) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.until(lambda: stage.reach() is Reach.REACHED)
        assert (await stage.exchange(data, question(6))).nonce == 6

    play(scenario)


@pytest.mark.parametrize("size", [0, LARGEST_ERRAND])
def test_strangers_get_nothing(size: int) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.until(lambda: stage.reach() is Reach.REACHED)
        kind = Kind.ERRAND if size else Kind.QUESTION
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind((STRANGER, 0))
            stranger.sendto(encode(Packet(kind, 5, 77, 1), size), (str(HOST), stage.port))
            assert (await stage.exchange(question(6))).nonce == 6
            with pytest.raises(BlockingIOError):
                stranger.recv(2048, socket.MSG_DONTWAIT)

    play(scenario)


def test_a_flood_ends_nothing() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.until(lambda: stage.reach() is Reach.REACHED)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind((STRANGER, 0))
            for _ in range(INTAKE + 50):
                stranger.sendto(b"x", (str(HOST), stage.port))
        # What the kernel has no more room for is lost, and asked again.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind((str(HOST), 0))
            peer.setblocking(False)
            answered = False
            while not answered:
                peer.sendto(question(7), (str(HOST), stage.port))
                await asyncio.sleep(0.02)
                with suppress(BlockingIOError):
                    answered = decode(peer.recv(2048)).nonce == 7
        assert stage.codes() == []

    play(scenario)


def test_a_port_that_is_taken_is_a_condition() -> None:
    async def scenario() -> None:
        stage = Stage()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("", stage.port))
            async with stage.running():
                await stage.until(stage.codes)
                assert stage.codes() == ["probe-port-taken"]
                (condition,) = stage.health.present()
                assert condition.text.endswith(f"UDP port {stage.port} of IPv4: another program has it")

    run(scenario())


def test_peers_that_come_and_go_are_followed() -> None:
    async def scenario(stage: Stage) -> None:
        assert stage.prober.sights() == {}
        stage.outlook = MIRROR
        stage.prober.update()
        await stage.until(lambda: stage.reach() is Reach.REACHED)
        stage.outlook = replace(MIRROR, leases={})
        stage.prober.update()
        await stage.until(lambda: stage.prober.sights() == {})

    play(scenario, replace(MIRROR, leases={}))


def test_a_trouble_is_a_condition_until_it_is_over() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.until(lambda: stage.reach() is Reach.REACHED)
        # Our end of the overlay is a stranger to the peer, and no source that the kernel lets us have.
        stage.outlook = replace(MIRROR, ends={4: IPv4Address("192.0.2.1")})
        stage.prober.update()
        await stage.until(stage.codes)
        assert stage.codes() == ["tunnel-blocked"]
        stage.outlook = MIRROR
        stage.prober.update()
        await stage.until(lambda: stage.codes() == [])

    play(scenario)
