"""The agent from start to end: the only module that puts the parts together.

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
import errno
import logging
import os
import random
import signal
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Final

from pyflannel import backends
from pyflannel.backends.api import Backend, View
from pyflannel.diff import Cut, Put
from pyflannel.guard import Guard, Policy
from pyflannel.host import NoInterface, Underlay, Wish, choose, lines
from pyflannel.identity import choose_macs, own_devices, remember, remembered_macs
from pyflannel.keeper import Keeper, LeaseLost, Tenant, acquire
from pyflannel.lease.alloc import OutOfSubnets
from pyflannel.lease.model import Subnet
from pyflannel.lease.network import ConfigError, NetworkConfig, parse_network_config
from pyflannel.linux.facts import gather
from pyflannel.linux.kernel import Kernel, KernelError, LinuxKernel
from pyflannel.linux.rights import may_administer_network
from pyflannel.linux.systemd import notify
from pyflannel.linux.xtables import FirewallError
from pyflannel.network import Network, Replan
from pyflannel.outputs import SubnetEnv, read_subnet_env, render_subnet_env, write_atomic
from pyflannel.reconcile import Reconciler
from pyflannel.settings import Settings
from pyflannel.state import Item, Misfit, State
from pyflannel.store.api import ConfigRecord, Store, Unavailable
from pyflannel.store.candidates import candidates
from pyflannel.store.choose import Missing, find_config
from pyflannel.store.feed import Outage, follow
from pyflannel.telemetry.logs import OnChange

log = logging.getLogger(__name__)


class StartFailed(Exception):
    """This host cannot run the agent as it is told to; the message says what a person can do about it."""


FATAL: Final = (StartFailed, NoInterface, OutOfSubnets, LeaseLost, KernelError)
"""What ends the agent with status 1 and one line.  Anything else is our bug, and shows its traceback."""
CONFIG_POLL: Final = 1.0
"""Seconds between looks for a network configuration while there is none to work with."""
PUBLISH_RETRY: Final = 2.0
"""Seconds between attempts to write the subnet file."""
MANY: Final = 50
"""From this many peers in one piece of news on, one line tells of all."""


def run(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT (0) or a failure (1); the exit status."""
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
    _refuse_what_cannot_work(settings)
    async with AsyncExitStack() as stack:
        stores = candidates(settings)
        stack.push_async_callback(stores.close)
        store, config, backend = await find_network(stores)
        agent = await Agent.start(settings, store, config, backend)
        await agent.run()


def _refuse_what_cannot_work(settings: Settings) -> None:
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


