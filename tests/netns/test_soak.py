"""Everything at once, for as long as one likes: faults, violent ends, hosts that come and go; in the end all is well.

PYFLANNEL_SOAK_SECONDS says how long (``make soak``: half an hour), PYFLANNEL_SOAK_SEED repeats a run that failed.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import secrets
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

import pytest

from tests.support.faults import FAULTS, PEERS, furnish
from tests.support.machines import eventually
from tests.support.pair import Pair, Peer

SECONDS = float(os.environ.get("PYFLANNEL_SOAK_SECONDS", "5"))
SEED = int(os.environ.get("PYFLANNEL_SOAK_SEED", secrets.randbits(32)))

pytestmark = [
    pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge", "iptables"),
    pytest.mark.timeout(SECONDS + 115),
]

GUESTS = [
    Peer(f"10.2.{number}.0/24", f"02:00:00:02:00:{number:02x}", f"172.16.42.{number}") for number in range(120, 150)
]
"""Hosts that come and go."""


class Soak:
    """What happens to the first host of a pair, drawn by lot."""

    def __init__(self, pair: Pair, rng: random.Random) -> None:
        self.host, self.store, self._rng = pair.one, pair.store, rng
        self.history: deque[str] = deque(maxlen=100)

    def step(self) -> None:
        """One thing happens, whatever state the last has left."""
        lot = self._rng.random()
        if lot < 0.08:
            self._end_agent()
        elif lot < 0.3:
            self._hosts_come_and_go()
        else:
            self._fault()
        self.supervise()

    def _end_agent(self) -> None:
        way = self._rng.choice([self.host.kill, self.host.stop])
        # One that was started just now may not have learnt yet to end at a signal.
        self.host.kill() if "Running backend." not in self.host.said() else way()
        self.history.append(f"agent: {way.__name__}")

    def _hosts_come_and_go(self) -> None:
        some = self._rng.sample(GUESTS, self._rng.randint(1, len(GUESTS)))
        self.store.write({guest.name: self._rng.choice([guest.record, None]) for guest in some})
        self.history.append(f"{len(some)} hosts come or go")

    def _fault(self) -> None:
        fault = self._rng.choice(FAULTS)
        if any(" name " in command for command in fault.commands) and not self._is_known():
            self.history.append(f"{fault.name}, not now")
            return
        try:
            fault.happen(self.host)
            self.history.append(fault.name)
        except AssertionError:
            # It is about something that is not there at present.
            self.history.append(f"{fault.name}, in part")

    def _is_known(self) -> bool:
        """Whether our device still has something of ours on it.

        One that was made anew, and then renamed before an agent had seen it, is nobody's for all that anybody can tell.
        No agent may touch it, and none can make another with its VNI, until a person removes it.
        """
        try:
            shown = self.host.space.run("ip address show dev flannel.1")
        except AssertionError:
            return False
        return f"{self.host.subnet.network_address}/32" in shown

    def supervise(self) -> None:
        """Start an agent that has ended, as systemd would.  It may do so by itself only while it has not come up."""
        agent = self.host.agent
        if agent is not None and agent.poll() is None:
            return
        said = self.host.said()
        assert "Traceback" not in said, said
        ended = self.history and self.history[-1].startswith("agent: ")
        assert ended or "Running backend." not in said, f"the agent has ended by itself:\n{said[-3000:]}"
        self.host.start()

    def settle(self) -> None:
        """Nothing happens any more: the agent comes up, and the guests are gone."""
        self.store.leave(*GUESTS)
        deadline = time.monotonic() + 60.0
        while "Running backend." not in self.host.said():
            assert time.monotonic() < deadline, self.host.said()
            self.supervise()
            time.sleep(0.05)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with Pair(tmp_path) as made:
        made.one.flags.append("-ip-masq")
        furnish(made.one.space)
        made.store.join(*PEERS)
        made.start()
        for host in made.hosts:
            for peer in PEERS:
                host.await_line(f"Subnet added: {peer.subnet} ")
        yield made


@contextlib.contextmanager
def repeatable(soak: Soak) -> Iterator[None]:
    """A failure in this block says how to have it again, and what had happened."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"PYFLANNEL_SOAK_SEED={SEED} PYFLANNEL_SOAK_SECONDS={SECONDS:g}")
        error.add_note("The last that happened: " + "; ".join(soak.history))
        raise


def lines(pair: Pair) -> list[str]:
    """All that both hosts hold, with a name for the MAC of the first one's device.

    An agent that was not there when somebody changed that MAC finds a device as another flannel may have left it: it
    takes the MAC over and publishes it, and all peers must have learnt it in the end.
    """
    pictures = [(host.address, half) for host in pair.hosts for half in astuple(host.picture())]
    told = [f"{host}: {line}" for host, half in pictures for kind in half for line in kind]
    mac = re.search(r"ifname=flannel\.1 address=(\S+)", "\n".join(told))
    return [line.replace(mac[1], "THE-MAC") for line in told] if mac is not None else told


def test_after_all_that_can_happen_everything_is_as_it_was(pair: Pair) -> None:
    before = lines(pair)
    soak = Soak(pair, rng := random.Random(SEED))
    with repeatable(soak):
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            soak.step()
            time.sleep(rng.choice([0.0, 0.01, 0.1, 0.5]))
        soak.settle()
        try:
            eventually(lambda: lines(pair) == before, "all that was", 30.0)
        except AssertionError as late:
            now = lines(pair)
            told = [f"- {line}" for line in before if line not in now] + [
                f"+ {line}" for line in now if line not in before
            ]
            raise AssertionError("\n".join([str(late), *told, "", pair.one.said()[-3000:]])) from None
        loss = pair.probe_for(0.5)
        assert loss.lost == 0, loss
