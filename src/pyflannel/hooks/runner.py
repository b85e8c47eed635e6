"""The ``Holder`` of hooks: runs the commands about peers, knows what they made, and makes it again where it is lost.

What is asked of it is accepted at once and done later, by workers.  For each peer there is a slot, in which what is
*wanted* and what was *made* are brought together: the next step follows from the two alone.

Rules of this file
  1. For one peer there is never more than one command at a time, and what was made by the old values is removed with
     the old values before anything is made by new ones.
  2. Everything is run once at each start of an agent, as in flannel: its own examples make their device anew at a
     start, which takes all routes along.  Where ``SubnetCheckCommand`` says that what was made is there, it is not run.
     Where there is no such command and a second run fails, as ``ip route add`` does, what the first run made is taken
     to be there still: the run is tried a few times more, and then left at that.
  3. A command that fails is run again, ever more rarely.  What a failed run has made by half may be what the next one
     fails of: so the first few times ``SubnetRemoveCommand`` is run before it.  Not for ever, for a command may well do
     what it should, and end with another status than 0.
  4. A ``SubnetRemoveCommand`` that fails is tried a few times, and then forgotten: mostly it fails because what it is
     to remove is gone.
  5. Commands run one after the other unless ``ParallelCommands`` allows for more: scripts may write to one file.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NoReturn

from pyflannel.backends.api import Backend
from pyflannel.backends.extension import Extension, peer_variables
from pyflannel.conditions import COMMAND_FAILS
from pyflannel.diff import Op, Put
from pyflannel.health import Health
from pyflannel.hooks.command import Shell, tell
from pyflannel.hooks.record import Record
from pyflannel.linux.kernel import Report
from pyflannel.linux.shell import Outcome, run_line
from pyflannel.state import Hook, Item, Key, Scope

log = logging.getLogger(__name__)

BACKOFF: Final = (1.0, 3.0, 10.0, 30.0, 60.0, 300.0)
"""Seconds before a command is run again after its 1st, 2nd, … failure in a row."""
UNDONE: Final = 3
"""So many times what a failed run may have made is removed before the next one."""
TRUSTED: Final = 4
"""So many runs may fail until it is taken for granted that an earlier one has done it."""
REMOVALS: Final = 3
"""How often a command for removal is tried."""
CHECK_EVERY: Final = 4.0
"""Seconds between looks at what was made."""
SHARE: Final = 20.0
"""After a round of looks there is a pause of so many times what it took."""
NOT_RUN: Final = (126, 127)
"""How a shell ends when the program cannot be run, or is not found (POSIX, 2.8.2)."""


@dataclass(slots=True)
class _Slot:
    """One peer."""

    wanted: Hook | None = None
    """What there should be; None: nothing."""
    made: Hook | None = None
    """What was made at least in part, and not removed yet."""
    whole: bool = False
    """It was made to the end."""
    due: bool = False
    """The command is to be run, whatever was made."""
    lapsed: bool = False
    """The command should be run again, once somebody asks for it."""
    look: bool = False
    """It is to be looked whether what was made is there."""
    resting: bool = False
    """A removal that failed waits for another try."""
    failures: int = 0
    """How many runs have failed in a row."""
    busy: bool = False
    """A worker has it, or will."""
    timer: asyncio.TimerHandle | None = None

    def ask(self, hook: Hook) -> None:
        """From now on this is wanted."""
        if hook != self.wanted:
            self.failures = 0
        self.due = self.due or self.lapsed or not self.whole or self.made != hook
        self.wanted, self.lapsed, self.resting = hook, False, False
        self.rest()

    def dismiss(self) -> None:
        """From now on nothing is wanted."""
        self.wanted, self.failures = None, 0
        self.rest()

    def rest(self) -> None:
        """Wait for no timer."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class HookRunner:
    """Holds ``Hook`` items of one network.

    Nothing is run before, or after, ``run``.
    """

    def __init__(
        self,
        record: Record,
        wake: Callable[[], None],
        at_once: int = 1,
        health: Health | None = None,
        shell: Shell = run_line,
    ) -> None:
        """Begin with what is in ``record``.

        ``wake`` is called whenever there is something new to observe; ``at_once`` commands may run at a time; what
        fails is a condition of ``health``.
        """
        self._record, self._wake, self._at_once, self._shell = record, wake, at_once, shell
        self._slots: dict[Key, _Slot] = {
            key: _Slot(entry.hook, entry.hook, entry.whole, lapsed=True, failures=0 if entry.whole else 1)
            for key, entry in record.entries.items()
        }
        self._queue: asyncio.Queue[Key] = asyncio.Queue()
        self._health = health or Health()
        self._trusting = False
        """It was said that an earlier run is believed."""

    @property
    def kinds(self) -> frozenset[type[Item]]:
        """Hooks."""
        return frozenset((Hook,))

    def observe(self, scope: Scope) -> Iterator[Hook]:
        """All hooks, those that should be run again marked as lapsed."""
        if scope.hooks:
            for slot in self._slots.values():
                if slot.wanted is not None:
                    yield replace(slot.wanted, lapsed=slot.lapsed)

    def apply(self, ops: Sequence[Op]) -> Report:
        """Accept all of ``ops``: what becomes of them is observed later."""
        for op in ops:
            if not isinstance(op.item, Hook):
                raise TypeError(f"{op.item} is no hook")
            slot = self._slots.setdefault(op.item.key, _Slot())
            if isinstance(op, Put):
                slot.ask(op.item)
            else:
                slot.dismiss()
            self._call(op.item.key, slot)
        return Report(done=tuple(ops))

    def try_again(self) -> None:
        """Something has changed of which commands may have failed: what waits for another try waits no longer."""
        for key, slot in self._slots.items():
            if slot.timer is not None and slot.wanted is not None:
                slot.rest()
                self._lapse(key)

    async def run(self) -> NoReturn:
        """Run what there is to run, for ever; what runs when this is cancelled is killed."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for number in range(self._at_once):
                    tasks.create_task(self._work(), name=f"hooks-{number}")
                tasks.create_task(self._patrol(), name="hooks-patrol")
        finally:
            for slot in self._slots.values():
                slot.rest()
            self._record.close()
        raise AssertionError("no worker ends by itself")

    def _call(self, key: Key, slot: _Slot) -> None:
        """Have a worker look at the slot, unless one will anyway."""
        if not slot.busy:
            slot.busy = True
            self._queue.put_nowait(key)

    async def _work(self) -> NoReturn:
        while True:
            key = await self._queue.get()
            slot = self._slots[key]
            while await self._step(key, slot):
                pass
            slot.busy = False
            if slot.wanted is None and slot.made is None:
                del self._slots[key]
            self._queue.task_done()

    async def _step(self, key: Key, slot: _Slot) -> bool:
        """Do what comes next for a peer; False if that is nothing."""
        if slot.made is not None and slot.made != slot.wanted:
            if slot.wanted is None and slot.resting:
                return False
            await self._remove(key, slot, slot.made)
        elif slot.wanted is not None and slot.due:
            await self._add(key, slot, slot.wanted)
        elif slot.look:
            await self._look(key, slot)
        else:
            return False
        return True

    async def _remove(self, key: Key, slot: _Slot, hook: Hook) -> None:
        slot.whole = False
        outcome = await self._command("SubnetRemoveCommand", hook)
        if not outcome.ok:
            slot.failures += 1
            self._complain("SubnetRemoveCommand", hook, outcome)
            if slot.wanted is None and slot.failures < REMOVALS:
                slot.resting = True
                self._later(slot, self._resume, key)
                return
        # Whatever comes now has a patience of its own.
        slot.made, slot.failures = None, 0
        self._record.cut(hook)
        self._health.clear(COMMAND_FAILS, _subject(hook))

    async def _add(self, key: Key, slot: _Slot, hook: Hook) -> None:
        slot.due = False
        # By what was there before this agent came, a command that fails is measured otherwise.
        trusted = slot.whole and not hook.commands.check
        if slot.failures == 0 and await self._there(hook):
            outcome = Outcome(0)
        else:
            if 0 < slot.failures <= UNDONE and not trusted:
                await self._command("SubnetRemoveCommand", hook)
            slot.made = hook
            self._record.put(hook, trusted)
            outcome = await self._command("SubnetAddCommand", hook)
            if outcome.ok and await self._there(hook) is False:
                outcome = Outcome(None, "ended well, but SubnetCheckCommand does not find what it should have made")
        slot.made, slot.whole = hook, outcome.ok or trusted
        self._record.put(hook, slot.whole)
        if outcome.ok:
            slot.failures = 0
            self._health.clear(
                COMMAND_FAILS, subject := _subject(hook), f"SubnetAddCommand for {subject} has succeeded"
            )
        elif slot.wanted == hook:
            self._put_off(key, slot, hook, outcome, trusted)
        # Who has asked for the very same meanwhile has got it, or shares the wait.
        slot.due = slot.due and slot.wanted != hook

    def _put_off(self, key: Key, slot: _Slot, hook: Hook, outcome: Outcome, trusted: bool) -> None:
        slot.failures += 1
        if not trusted:
            self._complain("SubnetAddCommand", hook, outcome)
        elif not self._trusting:
            self._trusting = True
            log.info(
                "SubnetAddCommand for %s: %s, but it has succeeded since this host was booted, so what it makes is "
                "taken to be there, and likewise with other peers; a SubnetCheckCommand could tell",
                *(_subject(hook), outcome.trouble),
            )
        if not trusted or slot.failures < TRUSTED:
            self._later(slot, self._lapse, key)

    async def _look(self, key: Key, slot: _Slot) -> None:
        slot.look = False
        hook = slot.made
        if hook is None or not slot.whole or slot.lapsed or await self._there(hook) is not False:
            return
        if slot.wanted == hook and not slot.due:
            log.warning("What SubnetAddCommand has made for %s is not there any more", _subject(hook))
            slot.whole = False
            self._lapse(key)

    async def _there(self, hook: Hook) -> bool | None:
        """Whether what was made for a peer is there; None if that is not to be found out."""
        if not hook.commands.check:
            return None
        outcome = await self._command("SubnetCheckCommand", hook, aloud=False)
        if outcome.status is None or outcome.status in NOT_RUN:
            text = f"SubnetCheckCommand tells nothing: {outcome.trouble}"
            self._health.set(COMMAND_FAILS, text, "SubnetCheckCommand")
            return None
        self._health.clear(COMMAND_FAILS, "SubnetCheckCommand", "SubnetCheckCommand tells something again")
        return outcome.ok

    async def _command(self, name: str, hook: Hook, aloud: bool = True) -> Outcome:
        commands = hook.commands
        line = {
            "SubnetAddCommand": commands.add,
            "SubnetRemoveCommand": commands.remove,
            "SubnetCheckCommand": commands.check,
        }[name]
        if not line:
            return Outcome(0)
        outcome = await self._shell(line, peer_variables(hook), f"{hook.data}\n", commands.limit)
        if aloud:
            for output in (outcome.out, outcome.err):
                tell(f"{name} for {_subject(hook)}", output)
        return outcome

    def _later(self, slot: _Slot, what: Callable[[Key], None], key: Key) -> None:
        slot.rest()
        delay = BACKOFF[min(slot.failures, len(BACKOFF)) - 1]
        slot.timer = asyncio.get_running_loop().call_later(delay, what, key)

    def _lapse(self, key: Key) -> None:
        slot = self._slots[key]
        slot.timer, slot.lapsed = None, True
        self._wake()

    def _resume(self, key: Key) -> None:
        slot = self._slots[key]
        slot.timer, slot.resting = None, False
        self._call(key, slot)

    async def _patrol(self) -> NoReturn:
        """Look every few seconds at what nobody else can see."""
        clock, pause = asyncio.get_running_loop().time, CHECK_EVERY
        while True:
            await asyncio.sleep(pause)
            began = clock()
            for key, slot in self._slots.items():
                if slot.made is not None and slot.made.commands.check:
                    slot.look = True
                    self._call(key, slot)
            await self._queue.join()
            pause = max(CHECK_EVERY, SHARE * (clock() - began))

    def _complain(self, name: str, hook: Hook, outcome: Outcome) -> None:
        subject = _subject(hook)
        self._health.set(COMMAND_FAILS, f"{name} for {subject}: {outcome.trouble}", subject)


def at_once(backend: Backend) -> int:
    """How many commands may run at a time with this backend: ``ParallelCommands``, or one."""
    return backend.at_once if isinstance(backend, Extension) else 1


def _subject(hook: Hook) -> str:
    return " and ".join(str(net) for net in (hook.subnet, hook.subnet_v6) if net is not None)
