"""Every check there is, in the order in which findings are shown."""

from __future__ import annotations

from typing import Final

from pyflannel.doctor import checks_agent, checks_docker, checks_firewall, checks_kernel, checks_network
from pyflannel.doctor.facts import Facts
from pyflannel.doctor.findings import Check, Finding

CHECKS: Final[tuple[Check, ...]] = (
    *checks_agent.CHECKS,
    *checks_kernel.CHECKS,
    *checks_firewall.CHECKS,
    *checks_network.CHECKS,
    *checks_docker.CHECKS,
)


def examine(facts: Facts) -> tuple[Finding, ...]:
    """What is wrong, the worst first; the agent's own conditions are among it, under their own codes."""
    found = [*checks_agent.conditions(facts), *(each for check in CHECKS for each in check.findings(facts))]
    return tuple(sorted(found, key=lambda each: -each.severity))
