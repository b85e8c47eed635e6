"""Keeping the table that lets in tunnel packets of known hosts alone (``firewall.peers``), if that is asked for.

Rules of this file
  1. Nobody is shut out for want of knowledge: there is no table before all hosts are known (``begin``), and where none
     can be made, everybody is let in and a line says so.
  2. A host that comes or goes costs one element; what comes while that is written is written together after it.
  3. A change to the kernel's tables is followed by a look, and so is our own, which finds all well.  What is not as we
     left it is made anew, in one transaction.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Final

from pyflannel.conditions import PEER_FILTER
from pyflannel.firewall.peers import PREFIX, Listing, Tunnel, build, change, read, removal
from pyflannel.guard import SETTLE, RuleChanges
from pyflannel.health import Health
from pyflannel.lease.model import Lease, Subnet
from pyflannel.linux.nft import Nft, NoNft
from pyflannel.linux.nftevents import RuleEvents
from pyflannel.linux.xtables import FirewallError
from pyflannel.network import Replan
from pyflannel.state import IPAddress, Item, Link, Vxlan

log = logging.getLogger(__name__)

PAUSE: Final = 0.2
"""Seconds between two looks or writes."""
LOOK_EVERY: Final = 60.0
"""Seconds between looks when nothing is heard."""
RETRY: Final = 4.0
"""Seconds between attempts that fail."""


class PeerFilter:
    """Who may send into the tunnel of one network."""

    def __init__(
        self,
        asked: bool,
        items: Iterable[Item],
        nft: Nft | None = None,
        listen: Callable[[], RuleChanges] = RuleEvents,
        health: Health | None = None,
    ) -> None:
        """Filter nothing yet.

        ``asked`` is whether there is to be a filter; ``items`` are those of ourselves, among which the tunnel is.
        """
        self._asked, self._tunnel = asked, _tunnel(items)
        self._nft, self._listen = nft or Nft(), listen
        self._hosts: dict[Subnet, tuple[IPAddress, ...]] = {}
        self._count: Counter[IPAddress] = Counter()
        """How many leases each host is known by."""
        self._begun, self._stir = asyncio.Event(), asyncio.Event()
        self._doubt = True
        """The table may be otherwise than we left it."""
        self._written: frozenset[IPAddress] = frozenset()
        self._left: str | None = None
        """The table as it was once we had made it, without the hosts."""
        self._health = health or Health()

    def learn(self, replan: Replan) -> None:
        """Take in who has come, gone, or says something else."""
        if not self._asked:
            return
        for lease in replan.removed:
            self._set(lease.subnet, ())
        for lease in replan.added:
            self._set(lease.subnet, tuple(_hosts(lease)))
        self._stir.set()

    def begin(self) -> None:
        """Everybody is known now: who is not, is a stranger."""
        self._begun.set()

    async def run(self) -> None:
        """Keep the table, for ever; where none is asked for, take away what an earlier run left, and return."""
        await self._begun.wait()
        if not self._asked:
            with suppress(FirewallError):
                await self._clear()
            return
        if self._tunnel is None:
            log.warning("-peer-filter has no effect: only vxlan has packets that it knows")
            return
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hear(), name="peer filter events")
            tasks.create_task(self._keep(self._tunnel), name="peer filter")

    async def _keep(self, tunnel: Tunnel) -> None:
        while True:
            self._stir.clear()
            try:
                await self._bring_about(tunnel)
            except FirewallError as error:
                self._doubt = True
                self._say(error)
                await asyncio.sleep(RETRY)
                continue
            self._health.clear(PEER_FILTER, said="-peer-filter has an effect again")
            await asyncio.sleep(PAUSE)
            try:
                async with asyncio.timeout(LOOK_EVERY):
                    await self._stir.wait()
            except TimeoutError:
                self._doubt = True

    async def _bring_about(self, tunnel: Tunnel) -> None:
        wanted = frozenset(self._count)
        if self._doubt:
            self._doubt = False
            if self._left is None or await self._look(tunnel) != Listing(self._written, self._left):
                await self._make(tunnel, wanted)
        if script := change(tunnel, self._written, wanted):
            try:
                await self._nft.carry_out(script)
            except NoNft:
                raise
            except FirewallError:
                # A host that is not in the set any more cannot be taken out of it.
                await self._make(tunnel, wanted)
            self._written = wanted

    async def _make(self, tunnel: Tunnel, wanted: frozenset[IPAddress]) -> None:
        what = "is there" if self._left is None else "was not as we left it, and is made anew"
        await self._nft.carry_out(build(tunnel, wanted))
        made = await self._look(tunnel)
        self._written, self._left = wanted, None if made is None else made.rest
        log.info("The table %s %s; known addresses: %d", tunnel.table, what, len(wanted))

    async def _look(self, tunnel: Tunnel) -> Listing | None:
        text = await self._nft.listing(tunnel.table)
        try:
            return None if text is None else read(text)
        except ValueError as error:
            raise FirewallError(f"nft -j list table inet {tunnel.table}: {error}") from None

    async def _hear(self) -> None:
        try:
            changes = self._listen()
        except OSError as error:
            log.info("Peer filter: the kernel tells of no changes, so we look every %g s (%s)", LOOK_EVERY, error)
            return
        try:
            while True:
                await changes.wait(SETTLE)
                self._doubt = True
                self._stir.set()
        finally:
            changes.close()

    async def _clear(self) -> None:
        if self._tunnel is not None and self._tunnel.table in await self._nft.tables():
            await self._nft.carry_out(removal(self._tunnel.table))

    def _set(self, subnet: Subnet, hosts: tuple[IPAddress, ...]) -> None:
        self._count.update(hosts)
        for host in self._hosts.pop(subnet, ()):
            self._count[host] -= 1
            if not self._count[host]:
                del self._count[host]
        if hosts:
            self._hosts[subnet] = hosts

    def _say(self, error: FirewallError) -> None:
        why = "there is no nft on this host" if isinstance(error, NoNft) else str(error)
        text = f"-peer-filter has no effect for now, and tunnel packets of anybody are let in: {why}"
        self._health.set(PEER_FILTER, text)


async def left(nft: Nft) -> tuple[str, ...]:
    """The names of all such tables, whichever network they are for; ``FirewallError`` if there is no telling."""
    try:
        return tuple(name for name in await nft.tables() if name.startswith(PREFIX))
    except NoNft:
        return ()  # nor could an agent have made one


async def remove(nft: Nft, tables: Iterable[str]) -> None:
    """Take these tables away; ``FirewallError`` if refused."""
    if script := "".join(removal(name) for name in tables):
        await nft.carry_out(script)


def _tunnel(items: Iterable[Item]) -> Tunnel | None:
    specs = (item.spec for item in items if isinstance(item, Link))
    return next((Tunnel(spec.vni, spec.port) for spec in specs if isinstance(spec, Vxlan)), None)


def _hosts(lease: Lease) -> Iterator[IPAddress]:
    for host in (lease.attrs.public_ip, lease.attrs.public_ipv6):
        if host is not None:
            yield host
