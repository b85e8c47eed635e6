"""Who sees after the peers: asks whether they answer, and answers them, once the network stands.

A start pays nothing for it: what it takes is imported when it begins.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pyflannel.health import Health
from pyflannel.lease.model import Subnet
from pyflannel.network import Network
from pyflannel.settings import Settings

if TYPE_CHECKING:
    from pyflannel.probes.prober import Prober
    from pyflannel.probes.sight import Sight

BEGIN_AFTER: Final = 1.0
"""Seconds from the first news of peers on, in which a start has the processor for itself."""


class Lookout:
    """That of one agent."""

    def __init__(self, settings: Settings, network: Network, health: Health) -> None:
        """Nobody is asked yet, and with ``-probe=false`` nobody ever is."""
        self._settings, self._network, self._health = settings, network, health
        self._prober: Prober | None = None
        self._told = asyncio.Event()
        """Somebody has said who the peers are."""

    async def run(self) -> None:
        """Ask and answer, for ever or, if that is not wanted, not at all."""
        if not self._settings.probe:
            return
        await self._told.wait()
        await asyncio.sleep(BEGIN_AFTER)
        from pyflannel.probes import rows
        from pyflannel.probes.outlook import outlook
        from pyflannel.probes.prober import Prober
        from pyflannel.trace.remote import Respondent

        network, run_dir = self._network, Path(self._settings.subnet_file).parent
        row = rows.Teller(lambda: network.view.own, self.sights, time.monotonic)
        trace = Respondent(lambda: network, time.monotonic, run_dir)

        async def answer(question: bytes) -> bytes:
            return row(question) if rows.is_question(question) else await trace(question)

        self._prober = Prober(
            lambda known: outlook(network.way(), known),
            self._settings.probe_port,
            self._health,
            answer,
        )
        await self._prober.run()

    def update(self) -> None:
        """The peers are known, and programmed; they, or our own addresses, may be others than before."""
        self._told.set()
        if self._prober is not None:
            self._prober.update()

    def stir(self) -> None:
        """Something was put right in the kernel, which may be what kept peers from us."""
        if self._prober is not None:
            self._prober.stir()

    def sights(self, of: Iterable[Subnet] | None = None) -> Mapping[Subnet, Sight]:
        """What is known of each peer, or of those of ``of`` that are peers."""
        return {} if self._prober is None else self._prober.sights(of)

    async def ask(self, subnet: Subnet, question: bytes) -> bytes:
        """What the agent of a peer answers; ``NoAnswer`` if it does not."""
        if self._prober is None:
            from pyflannel.probes.errands import NoAnswer

            why = "has only just started" if self._settings.probe else "runs with -probe=false"
            raise NoAnswer(f"this host's agent {why}, and asks its peers nothing")
        return await self._prober.ask(subnet, question)
