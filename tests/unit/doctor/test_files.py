from __future__ import annotations

import os
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest

from pyflannel.doctor.facts import Manager, SubnetFile
from pyflannel.doctor.files import mac_policy, networkd, newest, subnet_file, unit, uses_cni

VENDOR = "usr/lib/systemd/network/99-default.link"
DEFAULT = "[Match]\nOriginalName=*\n\n[Link]\nNamePolicy=keep kernel\nMACAddressPolicy=persistent\n"


def put(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_subnet_file_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        "subnet.env",
        "FLANNEL_NETWORK=10.2.0.0/16\nFLANNEL_SUBNET=10.2.7.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
        "FLANNEL_IPV6_NETWORK=fd00:2::/48\nFLANNEL_IPV6_SUBNET=fd00:2:0:7::1/64\n",
    )
    assert subnet_file(path) == SubnetFile(
        str(path),
        True,
        IPv4Network("10.2.0.0/16"),
        IPv4Network("10.2.7.0/24"),
        IPv6Network("fd00:2::/48"),
        IPv6Network("fd00:2:0:7::/64"),
        1450,
        True,
    )


@pytest.mark.parametrize("text", ["", "FLANNEL_MTU=\nFLANNEL_IPMASQ=maybe", "FLANNEL_MTU=²²²²"])
def test_what_a_subnet_file_does_not_say_is_unknown(tmp_path: Path, text: str) -> None:
    path = put(tmp_path, "subnet.env", text)
    assert subnet_file(path) == SubnetFile(str(path), True)


def test_no_subnet_file_is_known_from_one_that_cannot_be_read(tmp_path: Path) -> None:
    assert subnet_file(tmp_path / "none").there is False
    assert subnet_file(tmp_path).there is None


def test_the_unit_is_the_one_systemd_would_take(tmp_path: Path) -> None:
    assert unit(tmp_path) is None
    vendor = put(tmp_path, "usr/lib/systemd/system/flanneld.service", "[Unit]")
    assert unit(tmp_path) == str(vendor)
    local = put(tmp_path, "etc/systemd/system/flanneld.service", "[Unit]")
    assert unit(tmp_path) == str(local)


def test_a_cni_configuration_with_our_plug_in_is_known(tmp_path: Path) -> None:
    assert not uses_cni(tmp_path)
    put(tmp_path, "etc/cni/net.d/99-loopback.conf", '{"type": "loopback"}')
    assert not uses_cni(tmp_path)
    put(tmp_path, "etc/cni/net.d/10-flannel.conflist", '{"plugins": [{"type": "flannel"}]}')
    assert uses_cni(tmp_path)


def test_the_youngest_file_counts(tmp_path: Path) -> None:
    for name, when in (("a", 100), ("b", 300)):
        os.utime(put(tmp_path, name, ""), (when, when))
    assert newest([tmp_path / "a", tmp_path / "b", tmp_path / "none"]) == 300
    assert newest([tmp_path / "none"]) is None


def test_udevs_default_gives_tunnels_another_address(tmp_path: Path) -> None:
    path = put(tmp_path, VENDOR, DEFAULT)
    assert mac_policy(tmp_path, "flannel.1") == str(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("etc/systemd/network/10-flannel.link", "[Match]\nOriginalName=flannel*\n[Link]\nMACAddressPolicy=none\n"),
        ("etc/systemd/network/99-default.link", ""),
        ("etc/systemd/network/99-default.link", DEFAULT.replace("=*", "=!flannel*")),
    ],
    ids=["a file before it", "masked", "left out"],
)
def test_a_file_of_the_administrators_keeps_udev_off(tmp_path: Path, name: str, text: str) -> None:
    put(tmp_path, VENDOR, DEFAULT)
    put(tmp_path, name, text)
    assert mac_policy(tmp_path, "flannel.1") is None


def test_networkd_manages_what_a_file_matches_by_name(tmp_path: Path) -> None:
    path = put(tmp_path, "etc/systemd/network/50-all.network", "# all\n[Match]\nName=en* flannel*\n")
    assert networkd(tmp_path, ["flannel.1"]) == ()
    put(tmp_path, "run/systemd/netif/state", "")
    found = Manager("systemd-networkd", "flannel.1", f"{path}: [Match] Name=en* flannel*")
    assert networkd(tmp_path, ["flannel.1", "docker0"]) == (found,)


@pytest.mark.parametrize(
    "text",
    ["[Match]\nName=flannel*\n[Link]\nUnmanaged=yes\n", "[Match]\nName=*\nType=ether\n", "[Match]\nName=en*\n"],
    ids=["unmanaged", "more conditions", "other names"],
)
def test_networkd_leaves_alone_what_no_file_surely_matches(tmp_path: Path, text: str) -> None:
    put(tmp_path, "run/systemd/netif/state", "")
    put(tmp_path, "etc/systemd/network/50-all.network", text)
    assert networkd(tmp_path, ["flannel.1"]) == ()
