from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from pyflannel.linux import ipip, links
from pyflannel.linux.links import Device
from pyflannel.linux.netlink import attribute, attributes
from pyflannel.state import Ipip, Link
from tests.support.netlink_oracle import understood

SPEC = Ipip("", IPv4Address("192.0.2.1"))
LINK = Link("flannel.ipip", SPEC, 1480)
AS_GO_MAKES_IT = {"IFLA_IPIP_TTL": 0, "IFLA_IPIP_TOS": 0, "IFLA_IPIP_PMTUDISC": 0}


def device(item: Link, *extra: bytes) -> Device:
    """The device the kernel would make of ``item``, with other settings added."""
    made = links.read(links.create(item, 2).body)
    return replace(made, settings={**made.settings, **attributes(b"".join(extra))})


def settings(item: Link, index: int = 0) -> dict[str, object]:
    """The settings of a creation, as pyroute2 reads them."""
    info = understood(links.create(item, index))["IFLA_LINKINFO"]
    assert info["IFLA_INFO_KIND"] == "ipip"
    data: dict[str, object] = info["IFLA_INFO_DATA"]
    return data


def test_a_device_has_our_end_and_no_other_and_leaves_the_way_to_the_routing_table() -> None:
    assert settings(LINK) == {**AS_GO_MAKES_IT, "IFLA_IPIP_LOCAL": "192.0.2.1"}
    assert settings(replace(LINK, spec=Ipip("", None))) == AS_GO_MAKES_IT
    assert settings(replace(LINK, spec=replace(SPEC, underlay="eth0")), 7)["IFLA_IPIP_LINK"] == 7


@pytest.mark.parametrize("spec", [SPEC, Ipip("", None), Ipip("eth0", IPv4Address("192.0.2.1"))])
def test_what_is_made_is_read_back(spec: Ipip) -> None:
    made = links.read(links.create(replace(LINK, spec=spec), 7 if spec.underlay else 0).body)
    assert links.misfit(made) is None
    assert links.underlay(made) == (7 if spec.underlay else 0)
    assert links.as_item(made, spec.underlay) == replace(LINK, spec=spec)


def test_the_kernel_writes_any_address_where_there_is_none() -> None:
    found = device(LINK, attribute(ipip.IFLA_IPTUN_LOCAL, bytes(4)), attribute(ipip.IFLA_IPTUN_REMOTE, bytes(4)))
    assert links.misfit(found) is None
    assert links.as_item(found, "").spec == Ipip("", None)


def test_a_change_names_every_setting_because_the_kernel_takes_the_others_for_zero() -> None:
    new = replace(LINK, spec=Ipip("eth0", IPv4Address("192.0.2.9")))
    first, second = links.change(new, LINK, 5, 7)
    assert understood(first)["IFLA_LINKINFO"]["IFLA_INFO_DATA"] == {
        **AS_GO_MAKES_IT,
        "IFLA_IPIP_LINK": 7,
        "IFLA_IPIP_LOCAL": "192.0.2.9",
    }
    assert understood(second)["IFLA_MTU"] == 1480, "the kernel chooses another with another underlay"


def test_a_change_of_the_mtu_alone_names_no_setting() -> None:
    (request,) = links.change(replace(LINK, mtu=1400), LINK, 5, 0)
    assert "IFLA_LINKINFO" not in understood(request)


@pytest.mark.parametrize(
    ("setting", "value", "word"),
    [
        (ipip.IFLA_IPTUN_REMOTE, bytes((192, 0, 2, 2)), "remote"),
        (ipip.IFLA_IPTUN_ENCAP_TYPE, b"\1\0", "encap"),
        (ipip.IFLA_IPTUN_COLLECT_METADATA, b"", "external"),
        (ipip.IFLA_IPTUN_PROTO, bytes((137,)), "mode"),
    ],
)
def test_an_ipip_device_for_another_use_is_a_misfit(setting: int, value: bytes, word: str) -> None:
    why = links.misfit(device(LINK, attribute(setting, value)))
    assert why is not None
    assert word in why


@pytest.mark.parametrize("protocol", [0, 4])
def test_a_device_that_takes_ipv4_fits(protocol: int) -> None:
    assert links.misfit(device(LINK, attribute(ipip.IFLA_IPTUN_PROTO, bytes((protocol,))))) is None
