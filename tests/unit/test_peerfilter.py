"""When the table of known hosts is written, and with whom in it.  For the kernel see tests/netns/test_peer_filter."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from pyflannel.lease.model import Lease
from pyflannel.linux.nft import Nft
from pyflannel.linux.run import CommandMissing, Completed
from pyflannel.network import Replan
from pyflannel.peerfilter import LOOK_EVERY, PAUSE, RETRY, PeerFilter, left, remove
from pyflannel.state import Link, Tun
from tests.support.builders import vxlan_lease
from tests.support.kernel_items import LINK
from tests.support.loops import run_jumping

TABLE = "flannel-peers-1"
ONE = vxlan_lease("10.2.41.0/24", "172.16.41.132")
TWO = vxlan_lease("10.2.42.0/24", "172.16.41.133")


class Tables:
    """An ``nft`` with nothing behind it but sets of hosts."""

    def __init__(self) -> None:
        self.hosts: dict[str, set[str]] = {}
        self.scripts: list[str] = []
        self.missing = False
        self.meddled: list[asyncio.Event] = []

    async def __call__(self, argv: Sequence[str], stdin: str | None) -> Completed:
        if self.missing:
            raise CommandMissing("running nft: No such file or directory")
        command = " ".join(argv)
        if stdin is not None:
            self.scripts.append(stdin)
            return Completed(tuple(argv), 0 if self._carry_out(stdin) else 1, "", "")
        if command == "nft list tables inet":
            return Completed(tuple(argv), 0, "".join(f"table inet {name}\n" for name in self.hosts), "")
        name = argv[-1]
        if name not in self.hosts:
            return Completed(tuple(argv), 1, "", "Error: No such file or directory")
        listing = {"nftables": [{"set": {"name": "hosts", "elem": sorted(self.hosts[name])}}]}
        return Completed(tuple(argv), 0, json.dumps(listing), "")

    def _carry_out(self, script: str) -> bool:
        for verb, name, text in re.findall(r"(add|delete) element inet (\S+) hosts \{ (.*) \}", script):
            elements = set(text.split(", "))
            if name not in self.hosts or (verb == "delete" and not elements <= self.hosts[name]):
                return False
            self.hosts[name] = self.hosts[name] | elements if verb == "add" else self.hosts[name] - elements
        for name in re.findall(r"delete table inet (\S+)", script):
            self.hosts.pop(name, None)
        for name in re.findall(r"^table inet (\S+)", script, re.M):
            self.hosts[name] = set(re.findall(r"[0-9]+(?:\.[0-9]+){3}", script))
        return True

    def meddle(self) -> None:
        """Tell whoever listens that something was changed."""
        for heard in self.meddled:
            heard.set()


class Ear:
    """Hears what is meddled with."""

    def __init__(self, tables: Tables) -> None:
        self._heard = asyncio.Event()
        tables.meddled.append(self._heard)

    async def wait(self, settle: float) -> None:
        await self._heard.wait()
        await asyncio.sleep(settle)
        self._heard.clear()

    def close(self) -> None:
        """Nothing to let go of."""


def scene(
    tables: Tables, script: Callable[[PeerFilter], Awaitable[None]], asked: bool = True, items: Iterable[Link] = (LINK,)
) -> None:
    """Run a filter while ``script`` goes on, and until that ends."""

    async def whole() -> None:
        made = PeerFilter(asked, items, Nft(tables), lambda: Ear(tables))
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(made.run())
            await script(made)
            running.cancel()

    run_jumping(whole())


async def settled() -> None:
    await asyncio.sleep(3 * PAUSE)


def test_there_is_no_table_before_everybody_is_known() -> None:
    tables = Tables()

    async def script(filtering: PeerFilter) -> None:
        filtering.learn(Replan(added=(ONE,)))
        await settled()
        assert tables.hosts == {}
        filtering.learn(Replan(added=(TWO,)))
        filtering.begin()
        await settled()
        assert tables.hosts == {TABLE: {"172.16.41.132", "172.16.41.133"}}

    scene(tables, script)


def test_a_host_costs_one_element_and_is_known_as_long_as_one_lease_names_it() -> None:
    tables = Tables()
    twin = replace(ONE, subnet=TWO.subnet)

    async def script(filtering: PeerFilter) -> None:
        filtering.begin()
        await settled()
        tables.scripts.clear()
        for replan, hosts in (
            (Replan(added=(ONE, twin)), {"172.16.41.132"}),
            (Replan(removed=(ONE,)), {"172.16.41.132"}),
            (Replan(added=(moved(twin, "172.16.41.140"),)), {"172.16.41.140"}),
            (Replan(removed=(twin,)), set[str]()),
        ):
            filtering.learn(replan)
            await settled()
            assert tables.hosts == {TABLE: hosts}
        assert [script.count("element") for script in tables.scripts] == [1, 2, 1]

    scene(tables, script)


def moved(lease: Lease, host: str) -> Lease:
    return replace(lease, attrs=replace(lease.attrs, public_ip=IPv4Address(host)))


@pytest.mark.parametrize("told", [True, False])
def test_what_somebody_does_is_undone_at_once_where_the_kernel_tells_and_else_within_a_minute(told: bool) -> None:
    tables = Tables()

    async def script(filtering: PeerFilter) -> None:
        filtering.learn(Replan(added=(ONE,)))
        filtering.begin()
        await settled()
        tables.hosts[TABLE].add("198.51.100.66")
        if told:
            tables.meddle()
        await (settled() if told else asyncio.sleep(LOOK_EVERY + 1))
        assert tables.hosts == {TABLE: {"172.16.41.132"}}
        tables.hosts.clear()
        filtering.learn(Replan(removed=(ONE,)))
        await settled()
        assert tables.hosts == {TABLE: set()}, "made anew, for there was nothing left to change"

    scene(tables, script)


def test_without_nft_a_line_says_so_once_and_it_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    tables = Tables()
    tables.missing = True

    async def script(filtering: PeerFilter) -> None:
        filtering.learn(Replan(added=(ONE,)))
        filtering.begin()
        await asyncio.sleep(3 * LOOK_EVERY)
        assert [record.message.partition(": ")[2] for record in caplog.records] == ["there is no nft on this host"]
        tables.missing = False
        await asyncio.sleep(RETRY + 1)
        assert tables.hosts == {TABLE: {"172.16.41.132"}}

    scene(tables, script)


def test_where_none_is_asked_for_what_an_earlier_run_left_goes() -> None:
    tables = Tables()
    tables.hosts = {TABLE: {"172.16.41.132"}, "flannel-peers-2": set(), "theirs": set()}

    async def script(filtering: PeerFilter) -> None:
        filtering.learn(Replan(added=(ONE,)))
        filtering.begin()
        await settled()
        assert tables.hosts.keys() == {"flannel-peers-2", "theirs"}

    scene(tables, script, asked=False)


def test_without_a_tunnel_there_is_nothing_to_filter(caplog: pytest.LogCaptureFixture) -> None:
    tables = Tables()

    async def script(filtering: PeerFilter) -> None:
        filtering.begin()
        await settled()
        assert tables.scripts == []
        assert "has no effect" in caplog.text

    scene(tables, script, items=(Link("flannel0", Tun(), 1472),))


def test_a_clean_up_takes_all_of_our_tables_and_no_other() -> None:
    tables = Tables()
    tables.hosts = {TABLE: set(), "flannel-peers-2": set(), "theirs": set()}

    async def whole() -> None:
        for found in ((TABLE, "flannel-peers-2"), ()):
            assert await left(Nft(tables)) == found
            await remove(Nft(tables), found)
        tables.missing = True
        assert await left(Nft(tables)) == ()

    run_jumping(whole())
    assert tables.hosts.keys() == {"theirs"}
