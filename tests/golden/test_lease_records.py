"""Leases byte for byte as flannel writes them, for every backend and both eras (compat §3.1, §3.2).

Each file under tests/golden/lease holds a key's last part on its first line and the value on its second.  "Old" is what
was written before v0.15, which did not know ``PublicIPv6``.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest

from pyflannel.lease.model import Attrs, Subnet
from pyflannel.lease.wire import decode_attrs, encode_attrs, parse_subnet_name, subnet_name

FOLDER = Path(__file__).parent / "lease"

V4 = Subnet(IPv4Network("10.1.5.0/24"))
DUAL = Subnet(IPv4Network("10.12.13.0/24"), IPv6Network("fd00:12:13::/56"))
V6 = Subnet(ipv6=IPv6Network("fd00:12:13::/56"))
HOST, HOST6 = IPv4Address("192.168.64.3"), IPv6Address("fd00::3")
VTEP, VTEP6 = '{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}', '{"VNI":1,"VtepMAC":"3e:0b:84:a1:05:7c"}'
KEY = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
OLD_KEY, NEW_KEY, NEW_KEY6 = (
    f'{{"PublicKey":"{KEY}"}}',
    f'{{"PublicKey":"{KEY}","Port":51820}}',
    f'{{"PublicKey":"{KEY}","Port":51821}}',
)

RECORDS: dict[str, tuple[Subnet, Attrs]] = {
    "udp": (V4, Attrs(HOST)),
    "udp-old": (V4, Attrs(HOST)),
    "host-gw": (V4, Attrs(HOST, None, "host-gw")),
    "host-gw-dual": (DUAL, Attrs(HOST, HOST6, "host-gw")),
    "host-gw-old": (V4, Attrs(HOST, None, "host-gw")),
    "ipip": (V4, Attrs(HOST, None, "ipip")),
    "ipip-old": (V4, Attrs(HOST, None, "ipip")),
    "ipsec": (V4, Attrs(HOST, None, "ipsec")),
    "ipsec-old": (V4, Attrs(HOST, None, "ipsec")),
    "vxlan": (V4, Attrs(HOST, None, "vxlan", VTEP)),
    "vxlan-dual": (DUAL, Attrs(HOST, HOST6, "vxlan", VTEP, VTEP6)),
    "vxlan-ipv6": (V6, Attrs(None, HOST6, "vxlan", None, VTEP6)),
    "vxlan-old": (V4, Attrs(HOST, None, "vxlan", '{"VtepMAC":"c6:d2:32:6f:8f:44"}')),
    "wireguard": (V4, Attrs(HOST, None, "wireguard", NEW_KEY)),
    "wireguard-dual": (DUAL, Attrs(HOST, HOST6, "wireguard", NEW_KEY, NEW_KEY6)),
    "wireguard-without-port": (V4, Attrs(HOST, None, "wireguard", OLD_KEY)),
    "extension": (V4, Attrs(HOST, None, "extension", '"c6:d2:32:6f:8f:44"')),
    "extension-silent": (V4, Attrs(HOST, None, "extension")),
    "extension-old": (V4, Attrs(HOST, None, "extension", '"c6:d2:32:6f:8f:44"')),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_lease_is_written_byte_for_byte_as_flannel_writes_it(name: str) -> None:
    subnet, attrs = RECORDS[name]
    written = f"{subnet_name(subnet)}\n{encode_attrs(attrs, null_ipv6=not name.endswith('-old'))}\n"
    assert written.encode() == (FOLDER / name).read_bytes()


@pytest.mark.parametrize("name", RECORDS)
def test_what_flannel_writes_is_read_whole(name: str) -> None:
    key, value, rest = (FOLDER / name).read_bytes().decode().split("\n")
    assert (parse_subnet_name(key), decode_attrs(value)) == RECORDS[name]
    assert rest == ""


def test_no_file_is_left_out() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(RECORDS)
