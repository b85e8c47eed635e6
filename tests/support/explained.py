"""What a person is told of a fault: by the agents' conditions, by ``flannelctl doctor`` and by ``flannelctl trace``.

    explained(pair, Fault("ip_forward off", {"one": "..."}, {"one": "..."}, Told(doctor=("forwarding-off",), ...)))

Everybody is asked over and over, from the moment the fault is there until all say what is expected; and again from its
repair until nobody says anything.  How long each took is kept, for people (``Chronicle``).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from typing import Final, Protocol

from pyflannel.cli.agent_socket import AgentSilent, status
from pyflannel.conditions import ALL
from pyflannel.health import Severity
from tests.support import doctors
from tests.support.machines import eventually
from tests.support.pair import Host

PATIENCE: Final = 30.0
"""Seconds."""

QUESTIONS: Final = (0.2, 0.4, 0.8, 1.6, 2.0)
"""Seconds between one trace and the next, and the next: more often than that no agent answers in the long run."""

LISTENING: Final = 0.1
"""Seconds between one question and the next to an agent that should have nothing to say."""

Deed = Mapping[str, str] | Callable[[], object]
"""Shell scripts by where they run (``one``, ``two``, ``one.container``, ...), or anything else."""


class Ends(Protocol):
    """Two hosts, as a ``Pair`` has them: a person looks on the one, and where his packets go is the other."""

    one: Host
    two: Host


@dataclass(slots=True)
class Between:
    """Any two."""

    one: Host
    two: Host


@dataclass(frozen=True, slots=True)
class Told:
    """What is said on the host ``one`` and, of its peer, on ``two``; all of it is silent where all is well."""

    conditions: tuple[str, ...] = ()
    """Codes, on ``one``; of an agent that does not answer, its silence."""
    conditions_there: tuple[str, ...] = ()
    doctor: tuple[str, ...] = ()
    """Codes of what the doctor finds on ``one`` beside what the agent complains about."""
    doctor_there: tuple[str, ...] = ()
    trace: str = "arrives"
    """From container to container: where it ends."""


WELL: Final = Told()
SILENT: Final = ("silent",)
"""The conditions of an agent that does not answer."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One that a person could meet."""

    name: str
    plant: Deed
    repair: Deed
    told: Told
    patience: float = PATIENCE
    """Seconds until it is told: more where chance decides."""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds until everybody said the right thing."""

    conditions: float = 0.0
    doctor: float = 0.0
    trace: float = 0.0


@dataclass(slots=True)
class Chronicle:
    """How long all faults took to be explained, and their explanations to go."""

    rows: list[tuple[str, Told, Times, Times]] = field(default_factory=list)

    def table(self) -> str:
        """For people, in Markdown."""
        head = ["fault", "conditions", "doctor", "trace", "said within", "gone within"]
        lines = [head, ["---"] * len(head)]
        for name, told, there, gone in self.rows:
            conditions = _both(told.conditions, told.conditions_there)
            found = _both(told.doctor, told.doctor_there)
            lines.append([name, conditions, found, told.trace, _seconds(there), _seconds(gone)])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _both(here: tuple[str, ...], there: tuple[str, ...]) -> str:
    said = [*here, *(f"({code})" for code in there)]
    return ", ".join(said) or "–"


def _seconds(times: Times) -> str:
    return " / ".join(f"{getattr(times, each.name):.1f}" for each in fields(times))


def explained(ends: Ends, fault: Fault, chronicle: Chronicle, well: Told = WELL) -> None:
    """Plant it, and see that it is told; repair it, and see that nothing is left to tell but what was before."""
    _do(ends, fault.plant)
    try:
        there = awaited(ends, fault.told, fault.name, fault.patience)
    finally:
        _do(ends, fault.repair)
    gone = awaited(ends, well, f"{fault.name}, repaired")
    chronicle.rows.append((fault.name, fault.told, there, gone))


def awaited(ends: Ends, told: Told, what: str, patience: float = PATIENCE) -> Times:
    """Ask everybody until all agree that it is as ``told``; how long each took."""
    inquiry, one, two = _Inquiry(what, patience), ends.one, ends.two
    agents = (told.conditions, told.conditions_there)

    def by_agents() -> float:
        return inquiry.until("the agents say", lambda: (conditions(one), conditions(two)), agents)

    with ThreadPoolExecutor(3) as pool:
        trace = pool.submit(inquiry.until, "the trace says", lambda: traced(one, two), told.trace, QUESTIONS)
        heard = by_agents()
        # The doctor says what the agents say as well: before them there is no use in asking.
        wanted = (_findings(told.doctor, told.conditions), _findings(told.doctor_there, told.conditions_there))
        here = pool.submit(inquiry.until, "the doctor finds here", lambda: found(one), wanted[0])
        there = pool.submit(inquiry.until, "the doctor finds there", lambda: found(two), wanted[1])
        times = Times(heard, max(here.result(), there.result()), trace.result())
    # What was right while others were still wrong has to be right in the end.
    by_agents()
    return times


def unspoken(ends: Ends, deed: Deed, what: str, but: Collection[str] = ()) -> None:
    """While ``deed`` is done, which ends when all is well, no agent complains of anything, nor anybody after it.

    ``but``: codes of what is true all the same.
    """
    over, heard = threading.Event(), set[str]()

    def listen() -> None:
        while not over.wait(LISTENING):
            heard.update(conditions(ends.one), conditions(ends.two))

    with ThreadPoolExecutor(1) as pool:
        listening = pool.submit(listen)
        try:
            _do(ends, deed)
        finally:
            over.set()
        listening.result()
    assert heard <= set(but), f"{what}: the agents said {sorted(heard)}"
    awaited(ends, WELL, what)


class _Inquiry:
    """Asks until the answer is right."""

    def __init__(self, what: str, patience: float) -> None:
        """``what`` is there from now on."""
        self._what, self._patience, self._began = what, patience, time.monotonic()

    def until(
        self, who: str, question: Callable[[], object], wanted: object, pauses: tuple[float, ...] = (0.0,)
    ) -> float:
        """How many seconds it took; between two questions there is a pause, and the last of ``pauses`` ever after."""
        said: list[object] = []

        def is_right() -> bool:
            if said:
                time.sleep(pauses[min(len(said), len(pauses)) - 1])
            said.append(question())
            return said[-1] == wanted

        try:
            eventually(is_right, self._what, self._patience)
        except AssertionError as late:
            raise AssertionError(f"{late}: {who} {said[-1]}, not {wanted}") from None
        return time.monotonic() - self._began


def conditions(host: Host) -> tuple[str, ...]:
    """What its agent says is not well, in alphabetical order."""
    try:
        return tuple(sorted({each.code for each in status(host.home / "flanneld.sock").conditions}))
    except AgentSilent:
        return SILENT


def found(host: Host) -> tuple[str, ...]:
    """What the doctor finds there, the agent's own complaints among it."""
    visit = doctors.visit(host)
    return tuple(sorted({str(each) for each in (*visit.codes, *visit.complaints)}))


