"""One network on this host, at run time: what is done in which order, and what happens when something moves."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import random
from collections.abc import Collection
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pyflannel.backends.api import Backend, View
from pyflannel.diff import Cut, Put
from pyflannel.guard import Guard, Policy
from pyflannel.host import Facts, Underlay, Wish, choose, lines
from pyflannel.identity import choose_macs, former_devices, own_devices, remember, remembered_macs
from pyflannel.keeper import Keeper, Tenant, acquire, patiently
from pyflannel.lease.alloc import own_lease
from pyflannel.lease.model import Lease, Snapshot, Subnet
from pyflannel.lease.network import ConfigError, NetworkConfig
from pyflannel.linux.events import KernelEvents
from pyflannel.linux.facts import gather
from pyflannel.linux.kernel import KernelError, LinuxKernel
from pyflannel.linux.memory import give_back
from pyflannel.linux.xtables import FirewallError
from pyflannel.network import Network, Replan
from pyflannel.outputs import SubnetEnv, read_subnet_env
from pyflannel.publisher import Publisher
from pyflannel.reconcile import Reconciler
from pyflannel.settings import Settings
from pyflannel.sighting import Changed, Lost, Sighting, contradicts
from pyflannel.state import Item, Misfit, State
from pyflannel.store.api import Store
from pyflannel.store.feed import Outage
from pyflannel.store.feed import follow as follow_leases
from pyflannel.telemetry.logs import OnChange
from pyflannel.underlay import follow as follow_underlay

log = logging.getLogger(__name__)

MANY: Final = 50
"""From this many peers in one piece of news on, one line tells of all."""
EVENTS_RETRY: Final = 1.0
"""Seconds to wait when the kernel does not let us listen; until then every look is a full one."""
HOST_EVERY: Final = 30.0
"""Seconds between looks at the external interface when nothing is heard of it."""
HOST_SETTLE: Final = 0.1
"""Seconds in which what happens to the external interface comes to rest: an address goes, and another comes."""


class StartFailed(Exception):
    """This host cannot run the agent as it is told to; the message says what a person can do about it."""


@dataclass(frozen=True, slots=True)
class Footing:
    """What a start finds out and settles before anything is programmed."""

    network: Network
    keeper: Keeper
    """With a lease in hand."""
    listed: Snapshot
    """What the store held just before."""
    former: frozenset[str]
    """Devices of ours that go once everything is known: the network had another VNI."""


class Agent:
    """The parts of one network, and what passes between them."""

    def __init__(self, settings: Settings, store: Store, footing: Footing) -> None:
        """Nothing is programmed yet."""
        self._settings, self._store = settings, store
        self._network, self._keeper, self._former = footing.network, footing.keeper, footing.former
        self._listed: Snapshot | None = with_lease(footing.listed, footing.keeper.lease)
        network = footing.network
        self._rng = random.Random()
        self._kernel = LinuxKernel()
        self._events = KernelEvents(muted=[self._kernel.port])
        self._reconciler = Reconciler(self._kernel, self._rng.random, asyncio.get_running_loop().time)
        self._publisher = Publisher(Path(settings.subnet_file), subnet_env(settings, network))
        self._host_changed = asyncio.Event()
        self._complaint = OnChange()
        view = network.view
        self._guard = Guard(view.config, view.own, policy(settings))

    @classmethod
    async def start(cls, settings: Settings, store: Store, config: NetworkConfig, backend: Backend) -> Agent:
        """Choose interface and MAC, and acquire a lease with them."""
        underlay = first_underlay(settings, config, backend)
        state_dir = Path(settings.state_dir)
        remembered = remembered_macs(state_dir, settings.etcd_prefix)
        with LinuxKernel() as kernel:
            held = kernel.observe(own_devices(backend.devices))
            others = own_devices(remembered.keys() - set(backend.devices))
            former = former_devices(kernel.observe(others), remembered, backend.devices)
        refuse_foreign_devices(held)
        listed = await patiently("list the leases", store.leases)
        own = own_lease(config, listed.leases, underlay.public_ip, underlay.public_ipv6)
        published = backend.published(own) if own is not None else {}
        macs = choose_macs(backend.devices, published, held, remembered, os.urandom)
        remember(state_dir, settings.etcd_prefix, remembered | macs)
        margin = settings.subnet_lease_renew_margin * 60.0
        previous = previous_subnet(Path(settings.subnet_file))
        tenant = Tenant(config, backend.attrs(underlay, macs), previous, margin)
        rng = random.Random()
        lease = await acquire(store, tenant, rng, listed)
        log.info("Lease acquired: %s", lease.subnet)
        network = Network(backend, View(config, underlay, lease.subnet, macs))
        return cls(settings, store, Footing(network, Keeper(store, tenant, lease, rng), listed, former))

    async def run(self) -> None:
        """Bring the network up, say so, and keep it; for ever."""
        self._reconciler.want(self._network.self_items(), self._network.backend.scope(self._network.view))
        self._watch()
        made = await self._program_ourselves()
        await self._raise_firewall(made)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._publisher.run(), name="outputs")
            tasks.create_task(self._follow_leases(), name="leases")
            tasks.create_task(self._listen(), name="kernel")
            tasks.create_task(self._reconciler.run(), name="reconcile")
            tasks.create_task(self._reconciler.patrol(), name="patrol")
            tasks.create_task(self._follow_host(), name="host")
            tasks.create_task(self._keeper.run(), name="lease")
            tasks.create_task(self._guard.run(self._settings.iptables_resync), name="firewall")

    async def _program_ourselves(self) -> list[Item]:
        """Our own device, whole or not at all; returns what was not there before."""
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

    async def _follow_leases(self) -> None:
        log.info("Watching for new subnet leases")
        clock, uniform = asyncio.get_running_loop().time, self._rng.uniform
        first, self._listed = self._listed, None
        feed = follow_leases(
            self._store,
            clock=clock,
            sleep=asyncio.sleep,
            jitter=lambda delay: delay * uniform(0.8, 1.2),
            first=first,
        )
        del first
        async with aclosing(feed):
            async for news in feed:
                if isinstance(news, Outage):
                    self._complaint.log(log, logging.ERROR, "store", f"the store does not answer: {news.reason}")
                    continue
                if self._complaint.settle("store"):
                    log.info("The store answers again")
                await self._take_in(self._network.fold(news))
                if isinstance(news, Snapshot):
                    del news
                    give_back()

    async def _take_in(self, replan: Replan) -> None:
        """Bring a piece of news into the kernel, then say what it was."""
        if self._reconciler.complete:
            await self._reconciler.replan(replan.old, replan.new)
        else:
            await self._take_over()
        self._announce(replan)
        if not self._keeper.recognises(self._network.table):
            self._keeper.look_again()

    async def _take_over(self) -> None:
        """With everything known: what else of ours stands in the kernel was left by an earlier run, and goes."""
        network = self._network
        scope = network.backend.scope(network.view)
        self._reconciler.want(network.items(), replace(scope, devices=scope.devices | self._former))
        self._reconciler.complete = True
        with suppress(KernelError):
            # That our device was made is no news to who looks at everything now; afterwards it would ask for that.
            self._hear(self._events.heard())
        if await self._reconciler.catch_up() and self._former:
            remember(Path(self._settings.state_dir), self._settings.etcd_prefix, network.view.macs)
            # Their routes stood in the way of ours, which can be tried again at once.
            self._want_everything()
            self._reconciler.mark_dirty()

    def _want_everything(self) -> None:
        self._reconciler.want(self._network.items(), self._network.backend.scope(self._network.view))

    def _announce(self, replan: Replan) -> None:
        for what, leases in (("added", replan.added), ("removed", replan.removed)):
            if len(leases) >= MANY:
                log.info("Subnets %s: %d", what, len(leases))
                continue
            for lease in leases:
                log.info("Subnet %s: %s via %s", what, lease.subnet, lease.attrs.public_ip or lease.attrs.public_ipv6)
        for subnet, reason in self._network.ignored.items():
            self._complaint.log(log, logging.WARNING, subnet, f"Ignoring lease {subnet}: {reason}")
        for key, reason in self._network.table.unreadable.items():
            self._complaint.log(log, logging.WARNING, key, f"Ignoring lease {key}: {reason}")

    def _watch(self) -> None:
        """Hear of what happens to our devices and the one below them, before looking at them."""
        self._events.watch(self._reconciler.scope, [self._network.view.underlay.name])

    async def _listen(self) -> None:
        """What happens in the kernel asks for an audit if it is not what we want; our own doings are what we want."""
        while True:
            try:
                self._hear(await self._events.wait())
            except KernelError as exc:
                self._complaint.log(log, logging.ERROR, "events", f"cannot tell what happens in the kernel: {exc}")
                await asyncio.sleep(EVENTS_RETRY)
                self._hear([Lost()])

    def _hear(self, sightings: Collection[Sighting]) -> None:
        scope = self._reconciler.scope
        below = {each for each in sightings if isinstance(each, Changed) and each.dev not in scope.devices}
        if below or Lost() in sightings:
            self._host_changed.set()
        if contradicts([each for each in sightings if each not in below], self._reconciler.wanted, scope):
            self._reconciler.mark_dirty()

    async def _follow_host(self) -> None:
        """When something happens to the external interface, and now and then, look what has become of it."""
        wish = _wish(self._settings, self._network.view.config)
        while True:
            try:
                # A default route that moves to another interface is not among the events.
                async with asyncio.timeout(HOST_EVERY):
                    await self._host_changed.wait()
            except TimeoutError:
                pass
            else:
                # What failed for want of the interface is tried at once, not when its turn comes.
                self._want_everything()
                self._reconciler.mark_dirty()
            await asyncio.sleep(HOST_SETTLE)
            self._host_changed.clear()
            now = self._network.view.underlay
            moved = follow_underlay(now, _facts(self._settings), wish)
            if moved is None:
                text = f"the external interface {now.name} cannot be used at the moment; waiting for it"
                self._complaint.log(log, logging.ERROR, "underlay", text)
            elif self._complaint.settle("underlay"):
                log.info("The external interface %s can be used again", moved.name)
            if moved is not None and moved != now:
                self._move(moved)

    def _move(self, underlay: Underlay) -> None:
        """Go on over another interface or address: our device follows, and the peers by way of our lease."""
        network, was = self._network, self._network.view.underlay
        log.warning(
            "External interface was %s, address %s, MTU %d; is %s, address %s, MTU %d",
            *(was.name, was.ipv4 or was.ipv6, was.mtu),
            *(underlay.name, underlay.ipv4 or underlay.ipv6, underlay.mtu),
        )
        try:
            network.backend.mtu(underlay)
        except ConfigError as exc:
            self._complaint.log(log, logging.ERROR, "mtu", f"the network does not fit through {underlay.name}: {exc}")
            return
        network.view = replace(network.view, underlay=underlay)
        self._want_everything()
        self._watch()
        self._reconciler.mark_dirty()
        self._publisher.update(subnet_env(self._settings, network))
        self._keeper.publish(network.backend.attrs(underlay, network.view.macs))


def first_underlay(settings: Settings, config: NetworkConfig, backend: Backend) -> Underlay:
    """The interface to start with, and the log lines about it; ``NoInterface`` or ``StartFailed`` if none fits."""
    underlay = choose(_facts(settings), _wish(settings, config))
    for line in lines(underlay):
        log.info("%s", line)
    log.info("Interface %s was chosen because: %s", underlay.name, underlay.why)
    try:
        backend.mtu(underlay)
    except ConfigError as exc:
        raise StartFailed(f"the network does not fit through {underlay.name}: {exc}") from None
    return underlay


def subnet_env(settings: Settings, network: Network) -> SubnetEnv:
    """What those who start containers are told of the network."""
    config, own = network.view.config, network.view.own
    return SubnetEnv(
        ipv4_network=config.ipv4.network if config.ipv4 is not None else None,
        ipv4_subnet=own.ipv4,
        ipv6_network=config.ipv6.network if config.ipv6 is not None else None,
        ipv6_subnet=own.ipv6,
        mtu=network.backend.mtu(network.view.underlay),
        ip_masq=settings.ip_masq,
    )


def policy(settings: Settings) -> Policy:
    """What the command line asks of the firewall."""
    return Policy(settings.ip_masq, settings.iptables_forward_rules, not settings.ip_masq_fully_random_disable)


def _facts(settings: Settings) -> Facts:
    return gather([settings.iface_can_reach] if settings.iface_can_reach is not None else [])


def _wish(settings: Settings, config: NetworkConfig) -> Wish:
    return Wish(
        iface=settings.iface,
        iface_regex=settings.iface_regex,
        can_reach=settings.iface_can_reach,
        public_ip=settings.public_ip,
        public_ipv6=settings.public_ipv6,
        ipv4=config.ipv4 is not None,
        ipv6=config.ipv6 is not None,
    )


def refuse_foreign_devices(held: State) -> None:
    """A vxlan device under our name is of some flannel; a bridge or a network card is somebody's: ``StartFailed``."""
    for item in held.items_of(Misfit):
        if isinstance(item, Misfit) and item.kind != "vxlan":
            raise StartFailed(
                f"there is a device {item.name} already, and {item.why}: remove it, or choose another Backend.VNI"
            )


def with_lease(listed: Snapshot, own: Lease) -> Snapshot:
    """What the store holds since we wrote our lease, as far as we know."""
    others = (lease for lease in listed.leases if lease.subnet != own.subnet)
    return replace(listed, leases=(*others, own))


def previous_subnet(path: Path) -> Subnet | None:
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
