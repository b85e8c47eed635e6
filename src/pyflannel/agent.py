"""One network on this host, at run time: what is done in which order, and what happens when something moves."""

from __future__ import annotations

import asyncio
import errno
import logging
import random
import re
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Final, NoReturn

from pyflannel.companions import CompanionFailed, Companions
from pyflannel.conditions import (
    CONFIG_REFUSED,
    FROM_MEMORY,
    MTU_TOO_SMALL,
    STORE_DOWN,
    UNDERLAY_DOWN,
)
from pyflannel.diff import Cut, Put
from pyflannel.ears import Ears
from pyflannel.footing import Configured, Footing, StartFailed, facts, reconsider, surroundings, wish
from pyflannel.guard import Guard, policy
from pyflannel.health import Health
from pyflannel.host import Underlay
from pyflannel.identity import remember
from pyflannel.keeper import LeaseLost
from pyflannel.lease.model import Snapshot, Unreadable
from pyflannel.lease.network import ConfigError
from pyflannel.linux.events import KernelEvents
from pyflannel.linux.kernel import KernelError, LinuxKernel, Unsupported
from pyflannel.linux.memory import give_back
from pyflannel.linux.xtables import FirewallError
from pyflannel.network import LINGER, Replan, Way
from pyflannel.peerfilter import PeerFilter
from pyflannel.publisher import Publisher, subnet_env
from pyflannel.reconcile import Reconciler
from pyflannel.settings import Settings
from pyflannel.state import Item
from pyflannel.store import cache
from pyflannel.store.feed import Outage
from pyflannel.store.feed import follow as follow_leases
from pyflannel.store.lastknown import LastKnown
from pyflannel.telemetry.leases import announce
from pyflannel.underlay import follow as follow_underlay

log = logging.getLogger(__name__)

HOST_EVERY: Final = 30.0
"""Seconds between looks at the external interface when nothing is heard of it."""
HOST_SETTLE: Final = 0.1
"""Seconds in which what happens to the external interface comes to rest: an address goes, and another comes."""

TURN_AFTER: Final = 2
"""Seconds from saying that we have gone over to another backend until we send by it: others have heard by then."""
FORMER_STAYS: Final = 5
"""Seconds for which devices of the former way stay after the last peer has said that it takes the present one: it says
so a little before it sends its first packet that way."""


class StartAgain(Exception):
    """The network is configured otherwise now: whoever runs the agent begins anew with ``configured``.

    The kernel keeps what it has meanwhile, as between two runs of the process.
    """

    def __init__(self, configured: Configured) -> None:
        """``configured`` is fit for our subnet."""
        super().__init__(f"the network configuration at {configured.where} was changed")
        self.configured = configured


