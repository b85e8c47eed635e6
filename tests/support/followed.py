"""What somebody who follows a store knows of it, beside what it really holds.

async with following(store) as seen:
    ...
    await seen.settled(direct)
    assert seen.gone == {TWO}
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

from pyflannel.lease.model import Snapshot, Subnet
from pyflannel.lease.table import LeaseTable
from pyflannel.store.api import Store
from pyflannel.store.feed import News, Outage, follow

_LONGEST_DELAY_S = 0.05
_NEVER_S = 1e9


class Followed:
    """The table that ``store.feed`` keeps up to date, and what was said on the way."""

    def __init__(self) -> None:
        self.table = LeaseTable()
        self.config = ""
        self.gone: set[Subnet] = set()
        """Every subnet that was ever said to be free again."""
        self.outages: list[str] = []
        self.snapshots = 0
        self.watches = False
        """Whether a watch has stood since the last snapshot."""
        self._heard = asyncio.Condition()

    async def hear(self, news: News) -> None:
        if isinstance(news, Outage):
            self.outages.append(news.reason)
        elif isinstance(news, Snapshot):
            self.snapshots += 1
            self.watches = False
            self.config = news.config
            self.gone |= {lease.subnet for lease in self.table.apply_snapshot(news).gone}
        else:
            self.watches = True
            self.config = self.config if news.config is None else news.config
            self.gone |= {lease.subnet for lease in self.table.apply(news).gone}
        async with self._heard:
            self._heard.notify_all()

    async def until(self, is_true: Callable[[], bool]) -> None:
        async with self._heard:
            await self._heard.wait_for(is_true)

    async def settled(self, direct: Store) -> None:
        """Wait until all is known that ``direct``, another client of the same data, finds there now."""
        there = await direct.leases()
        wanted = {lease.subnet: lease for lease in there.leases}
        await self.until(lambda: (dict(self.table.leases), self.config) == (wanted, there.config))


@asynccontextmanager
async def following(store: Store) -> AsyncIterator[Followed]:
    """Follow ``store`` without patience: short pauses, and no list but where the watch gives a reason."""
    seen, loop = Followed(), asyncio.get_running_loop()

    async def hear_all() -> None:
        news = follow(
            store,
            clock=loop.time,
            sleep=lambda seconds: asyncio.sleep(min(seconds, _LONGEST_DELAY_S)),
            jitter=lambda seconds: seconds,
            relist_every=_NEVER_S,
        )
        async with aclosing(news) as feed:
            async for item in feed:
                await seen.hear(item)

    async with asyncio.TaskGroup() as group:
        listening = group.create_task(hear_all(), name="follow")
        try:
            yield seen
        finally:
            listening.cancel()
