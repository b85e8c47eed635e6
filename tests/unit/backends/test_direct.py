from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from pyflannel.backends import direct
from pyflannel.state import PROTO_FLANNEL, Route
from tests.support.builders import config, view


@pytest.mark.parametrize(
    ("backend", "wanted"),
    [
        ('{"Type":"vxlan"}', False),
        ('{"Type":"vxlan","DirectRouting":true}', True),
        ('{"Type":"vxlan","directrouting":true}', True),
        ('{"Type":"vxlan","DirectRouting":false}', False),
        ('{"Type":"ipip","DirectRouting":true}', True),
        ('{"Type":"extension","DirectRouting":"their own"}', False),
    ],
)
def test_it_is_asked_for_by_an_option_of_vxlan_and_ipip(backend: str, wanted: bool) -> None:
    assert direct.wanted(config(backend)) is wanted


def test_the_route_leaves_by_the_external_interface_and_carries_our_protocol() -> None:
    subnet, host = IPv4Network("10.2.41.0/24"), IPv4Address("172.16.41.132")
    assert direct.route(view(), subnet, host) == Route(subnet, "ens33", host, protocol=PROTO_FLANNEL)
