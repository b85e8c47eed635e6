"""That it is there when it is wanted, and costs nothing when it is not; what it sees is seen in tests/netns."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from pyflannel.health import Health
from pyflannel.lookout import BEGIN_AFTER, Lookout
from pyflannel.network import Network
from pyflannel.probes.errands import NoAnswer
from pyflannel.settings import Settings
from tests.support.builders import backend, subnet, view
from tests.support.loops import run


def lookout(*, probe: bool) -> Lookout:
    return Lookout(Settings(probe=probe), Network(backend(), view()), Health())


def test_who_does_not_want_it_has_none() -> None:
    async def scenario() -> None:
        await lookout(probe=False).run()

    run(scenario())


@pytest.mark.parametrize(("probe", "reason"), [(False, "-probe=false"), (True, "only just started")])
def test_nobody_is_asked_before_it_runs(probe: bool, reason: str) -> None:
    made = lookout(probe=probe)
    made.update()
    assert made.sights() == made.sights([subnet("10.2.41.0/24")]) == {}
    with pytest.raises(NoAnswer, match=reason):
        run(made.ask(subnet("10.2.41.0/24"), b"?"))


def test_a_start_does_not_pay_for_it() -> None:
    paid = "import sys, pyflannel.daemon; print([m for m in sys.modules if m.startswith('pyflannel.probes.p')])"
    assert subprocess.check_output([sys.executable, "-c", paid], text=True).strip() == "[]"


def running(made: Lookout, *, told: bool) -> bool:
    """Whether it asks anybody by now."""

    async def scenario() -> bool:
        task = asyncio.ensure_future(made.run())
        if told:
            made.update()
        await asyncio.sleep(2 * BEGIN_AFTER)
        assert not task.done()
        try:
            await made.ask(subnet("10.2.41.0/24"), b"?")
        except NoAnswer as exc:
            return "only just started" not in str(exc)
        finally:
            task.cancel()
            await asyncio.wait([task])
        raise AssertionError("there is nobody to answer")

    return run(scenario())


def test_it_begins_once_the_peers_are_known() -> None:
    assert not running(lookout(probe=True), told=False)
    assert running(lookout(probe=True), told=True)
