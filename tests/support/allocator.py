"""Hosts without a kernel: each gets a lease, keeps it, and follows everybody's.

    python -m tests.support.allocator http://127.0.0.1:2379,http://127.0.0.1:2381 0 50

is the hosts 0 to 49, each with a client of its own; the first word may also be ``v2+http://…`` or ``local:/path``.
What is real is all that stands between an agent and its store.  They begin when the standard input ends: hand one pipe
to many processes, close it, and all hosts of all of them set off together.

What happens is told on the standard output, a JSON object a line, each in one write, so many processes may share one
file.  ``event`` is one of

    ready     the process waits for its input to end
    acquired  ``host`` has ``subnet``, ``after`` so many seconds
    lost      ``host`` has to look for another subnet; ``why``
    knows     SIGUSR1 came: which subnet is whose (``leases``), as far as ``host`` knows
    final     SIGTERM came, and ``host`` still holds ``subnet``
    end       the last word of the process: its hosts were told ``races`` times that others had been faster

The status is 0 after SIGTERM.  Any exception ends the process with another one: an agent would have ended, too.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import aclosing
from ipaddress import IPv4Address
from typing import Final, NoReturn

from pyflannel.keeper import Keeper, LeaseLost
from pyflannel.lease.model import Attrs, Lease, Snapshot
from pyflannel.lease.network import NetworkConfig, parse_network_config
from pyflannel.lease.table import LeaseTable
from pyflannel.store.api import Store
from pyflannel.store.feed import Outage, follow
from pyflannel.tenancy import Tenant, acquire, patiently
from tests.support.stores import PREFIX

V2: Final = "v2+"
_FIRST_ADDRESS: Final = IPv4Address("172.16.1.0")
_FIRST_MAC: Final = 0x02_00_00_00_00_00
_MARGIN_S: Final = 3600.0
_BREATH_S: Final = 0.2
"""As in ``pyflannel.daemon``."""
_FASTER: Final = "Another host was faster"


def public_ip(host: int) -> IPv4Address:
    """The address of a host."""
    return _FIRST_ADDRESS + host


def attrs(host: int) -> Attrs:
    """What a host publishes, with a VTEP MAC that nobody else has."""
    mac = (_FIRST_MAC + host).to_bytes(6).hex(":")
    return Attrs(public_ip(host), None, "vxlan", f'{{"VNI":1,"VtepMAC":"{mac}"}}')


def open_store(where: str) -> Store:
    """A client of its own; the modules of other stores are not loaded, as with an agent."""
    if where.startswith("local:"):
        from pyflannel.store.local import open_url

        return open_url(where, PREFIX)
    if where.startswith(V2):
        from pyflannel.store.etcd2 import Etcd2Store

        return Etcd2Store(where.removeprefix(V2).split(","), PREFIX)
    from pyflannel.store.etcd3 import Etcd3Store

    return Etcd3Store(where.split(","), PREFIX)


def tell(event: str, **facts: object) -> None:
    """Write a line, in one piece."""
    os.write(1, (json.dumps({"event": event, **facts}) + "\n").encode())


class Races(logging.Handler):
    """Counts what the hosts of this process say of races that they lost."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.lost += str(record.msg).startswith(_FASTER)


class Host:
    """What of an agent deals with the store."""

    def __init__(self, number: int, store: Store) -> None:
        self._number, self.store = number, store
        self._rng = random.Random()
        self._table = LeaseTable()
        self._lease: Lease | None = None

    async def run(self) -> NoReturn:
        """Hold a lease from now on, and say at the end which."""
        began = time.monotonic()
        try:
            record = await patiently("read the network configuration", self.store.network_config, self._rng)
            config = parse_network_config(record.text or "")
            while True:
                await self._reign(config, began)
                began = time.monotonic()
                await asyncio.sleep(_BREATH_S)
        finally:
            if self._lease is not None:
                tell("final", host=self._number, subnet=str(self._lease.subnet))

    def say_what_it_knows(self) -> None:
        """Tell of every lease."""
        leases = {str(lease.subnet): str(lease.attrs.public_ip) for lease in self._table.leases.values()}
        tell("knows", host=self._number, leases=leases)

    async def _reign(self, config: NetworkConfig, began: float) -> None:
        """Get a lease and keep it until it is lost, as ``daemon.Reign`` does."""
        listed = await patiently("list the leases", self.store.leases, self._rng)
        previous = None if self._lease is None else self._lease.subnet
        tenant = Tenant(config, attrs(self._number), previous, _MARGIN_S)
        self._lease = await acquire(self.store, tenant, self._rng, listed)
        tell("acquired", host=self._number, subnet=str(self._lease.subnet), after=time.monotonic() - began)
        keeper = Keeper(self.store, tenant, self._lease, self._rng)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(keeper.run(), name=f"lease of host {self._number}")
                tasks.create_task(self._follow(keeper), name=f"leases known to host {self._number}")
        except* LeaseLost as group:
            tell("lost", host=self._number, why=str(group.exceptions[0]))

    async def _follow(self, keeper: Keeper) -> None:
        clock = asyncio.get_running_loop().time
        feed = follow(self.store, clock=clock, sleep=asyncio.sleep, jitter=self._spread)
        async with aclosing(feed):
            async for news in feed:
                if isinstance(news, Outage):
                    continue
                if isinstance(news, Snapshot):
                    self._table.apply_snapshot(news)
                else:
                    self._table.apply(news)
                if not keeper.recognises(self._table):
                    keeper.look_again()

    def _spread(self, delay: float) -> float:
        return delay * self._rng.uniform(0.8, 1.2)


async def live(host: Host) -> NoReturn:
    """Run a host, and close its client after it."""
    try:
        await host.run()
    finally:
        await host.store.close()


async def serve(where: str, numbers: Sequence[int]) -> None:
    """Be all of them, until SIGTERM."""
    loop = asyncio.get_running_loop()
    hosts = [Host(number, open_store(where)) for number in numbers]
    async with asyncio.TaskGroup() as tasks:
        lives = [tasks.create_task(live(host), name="host") for host in hosts]
        loop.add_signal_handler(signal.SIGTERM, dismiss, lives)
        loop.add_signal_handler(signal.SIGUSR1, ask, hosts)


def dismiss(lives: Sequence[asyncio.Task[NoReturn]]) -> None:
    """Let all hosts wind down."""
    for each in lives:
        each.cancel()


def ask(hosts: Sequence[Host]) -> None:
    """Have all hosts say what they know."""
    for host in hosts:
        host.say_what_it_knows()


def main(words: Sequence[str]) -> int:
    """Be the hosts that the words name."""
    where, first, end = words
    races = Races()
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d ms: %(message)s")
    logging.getLogger("pyflannel.tenancy").addHandler(races)
    tell("ready")
    sys.stdin.read()
    asyncio.run(serve(where, range(int(first), int(end))))
    tell("end", races=races.lost)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
