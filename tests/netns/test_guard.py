"""The guard over real rules: what a foreign hand changes is right again at once, since the kernel tells of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from ipaddress import IPv4Network

import pytest

from pyflannel.firewall.iptables import Saved, compare, parse_save
from pyflannel.firewall.rules import rules
from pyflannel.guard import Guard, Policy
from pyflannel.linux.nftevents import RuleEvents
from pyflannel.linux.xtables import Xtables
from tests.support import loops
from tests.support.builders import config, subnet
from tests.support.namespaces import Namespace
from tests.support.programs import inside

pytestmark = pytest.mark.needs("root", "netns", "iptables-nft")

HOUR = 3600.0
WANTED = rules(
    IPv4Network("10.2.0.0/16"), IPv4Network("10.2.71.0/24"), masquerade=False, forward=True, random_fully=True
)
PLAIN_JUMP = '-m comment --comment "flanneld nomasq" -j FLANNEL-NOMASQ'
JUMP = '-m comment --comment "flanneld forward" -j FLANNEL-FWD'
SOON = 0.05
"""Seconds.  A change is announced before the program that made it ends: waiting longer would show nothing more."""


@pytest.fixture
def space() -> Iterator[Namespace]:
    with Namespace("guard") as made:
        yield made


def saved(space: Namespace) -> Saved:
    """The rules at this moment, during which the guard does nothing."""
    return parse_save(space.run("iptables-nft-save"))


async def right_again(space: Namespace) -> None:
    """Return once the rules are as wanted; how long that may take is the limit of the test."""
    while compare(saved(space), WANTED):  # noqa: ASYNC110 - the kernel sets no asyncio.Event
        await asyncio.sleep(SOON)


def while_guarded(space: Namespace, scenario: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        guard = Guard(
            config(),
            subnet("10.2.71.0/24"),
            Policy(masquerade=False, forward=True, random_fully=True),
            lambda family: Xtables(family, "nft", inside(space)),
            lambda: RuleEvents(space.name),
        )
        async with asyncio.TaskGroup() as tasks:
            guarding = tasks.create_task(guard.run(HOUR), name="guard")
            await right_again(space)
            await scenario()
            guarding.cancel()

    loops.run(whole())


def test_docker_starting_does_not_hide_containers_from_each_other(space: Namespace) -> None:
    docker = "-s 10.2.71.0/24 ! -o docker0 -j MASQUERADE"

    async def scenario() -> None:
        space.run(f"iptables-nft -w -t nat -I POSTROUTING {docker}")
        assert saved(space).rules("nat", "POSTROUTING") == (docker, PLAIN_JUMP)
        await right_again(space)
        assert saved(space).rules("nat", "POSTROUTING") == (PLAIN_JUMP, docker)

    while_guarded(space, scenario)


@pytest.mark.parametrize(
    "command",
    [
        "iptables-nft -w -F FORWARD",
        "iptables-nft -w -I FORWARD -j DROP",
        "iptables-nft -w -F FLANNEL-FWD",
        "iptables-nft -w -t nat -F",
        "nft flush ruleset",
    ],
)
def test_what_a_foreign_hand_changed_is_right_again_at_once(space: Namespace, command: str) -> None:
    async def scenario() -> None:
        for _ in range(2):
            space.run(command)
            assert compare(saved(space), WANTED)
            await right_again(space)
        assert saved(space).rules("filter", "FORWARD")[0] == JUMP

    while_guarded(space, scenario)


# What the kernel tells; what it shares with the fake is in tests/contract/test_rule_changes.py.


def heard(space: Namespace, scenario: Callable[[], object]) -> bool:
    """Whether there was news while ``scenario`` ran, during which nobody had time to read any."""

    async def whole() -> bool:
        with closing(RuleEvents(space.name)) as events:
            scenario()
            try:
                async with asyncio.timeout(SOON):
                    await events.wait()
            except TimeoutError:
                return False
            return True

    return loops.run(whole())


@pytest.mark.parametrize("family", ["ip", "ip6", "inet"])
def test_tables_of_any_family_are_news(space: Namespace, family: str) -> None:
    assert heard(space, lambda: space.run(f"nft add table {family} theirs"))


def test_looking_at_the_rules_is_no_news(space: Namespace) -> None:
    def look() -> None:
        for command in ("iptables-nft-save", "ip6tables-nft-save", "iptables-nft -S", "nft list ruleset"):
            space.run(command)

    assert not heard(space, look)


def test_changes_in_another_namespace_are_no_news(space: Namespace) -> None:
    with Namespace("other") as other:
        assert not heard(space, lambda: other.run("iptables-nft -A FORWARD -j ACCEPT"))


def test_a_transaction_too_big_for_the_buffer_is_news_all_the_same(space: Namespace) -> None:
    """Its end does not fit in any more, so all there is to hear is that something was lost."""
    sources = (f"-A FORWARD -s 10.{number >> 8}.{number & 255}.0/24 -j ACCEPT" for number in range(5000))
    payload = "\n".join(["*filter", *sources, "COMMIT", ""])
    assert heard(space, lambda: space.run("iptables-nft-restore --noflush", stdin=payload))
