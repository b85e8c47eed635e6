"""The process of the agent, from start to end.

The order of a start (compat §1.5, and why it is this one)
  1. Rights and flags: what cannot work is said before anything is touched.
  2. The network configuration is waited for, in whichever store and API holds it; or, while no store answers, all is
     taken as it was last known.
  3. Interface and addresses are chosen, our MAC address is found, and a lease is acquired with both.
  4. The kernel gets our own device, the firewall its chains.  If that fails, what was made is taken away again.
  5. subnet.env is written and systemd is told: from here on containers may start.
  6. Peers are followed.  Only once all of them are known is anything deleted that an earlier run left behind.

However the agent ends, the kernel keeps what it has: traffic goes on, and the next start takes over.  So a change of
the network's configuration, or the loss of our lease, is answered by such a start within the process.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from typing import Final, NoReturn

from pyflannel.agent import Agent, StartAgain
from pyflannel.conditions import CONFIG_MISSING, CONFIG_REFUSED, STORE_DOWN
from pyflannel.footing import Configured, Footing, StartFailed, find, recall, understand
from pyflannel.health import Health
from pyflannel.host import NoInterface
from pyflannel.keeper import LeaseLost
from pyflannel.lease.network import ConfigError
from pyflannel.linux.kernel import KernelError
from pyflannel.linux.rights import may_administer_network
from pyflannel.network import Way
from pyflannel.settings import Settings
from pyflannel.store.api import ConfigRecord, Store, Unavailable
from pyflannel.store.candidates import Candidates, candidates
from pyflannel.store.choose import Missing, find_config
from pyflannel.store.metered import Metered
from pyflannel.telemetry.desk import Desk
from pyflannel.telemetry.surfaces import surfaces
from pyflannel.tenancy import ConfigChanged

log = logging.getLogger(__name__)

FATAL: Final = (StartFailed, NoInterface, KernelError)
"""What ends the agent with status 1 and one line.  Anything else is our bug, and shows its traceback."""
BREATH: Final = 0.2
"""Seconds between two starts within the process: should they follow each other for ever, it is at least no spinning."""
RETRY: Final = 5.0
"""Seconds between attempts to begin anew where the first one failed."""
CONFIG_POLL: Final = 1.0
"""Seconds between looks for a network configuration while there is none to work with."""


def run(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT (0) or a failure (1); the exit status."""
    # What is imported stays, and what a list of leases makes is kept as well: looking through all that for garbage,
    # again and again while thousands of leases are read, takes a fifth of a start.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    return asyncio.run(_run(settings))


async def _run(settings: Settings) -> int:
    loop, desk = asyncio.get_running_loop(), Desk(settings, Health())
    status = 0
    try:
        async with asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(_serve(desk), name="agent")
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, _stop, loop, agent, desk, number)
    except* FATAL as group:
        for error in _leaves(group):
            log.critical("%s", error)
        status = 1
    if status == 0:
        log.info("Exiting cleanly...")
    return status


def _stop(loop: asyncio.AbstractEventLoop, agent: asyncio.Task[NoReturn], desk: Desk, number: int) -> None:
    """Wind down at the first signal; a second one ends the process at once (compat §9.2)."""
    log.info("%s received: stopping. The kernel keeps what it has.", signal.Signals(number).name)
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(each)
    desk.stopping = True
    agent.cancel()


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


async def _serve(desk: Desk) -> NoReturn:
    settings, health = desk.settings, desk.health
    refuse_what_cannot_work(settings)
    async with AsyncExitStack() as stack:
        stores = candidates(settings, lambda store: Metered(store, desk.meter))
        stack.push_async_callback(stores.close)
        # Whoever asks is answered from now on, whatever the agent waits for.
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        tasks.create_task(surfaces(desk).run(), name="surfaces")
        found = await find_network(stores, health, lambda: recall(settings, stores))
        if isinstance(found, Footing):
            await Reign(desk, stores, (found.store, found.configured)).run(found)
        await Reign(desk, stores, found).run()