class Agent:
    """The parts of one network, and what passes between them."""

    def __init__(self, settings: Settings, footing: Footing, health: Health, refused: str | None = None) -> None:
        """Nothing is programmed yet.

        ``refused`` is the text of a configuration that turned out not to work here; the store may hold it still.
        """
        self._settings, self._footing = settings, footing
        self._configured, self._refused = footing.configured, refused
        self._network, self._keeper = footing.network, footing.keeper
        self._keeper.health = health
        self._rng = random.Random()
        self._kernel = LinuxKernel()
        self._health = health
        self._companions = Companions(
            settings, self._network.ways(), self._kernel, lambda: self._reconciler.mark_dirty(), health
        )
        self._reconciler = Reconciler(
            self._companions.kernel, self._rng.random, asyncio.get_running_loop().time, health
        )
        self._publisher = Publisher(Path(settings.subnet_file), subnet_env(settings, self._network), health)
        self._ears = Ears(KernelEvents(muted=[self._kernel.port]), self._reconciler, health)
        self._departing = asyncio.Event()
        """Some lease is gone from the store, and counts for a while yet."""
        view = self._network.view
        self._guard = Guard(view.config, view.own, policy(settings), health=health)
        self._peer_filter = PeerFilter(settings.peer_filter, self._network.self_items(), health=health)
        file = cache.path(Path(settings.state_dir), settings.etcd_prefix)
        self._cache = cache.Cache(file, self._last_known, self._spread, health)
        self._lost = False
        """Our lease is not ours any more, so nobody may go by it."""

    @property
    def way(self) -> Way:
        """How we reach our peers."""
        return self._network.way()

    async def run(self) -> NoReturn:
        """Bring the network up, say so, and keep it, until ``StartAgain`` or ``LeaseLost``; then all is closed."""
        try:
            await self._settle()
            self._reconciler.want(self._network.self_items(), self._network.scope())
            self._ears.watch(self._network.view)
            made = await self._program_ourselves()
            await self._raise_firewall(made)
            await self._work()
        except asyncio.CancelledError:
            if self._settings.release_on_exit:
                self._lost = True
                await self._keeper.release()
            await self._companions.shut_down(self._network.ways()[0])
            raise
        finally:
            await self._cache.flush()
            self._ears.close()
            self._companions.close()
            self._kernel.close()

    async def _work(self) -> NoReturn:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._publisher.run(), name="outputs")
            tasks.create_task(self._follow_leases(), name="leases")
            tasks.create_task(self._see_off(), name="departures")
            tasks.create_task(self._go_over(), name="former way")
            tasks.create_task(self._ears.run(), name="kernel")
            tasks.create_task(self._companions.run(), name="companions")
            tasks.create_task(self._reconciler.run(), name="reconcile")
            tasks.create_task(self._reconciler.patrol(), name="patrol")
            tasks.create_task(self._follow_host(), name="host")
            tasks.create_task(self._keep_lease(), name="lease")
            tasks.create_task(self._guard.run(self._settings.iptables_resync), name="firewall")
            tasks.create_task(self._peer_filter.run(), name="peer filter")
            tasks.create_task(self._cache.run(), name="cache")
        raise AssertionError("most tasks of an agent never end by themselves")

    async def _settle(self) -> None:
        try:
            await self._companions.settle(self._network.ways()[0])
        except CompanionFailed as exc:
            raise StartFailed(str(exc)) from None

    async def _program_ourselves(self) -> list[Item]:
        """Our own device, whole or not at all; returns what was not there before."""
        report = await self._reconciler.audit()
        made = [op.item for op in report.done if isinstance(op, Put) and op.old is None]
        if report.failed:
            self._undo(made)
            raise StartFailed("; ".join(explain(error) for _, error in report.failed))
        return made

    def _undo(self, made: list[Item]) -> None:
        self._companions.kernel.apply([Cut(item) for item in reversed(made)])

    async def _raise_firewall(self, made: list[Item]) -> None:
        try:
            await self._guard.ensure()
        except FirewallError as exc:
            if self._settings.ip_masq:
                self._undo(made)
                raise StartFailed(f"-ip-masq: {exc}") from None
            # Nothing is masqueraded; traffic may well be forwarded as it is, and the guard goes on trying.

    async def _keep_lease(self) -> None:
        try:
            await self._keeper.run()
        except LeaseLost:
            self._lost = True
            self._cache.note()
            raise

    async def _follow_leases(self) -> None:
        log.info("Watching for new subnet leases")
        listed: Snapshot | None = self._footing.listed
        self._footing = replace(self._footing, listed=Snapshot(0))
        if self._footing.from_memory and listed is not None:
            await self._stand_in(listed)
            listed = None
        feed = follow_leases(
            self._footing.store,
            clock=asyncio.get_running_loop().time,
            sleep=asyncio.sleep,
            jitter=self._spread,
            first=listed,
        )
        del listed
        async with aclosing(feed):
            async for news in feed:
                if isinstance(news, Outage):
                    self._health.set(STORE_DOWN, f"the store does not answer: {news.reason}")
                    continue
                self._health.clear(STORE_DOWN, said="The store answers again")
                self._health.clear(FROM_MEMORY)
                await self._take_in(self._network.fold(news, asyncio.get_running_loop().time()))
                if news.config is not None:
                    self._reconsider(news.config)
                if isinstance(news, Snapshot):
                    self._cache.confirm()
                    del news
                    give_back()

    async def _see_off(self) -> NoReturn:
        """Take away what has lingered long enough."""
        clock = asyncio.get_running_loop().time
        while True:
            until = self._network.lingers_until
            if until is None:
                await self._departing.wait()
                self._departing.clear()
            elif (left := until - clock()) > 0:
                await asyncio.sleep(left)
            elif self._reconciler.complete:
                await self._take_in(self._network.see_off(clock()))
            else:
                await asyncio.sleep(LINGER)

    async def _stand_in(self, known: Snapshot) -> None:
        """Program what was last known of the peers.  It may be old, so nothing is taken away for it."""
        replan = self._network.fold(known, asyncio.get_running_loop().time())
        self._peer_filter.learn(replan)
        self._health.set(
            FROM_MEMORY, f"Going on with {len(replan.added)} leases as last known, until the store answers"
        )
        self._want_everything()
        await self._reconciler.catch_up()

    async def _take_in(self, replan: Replan) -> None:
        """Bring a piece of news into the kernel, then say what it was."""
        self._peer_filter.learn(replan)
        if self._reconciler.complete:
            await self._reconciler.replan(replan.old, replan.new)
        else:
            await self._take_over()
            self._cache.note()
            if self._footing.from_memory:
                # Whether our lease is what we remember is known to the store alone.
                self._keeper.look_again()
        if self._network.lingers_until is not None:
            self._departing.set()
        if replan.added or replan.removed:
            self._cache.note()
        announce(self._health, self._network, replan)
        if not self._keeper.recognises(self._network.table):
            self._keeper.look_again()

    def _reconsider(self, text: str) -> None:
        """The network configuration says ``text``: begin anew with that if it means something else, or say why not."""
        if text == self._refused:
            return
        try:
            new = reconsider(self._configured, text, self._network.view.own)
        except ConfigError as exc:
            self._health.set(CONFIG_REFUSED, f"the network configuration now at {self._configured.where} {exc}")
            return
        if new.config != self._configured.config:
            raise StartAgain(new)
        if new is self._configured:
            self._health.clear(CONFIG_REFUSED)
        else:
            self._configured = new
            self._cache.note()

    def _last_known(self) -> LastKnown:
        """What a start without the store would need to go on from here."""
        table, settings = self._network.table, self._settings
        unreadable = tuple(Unreadable(key, reason) for key, reason in table.unreadable.items())
        return LastKnown(
            network=settings.etcd_prefix,
            store=self._footing.kind,
            own=None if self._lost else self._keeper.lease,
            snapshot=Snapshot(table.revision, tuple(table.leases.values()), unreadable, self._configured.text),
            host=str(self._network.view.underlay.mac or ""),
        )

    def _spread(self, delay: float) -> float:
        return delay * self._rng.uniform(0.8, 1.2)

    async def _take_over(self) -> None:
        """With everything known: what else of ours stands in the kernel was left by an earlier run, and goes."""
        network = self._network
        scope = network.scope()
        left = replace(scope, devices=scope.devices | self._footing.former, hooks=True)
        self._reconciler.want(network.items(), left)
        self._reconciler.complete = True
        self._peer_filter.begin()
        # That our device was made is no news to who looks at everything now; afterwards it would ask for that.
        self._ears.catch_up()
        if await self._reconciler.catch_up() and self._footing.former:
            remember(Path(self._settings.state_dir), self._settings.etcd_prefix, network.macs())
            # Their routes stood in the way of ours, which can be tried again at once.
            self._want_everything()
            self._reconciler.mark_dirty()

    async def _go_over(self) -> None:
        """Go over from the former way to the present one; once nobody takes the former one, what it needed goes."""
        if (former := self._network.former) is None:
            return
        known = outgrown = 0
        while outgrown < FORMER_STAYS:
            await asyncio.sleep(1)
            known += self._reconciler.complete
            if known == TURN_AFTER:
                turned = self._network.turn()
                await self._reconciler.replan(turned.old, turned.new)
            outgrown = outgrown + 1 if self._network.outgrown else 0
        log.info("All peers have gone over to the present configuration")
        left = frozenset(former.backend.devices)
        self._network.forget_former()
        self._footing = replace(self._footing, former=self._footing.former | left)
        await self._take_over()
        if former.backend.type != self._network.backend.type:
            await self._companions.shut_down(former)

    def _want_everything(self) -> None:
        self._reconciler.want(self._network.items(), self._network.scope())

    async def _follow_host(self) -> None:
        """When something happens to the external interface, and now and then, look what has become of it."""
        wanted = wish(self._settings, self._network.view.config)
        while True:
            try:
                # A default route that moves to another interface is not among the events.
                async with asyncio.timeout(HOST_EVERY):
                    await self._ears.host_changed.wait()
            except TimeoutError:
                pass
            else:
                # What failed for want of the interface is tried at once, not when its turn comes.
                self._want_everything()
                self._reconciler.mark_dirty()
                self._companions.try_again()
            await asyncio.sleep(HOST_SETTLE)
            self._ears.host_changed.clear()
            now = self._network.view.underlay
            moved = follow_underlay(now, facts(self._settings), wanted)
            if moved is None:
                text = f"the external interface {now.name} cannot be used at the moment; waiting for it"
                self._health.set(UNDERLAY_DOWN, text)
            else:
                self._health.clear(UNDERLAY_DOWN, said=f"The external interface {moved.name} can be used again")
            if moved is not None and (moved := surroundings(moved, self._network.view.config)) != now:
                self._move(moved)

    def _move(self, underlay: Underlay) -> None:
        """Go on over another interface or address: our device follows, and the peers by way of our lease."""
        network, was = self._network, self._network.view.underlay
        if replace(underlay, on_link=was.on_link) == was:
            log.info("Other hosts than before are on the link of %s", underlay.name)
        else:
            log.warning(
                "External interface was %s, address %s, MTU %d; is %s, address %s, MTU %d",
                *(was.name, was.ipv4 or was.ipv6, was.mtu),
                *(underlay.name, underlay.ipv4 or underlay.ipv6, underlay.mtu),
            )
        try:
            network.backend.mtu(underlay)
        except ConfigError as exc:
            self._health.set(MTU_TOO_SMALL, f"the network does not fit through {underlay.name}: {exc}")
            return
        self._health.clear(MTU_TOO_SMALL)
        replan = network.move(underlay)
        self._peer_filter.learn(replan)
        self._want_everything()
        self._ears.watch(network.view)
        announce(self._health, network, replan)
        self._reconciler.mark_dirty()
        self._publisher.update(subnet_env(self._settings, network))
        self._keeper.publish(network.backend.attrs(underlay, network.view.macs))


def explain(error: KernelError) -> str:
    """A kernel error with what a person can do about it."""
    if error.code == errno.EADDRINUSE:
        return f"{error}: another program has the UDP port; set another Backend.Port for the whole network, or stop it"
    if isinstance(error, Unsupported) and (kind := re.search(r" type (\w+)", error.what)) is not None:
        return f"{error}: see whether `modprobe {kind[1]}` gives this kernel such devices, or take another backend"
    return str(error)
