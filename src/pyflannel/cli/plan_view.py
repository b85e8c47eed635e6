"""How a plan is shown: to people as commands they could type, to programs as a JSON document.

Rules of this file
  1. It needs nothing but text, for the agent prints plans as well.
  2. A line that begins with ``#`` tells something; every other line, except the last of a plan with nothing in it, is
     part of a change.
  3. Records of other hosts are quoted here, so no control character gets through to a terminal.
"""

from __future__ import annotations

import asyncio
import difflib
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal

from pyflannel.cli.words import UNSUPPORTED, plain
from pyflannel.firewall.iptables import Fault, payload
from pyflannel.linux.spelling import spell

if TYPE_CHECKING:
    from pyflannel.plan import FileChange, Survey
    from pyflannel.settings import Settings

NOTHING, FAILED, CHANGES = 0, 1, 2
"""Exit statuses of a dry run, beside ``UNSUPPORTED``."""
IDLE: Final = "nothing to do"


def dry_run(settings: Settings) -> int:
    """``flanneld -dry-run``: print what a start would change, and return the exit status."""
    from pyflannel.plan import AnotherBackend, CannotTell, survey

    try:
        found = asyncio.run(survey(settings))
    except CannotTell as exc:
        import logging

        logging.getLogger(__name__).critical("%s", exc)
        return UNSUPPORTED if isinstance(exc, AnotherBackend) else FAILED
    sys.stdout.writelines(f"{line}\n" for line in lines(found))
    return status(found)


def status(found: Survey) -> int:
    """The exit status that tells whether there is anything to do."""
    return CHANGES if found.changes else NOTHING


def lines(found: Survey) -> Iterator[str]:
    """A plan, line by line."""
    yield from _context(found)
    if not found.changes:
        yield IDLE
        return
    if found.lease.write:
        yield "# in the store"
        yield f"lease: {found.lease.write}"
    if found.ops:
        yield "# in the kernel"
        yield from map(spell, found.ops)
    for family, faults in found.firewall.items():
        yield f"# in the firewall for IPv{family}"
        yield from restoration(family, faults)
    if found.files:
        yield "# in files"
        for change in found.files:
            yield from _difference(change)


def restoration(family: Literal[4, 6], faults: Sequence[Fault]) -> Iterator[str]:
    """The command that mends ``faults``, each of them named before."""
    yield from (f"# {plain(fault.text)}" for fault in faults)
    yield f"{'iptables' if family == 4 else 'ip6tables'}-restore --noflush <<'END'"
    yield from map(plain, payload(faults).splitlines())
    yield "END"


def document(found: Survey) -> dict[str, object]:
    """A plan for programs."""
    return {
        "changes": found.changes,
        "network": {"record": found.configured.where, "ranges": _ranges(found), "backend": _backend(found)},
        "underlay": {
            "name": found.underlay.name,
            "addresses": _addresses(found),
            "mtu": found.underlay.mtu,
            "why": found.underlay.why,
        },
        "lease": {"subnet": str(found.lease.subnet), "write": found.lease.write, "example": found.lease.example},
        "kernel": [spell(op) for op in found.ops],
        "firewall": [
            {"family": family, "table": fault.table, "fault": fault.text, "mend": list(fault.mend)}
            for family, faults in found.firewall.items()
            for fault in faults
        ],
        "files": [{"path": each.path, "old": each.old, "new": each.new} for each in found.files],
        "ignored": [{"lease": lease, "reason": reason} for lease, reason in found.ignored],
        "warnings": list(found.warnings),
    }


def _context(found: Survey) -> Iterator[str]:
    told: list[str] = [
        f"network {' and '.join(_ranges(found))} by {_backend(found)}, as {found.configured.where} has it",
        f"this host: {' and '.join(_addresses(found))} on {found.underlay.name}, chosen because: {found.underlay.why}",
        f"subnet: {found.lease.subnet}{', for example: a start draws lots' if found.lease.example else ''}",
        *(f"ignored: lease {lease}: {reason}" for lease, reason in found.ignored),
        *(f"warning: {warning}" for warning in found.warnings),
    ]
    return (f"# {plain(text)}" for text in told)


def _ranges(found: Survey) -> list[str]:
    config = found.configured.config
    return [str(each.network) for each in (config.ipv4, config.ipv6) if each is not None]


def _backend(found: Survey) -> str:
    return found.configured.config.backend_type


def _addresses(found: Survey) -> list[str]:
    return [str(each) for each in (found.underlay.ipv4, found.underlay.ipv6) if each is not None]


def _difference(change: FileChange) -> Iterable[str]:
    old, new = change.old.splitlines(), change.new.splitlines()
    source = change.path if change.old else "/dev/null"
    return map(plain, difflib.unified_diff(old, new, source, change.path, lineterm=""))
