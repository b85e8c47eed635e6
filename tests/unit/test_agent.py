"""What the agent decides before it touches anything; the rest is seen in tests/netns/test_agent.py."""

from __future__ import annotations

from pyflannel.agent import policy, subnet_env
from pyflannel.guard import Policy
from pyflannel.network import Network
from pyflannel.outputs import render_subnet_env
from pyflannel.settings import Settings
from tests.support.builders import backend, view


def test_containers_are_told_of_the_network_in_full() -> None:
    network = Network(backend(), view())
    assert render_subnet_env(subnet_env(Settings(ip_masq=True), network)).splitlines() == [
        *("FLANNEL_NETWORK=10.2.0.0/16", "FLANNEL_SUBNET=10.2.71.1/24", "FLANNEL_MTU=1450", "FLANNEL_IPMASQ=true")
    ]


def test_the_command_line_says_what_the_firewall_is_for() -> None:
    assert policy(Settings()) == Policy(masquerade=False, forward=True, random_fully=True)
    other = Settings(ip_masq=True, iptables_forward_rules=False, ip_masq_fully_random_disable=True)
    assert policy(other) == Policy(masquerade=True, forward=False, random_fully=False)
