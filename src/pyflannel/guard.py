"""Keeping the firewall at what the network needs: at the start, when its rules were changed, and every few seconds.

Docker inserts its rules before ours when it starts, firewalld flushes them all, and people do either.  The nf_tables
variant of iptables, today's default, makes the kernel tell of that at once.  The legacy variant tells nobody, and so
the clock stays (compat §6.2 has the same period).

How often: a change is followed by one look, shortly after, so that a burst of changes is one.  Our own writing is a
change as well and costs a second look, which finds all well and writes nothing.  A program that goes on taking our
rules out would have us writing for ever; we do not give up, but slow down.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from pyflannel.conditions import FIREWALL
from pyflannel.firewall.iptables import Fault, compare, parse_save
from pyflannel.firewall.rules import RuleSet, rules
from pyflannel.health import Health
from pyflannel.lease.model import Subnet
from pyflannel.lease.network import NetworkConfig
from pyflannel.linux.nftevents import RuleEvents
from pyflannel.linux.xtables import FirewallError, Xtables
from pyflannel.settings import Settings
from pyflannel.state import IPNetwork

log = logging.getLogger(__name__)

SETTLE: Final = 0.03
"""Seconds between a change and the look that follows it."""
PAUSE: Final = 0.2
"""Seconds between a look and waiting for the next change: with ``SETTLE``, about four looks a second at most."""
PATIENCE: Final = 20
"""After so many looks in a row that found something wrong, the pause is ``LONG_PAUSE``."""
LONG_PAUSE: Final = 5.0
"""Seconds."""
RETRY: Final = 2.0
"""Seconds after which what failed is tried again, if nothing is heard: a program that was missing may be there."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the command line asks of the firewall."""

    masquerade: bool
    forward: bool
    random_fully: bool
    """Wanted, if the tools can do it."""


class RuleChanges(Protocol):
    """Tells of changes to the rules, as ``RuleEvents`` does."""

    async def wait(self, settle: float) -> None:
        """Return ``settle`` seconds after a change, at once if there was one since the last return."""
        ...

    def close(self) -> None:
        """Stop listening."""
        ...


def policy(settings: Settings) -> Policy:
    """What the command line asks of the firewall."""
    return Policy(settings.ip_masq, settings.iptables_forward_rules, not settings.ip_masq_fully_random_disable)


class Guard:
    """The firewall rules of one network, in each of its address families."""

    def __init__(
        self,
        config: NetworkConfig,
        own: Subnet,
        policy: Policy,
        tables: Callable[[Literal[4, 6]], Xtables] = Xtables,
        listen: Callable[[], RuleChanges] = RuleEvents,
        health: Health | None = None,
    ) -> None:
        """Guard nothing yet.  ``listen`` may raise ``OSError``, and then there is the clock alone."""
        self.ok = False
        """When last looked at, the rules were as they should be, or could be made so."""
        self.repairs = 0
        """How often they had been altered."""
        self._health = health or Health()
        self._policy, self._tables, self._listen = policy, tables, listen
        self._families: list[tuple[Xtables, IPNetwork, IPNetwork]] = []
        if config.ipv4 is not None and own.ipv4 is not None:
            self._add(4, config.ipv4.network, own.ipv4)
        if config.ipv6 is not None and own.ipv6 is not None:
            self._add(6, config.ipv6.network, own.ipv6)

    def _add(self, family: Literal[4, 6], network: IPNetwork, subnet: IPNetwork) -> None:
        if self._policy.masquerade or self._policy.forward:
            self._families.append((self._tables(family), network, subnet))

    @property
    def wanted(self) -> bool:
        """Whether there is anything to guard."""
        return bool(self._families)

    async def ensure(self) -> None:
        """Make the rules what they should be.

        ``FirewallError`` says for which families that cannot be done, once all of them had their turn.
        """
        _, failures = await self._look()
        if failures:
            raise FirewallError("; ".join(sorted(failures.values())))

    async def faults(self) -> tuple[dict[Literal[4, 6], tuple[Fault, ...]], tuple[str, ...]]:
        """What ``ensure`` would put right, in each family that has anything, and what failed; nothing is written."""
        found: dict[Literal[4, 6], tuple[Fault, ...]] = {}
        failures: list[str] = []
        for tables, network, subnet in self._families:
            try:
                wanted = await self._wanted(tables, network, subnet)
                faults = compare(parse_save(await tables.observe()), wanted)
            except FirewallError as error:
                failures.append(str(error))
                continue
            if faults:
                found[network.version] = faults
        return found, tuple(failures)

    async def run(self, every: float) -> None:
        """Look now, after every change, and every ``every`` seconds, for ever; what fails is said and tried again."""
        if not self._families:
            return
        changes = self._listener(every)
        in_a_row = 0
        try:
            # At once, as nobody listened since ``ensure``.
            while True:
                in_a_row = in_a_row + 1 if await self._found_something() else 0
                pause = PAUSE if in_a_row < PATIENCE else min(every, LONG_PAUSE)
                await asyncio.sleep(pause)
                await _change(changes, (every if self.ok else min(every, RETRY)) - pause)
        finally:
            if changes is not None:
                changes.close()

    def _listener(self, every: float) -> RuleChanges | None:
        try:
            return self._listen()
        except OSError as error:
            log.info("Firewall: the kernel does not tell of changes, so we look every %g s (%s)", every, error)
            return None

    async def _found_something(self) -> bool:
        """Look, and say what fails; False if all was well."""
        mended, failures = await self._look()
        self.repairs += mended
        return mended or bool(failures)

    async def _look(self) -> tuple[bool, dict[str, str]]:
        """Put every family right: whether any had to be, and which failed, and why."""
        mended, failures = False, dict[str, str]()
        for tables, network, subnet in self._families:
            try:
                ensured = await tables.ensure(await self._wanted(tables, network, subnet))
            except FirewallError as error:
                failures[f"IPv{network.version}"] = str(error)
                continue
            if ensured.changed:
                mended = True
                log.info("Firewall for IPv%d put right: %s", network.version, "; ".join(ensured.mended))
        self.ok = not failures
        self._health.set_all(FIREWALL, {family: f"Firewall: {text}" for family, text in failures.items()})
        return mended, failures

    async def _wanted(self, tables: Xtables, network: IPNetwork, subnet: IPNetwork) -> RuleSet:
        version = await tables.version()
        return rules(
            network,
            subnet,
            masquerade=self._policy.masquerade,
            forward=self._policy.forward,
            random_fully=self._policy.random_fully and version.random_fully,
        )


async def _change(changes: RuleChanges | None, limit: float) -> None:
    """Wait for a change, ``limit`` seconds at most."""
    if changes is None:
        await asyncio.sleep(limit)
        return
    try:
        async with asyncio.timeout(limit):
            await changes.wait(SETTLE)
    except TimeoutError:
        pass
