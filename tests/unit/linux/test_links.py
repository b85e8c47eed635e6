from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from pyflannel.linux import links
from pyflannel.linux.links import Device
from pyflannel.linux.netlink import INTEGER, NLM_F_CREATE, NLM_F_EXCL, attribute, attributes
from pyflannel.state import Link, Mac
from tests.support.kernel_items import LINK, LINK6, SPEC
from tests.support.netlink_oracle import understood


def device(item: Link, *extra: bytes) -> Device:
    """The device the kernel would make of ``item``, with other vxlan settings added."""
    made = links.read(links.create(item, 2).body)
    return replace(made, settings={**made.settings, **attributes(b"".join(extra))})


def settings(item: Link) -> dict[str, object]:
    """The vxlan settings of a creation, as pyroute2 reads them."""
    data: dict[str, object] = understood(links.create(item, 2))["IFLA_LINKINFO"]["IFLA_INFO_DATA"]
    return data


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


def test_the_outer_family_follows_the_local_address() -> None:
    assert settings(LINK6)["IFLA_VXLAN_LOCAL6"] == "2001:db8::1"
    assert not settings(replace(LINK, spec=replace(SPEC, local=None))).keys() & {
        "IFLA_VXLAN_LOCAL",
        "IFLA_VXLAN_LOCAL6",
    }


def test_the_gbp_flag_is_there_only_where_wanted() -> None:
    assert "IFLA_VXLAN_GBP" in settings(replace(LINK, spec=replace(SPEC, gbp=True)))
    assert "IFLA_VXLAN_GBP" not in settings(LINK)


def test_learning_and_being_down_are_said() -> None:
    assert settings(replace(LINK, spec=replace(SPEC, learning=True)))["IFLA_VXLAN_LEARNING"] == 1
    said = understood(links.create(replace(LINK, up=False), 2))
    assert (said["flags"], said["change"]) == (0, links.IFF_UP)


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
    made = device(item)
    assert links.misfit(made) is None
    assert links.underlay(made) == 2
    assert links.as_item(made, item.spec.underlay) == item


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
    assert links.misfit(hardware) == "it is of type hardware, not vxlan"
    assert links.misfit(replace(hardware, kind="bridge")) == "it is of type bridge, not vxlan"


@pytest.mark.parametrize(
    ("setting", "value", "word"),
    [
        (links.IFLA_VXLAN_GROUP, bytes((239, 1, 1, 1)), "group"),
        (links.IFLA_VXLAN_GROUP6, bytes(16), "group"),
        (links.IFLA_VXLAN_L2MISS, b"\1", "l2miss"),
        (links.IFLA_VXLAN_PROXY, b"\1", "proxy"),
        (links.IFLA_VXLAN_RSC, b"\1", "rsc"),
        (links.IFLA_VXLAN_COLLECT_METADATA, b"\1", "external"),
        (links.IFLA_VXLAN_GPE, b"", "gpe"),
        (links.IFLA_VXLAN_VNIFILTER, b"\1", "vnifilter"),
    ],
)
def test_a_vxlan_device_for_another_use_is_a_misfit(setting: int, value: bytes, word: str) -> None:
    why = links.misfit(device(LINK, attribute(setting, value)))
    assert why is not None
    assert word in why


@pytest.mark.parametrize("switch", sorted(links._SWITCHES))
def test_a_use_that_is_switched_off_does_not_count(switch: int) -> None:
    assert links.misfit(device(LINK, attribute(switch, b"\0"))) is None


def test_an_underlay_in_another_namespace_has_no_name_here() -> None:
    assert links.underlay(replace(device(LINK), underlay_elsewhere=True)) == 0


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


def test_where_a_vxlan_device_listens_is_read() -> None:
    assert links.vxlan_ends(device(LINK)) == (LINK.spec.vni, LINK.spec.port)
