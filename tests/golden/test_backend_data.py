"""What backends publish, byte for byte as flannel does, and what they make of what any flannel published (compat §3.2).

The records are those under tests/golden/lease.
"""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from pyflannel.backends.api import Refused, View
from pyflannel.diff import Put
from pyflannel.host import Underlay
from pyflannel.lease.model import Lease
from pyflannel.lease.wire import decode_attrs, encode_attrs, parse_subnet_name
from pyflannel.linux.spelling import spell
from pyflannel.state import Mac
from tests.support.builders import backend, config, subnet

FOLDER = Path(__file__).parent / "lease"
HOST, HOST6 = IPv4Address("192.168.64.3"), IPv6Address("fd00::3")
MACS = {"flannel.1": Mac.parse("c6:d2:32:6f:8f:44"), "flannel-v6.1": Mac.parse("3e:0b:84:a1:05:7c")}
OTHERS = {"flannel.1": Mac.parse("02:00:00:00:00:01"), "flannel-v6.1": Mac.parse("02:00:00:00:06:01")}
NETWORK, NETWORK6 = "10.0.0.0/8", "fd00::/32"


def asked(record: str) -> str:
    """The backend that a record is of."""
    return next(name for name in ("vxlan", "host-gw", "ipip") if record.startswith(name))


def seen(name: str, families: str, ours: bool) -> View:
    """The view of the host that wrote the records, or of another one."""
    four, six = "4" in families, "6" in families
    network = config(f'{{"Type":"{name}"}}', NETWORK, NETWORK6 if six else None)
    if not four:
        network = replace(network, ipv4=None)
    host, host6 = (HOST, HOST6) if ours else (IPv4Address("192.168.64.9"), IPv6Address("fd00::9"))
    v4, v6 = host if four else None, host6 if six else None
    own = subnet(*(["10.77.1.0/24"] if four else []), *(["fd00:77::/56"] if six else []))
    return View(network, Underlay("ens33", 2, 1500, v4, v6, v4, v6, "test"), own, MACS if ours else OTHERS)


@pytest.mark.parametrize(
    ("record", "families"),
    [
        ("vxlan", "4"),
        ("vxlan-dual", "46"),
        ("vxlan-ipv6", "6"),
        ("host-gw", "4"),
        ("host-gw-dual", "46"),
        ("ipip", "4"),
    ],
)
def test_a_backend_publishes_what_flannels_does_byte_for_byte(record: str, families: str) -> None:
    view = seen(asked(record), families, ours=True)
    _, value, _ = (FOLDER / record).read_text().split("\n")
    assert encode_attrs(backend(view.config).attrs(view.underlay, view.macs)) == value


VXLAN = (
    "ip neigh add 10.1.5.0 lladdr c6:d2:32:6f:8f:44 dev flannel.1 nud permanent",
    "bridge fdb add c6:d2:32:6f:8f:44 dev flannel.1 dst 192.168.64.3 self permanent",
    "ip route add 10.1.5.0/24 via 10.1.5.0 dev flannel.1 onlink",
)
VXLAN_V4 = tuple(line.replace("10.1.5", "10.12.13") for line in VXLAN)
VXLAN_V6 = (
    "ip neigh add fd00:12:13:: lladdr 3e:0b:84:a1:05:7c dev flannel-v6.1 nud permanent",
    "bridge fdb add 3e:0b:84:a1:05:7c dev flannel-v6.1 dst fd00::3 self permanent",
    "ip route add fd00:12:13::/56 via fd00:12:13:: dev flannel-v6.1 metric 1024 onlink",
)
HOST_GW = ("ip route add 10.1.5.0/24 via 192.168.64.3 dev ens33 proto 70",)
HOST_GW_DUAL = (
    "ip route add 10.12.13.0/24 via 192.168.64.3 dev ens33 proto 70",
    "ip route add fd00:12:13::/56 via fd00::3 dev ens33 proto 70 metric 1024",
)
IPIP = ("ip route add 10.1.5.0/24 via 192.168.64.3 dev flannel.ipip onlink",)


@pytest.mark.parametrize(
    ("record", "families", "wanted"),
    [
        ("vxlan", "4", VXLAN),
        ("vxlan-old", "4", VXLAN),
        ("vxlan", "46", VXLAN),
        ("vxlan-dual", "4", VXLAN_V4),
        ("vxlan-dual", "46", (*VXLAN_V4, *VXLAN_V6)),
        ("vxlan-dual", "6", VXLAN_V6),
        ("vxlan-ipv6", "6", VXLAN_V6),
        ("host-gw", "4", HOST_GW),
        ("host-gw-old", "4", HOST_GW),
        ("host-gw-dual", "46", HOST_GW_DUAL),
        ("ipip", "4", IPIP),
        ("ipip-old", "4", IPIP),
    ],
)
def test_a_backend_understands_what_any_flannel_published(record: str, families: str, wanted: tuple[str, ...]) -> None:
    key, value, _ = (FOLDER / record).read_text().split("\n")
    assert programmed(asked(record), families, key, value) == wanted


@pytest.mark.parametrize(
    "value",
    [
        '{"PublicIP":"192.168.64.3","BackendType":"vxlan","BackendData":{"VNI":0,"VtepMAC":"c6:d2:32:6f:8f:44"}}',
        '{"PublicIP":"192.168.64.3","BackendType":"vxlan","BackendData":{"VNI":1}}',
        '{"PublicIP":"192.168.64.3","BackendType":"vxlan"}',
        '{"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}',
        '{"PublicIP":"192.168.64.3"}',
    ],
    ids=["of another VNI", "no VtepMAC", "no BackendData", "no PublicIP", "of no type"],
)
def test_what_lacks_what_is_needed_is_refused(value: str) -> None:
    with pytest.raises(Refused):
        programmed("vxlan", "4", "10.1.5.0-24", value)


@pytest.mark.parametrize(
    "value",
    [
        '{"publicip":"192.168.64.3","BACKENDTYPE":"vxlan","backendData":{"vni":1,"vtepmac":"c6:d2:32:6f:8f:44"}}',
        '{"BackendData":{"VtepMAC":"C6:D2:32:6F:8F:44","VNI":1,"Port":8472},"BackendType":"vxlan",'
        '"PublicIP":"192.168.64.3","Since":2017}',
        json.dumps(
            {
                "PublicIP": "192.168.64.3",
                "BackendType": "vxlan",
                "BackendData": {"VNI": 1, "VtepMAC": "c6:d2:32:6f:8f:44"},
            },
            indent=2,
        ),
    ],
    ids=["other case", "other order and more keys", "spaces"],
)
def test_what_means_the_same_is_understood_the_same(value: str) -> None:
    assert programmed("vxlan", "4", "10.1.5.0-24", value) == VXLAN


def programmed(name: str, families: str, key: str, value: str) -> tuple[str, ...]:
    """What another host of the network programs for a record, as commands."""
    view = seen(name, families, ours=False)
    found = parse_subnet_name(key)
    assert found is not None
    lease = Lease(found, decode_attrs(value))
    return tuple(spell(Put(item)) for item in backend(view.config).peer_items(view, lease))
