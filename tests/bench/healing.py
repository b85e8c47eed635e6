"""How long a fault lasts: from the command that does it to the kernel's state being back to what it was.

What is measured includes starting the program that does the harm, and is known no finer than one look at the state
takes; both are in the table.  Looks follow one another in this process, which competes for the machine with the agent.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from math import ceil, inf
from pathlib import Path
from statistics import median

from pyflannel.linux.kernel import LinuxKernel
from pyflannel.state import Scope
from tests.bench.table import show
from tests.support.faults import FAULTS, RULE_FAULTS, Fault, patient
from tests.support.machines import eventually
from tests.support.pair import Host
from tests.support.pictures import DEVICE, NETWORK, rules

REPETITIONS = 50
PATIENCE_S = 15.0
"""After so long a state counts as lost for good."""
REST_S = (0.0, 0.25)
"""Between two faults, at random: the agent has a rhythm of its own, and faults do not keep to it."""
RULES_REST_S = (0.3, 0.6)
"""The same for rules: the agent slows down where somebody goes on taking them away again and again."""
SCOPE = Scope(frozenset([DEVICE]), (NETWORK,), frozenset([(DEVICE, "ipv6", "accept_ra")]))

Look = Callable[[], object]


@dataclass(frozen=True)
class Sample:
    """One fault."""

    lasted_s: float
    """``inf`` if it was not undone."""
    look_s: float
    """How long a look took, at most."""


def main(_huge: bool = False) -> None:
    """Print the table, which takes a quarter of an hour."""
    rows = []
    with Clinic() as clinic:
        for fault in FAULTS:
            samples = clinic.measure(fault)
            rows.append([fault.name, "yes" if fault.event == "told" else "no", *figures(samples)])
    head = ["fault", "kernel tells", "p50, ms", "p99, ms", "greatest, ms", "longest look, ms", "times"]
    show(f"From a fault to everything being back; {REPETITIONS} times each", head, rows)


def figures(samples: Sequence[Sample]) -> list[str]:
    """Half, 99 % and all of the faults lasted at most so long."""
    lasted = sorted(sample.lasted_s for sample in samples)
    look = median(sample.look_s for sample in samples)
    ranks = [ceil(share * len(lasted)) - 1 for share in (0.5, 0.99, 1.0)]
    return [*(_ms(lasted[rank]) for rank in ranks), f"{look * 1e3:.1f}", str(len(lasted))]


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.0f}" if seconds < inf else f"not within {PATIENCE_S:g} s"


class Clinic:
    """Hosts to do harm to; one that does not recover is replaced."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._rng = random.Random(1)
        self._host: Host | None = None

    def __enter__(self) -> Clinic:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def measure(self, fault: Fault) -> list[Sample]:
        """The samples of one fault; a single one if that was never undone."""
        samples: list[Sample] = []
        while len(samples) < REPETITIONS:
            host = self._host or self._admit()
            with LinuxKernel(host.space.name) as kernel:
                look = partial(rules, host.space) if fault in RULE_FAULTS else partial(kernel.observe, SCOPE)
                try:
                    samples.append(sample(host, fault, look))
                except Overtaken:
                    continue
            if samples[-1].lasted_s == inf:
                self._host = None
                break
            time.sleep(self._rng.uniform(*(RULES_REST_S if fault in RULE_FAULTS else REST_S)))
        return samples

    def _admit(self) -> Host:
        self._stack.close()
        home = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        host = self._stack.enter_context(patient(home))
        eventually(lambda: "Subnet added" in host.said(), "the peers")
        self._host = host
        return host


class Overtaken(Exception):
    """The agent was quicker than the second half of the fault, which so could not happen."""


def sample(host: Host, fault: Fault, look: Look) -> Sample:
    """Do the harm once, and watch."""
    before = look()
    began = time.perf_counter()
    try:
        fault.happen(host)
    except AssertionError as refused:
        eventually(lambda: look() == before, f"what was, after half of this: {refused}")
        raise Overtaken from refused
    longest = 0.0
    while (started := time.perf_counter()) < began + PATIENCE_S:
        same = look() == before
        ended = time.perf_counter()
        longest = max(longest, ended - started)
        if same:
            return Sample(ended - began, longest)
    return Sample(inf, longest)
