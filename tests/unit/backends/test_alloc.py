from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest

from pyflannel.backends import from_config
from pyflannel.lease.model import Attrs, Lease
from pyflannel.lease.wire import encode_attrs
from pyflannel.state import Scope
from tests.support.builders import config, subnet, underlay, view

ALLOC = from_config(config('{"Type":"alloc"}'))
UNDERLAY = underlay(mtu=9000, ipv6="2001:db8::131")


def test_a_host_publishes_its_address_and_no_type() -> None:
    assert encode_attrs(ALLOC.attrs(UNDERLAY, {})) == '{"PublicIP":"172.16.41.131","PublicIPv6":null}'


def test_a_dual_stack_host_publishes_both_addresses() -> None:
    dual = from_config(config('{"Type":"alloc"}', ipv6_network="fd00:2::/48"))
    assert dual.attrs(UNDERLAY, {}) == Attrs(IPv4Address("172.16.41.131"), IPv6Address("2001:db8::131"))


@pytest.mark.parametrize(
    "attrs",
    [
        Attrs(IPv4Address("172.16.41.132")),
        Attrs(IPv4Address("172.16.41.132"), None, "vxlan", '{"VtepMAC":"02:00:00:00:00:02"}'),
        Attrs(UNDERLAY.public_ip),
    ],
    ids=["one like us", "one of another backend", "one with our address"],
)
def test_no_peer_means_anything_to_the_kernel(attrs: Attrs) -> None:
    peer = Lease(subnet("10.2.41.0/24"), attrs)
    assert ALLOC.peer_items(view(), peer) == ()
    assert ALLOC.claims(peer) == frozenset()
    assert ALLOC.published(peer) == {}


def test_nothing_is_made_for_ourselves_either() -> None:
    assert (ALLOC.devices, ALLOC.self_items(view())) == ((), ())
    assert ALLOC.scope(view()) == Scope(borrowed=frozenset(("ens33",)))


def test_containers_may_send_what_the_interface_may() -> None:
    assert ALLOC.mtu(UNDERLAY) == 9000


def test_an_option_is_one_too_many() -> None:
    assert ALLOC.warnings == ()
    (warning,) = from_config(config('{"Type":"alloc","MTU":1400}')).warnings
    assert warning.startswith("Backend.MTU is not a key we know")
