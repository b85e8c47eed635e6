"""What the agent decides before it touches anything; the rest is seen in tests/netns/test_agent.py."""

from __future__ import annotations

from pyflannel.agent import policy
from pyflannel.guard import Policy
from pyflannel.settings import Settings


def test_the_command_line_says_what_the_firewall_is_for() -> None:
    assert policy(Settings()) == Policy(masquerade=False, forward=True, random_fully=True)
    other = Settings(ip_masq=True, iptables_forward_rules=False, ip_masq_fully_random_disable=True)
    assert policy(other) == Policy(masquerade=True, forward=False, random_fully=False)