def _findings(own: tuple[str, ...], conditions: tuple[str, ...]) -> tuple[str, ...]:
    """All that the doctor should find where the agent complains so: he leaves out its mere notices."""
    notices = {kind.code for kind in ALL if kind.severity is Severity.NOTICE}
    return tuple(sorted({*own, *conditions} - {*notices, *SILENT}))


def traced(host: Host, peer: Host) -> str:
    """Where a packet of the container of ``host`` for that of ``peer`` ends, as its ``flannelctl trace`` says."""
    done = doctors.at(host.enter, doctors.arguments(host), "--json", host.target, peer.target, command="trace")
    if not done.stdout:
        # What there is instead is said as well.
        return f"nothing: {done.stderr.strip().partition('. ')[0]}"
    document = json.loads(done.stdout)
    if document["verdict"] == "arrives":
        return "arrives"
    mood = "ends" if document["verdict"] == "ends" else "unsure"
    for leg in document["legs"]:
        for hop in leg["hops"]:
            if hop["mood"] == mood:
                what = "answer " if leg["back"] else ""
                place = "here" if leg["host"] is None else "there" if leg["host"] == peer.address else leg["host"]
                return f"{what}{mood} {place}, at {hop['point']}"
    return str(document["sentence"])


def _do(ends: Ends, deed: Deed) -> None:
    if not isinstance(deed, Mapping):
        deed()
        return
    for where, script in deed.items():
        name, _, container = where.partition(".")
        host: Host = ends.one if name == "one" else ends.two
        (host.container if container else host.space).shell(filled(ends, script))


def filled(ends: Ends, script: str) -> str:
    """``script`` with ``{subnet1}``, ``{gateway2}`` and so on written out."""
    for number, host in enumerate((ends.one, ends.two), 1):
        net = host.subnet
        words = {"subnet": net, "gateway": net[0], "bridge": net[1], "target": host.target, "host": host.address}
        for word, value in words.items():
            script = script.replace(f"{{{word}{number}}}", str(value))
    return script
