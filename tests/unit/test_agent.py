"""What the agent decides before it touches anything; the rest is seen in tests/netns/test_agent.py."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from pyflannel.agent import StartFailed, policy, previous_subnet, refuse_foreign_devices, subnet_env
from pyflannel.guard import Policy
from pyflannel.lease.model import Subnet
from pyflannel.network import Network
from pyflannel.outputs import render_subnet_env
from pyflannel.settings import Settings
from pyflannel.state import Misfit, State
from tests.support.builders import backend, view


@pytest.mark.parametrize("kind", ["bridge", "dummy", ""])
def test_somebodys_device_under_our_name_stops_the_start(kind: str) -> None:
    with pytest.raises(StartFailed, match=r"flannel\.1 already, and it is somebody's: remove it, or choose another"):
        refuse_foreign_devices(State([Misfit("flannel.1", "it is somebody's", kind)]))


def test_a_vxlan_device_of_another_flannel_is_taken_over() -> None:
    refuse_foreign_devices(State([Misfit("flannel.1", "it is a vxlan device with l2miss", "vxlan")]))
    refuse_foreign_devices(State(backend().self_items(view())))


def test_the_subnet_file_tells_what_we_held(tmp_path: Path) -> None:
    (tmp_path / "subnet.env").write_text("FLANNEL_NETWORK=10.2.0.0/16\nFLANNEL_SUBNET=10.2.71.1/24\n")
    assert previous_subnet(tmp_path / "subnet.env") == Subnet(IPv4Network("10.2.71.0/24"))


def test_containers_are_told_of_the_network_in_full() -> None:
    network = Network(backend(), view())
    assert render_subnet_env(subnet_env(Settings(ip_masq=True), network)).splitlines() == [
        *("FLANNEL_NETWORK=10.2.0.0/16", "FLANNEL_SUBNET=10.2.71.1/24", "FLANNEL_MTU=1450", "FLANNEL_IPMASQ=true")
    ]


def test_the_command_line_says_what_the_firewall_is_for() -> None:
    assert policy(Settings()) == Policy(masquerade=False, forward=True, random_fully=True)
    other = Settings(ip_masq=True, iptables_forward_rules=False, ip_masq_fully_random_disable=True)
    assert policy(other) == Policy(masquerade=True, forward=False, random_fully=False)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\0", b"FLANNEL_SUBNET=nonsense\n"])
def test_a_file_that_tells_nothing_is_no_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "subnet.env").write_bytes(content)
    assert previous_subnet(tmp_path / "subnet.env") is None
    assert previous_subnet(tmp_path / "none.env") is None
