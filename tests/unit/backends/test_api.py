"""What is asked of every backend, whichever it is."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from pyflannel.backends import BACKENDS, FIXED_NAMES, UNSUPPORTED, NotSupported, from_config, ipip, udp, wireguard
from pyflannel.backends.api import Backend, View
from pyflannel.backends.wireguard import Wireguard
from pyflannel.diff import device
from pyflannel.lease.model import Attrs
from pyflannel.lease.network import ConfigError, NetworkConfig
from pyflannel.state import State
from tests.support.builders import config, subnet, underlay, view, vxlan_lease
from tests.support.wireguard_items import OWN, key

PEER = vxlan_lease()
PEERS = {
    "alloc": replace(PEER, attrs=Attrs(PEER.attrs.public_ip)),
    "extension": replace(PEER, attrs=Attrs(PEER.attrs.public_ip, None, "extension")),
    "host-gw": replace(PEER, attrs=Attrs(PEER.attrs.public_ip, None, "host-gw")),
    "ipip": replace(PEER, attrs=Attrs(PEER.attrs.public_ip, None, "ipip")),
    "udp": replace(PEER, attrs=Attrs(PEER.attrs.public_ip)),
    "vxlan": PEER,
    "wireguard": replace(PEER, attrs=Attrs(PEER.attrs.public_ip, None, "wireguard", f'{{"PublicKey":"{key(7)}"}}')),
}
IPV4_ALONE = ("ipip",)
"""Backends that refuse a network with IPv6."""
FAMILIES = {
    "ipv4": (None, view()),
    "dual-stack": (
        "fd00:2::/48",
        view(own=subnet("10.2.71.0/24", "fd00:2:0:71::/64"), under=underlay(ipv6="fd00:41::131")),
    ),
}


@pytest.fixture(params=sorted(BACKENDS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=FAMILIES)
def network(request: pytest.FixtureRequest, name: str) -> NetworkConfig:
    ipv6_network = None if name in IPV4_ALONE else FAMILIES[request.param][0]
    return config(f'{{"Type":"{name}"}}', ipv6_network=ipv6_network)


@pytest.fixture
def backend(network: NetworkConfig) -> Backend:
    built = from_config(network)
    return built.keyed(OWN) if isinstance(built, Wireguard) else built


@pytest.fixture
def seen(network: NetworkConfig) -> View:
    given = FAMILIES["ipv4" if network.ipv6 is None else "dual-stack"][1]
    return View(network, given.underlay, given.own, given.macs)


def test_it_is_what_the_configuration_calls_it(name: str, backend: Backend) -> None:
    assert backend.type in ("", name)


def test_its_own_items_have_a_slot_each_and_lie_within_its_scope(backend: Backend, seen: View) -> None:
    items = State(backend.self_items(seen))
    assert {device(item) for item in items.values()} <= backend.scope(seen).devices == set(backend.devices)


def test_a_peers_items_have_a_slot_each_apart_from_its_own(name: str, backend: Backend, seen: View) -> None:
    peer = backend.peer_items(seen, PEERS[name])
    assert len(State([*backend.self_items(seen), *peer])) == len(backend.self_items(seen)) + len(peer)


def test_what_it_publishes_its_own_kind_can_use(backend: Backend, seen: View) -> None:
    attrs = backend.attrs(seen.underlay, seen.macs)
    assert attrs.public_ip == seen.underlay.public_ip
    assert attrs.backend_type == backend.type


def test_containers_get_an_mtu_the_underlay_can_carry(backend: Backend, seen: View) -> None:
    assert 0 < backend.mtu(seen.underlay) <= seen.underlay.mtu


@pytest.mark.parametrize("name", ["ipsec", "IPsec", "aws-vpc", "gce", "ali-vpc", "alivpc", "tencent-vpc"])
def test_a_backend_of_flannels_that_is_not_supported_is_told_from_a_misspelt_one_and_another_one_named(
    name: str,
) -> None:
    with pytest.raises(
        NotSupported, match=rf'Backend.Type "{name.lower()}" is not supported: .*; take (\S+)'
    ) as caught:
        from_config(config(f'{{"Type":"{name}"}}'))
    instead = re.findall("; take ([a-z-]+)", str(caught.value)) + re.findall(" or ([a-z-]+) where", str(caught.value))
    assert set(instead) <= {*BACKENDS, "wireguard"}


def test_nothing_is_both_there_and_not_supported() -> None:
    assert not BACKENDS.keys() & UNSUPPORTED.keys()


def test_a_backend_there_is_not_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'carrier-pigeon'.*vxlan"):
        from_config(config('{"Type":"carrier-pigeon"}'))


def test_names_that_are_the_same_in_every_network_are_known_without_loading_the_backends() -> None:
    assert {ipip.DEVICE, udp.DEV, wireguard.DEV, wireguard.DEV_V6} == FIXED_NAMES
