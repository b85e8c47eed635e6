"""The commands of the extension backend that are about this host: before the lease, with it, and at the end.

For any other backend each of these functions does nothing, so that whoever starts a network need not ask which it is.

They are run at each start of an agent, as in flannel: most such commands make a device anew and print its address.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from pyflannel.backends.api import Backend, View
from pyflannel.backends.extension import Extension, data_flaw, own_variables
from pyflannel.hooks.command import Shell, tell
from pyflannel.linux.shell import run_line

log = logging.getLogger(__name__)


class CommandFailed(Exception):
    """A command without which there is no network here has failed; the message says which, and how."""


async def prepare(backend: Backend, shell: Shell = run_line) -> Backend:
    """Run ``PreStartupCommand``; the backend that publishes what it printed.  ``CommandFailed`` if that cannot be.

    Of its two outputs the standard one is published, as flannel's manual says.  Go flannel publishes the other one as
    well, with any warning of ``ip`` or ``wg`` in the middle of a key.
    """
    if not isinstance(backend, Extension) or not backend.startup.pre:
        return backend
    out = await _run("PreStartupCommand", backend.startup.pre, {}, backend.startup.limit, shell)
    printed = out.decode(errors="replace").strip()
    if flaw := data_flaw(printed):
        raise CommandFailed(f"PreStartupCommand: what it printed {flaw}")
    log.info("PreStartupCommand has printed %d characters for the other hosts", len(printed))
    return replace(backend, printed=printed)


async def settle(backend: Backend, view: View, shell: Shell = run_line) -> None:
    """Run ``PostStartupCommand``, once there is a lease; ``CommandFailed`` if it fails."""
    if isinstance(backend, Extension) and backend.startup.post:
        out = await _run("PostStartupCommand", backend.startup.post, own_variables(view), backend.startup.limit, shell)
        tell("PostStartupCommand", out)


async def shut_down(backend: Backend, view: View, shell: Shell = run_line) -> None:
    """Run ``ShutdownCommand``; should it fail, that is a line in the log."""
    if isinstance(backend, Extension) and backend.startup.shutdown:
        startup, name = backend.startup, "ShutdownCommand"
        try:
            tell(name, await _run(name, startup.shutdown, own_variables(view), startup.limit, shell))
        except CommandFailed as exc:
            log.error("%s", exc)


async def _run(name: str, line: str, variables: dict[str, str], limit: float, shell: Shell) -> bytes:
    outcome = await shell(line, variables, "\n", limit)
    tell(name, outcome.err)
    if not outcome.ok:
        tell(name, outcome.out)
        raise CommandFailed(f"{name}: {outcome.trouble}")
    return outcome.out
