"""That it is there when it is wanted, and costs nothing when it is not; what it sees is seen in tests/netns."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from pyflannel.health import Health
from pyflannel.lookout import Lookout
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
    assert made.sights() == {}
    with pytest.raises(NoAnswer, match=reason):
        run(made.ask(subnet("10.2.41.0/24"), b"?"))


def test_a_start_does_not_pay_for_it() -> None:
    paid = "import sys, pyflannel.daemon; print([m for m in sys.modules if m.startswith('pyflannel.probes.p')])"
    assert subprocess.check_output([sys.executable, "-c", paid], text=True).strip() == "[]"


def test_it_runs_until_it_is_stopped() -> None:
    async def scenario() -> bool:
        running = asyncio.ensure_future(lookout(probe=True).run())
        await asyncio.sleep(1.0)
        ended = running.done()
        running.cancel()
        await asyncio.wait([running])
        return ended

    assert not run(scenario())