class Reign:
    """One agent after another on one host, each taking over from the one before."""

    def __init__(self, desk: Desk, stores: Candidates, found: tuple[Store, Configured]) -> None:
        """Begin with the configuration that was ``found``; ``desk`` is told which agent there is."""
        self._desk, self._settings, self._stores = desk, desk.settings, stores
        self._store, self._configured = found
        self._proven: Configured | None = None
        """A configuration this host has worked with."""
        self._way: Way | None = None
        """How the last agent reached its peers."""
        self._refused: str | None = None
        """The text of one it has not, should the store hold it still."""

    async def run(self, footing: Footing | None = None) -> NoReturn:
        """Run them, the first one on ``footing`` if there is one; what ends the first ends it all."""
        while True:
            try:
                ending = await self._run_once(footing or await self._find())
            except FATAL as exc:
                if self._proven is None:
                    raise
                await self._step_back(exc, self._proven)
            else:
                self._proven = self._configured
                if isinstance(ending, StartAgain):
                    log.warning("Beginning anew: %s", ending)
                    self._refused, self._configured = None, ending.configured
                else:
                    log.error("%s", ending)
            footing = None
            gc.collect()
            await asyncio.sleep(BREATH)

    async def _find(self) -> Footing:
        """A footing with a lease, in whatever network is configured once one can be had."""
        while True:
            try:
                known = (self._settings, self._stores, self._store, self._configured)
                return await find(*known, self._desk.health, self._way)
            except ConfigChanged as exc:
                log.warning("%s", exc)
                found = await find_network(self._stores, self._desk.health)
                assert not isinstance(found, Footing)
                self._store, self._configured = found

    async def _run_once(self, footing: Footing) -> StartAgain | LeaseLost:
        """Run an agent until it must begin anew; returns why."""
        endings: list[StartAgain | LeaseLost] = []
        agent = Agent(self._settings, footing, self._desk.health, self._refused)
        self._desk.parts = agent.parts
        try:
            await agent.run()
        except* (StartAgain, LeaseLost) as group:
            endings += [error for error in _leaves(group) if isinstance(error, StartAgain | LeaseLost)]
        finally:
            self._desk.parts = None
        self._way = agent.way
        if self._desk.stopping:
            # A TaskGroup that ends with an error forgets that it was cancelled at that moment (before Python 3.13).
            raise asyncio.CancelledError
        # A lease that is lost is lost with any configuration.
        return next((ending for ending in endings if isinstance(ending, LeaseLost)), endings[0])

    async def _step_back(self, why: Exception, proven: Configured) -> None:
        if proven is not self._configured:
            text = "Going back to the configuration as it was: this host cannot run with the new one"
            self._desk.health.set(CONFIG_REFUSED, f"{text}: {why}")
            self._refused, self._configured = self._configured.text, proven
        else:
            log.error("Cannot begin anew yet, and go on trying: %s", why)
            await asyncio.sleep(RETRY)


def refuse_what_cannot_work(settings: Settings) -> None:
    """``StartFailed`` for what no start can get over; a warning for what is asked and would not happen."""
    if not may_administer_network():
        raise StartFailed("flanneld needs root, or the capability CAP_NET_ADMIN, to program the kernel's network")
    if settings.kube_subnet_mgr:
        raise StartFailed("-kube-subnet-mgr: the Kubernetes API is not supported yet; keep leases in etcd")
    if settings.ip_blackhole_route:
        log.warning("-ip-blackhole-route: not supported yet")


async def find_network(
    stores: Iterable[Store], health: Health, recall: Callable[[], Awaitable[Footing | None]] | None = None
) -> tuple[Store, Configured] | Footing:
    """Wait for a network configuration that can be used (docs/adr/0003).

    When no store answers, ``recall`` is asked once whether there is a footing without one.
    """
    asked = False
    while True:
        try:
            found = await find_config(stores)
        except Unavailable as exc:
            health.set(STORE_DOWN, f"Couldn't fetch network config: {exc}")
            if not asked and recall is not None and (footing := await recall()) is not None:
                return footing
            asked = True
        else:
            health.clear(STORE_DOWN)
            if isinstance(found, Missing):
                health.set(CONFIG_MISSING, f"Couldn't fetch network config: {found}")
            elif (configured := _understood(found[1], health)) is not None:
                health.clear(CONFIG_MISSING)
                return found[0], configured
        await asyncio.sleep(CONFIG_POLL)


def _understood(record: ConfigRecord, health: Health) -> Configured | None:
    try:
        configured = understand(record.where, record.text or "")
    except ConfigError as exc:
        health.set(CONFIG_REFUSED, f"the network configuration at {record.where} cannot be used: {exc}")
        return None
    health.clear(CONFIG_REFUSED)
    log.info("Found network config at %s - Backend type: %s", record.where, configured.config.backend_type)
    for warning in (*configured.config.warnings, *configured.backend.warnings):
        log.warning("Network configuration: %s", warning)
    return configured
