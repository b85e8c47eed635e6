"""What is known of a network, brought into the kernel: news of leases, and going over from one backend to another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Final, NoReturn

from pyflannel.conditions import FROM_MEMORY
from pyflannel.ears import Ears
from pyflannel.health import Health
from pyflannel.lease.model import Changes, Snapshot
from pyflannel.network import LINGER, Network, Replan, Way
from pyflannel.peerfilter import PeerFilter
from pyflannel.reconcile import Reconciler
from pyflannel.telemetry.leases import announce

log = logging.getLogger(__name__)

TURN_AFTER: Final = 2
"""Seconds from saying that we have gone over to another backend until we send by it: others have heard by then."""
FORMER_STAYS: Final = 5
"""Seconds for which devices of the former way stay after the last peer has said that it takes the present one: it says
so a little before it sends its first packet that way."""


class Intake:
    """Takes in news of one network."""

    def __init__(
        self,
        network: Network,
        reconciler: Reconciler,
        peer_filter: PeerFilter,
        ears: Ears,
        health: Health,
        *,
        former: Collection[str],
        heard: Callable[[Replan], None],
        pruned: Callable[[], None],
    ) -> None:
        """``former`` devices, of an earlier run, go once everything is known.

        ``heard`` is called with all that a piece of news has changed, ``pruned`` once no former device is left.
        """
        self._network, self._reconciler, self._ears = network, reconciler, ears
        self._peer_filter, self._health = peer_filter, health
        self._former = frozenset(former)
        self._heard, self._pruned = heard, pruned
        self._departing = asyncio.Event()
        """Some lease is gone from the store, and counts for a while yet."""

    @property
    def complete(self) -> bool:
        """Whether the store was listed, and what it does not know is gone from the kernel."""
        return self._reconciler.complete

    async def fold(self, news: Snapshot | Changes) -> None:
        """Bring what the store says into the kernel."""
        await self._take_in(self._network.fold(news, self._now()))

    async def stand_in(self, known: Snapshot) -> Replan:
        """Program what was last known of the peers.  It may be old, so nothing is taken away for it."""
        replan = self._network.fold(known, self._now())
        self._peer_filter.learn(replan)
        text = f"Going on with {len(replan.added)} leases as last known, until the store answers"
        self._health.set(FROM_MEMORY, text)
        self.want_everything()
        await self._reconciler.catch_up()
        return replan

    def move(self, replan: Replan) -> None:
        """Everything is wanted otherwise, for this host has another interface or address."""
        self._peer_filter.learn(replan)
        self.want_everything()
        self._ears.watch(self._network.view)
        announce(self._health, self._network, replan)
        self._heard(replan)
        self._reconciler.mark_dirty()

    def want_everything(self) -> None:
        """Have the next audit look at all there is, and try again all that failed."""
        self._reconciler.want(self._network.items(), self._network.scope())

    async def see_off(self) -> NoReturn:
        """Take away, for ever, the leases that have lingered long enough."""
        while True:
            until = self._network.lingers_until
            if until is None:
                await self._departing.wait()
                self._departing.clear()
            elif (left := until - self._now()) > 0:
                await asyncio.sleep(left)
            elif self.complete:
                await self._take_in(self._network.see_off(self._now()))
            else:
                await asyncio.sleep(LINGER)

    async def go_over(self) -> Way | None:
        """Go over from the former way to the present one; return the former once nobody takes it and it is gone."""
        if (former := self._network.former) is None:
            return None
        known = outgrown = 0
        while outgrown < FORMER_STAYS:
            await asyncio.sleep(1)
            known += self.complete
            if known == TURN_AFTER:
                turned = self._network.turn()
                await self._reconciler.replan(turned.old, turned.new)
            outgrown = outgrown + 1 if self._network.outgrown else 0
        log.info("All peers have gone over to the present configuration")
        self._network.forget_former()
        self._former |= frozenset(former.backend.devices)
        await self._take_over()
        return former

    async def _take_in(self, replan: Replan) -> None:
        """Bring a piece of news into the kernel, then say what it was."""
        self._peer_filter.learn(replan)
        if self.complete:
            await self._reconciler.replan(replan.old, replan.new)
        else:
            await self._take_over()
        if self._network.lingers_until is not None:
            self._departing.set()
        announce(self._health, self._network, replan)
        self._heard(replan)

    async def _take_over(self) -> None:
        """With everything known: what else of ours stands in the kernel was left by an earlier run, and goes."""
        network = self._network
        scope = network.scope()
        left = replace(scope, devices=scope.devices | self._former, hooks=True)
        self._reconciler.want(network.items(), left)
        self._reconciler.complete = True
        self._peer_filter.begin()
        # That our device was made is no news to who looks at everything now; afterwards it would ask for that.
        self._ears.catch_up()
        if await self._reconciler.catch_up() and self._former:
            self._pruned()
            # Their routes stood in the way of ours, which can be tried again at once.
            self.want_everything()
            self._reconciler.mark_dirty()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
