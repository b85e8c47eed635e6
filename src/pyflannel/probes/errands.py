"""Questions with words in them, from one agent to another: for ``flannelctl trace``.

Rules of this file
  1. A question is as large as the largest answer, so that nobody can have us send more than was sent to us.
  2. Few are answered at a time, and each within ``ANSWER_WITHIN``; whoever asks too much gets no answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from pyflannel.probes.wire import LARGEST_ERRAND, LONGEST_BODY, Kind, Packet, encode
from pyflannel.state import IPAddress

log = logging.getLogger(__name__)

Answerer: TypeAlias = Callable[[bytes], Awaitable[bytes]]
Deliver: TypeAlias = Callable[[bytes], None]
"""Sends a datagram to where it is meant to go."""

TRIES: Final = 4
TRY_FOR: Final = 0.75
"""Seconds."""
AT_ONCE: Final = 4
"""Answers that are worked on, and questions of ours that are under way."""
ANSWER_WITHIN: Final = 2.0
"""Seconds."""


class NoAnswer(Exception):
    """A peer does not answer; the message says who, and for how long it was waited."""


class Errands:
    """Those under way, in both directions."""

    def __init__(self, answer: Answerer | None) -> None:
        """``answer`` takes the words of a peer's question; ``ValueError`` from it means that there is no answer."""
        self._answer = answer
        self._awaited: dict[int, tuple[tuple[IPAddress, ...], asyncio.Future[bytes]]] = {}
        self._working: set[int] = set()

    async def ask(self, nonce: int, question: bytes, ways: tuple[tuple[IPAddress, Deliver], ...]) -> bytes:
        """The answer to ``question``, asked by one of ``ways`` after the other; ``NoAnswer`` if there is none."""
        data = encode(Packet(Kind.ERRAND, nonce, 0, 0, body=question), LARGEST_ERRAND)
        if len(self._awaited) >= AT_ONCE:
            raise NoAnswer(f"{AT_ONCE} questions to peers are under way already")
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._awaited[nonce] = (tuple(address for address, _ in ways), answer)
        error = ""
        try:
            for attempt in range(TRIES):
                try:
                    ways[attempt % len(ways)][1](data)
                except OSError as exc:
                    error = f" (sending: {exc.strerror})"
                done, _ = await asyncio.wait((answer,), timeout=TRY_FOR)
                if done:
                    return answer.result()
        finally:
            del self._awaited[nonce]
        asked = " and ".join(str(address) for address, _ in ways)
        raise NoAnswer(f"asked {asked} {TRIES} times in {TRIES * TRY_FOR:g} s, and there was no answer{error}")

    def result(self, packet: Packet, source: IPAddress) -> None:
        """An answer has come from ``source``."""
        sources, answer = self._awaited.get(packet.nonce, ((), None))
        if answer is not None and source in sources and not answer.done():
            answer.set_result(packet.body)

    def welcome(self, packet: Packet, size: int) -> bool:
        """Whether a question in a datagram of ``size`` is to be answered."""
        able = self._answer is not None and len(self._working) < AT_ONCE
        return able and size >= LARGEST_ERRAND and packet.nonce not in self._working

    async def serve(self, packet: Packet, deliver: Deliver) -> None:
        """Answer a question that is welcome."""
        assert self._answer is not None
        self._working.add(packet.nonce)
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                words = await self._answer(packet.body)
            deliver(encode(Packet(Kind.RESULT, packet.nonce, 0, 0, body=words[:LONGEST_BODY])))
        except (TimeoutError, ValueError, OSError) as exc:
            log.debug("No answer to the question of a peer: %s", exc)
        finally:
            self._working.discard(packet.nonce)
