"""The agent's end of a trace: it answers other hosts' questions about packets that come to this one.

Rules of this file
  1. To answer costs the agent a look at its kernel and a run of ``iptables-save``, so it is done ``RATE`` times a
     second at most, one at a time, and off the event loop.
  2. What it takes is loaded by the first question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pyflannel.linux.netns import Netns, inside
from pyflannel.probes.allowance import Allowance

if TYPE_CHECKING:
    from pyflannel.network import Network
    from pyflannel.trace.messages import Half

RATE: Final = 0.5
"""Answers a second, in the long run."""
BURST: Final = 5.0
"""Answers at once, after a quiet time."""


class Respondent:
    """Answers the questions of other hosts about packets that come to this one."""

    def __init__(
        self,
        network: Callable[[], Network | None],
        clock: Callable[[], float],
        run_dir: Path | None = None,
        netns: Netns = None,
    ) -> None:
        """``network`` is what this host knows, as of now; ``clock`` never steps; ``run_dir`` as in ``gather``."""
        self._network, self._run_dir, self._netns = network, run_dir, netns
        self._allowance = Allowance(RATE, BURST, clock)
        self._lock = asyncio.Lock()
        self._look: asyncio.Future[Half] | None = None

    async def __call__(self, raw: bytes) -> bytes:
        """The answer to a question; one that is not understood or comes too early is answered with the reason."""
        # Loaded by the first question: most agents are never asked.
        from pyflannel.trace.facts import overlay
        from pyflannel.trace.follow import receive
        from pyflannel.trace.messages import BadMessage, Half, answer, read_question

        network = self._network()
        if not self._allowance.spend():
            return answer(Half((), trouble="too many questions at once: try again in a second"))
        if network is None:
            return answer(Half((), trouble="it has not started yet"))
        try:
            asked = read_question(raw)
        except BadMessage as error:
            return answer(Half((), trouble=f"the question is not understood: {error}"))
        flow, outer = asked.flow, asked.outer
        known = overlay(network, flow.source, flow.destination)
        if not (known.concerns(flow.source) and known.concerns(flow.destination)):
            return answer(Half((), trouble="the question is about addresses that are none of this network"))
        async with self._lock:
            if self._look is not None:
                # No thread can be called off: that of a question which was given up may still be at it.
                await asyncio.wait({self._look})
            look = partial(receive, known, flow, outer, self._run_dir)
            self._look = asyncio.get_running_loop().run_in_executor(None, inside, self._netns, look)
            half = await asyncio.shield(self._look)
        return answer(half)