class Agent:
    """One network on this host, from the lease to the last route."""

    def __init__(self, settings: Settings, store: Store, network: Network, keeper: Keeper) -> None:
        """With a lease in hand, and nothing programmed yet."""
        self._settings, self._store, self._network, self._keeper = settings, store, network, keeper
        self._rng = random.Random()
        self._kernel: Kernel = LinuxKernel()
        self._reconciler = Reconciler(self._kernel, self._rng.random)
        view = network.view
        self._guard = Guard(
            view.config,
            view.own,
            Policy(settings.ip_masq, settings.iptables_forward_rules, not settings.ip_masq_fully_random_disable),
        )
        self._complaint = OnChange()

    @classmethod
    async def start(cls, settings: Settings, store: Store, config: NetworkConfig, backend: Backend) -> Agent:
        """Choose interface and MAC, and acquire a lease with them."""
        underlay = _underlay(settings, config)
        try:
            backend.mtu(underlay)
        except ConfigError as exc:
            raise StartFailed(f"the network does not fit through {underlay.name}: {exc}") from None
        state_dir = Path(settings.state_dir)
        held = LinuxKernel().observe(own_devices(backend.devices))
        _refuse_foreign_devices(held)
        macs = choose_macs(backend.devices, held, remembered_macs(state_dir), os.urandom)
        remember(state_dir, macs)
        tenant = Tenant(
            config,
            backend.attrs(underlay, macs),
            _previous_subnet(Path(settings.subnet_file)),
            settings.subnet_lease_renew_margin * 60.0,
        )
        rng = random.Random()
        lease = await acquire(store, tenant, rng)
        log.info("Lease acquired: %s", lease.subnet)
        view = View(config, underlay, lease.subnet, macs)
        return cls(settings, store, Network(backend, view), Keeper(store, tenant, lease, rng))

    async def run(self) -> None:
        """Bring the network up, say so, and keep it; for ever."""
        made = await self._program_ourselves()
        await self._raise_firewall(made)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._publish(), name="outputs")
            tasks.create_task(self._follow_leases(), name="leases")
            tasks.create_task(self._reconciler.run(), name="reconcile")
            tasks.create_task(self._keeper.run(), name="lease")
            tasks.create_task(self._guard.run(self._settings.iptables_resync), name="firewall")

    async def _program_ourselves(self) -> list[Item]:
        """Our own device, whole or not at all; returns what was not there before."""
        network = self._network
        self._reconciler.want(network.self_items(), network.backend.scope(network.view))
        report = await self._reconciler.audit()
        made = [op.item for op in report.done if isinstance(op, Put) and op.old is None]
        if report.failed:
            self._undo(made)
            raise StartFailed("; ".join(_explain(error) for _, error in report.failed))
        return made

    def _undo(self, made: list[Item]) -> None:
        self._kernel.apply([Cut(item) for item in reversed(made)])

    async def _raise_firewall(self, made: list[Item]) -> None:
        try:
            await self._guard.ensure()
        except FirewallError as exc:
            if self._settings.ip_masq:
                self._undo(made)
                raise StartFailed(f"-ip-masq: {exc}") from None
            log.error("Cannot make sure that the network's traffic is forwarded: %s", exc)

    async def _publish(self) -> None:
        """Write subnet.env and tell systemd, however long it takes: without the file no container may start."""
        path, text = Path(self._settings.subnet_file), self._subnet_env()
        while True:
            try:
                write_atomic(path, text)
                break
            except OSError as exc:
                reason = f"could not write the subnet file {path}, and go on trying: {exc.strerror or exc}"
                self._complaint.log(log, logging.ERROR, "subnet file", reason)
                await asyncio.sleep(PUBLISH_RETRY)
        log.info("Wrote subnet file to %s", path)
        notify("READY=1")
        log.info("Running backend.")

    def _subnet_env(self) -> str:
        view = self._network.view
        config, own = view.config, view.own
        return render_subnet_env(
            SubnetEnv(
                ipv4_network=config.ipv4.network if config.ipv4 is not None else None,
                ipv4_subnet=own.ipv4,
                ipv6_network=config.ipv6.network if config.ipv6 is not None else None,
                ipv6_subnet=own.ipv6,
                mtu=self._network.backend.mtu(view.underlay),
                ip_masq=self._settings.ip_masq,
            )
        )

    async def _follow_leases(self) -> None:
        log.info("Watching for new subnet leases")
        loop = asyncio.get_running_loop()
        news_of = follow(
            self._store, clock=loop.time, sleep=asyncio.sleep, jitter=lambda delay: delay * self._rng.uniform(0.8, 1.2)
        )
        async with aclosing(news_of):
            async for news in news_of:
                if isinstance(news, Outage):
                    self._complaint.log(log, logging.ERROR, "store", f"the store does not answer: {news.reason}")
                    continue
                if self._complaint.settle("store"):
                    log.info("The store answers again")
                await self._take_in(self._network.fold(news))

    async def _take_in(self, replan: Replan) -> None:
        """Bring a piece of news into the kernel, then say what it was."""
        if self._reconciler.complete:
            await self._reconciler.replan(replan.old, replan.new)
        else:
            # The first list: whatever of ours stands in the kernel beyond it was left by an earlier run.
            self._reconciler.want(self._network.items(), self._network.backend.scope(self._network.view))
            self._reconciler.complete = True
            await self._reconciler.audit()
        self._announce(replan)
        if not self._keeper.recognises(self._network.table):
            self._keeper.look_again()

    def _announce(self, replan: Replan) -> None:
        for what, leases in (("added", replan.added), ("removed", replan.removed)):
            if len(leases) >= MANY:
                log.info("Subnets %s: %d", what, len(leases))
            else:
                for lease in leases:
                    log.info(
                        "Subnet %s: %s via %s", what, lease.subnet, lease.attrs.public_ip or lease.attrs.public_ipv6
                    )
        for subnet, reason in self._network.ignored.items():
            self._complaint.log(log, logging.WARNING, subnet, f"Ignoring lease {subnet}: {reason}")
        for key, reason in self._network.table.unreadable.items():
            self._complaint.log(log, logging.WARNING, key, f"Ignoring lease {key}: {reason}")


def _underlay(settings: Settings, config: NetworkConfig) -> Underlay:
    reach = settings.iface_can_reach
    facts = gather([reach] if reach is not None else [])
    wish = Wish(
        iface=settings.iface,
        iface_regex=settings.iface_regex,
        can_reach=reach,
        public_ip=settings.public_ip,
        public_ipv6=settings.public_ipv6,
        ipv4=config.ipv4 is not None,
        ipv6=config.ipv6 is not None,
    )
    underlay = choose(facts, wish)
    for line in lines(underlay):
        log.info("%s", line)
    log.info("Interface %s was chosen because: %s", underlay.name, underlay.why)
    return underlay


def _refuse_foreign_devices(held: State) -> None:
    """A vxlan device under our name is of some flannel; a bridge or a network card is somebody's."""
    for item in held.items_of(Misfit):
        if isinstance(item, Misfit) and item.kind != "vxlan":
            raise StartFailed(
                f"there is a device {item.name} already, and {item.why}: remove it, or choose another Backend.VNI"
            )


def _previous_subnet(path: Path) -> Subnet | None:
    """What we held when we last ran, as far as the subnet file tells."""
    try:
        return read_subnet_env(path.read_text(errors="replace")).subnet
    except OSError:
        return None


def _explain(error: KernelError) -> str:
    """A kernel error with what a person can do about it."""
    if error.code == errno.EADDRINUSE:
        return f"{error}: another program has the UDP port; set another Backend.Port for the whole network, or stop it"
    return str(error)
