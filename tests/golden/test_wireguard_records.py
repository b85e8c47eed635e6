"""What wireguard hosts say of themselves, byte for byte (compat §3.2): written as flannel does, read from all eras."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from pyflannel.backends import from_config
from pyflannel.backends.wireguard import Wireguard
from pyflannel.lease.model import Lease
from pyflannel.lease.wire import decode_attrs, encode_attrs, parse_subnet_name
from pyflannel.wireguard import KeyPair, PublicKey, WireguardPeer
from tests.support.builders import config, subnet, underlay, view
from tests.support.wireguard_items import OWN

FOLDER = Path(__file__).parent / "lease"
KEY = PublicKey.parse("xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=")
HOST = replace(underlay(ipv6="fd00::3"), public_ip=IPv4Address("192.168.64.3"))
NETWORK, NETWORK6 = "10.0.0.0/8", "fd00:12::/32"


def backend(ipv6: bool, mode: str = "separate", ours: KeyPair = OWN) -> Wireguard:
    """Of a network in which the recorded subnets lie."""
    network = config(f'{{"Type":"wireguard","Mode":"{mode}"}}', NETWORK, NETWORK6 if ipv6 else None)
    built = from_config(network)
    assert isinstance(built, Wireguard)
    return built.keyed(ours)


def record(name: str) -> tuple[str, str]:
    """Key and value of a golden file."""
    key, value, _ = (FOLDER / name).read_text().split("\n")
    return key, value


@pytest.mark.parametrize(("name", "ipv6"), [("wireguard", False), ("wireguard-dual", True)])
def test_a_host_publishes_what_flannel_publishes(name: str, ipv6: bool) -> None:
    attrs = backend(ipv6, ours=KeyPair(OWN.private, KEY)).attrs(HOST, {})
    assert encode_attrs(attrs) == record(name)[1]


@pytest.mark.parametrize("mode", ["separate", "auto"])
@pytest.mark.parametrize(
    ("name", "ipv6", "separate", "auto"),
    [
        ("wireguard", False, ["192.168.64.3:51820"], ["192.168.64.3:51820"]),
        ("wireguard-without-port", False, ["192.168.64.3:51820"], ["192.168.64.3:51820"]),
        ("wireguard-dual", True, ["192.168.64.3:51820", "[fd00::3]:51821"], ["192.168.64.3:51820"]),
    ],
)
def test_every_record_of_flannels_leads_to_its_host(
    name: str, ipv6: bool, separate: list[str], auto: list[str], mode: str
) -> None:
    key, value = record(name)
    found, built = parse_subnet_name(key), backend(ipv6, mode)
    here = replace(underlay(ipv6="2001:db8::131"), public_ipv6=IPv6Address("2001:db8::131"))
    seen = view(config('{"Type":"wireguard"}', NETWORK, NETWORK6), subnet("10.2.71.0/24"), here)
    peers = [
        item for item in built.peer_items(seen, Lease(found, decode_attrs(value))) if isinstance(item, WireguardPeer)
    ]
    assert [str(item.endpoint) for item in peers] == (separate if mode == "separate" else auto)
    assert {item.public_key for item in peers} == {KEY}
