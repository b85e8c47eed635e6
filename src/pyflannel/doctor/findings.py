"""What a check is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from pyflannel.doctor.facts import Facts
from pyflannel.health import Severity

Argv: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sign:
    """One problem of this host, as a check sees it."""

    finding: str
    """What is wrong, in one sentence."""
    evidence: str
    """What was seen that says so."""
    fix: tuple[Argv, ...] | None = None
    """Commands that put it right and take nothing away; None where a person has to think first."""
    remedy: str = ""
    """What to do in this very case; empty if it is what the check says."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A sign with what its check says of all of its kind."""

    code: str
    """For programs: never changes its meaning.  Conditions of the agent come under their own code."""
    severity: Severity
    finding: str
    evidence: str
    means: str
    remedy: str
    fix: tuple[Argv, ...] | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """A problem that a host may have, and how it is known."""

    code: str
    severity: Severity
    title: str
    """What it finds, for the headline of a document."""
    means: str
    remedy: str
    look: Callable[[Facts], Iterable[Sign]]

    def findings(self, facts: Facts) -> Iterable[Finding]:
        """What there is of it on a host."""
        for sign in self.look(facts):
            remedy = sign.remedy or self.remedy
            yield Finding(self.code, self.severity, sign.finding, sign.evidence, self.means, remedy, sign.fix)
