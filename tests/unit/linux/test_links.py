from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from pyflannel.linux import links
from pyflannel.linux.netlink import INTEGER, NLM_F_CREATE, NLM_F_EXCL, attribute
from pyflannel.state import Link, Mac
from tests.support.kernel_devices import made, settings
from tests.support.kernel_items import LINK, LINK6, SPEC, vxlan_of
from tests.support.netlink_oracle import understood


def test_a_device_is_made_complete_in_one_step() -> None:
    request = links.create(LINK, 2)
    assert request.flags == NLM_F_CREATE | NLM_F_EXCL
    said = understood(request)
    assert (said["IFLA_IFNAME"], said["IFLA_MTU"], said["IFLA_ADDRESS"]) == ("flannel.1", 1450, str(LINK.mac))
    assert (said["flags"], said["change"]) == (links.IFF_UP, links.IFF_UP)
    assert said["IFLA_LINKINFO"]["IFLA_INFO_KIND"] == "vxlan"
    assert settings(LINK) == {
        "IFLA_VXLAN_ID": 1,
        "IFLA_VXLAN_LINK": 2,
        "IFLA_VXLAN_PORT": 8472,
        "IFLA_VXLAN_LEARNING": 0,
        "IFLA_VXLAN_LOCAL": "192.0.2.1",
    }


def test_without_a_wanted_mac_the_kernel_chooses() -> None:
    assert "IFLA_ADDRESS" not in understood(links.create(replace(LINK, mac=None), 2))


@pytest.mark.parametrize(
    "item",
    [
        LINK,
        LINK6,
        replace(LINK, mac=None, up=False, mtu=9000),
        replace(LINK, spec=replace(SPEC, vni=2**24 - 1, port=4789, local=None, learning=True, gbp=True)),
    ],
)
def test_a_device_reads_as_it_was_made(item: Link) -> None:
    device = made(item)
    assert links.misfit(device) is None
    assert links.underlay(device) == 2
    assert links.as_item(device, vxlan_of(item).underlay) == item


def test_a_change_names_only_what_differs() -> None:
    (request,) = links.change(replace(LINK, mtu=1400), LINK, 7, 2)
    assert request.flags == 0
    said = understood(request)
    assert (said["index"], said["flags"], said["IFLA_MTU"]) == (7, links.IFF_UP, 1400)
    assert not said.keys() & {"IFLA_ADDRESS", "IFLA_LINKINFO", "IFLA_IFNAME"}
    (request,) = links.change(replace(LINK, mac=Mac.parse("02:00:00:00:00:99")), LINK, 7, 2)
    assert understood(request)["IFLA_ADDRESS"] == "02:00:00:00:00:99"
    (request,) = links.change(replace(LINK, mac=None, up=False), LINK, 7, 2)
    assert "IFLA_ADDRESS" not in understood(request)
    assert (understood(request)["flags"], understood(request)["change"]) == (0, links.IFF_UP)


def test_vxlan_settings_change_before_the_mtu_that_may_rely_on_them() -> None:
    spec = replace(SPEC, underlay="eth1", local=ip_address("192.0.2.9"), learning=True)
    first, second = links.change(replace(LINK, spec=spec, mtu=1400), LINK, 7, 3)
    data = understood(first)["IFLA_LINKINFO"]["IFLA_INFO_DATA"]
    assert data == {"IFLA_VXLAN_LINK": 3, "IFLA_VXLAN_LOCAL": "192.0.2.9", "IFLA_VXLAN_LEARNING": 1}
    assert "IFLA_MTU" not in understood(first)
    assert understood(second)["IFLA_MTU"] == 1400


def test_a_device_is_deleted_by_index_alone() -> None:
    said = understood(links.delete(7))
    assert (said["index"], said["change"]) == (7, 0)
    assert "IFLA_IFNAME" not in said


def test_devices_are_asked_for_without_their_statistics() -> None:
    assert understood(links.query("eth0"))["IFLA_IFNAME"] == "eth0"
    assert understood(links.query(7))["index"] == 7
    assert all(
        understood(query)["IFLA_EXT_MASK"] == 8 for query in (links.query("eth0"), links.query(7), links.query_all())
    )


def test_a_device_of_another_type_is_a_misfit() -> None:
    hardware = links.read(
        links.IFINFOMSG.pack(0, 1, 2, links.IFF_UP, 0)
        + attribute(links.IFLA_IFNAME, b"eth0\0")
        + attribute(links.IFLA_ADDRESS, bytes(6))
        + attribute(links.IFLA_MTU, INTEGER.pack(1500))
    )
    assert (hardware.index, hardware.name, hardware.mtu, hardware.up) == (2, "eth0", 1500, True)
    kinds = "ipip or tun or vxlan or wireguard"
    assert links.misfit(hardware) == f"it is of type hardware, not {kinds}"
    assert links.misfit(replace(hardware, kind="bridge")) == f"it is of type bridge, not {kinds}"


def test_an_underlay_in_another_namespace_has_no_name_here() -> None:
    assert links.underlay(replace(made(LINK), underlay_elsewhere=True)) == 0


def test_a_device_without_an_ethernet_address_has_no_mac() -> None:
    body = links.IFINFOMSG.pack(0, 65534, 2, 0, 0) + attribute(links.IFLA_IFNAME, b"tun0\0")
    assert links.read(body + attribute(links.IFLA_ADDRESS, b"")).mac is None


def test_a_device_is_renamed_by_index() -> None:
    said = understood(links.rename(7, "flannel.1"))
    assert (said["index"], said["IFLA_IFNAME"], said["change"]) == (7, "flannel.1", 0)


def test_a_device_is_set_down_and_nothing_else() -> None:
    said = understood(links.set_down(7))
    assert (said["index"], said["flags"], said["change"]) == (7, 0, 1)


def test_devices_of_one_type_are_asked_for() -> None:
    assert understood(links.query_kind("vxlan"))["IFLA_LINKINFO"] == {"IFLA_INFO_KIND": "vxlan"}
