from __future__ import annotations

from dataclasses import replace

import pytest

from pyflannel.linux import links, vxlan
from pyflannel.linux.netlink import attribute
from tests.support.kernel_devices import made, settings
from tests.support.kernel_items import LINK, LINK6, SPEC
from tests.support.netlink_oracle import understood


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


@pytest.mark.parametrize(
    ("setting", "value", "word"),
    [
        (vxlan.IFLA_VXLAN_GROUP, bytes((239, 1, 1, 1)), "group"),
        (vxlan.IFLA_VXLAN_GROUP6, bytes(16), "group"),
        (vxlan.IFLA_VXLAN_L2MISS, b"\1", "l2miss"),
        (vxlan.IFLA_VXLAN_PROXY, b"\1", "proxy"),
        (vxlan.IFLA_VXLAN_RSC, b"\1", "rsc"),
        (vxlan.IFLA_VXLAN_COLLECT_METADATA, b"\1", "external"),
        (vxlan.IFLA_VXLAN_GPE, b"", "gpe"),
        (vxlan.IFLA_VXLAN_VNIFILTER, b"\1", "vnifilter"),
    ],
)
def test_a_vxlan_device_for_another_use_is_a_misfit(setting: int, value: bytes, word: str) -> None:
    why = links.misfit(made(LINK, attribute(setting, value)))
    assert why is not None
    assert word in why


@pytest.mark.parametrize("switch", sorted(vxlan.SWITCHES))
def test_a_use_that_is_switched_off_does_not_count(switch: int) -> None:
    assert links.misfit(made(LINK, attribute(switch, b"\0"))) is None
