"""nftables on this host, through its own program: one script is one transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from pyflannel.linux.run import CommandFailed, CommandMissing, Completed, run
from pyflannel.linux.xtables import FirewallError

Run: TypeAlias = Callable[[Sequence[str], str | None], Awaitable[Completed]]
"""Runs a program to its end, given its arguments and its standard input, as ``linux.run.run`` does."""


class NoNft(FirewallError):
    """There is no ``nft`` on this host."""


class Nft:
    """The tables of one network namespace."""

    def __init__(self, run: Run = run) -> None:
        """``run`` is where the namespace comes in."""
        self._run = run

    async def carry_out(self, script: str) -> None:
        """Have all of ``script`` done, or nothing: then ``FirewallError``."""
        done = await self._nft(("-f", "-"), script)
        if done.status:
            raise _refusal(done)

    async def listing(self, table: str) -> str | None:
        """The table of the family ``inet`` as a JSON document; None if there is none."""
        done = await self._nft(("-j", "list", "table", "inet", table), None)
        if done.status and "No such file or directory" in done.err:
            return None
        if done.status:
            raise _refusal(done)
        return done.out

    async def tables(self) -> tuple[str, ...]:
        """The names of the tables of the family ``inet``."""
        done = await self._nft(("list", "tables", "inet"), None)
        if done.status:
            raise _refusal(done)
        return tuple(line.split()[-1] for line in done.out.splitlines() if line.startswith("table inet "))

    async def _nft(self, arguments: Sequence[str], script: str | None) -> Completed:
        try:
            return await self._run(("nft", *arguments), script)
        except CommandMissing as error:
            raise NoNft(str(error)) from error
        except CommandFailed as error:
            raise FirewallError(str(error)) from error


def _refusal(done: Completed) -> FirewallError:
    said = done.err.strip().partition("\n")[0] or f"exit status {done.status}"
    return FirewallError(f"{' '.join(done.argv)}: {said}")
