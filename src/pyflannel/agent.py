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
    COMMAND_FAILS,
    CONFIG_REFUSED,
    FROM_MEMORY,
    LEASE_CONFLICT,
    MTU_TOO_SMALL,
    PEER_FILTER,
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
from pyflannel.intake import Intake
from pyflannel.keeper import LeaseLost
from pyflannel.lease.model import Snapshot, Unreadable
from pyflannel.lease.network import ConfigError
from pyflannel.linux.events import KernelEvents
from pyflannel.linux.kernel import KernelError, LinuxKernel, Unsupported
from pyflannel.linux.memory import give_back
from pyflannel.linux.xtables import FirewallError
from pyflannel.lookout import Lookout
from pyflannel.network import Replan, Way
from pyflannel.peerfilter import PeerFilter
from pyflannel.publisher import Publisher, subnet_env
from pyflannel.reconcile import Reconciler
from pyflannel.settings import Settings
from pyflannel.state import Item
from pyflannel.store import cache
from pyflannel.store.feed import Outage
from pyflannel.store.feed import follow as follow_leases
from pyflannel.store.lastknown import LastKnown
from pyflannel.telemetry.desk import Parts
from pyflannel.telemetry.roster import Roster
from pyflannel.underlay import follow as follow_underlay

log = logging.getLogger(__name__)

HOST_EVERY: Final = 30.0
"""Seconds between looks at the external interface when nothing is heard of it."""
HOST_SETTLE: Final = 0.1
"""Seconds in which what happens to the external interface comes to rest: an address goes, and another comes."""
OURS_ALONE: Final = (LEASE_CONFLICT, COMMAND_FAILS, PEER_FILTER)
"""Troubles that end with us: whoever comes after us on this host may have nothing to do with them."""


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
            *(self._companions.kernel, self._rng.random, asyncio.get_running_loop().time, health),
            repaired=lambda: self._lookout.stir(),
        )
        self._publisher = Publisher(Path(settings.subnet_file), subnet_env(settings, self._network), health)
        self._ears = Ears(KernelEvents(muted=[self._kernel.port]), self._reconciler, health)
        view = self._network.view
        self._guard = Guard(view.config, view.own, policy(settings), health=health)
        self._peer_filter = PeerFilter(settings.peer_filter, self._network.self_items(), health=health)
        self._intake = Intake(
            *(self._network, self._reconciler, self._peer_filter, self._ears, health),
            former=footing.former,
            heard=self._heard,
            pruned=self._pruned,
        )
        self._roster, self._lookout = Roster(), Lookout(settings, self._network, health)
        file = cache.path(Path(settings.state_dir), settings.etcd_prefix)
        self._cache = cache.Cache(file, self._last_known, self._spread, health)
        self._lost = False
        """Our lease is not ours any more, so nobody may go by it."""

    @property
    def way(self) -> Way:
        """How we reach our peers."""
        return self._network.way()

    @property
    def parts(self) -> Parts:
        """What there is to be seen of this network."""
        kept = self._keeper, self._reconciler, self._guard, self._publisher
        seen = self._lookout
        return Parts(self._footing.kind, self._network, *kept, self._roster, seen.sights, seen.ask)

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
            for kind in OURS_ALONE:
                self._health.set_all(kind, {})
            await self._cache.flush()
            self._ears.close()
            self._companions.close()
            self._kernel.close()

    async def _work(self) -> NoReturn:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._publisher.run(), name="outputs")
            tasks.create_task(self._follow_leases(), name="leases")
            tasks.create_task(self._intake.see_off(), name="departures")
            tasks.create_task(self._go_over(), name="former way")
            tasks.create_task(self._ears.run(), name="kernel")
            tasks.create_task(self._companions.run(), name="companions")
            tasks.create_task(self._reconciler.run(), name="reconcile")
            tasks.create_task(self._reconciler.patrol(), name="patrol")
            tasks.create_task(self._reconciler.reclaim(), name="reclaim")
            tasks.create_task(self._follow_host(), name="host")
            tasks.create_task(self._keep_lease(), name="lease")
            tasks.create_task(self._guard.run(self._settings.iptables_resync), name="firewall")
            tasks.create_task(self._peer_filter.run(), name="peer filter")
            tasks.create_task(self._cache.run(), name="cache")
            tasks.create_task(self._lookout.run(), name="probes")
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
            self._heard_of(await self._intake.stand_in(listed))
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
                first = not self._intake.complete
                await self._intake.fold(news)
                if first:
                    self._cache.note()
                    if self._footing.from_memory:
                        # Whether our lease is what we remember is known to the store alone.
                        self._keeper.look_again()
                if news.config is not None:
                    self._reconsider(news.config)
                if isinstance(news, Snapshot):
                    self._cache.confirm()
                    del news
                    give_back()

    def _heard(self, replan: Replan) -> None:
        self._heard_of(replan)
        if replan.added or replan.removed:
            self._cache.note()
        self._keeper.heard(self._network.table)

    def _heard_of(self, replan: Replan) -> None:
        self._roster.learn(replan)
        self._lookout.update()

    def _pruned(self) -> None:
        remember(Path(self._settings.state_dir), self._settings.etcd_prefix, self._network.macs())

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
        self._health.clear(CONFIG_REFUSED)
        if new is not self._configured:
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

    async def _go_over(self) -> None:
        former = await self._intake.go_over()
        self._lookout.update()
        if former is not None and former.backend.type != self._network.backend.type:
            await self._companions.shut_down(former)

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
                self._intake.want_everything()
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
            if moved is None:
                continue
            if (moved := surroundings(moved, self._network.view.config)) != now:
                self._move(moved)
            else:
                # It may have been another for a while, through which nothing fitted.
                self._health.clear(MTU_TOO_SMALL, said=f"The network fits through {now.name} again")

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
        self._health.clear(MTU_TOO_SMALL, said=f"The network fits through {underlay.name}")
        self._intake.move(network.move(underlay))
        self._publisher.update(subnet_env(self._settings, network))
        self._keeper.publish(network.backend.attrs(underlay, network.view.macs))


def explain(error: KernelError) -> str:
    """A kernel error with what a person can do about it."""
    if error.code == errno.EADDRINUSE:
        return f"{error}: another program has the UDP port; set another Backend.Port for the whole network, or stop it"
    if isinstance(error, Unsupported) and (kind := re.search(r" type (\w+)", error.what)) is not None:
        return f"{error}: see whether `modprobe {kind[1]}` gives this kernel such devices, or take another backend"
    return str(error)
