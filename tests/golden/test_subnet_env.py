"""subnet.env, byte for byte (compat §4.1)."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest

from pyflannel.outputs import Previous, SubnetEnv, read_subnet_env, render_subnet_env

GOLDEN = Path(__file__).parent / "subnet-env"
V4 = (IPv4Network("10.1.0.0/16"), IPv4Network("10.1.74.0/24"))
V6 = (IPv6Network("fd00:1::/48"), IPv6Network("fd00:1:0:5::/64"))
NONE = (None, None)

CASES = {
    "ipv4": SubnetEnv(IPv4Network("10.2.0.0/16"), IPv4Network("10.2.71.0/24"), *NONE, mtu=1450, ip_masq=False),
    "ipv6": SubnetEnv(*NONE, *V6, mtu=1430, ip_masq=True),
    "dual-stack": SubnetEnv(*V4, *V6, mtu=1450, ip_masq=False),
    "no-family": SubnetEnv(*NONE, *NONE, mtu=1450, ip_masq=False),
}


def test_every_golden_file_has_a_case() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_the_file_is_written_to_the_byte(name: str) -> None:
    assert render_subnet_env(CASES[name]).encode() == (GOLDEN / f"{name}.env").read_bytes()


@pytest.mark.parametrize("name", CASES)
def test_what_was_written_is_read_back_in_network_form(name: str) -> None:
    env = CASES[name]
    wanted = Previous(env.ipv4_network, env.ipv4_subnet, env.ipv6_network, env.ipv6_subnet)
    assert read_subnet_env((GOLDEN / f"{name}.env").read_text()) == wanted
