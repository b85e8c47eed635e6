"""What is heard asks for the right thing; that everything is heard is seen in tests/netns."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Collection

from pyflannel.conditions import EVENTS_LOST
from pyflannel.ears import Ears
from pyflannel.health import Health
from pyflannel.linux.kernel import KernelError
from pyflannel.reconcile import Reason, Reconciler
from pyflannel.sighting import Changed, Gone, Lost, Seen, Sighting
from tests.support.builders import view
from tests.support.fake_kernel import FakeKernel, Hardware
from tests.support.kernel_items import LINK, SCOPE, WANT
from tests.support.loops import run_jumping
from tests.support.told_events import Told


class Audits(Reconciler):
    """Counts how often an audit is asked for."""

    asked = 0

    def mark_dirty(self, why: Reason = Reason.EVENT) -> None:
        self.asked += 1


def outcome(*events: Collection[Sighting] | KernelError) -> tuple[int, bool, tuple[str, ...]]:
    """Audits asked for, whether the host is to be looked at, and the conditions left, a minute later."""

    async def scenario() -> tuple[int, bool, tuple[str, ...]]:
        told, health = Told(*events), Health()
        audits = Audits(FakeKernel(Hardware("eth0")), lambda: 0.0, asyncio.get_running_loop().time)
        audits.want(WANT.values(), SCOPE)
        ears = Ears(told, audits, health)
        ears.watch(view())
        assert told.below == ["ens33"]
        listening = asyncio.get_running_loop().create_task(ears.run())
        await asyncio.sleep(60)
        listening.cancel()
        ears.close()
        assert told.closed
        return audits.asked, ears.host_changed.is_set(), tuple(each.kind.code for each in health.present())

    return run_jumping(scenario())


def test_what_is_as_wanted_asks_for_nothing() -> None:
    assert outcome([Seen(LINK)]) == (0, False, ())


def test_what_is_gone_asks_for_an_audit() -> None:
    assert outcome([Gone(LINK.key)]) == (1, False, ())


def test_what_happens_below_asks_for_a_look_at_the_host() -> None:
    assert outcome([Changed("ens33")]) == (0, True, ())


def test_what_was_missed_may_have_been_anything() -> None:
    assert outcome([Lost()]) == (1, True, ())


def test_deafness_is_a_condition_until_something_is_heard() -> None:
    deaf = KernelError("listening", errno.ENOMEM)
    assert outcome(deaf) == (1, True, (EVENTS_LOST.code,))
    assert outcome(deaf, [Seen(LINK)]) == (1, True, ())


def test_what_was_heard_before_a_look_may_be_taken_in_or_not_be_had() -> None:
    async def scenario(*events: Collection[Sighting] | KernelError) -> int:
        audits = Audits(FakeKernel(Hardware("eth0")), lambda: 0.0, asyncio.get_running_loop().time)
        audits.want(WANT.values(), SCOPE)
        Ears(Told(*events), audits, Health()).catch_up()
        return audits.asked

    assert run_jumping(scenario([Gone(LINK.key)])) == 1
    assert run_jumping(scenario(KernelError("listening", errno.ENOMEM))) == 0
