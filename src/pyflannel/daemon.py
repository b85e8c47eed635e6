"""The process of the agent, from start to end.

The order of a start (compat §1.5, and why it is this one)
  1. Rights and flags: what cannot work is said before anything is touched.
  2. The network configuration is waited for, in whichever store and API holds it.
  3. Interface and addresses are chosen, our MAC address is found, and a lease is acquired with both.
  4. The kernel gets our own device, the firewall its chains.  If that fails, what was made is taken away again.
  5. subnet.env is written and systemd is told: from here on containers may start.
  6. Peers are followed.  Only once all of them are known is anything deleted that an earlier run left behind.

However the agent ends, the kernel keeps what it has: traffic goes on, and the next start takes over.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack
from typing import Final

from pyflannel import backends
from pyflannel.agent import Agent, StartFailed
from pyflannel.backends.api import Backend
from pyflannel.host import NoInterface
from pyflannel.keeper import LeaseLost
from pyflannel.lease.alloc import OutOfSubnets
from pyflannel.lease.network import ConfigError, NetworkConfig, parse_network_config
from pyflannel.linux.kernel import KernelError
from pyflannel.linux.rights import may_administer_network
from pyflannel.settings import Settings
from pyflannel.store.api import ConfigRecord, Store, Unavailable
from pyflannel.store.candidates import candidates
from pyflannel.store.choose import Missing, find_config
from pyflannel.telemetry.logs import OnChange

log = logging.getLogger(__name__)

FATAL: Final = (StartFailed, NoInterface, OutOfSubnets, LeaseLost, KernelError)
"""What ends the agent with status 1 and one line.  Anything else is our bug, and shows its traceback."""
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
    loop = asyncio.get_running_loop()
    status = 0
    try:
        async with asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(_serve(settings), name="agent")
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, _stop, loop, agent, number)
    except* FATAL as group:
        for error in _leaves(group):
            log.critical("%s", error)
        status = 1
    if status == 0:
        log.info("Exiting cleanly...")
    return status


def _stop(loop: asyncio.AbstractEventLoop, agent: asyncio.Task[None], number: int) -> None:
    """Wind down at the first signal; a second one ends the process at once (compat §9.2)."""
    log.info("%s received: stopping. The kernel keeps what it has.", signal.Signals(number).name)
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(each)
    agent.cancel()


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


async def _serve(settings: Settings) -> None:
    refuse_what_cannot_work(settings)
    async with AsyncExitStack() as stack:
        stores = candidates(settings)
        stack.push_async_callback(stores.close)
        store, config, backend = await find_network(stores)
        agent = await Agent.start(settings, store, config, backend)
        await agent.run()


def refuse_what_cannot_work(settings: Settings) -> None:
    """``StartFailed`` for what no start can get over; a warning for what is asked and would not happen."""
    if not may_administer_network():
        raise StartFailed("flanneld needs root, or the capability CAP_NET_ADMIN, to program the kernel's network")
    if settings.kube_subnet_mgr:
        raise StartFailed("-kube-subnet-mgr: the Kubernetes API is not supported yet; keep leases in etcd")
    if settings.healthz_port:
        log.warning("-healthz-port: health is not served yet")
    if settings.ip_blackhole_route:
        log.warning("-ip-blackhole-route: not supported yet")


async def find_network(stores: Iterable[Store]) -> tuple[Store, NetworkConfig, Backend]:
    """Wait for a network configuration that can be used (docs/adr/0003)."""
    complaint = OnChange()
    while True:
        try:
            found = await find_config(stores)
        except Unavailable as exc:
            complaint.log(log, logging.ERROR, "config", f"Couldn't fetch network config: {exc}")
        else:
            if isinstance(found, Missing):
                complaint.log(log, logging.ERROR, "config", f"Couldn't fetch network config: {found}")
            elif (network := _understand(*found, complaint)) is not None:
                return network
        await asyncio.sleep(CONFIG_POLL)


def _understand(store: Store, record: ConfigRecord, complaint: OnChange) -> tuple[Store, NetworkConfig, Backend] | None:
    try:
        config = parse_network_config(record.text or "")
        backend = backends.from_config(config)
    except ConfigError as exc:
        text = f"the network configuration at {record.where} cannot be used: {exc}"
        complaint.log(log, logging.ERROR, "config", text)
        return None
    log.info("Found network config at %s - Backend type: %s", record.where, config.backend_type)
    for warning in (*config.warnings, *backend.warnings):
        log.warning("Network configuration: %s", warning)
    return store, config, backend
