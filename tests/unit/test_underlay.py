"""Following the external interface through what happens to it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface

from pyflannel.host import DefaultRoute, Facts, Interface, InterfaceAddress, Wish, choose
from pyflannel.underlay import follow

ENS33 = Interface(2, "ens33", 1500, True, (InterfaceAddress(IPv4Interface("172.16.41.131/24")),))
ETH9 = Interface(9, "eth9", 9000, True, (InterfaceAddress(IPv4Interface("192.0.2.9/24")),))
NAMED = Wish(iface=("ens33",))
DEFAULT = Wish()
NOW = choose(Facts((ENS33, ETH9), ()), NAMED)


def facts(*interfaces: Interface, default: str | None = None) -> Facts:
    return Facts(interfaces, (DefaultRoute(4, default),) if default is not None else ())


def test_nothing_changed_is_nothing_new() -> None:
    assert follow(NOW, facts(ENS33, ETH9), NAMED) == NOW


def test_another_mtu_is_taken_over() -> None:
    assert follow(NOW, facts(replace(ENS33, mtu=1400)), NAMED) == replace(NOW, mtu=1400)


def test_an_interface_made_anew_is_the_same_with_another_index() -> None:
    assert follow(NOW, facts(replace(ENS33, index=17)), NAMED) == replace(NOW, index=17)


def test_another_address_is_taken_and_published() -> None:
    moved = replace(ENS33, addresses=(InterfaceAddress(IPv4Interface("172.16.41.200/24")),))
    found = follow(NOW, facts(moved), NAMED)
    assert found is not None
    assert (found.ipv4, found.public_ip) == (IPv4Address("172.16.41.200"),) * 2


def test_an_address_given_by_option_stays_published() -> None:
    wish = replace(NAMED, public_ip=IPv4Address("198.51.100.1"))
    moved = replace(ENS33, addresses=(InterfaceAddress(IPv4Interface("172.16.41.200/24")),))
    found = follow(choose(facts(ENS33), wish), facts(moved), wish)
    assert found is not None
    assert (found.ipv4, found.public_ip) == (IPv4Address("172.16.41.200"), IPv4Address("198.51.100.1"))


def test_an_address_that_still_serves_is_kept_though_a_better_one_appears() -> None:
    better = replace(ENS33, addresses=(InterfaceAddress(IPv4Interface("172.16.41.1/24")), *ENS33.addresses))
    assert choose(facts(better), NAMED).ipv4 == IPv4Address("172.16.41.1")
    assert follow(NOW, facts(better), NAMED) == NOW


def test_a_renamed_interface_is_followed_though_it_was_asked_for_by_name() -> None:
    found = follow(NOW, facts(replace(ENS33, name="lan0"), ETH9), NAMED)
    assert found is not None
    assert (found.name, found.ipv4) == ("lan0", NOW.ipv4)
    assert "ens33" in found.why


def test_an_interface_that_is_gone_leaves_things_as_they_are() -> None:
    assert follow(NOW, facts(ETH9), NAMED) is None


def test_an_interface_without_its_address_leaves_things_as_they_are() -> None:
    assert follow(NOW, facts(replace(ENS33, addresses=())), NAMED) is None


def test_a_default_route_that_moves_is_followed() -> None:
    now = choose(facts(ENS33, ETH9, default="ens33"), DEFAULT)
    found = follow(now, facts(ENS33, ETH9, default="eth9"), DEFAULT)
    assert found is not None
    assert found.name == "eth9"


def test_an_interface_that_is_down_is_of_no_use_at_the_moment() -> None:
    assert follow(NOW, facts(replace(ENS33, up=False)), NAMED) is None
