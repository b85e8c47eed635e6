"""iptables on this host: reads what is there, writes what is missing, says in the tool's own words what failed.

Rules of this file
  1. What to write is decided by ``firewall/iptables.py``; here are only processes.
  2. Others edit the same tables while we look.  A payload says which rules it expects to find, so that one made from
     a stale view is refused whole; then we look again.
  3. When all is well it costs one process, an ``iptables-save`` per family, however many rules there are.

Of the two variants (legacy and nf_tables) we use the one that plain ``iptables`` is on this host, as Docker and
kubelet do: rules in the other variant would be evaluated too, but people looking for them would not find them.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from pyflannel.firewall.iptables import Fault, Saved, compare, parse_save, payload, removal
from pyflannel.firewall.rules import OWNED, RuleSet, Table
from pyflannel.linux.run import CommandFailed, CommandMissing, Completed, run

Variant: TypeAlias = Literal["", "nft", "legacy"]
Run: TypeAlias = Callable[[Sequence[str], str | None], Awaitable[Completed]]
"""Runs a program to its end, given its arguments and its standard input, as ``linux.run.run`` does."""

_ATTEMPTS: Final = 3
_LOCK_WAIT_S: Final = 5
"""How long the legacy variant may wait for the xtables lock; the nf_tables variant has no lock and takes the option."""


class FirewallError(Exception):
    """The rules could not be read or written; the message has what was run and the tool's own words."""


@dataclass(frozen=True, slots=True)
class Version:
    """What ``iptables --version`` said."""

    number: tuple[int, int, int]
    variant: str
    """``nf_tables`` or ``legacy``; empty before 1.8, which knew only one."""

    @property
    def random_fully(self) -> bool:
        """Whether ``MASQUERADE --random-fully`` is known."""
        return self.number >= (1, 6, 2)

    @property
    def wait(self) -> bool:
        """Whether ``iptables-restore`` takes ``--wait``; before, it took no lock at all."""
        return self.number >= (1, 6, 2)


@dataclass(frozen=True, slots=True)
class Ensured:
    """What it took to have the rules as wanted."""

    mended: tuple[str, ...] = ()
    """What was wrong and is right now, one clause each; empty if nothing had to be written."""

    @property
    def changed(self) -> bool:
        """Whether anything was written."""
        return bool(self.mended)


class Xtables:
    """The iptables rules of one address family in one network namespace."""

    def __init__(self, family: Literal[4, 6], variant: Variant = "", run: Run = run) -> None:
        """``variant`` picks one by name where plain ``iptables`` is the wrong one."""
        self._program = "iptables" if family == 4 else "ip6tables"
        self._prefix = f"{self._program}-{variant}" if variant else self._program
        self._run = run
        self._version: Version | None = None

    async def version(self) -> Version:
        """Which tools these are; asked once.  ``FirewallError`` if they are missing or say nothing we understand."""
        if self._version is None:
            said = await self._call([self._prefix, "--version"])
            found = re.search(r"v(\d+)\.(\d+)(?:\.(\d+))?(?:.*\((\w+)\))?", said)
            if found is None:
                raise FirewallError(f"{self._prefix} --version: expected a version, got {said.strip()!r}")
            self._version = Version((int(found[1]), int(found[2]), int(found[3] or 0)), found[4] or "")
        return self._version

    async def observe(self) -> str:
        """All tables that are in use, as ``iptables-save`` prints them; ``FirewallError`` otherwise."""
        return await self._call([f"{self._prefix}-save"])

    async def restore(self, text: str) -> None:
        """Carry out an ``iptables-restore --noflush`` payload, each table whole or not at all, or ``FirewallError``."""
        wait = [f"--wait={_LOCK_WAIT_S}"] if (await self.version()).wait else []
        await self._call([f"{self._prefix}-restore", "--noflush", *wait], text)

    async def ensure(self, wanted: RuleSet) -> Ensured:
        """Make the rules ``wanted`` and touch no other.  ``FirewallError`` if they cannot be had or do not stay."""
        return await self._settle(lambda saved: compare(saved, wanted))

    async def remove(self, owned: Iterable[tuple[Table, str]] = OWNED) -> Ensured:
        """Take our chains, and all that leads to them, out again; what is not there is no error."""
        chains = tuple(owned)
        return await self._settle(lambda saved: removal(saved, chains))

    async def _settle(self, diagnose: Callable[[Saved], tuple[Fault, ...]]) -> Ensured:
        """Look and mend until there is nothing to mend, at most ``_ATTEMPTS`` times."""
        mended: list[str] = []
        refused: FirewallError | None = None
        for _ in range(_ATTEMPTS):
            faults = diagnose(parse_save(await self.observe()))
            if not faults:
                return Ensured(tuple(mended))
            try:
                await self.restore(payload(faults))
            except FirewallError as error:
                refused = error
            else:
                refused = None
                mended += (fault.text for fault in faults if fault.text not in mended)
        faults = diagnose(parse_save(await self.observe()))
        if not faults:
            return Ensured(tuple(mended))
        left = "; ".join(fault.text for fault in faults)
        raise refused or FirewallError(f"{self._prefix}-restore did its work, and still: {left}")

    async def _call(self, argv: list[str], stdin: str | None = None) -> str:
        """What ``argv`` printed."""
        try:
            done = await self._run(argv, stdin)
        except CommandMissing as error:
            raise FirewallError(f"{error} (it is in the package that most systems call iptables)") from None
        except CommandFailed as error:
            raise FirewallError(str(error)) from None
        if done.status != 0:
            raise FirewallError(f"{' '.join(argv)}: exit status {done.status}: {_reason(done.err, stdin)}")
        return done.out


def _reason(stderr: str, stdin: str | None) -> str:
    """The tool's message in one line, without its advice, and with the line of ours that it speaks of."""
    said = [line.strip() for line in stderr.splitlines() if line.strip() and not line.startswith("Try `")]
    text = " ".join(said) or "it printed no reason"
    lines = (stdin or "").splitlines()
    number = re.search(r"line:? (\d+)", text)
    if number is None or not 0 < int(number[1]) <= len(lines):
        return text
    return f"{text} (that is: {lines[int(number[1]) - 1]})"
