from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network

import pytest

from pyflannel.backends import from_config
from pyflannel.backends.api import Refused, View
from pyflannel.backends.wireguard import Wireguard
from pyflannel.lease.model import Attrs, Lease
from pyflannel.lease.network import ConfigError
from pyflannel.state import Address, Link, Route
from pyflannel.state import Wireguard as WireguardSpec
from pyflannel.wireguard import Endpoint, WireguardDevice, WireguardPeer
from tests.support.builders import config, subnet, underlay, view
from tests.support.wireguard_items import OWN, PSK, key

FOUR, SIX, BOTH = "10.2.41.0/24", "fd00:2:0:41::/64", ("10.2.41.0/24", "fd00:2:0:41::/64")
HOST, HOST6 = IPv4Address("172.16.41.132"), IPv6Address("2001:db8::132")
NETWORK6 = "fd00:2::/48"


def backend(options: str = "", ipv4: bool = True, ipv6: bool = False) -> Wireguard:
    text = f'{{"Type":"wireguard"{options}}}'
    network = config(text, ipv6_network=NETWORK6 if ipv6 else None)
    built = from_config(network if ipv4 else replace(network, ipv4=None))
    assert isinstance(built, Wireguard)
    return built.keyed(OWN)


def sight(ipv6: bool = False, ours: str = "2001:db8::131") -> View:
    network = config('{"Type":"wireguard"}', ipv6_network=NETWORK6 if ipv6 else None)
    own = subnet("10.2.71.0/24", *(["fd00:2:0:71::/64"] if ipv6 else []))
    return replace(view(network, own, underlay(ipv6=ours if ipv6 else None)), macs={})


def data(number: int = 7, port: int | None = None) -> str:
    return json.dumps({"PublicKey": str(key(number))} | ({} if port is None else {"Port": port}))


def lease(*nets: str, v4: str | None = None, v6: str | None = None, host: str = "", host6: str = "") -> Lease:
    attrs = Attrs(IPv4Address(host or HOST), IPv6Address(host6 or HOST6), "wireguard", v4, v6)
    return Lease(subnet(*nets), attrs)


def entry(built: Wireguard, found: Lease, seen: View) -> WireguardPeer:
    (item,) = built.peer_items(seen, found)
    assert isinstance(item, WireguardPeer)
    return item


def test_a_peer_is_an_entry_by_its_key_that_takes_its_subnet() -> None:
    found = entry(backend(), lease(FOUR, v4=data(7, 4000)), sight())
    assert found == WireguardPeer("flannel-wg", key(7), Endpoint(HOST, 4000), frozenset((ip_network(FOUR),)))


def test_the_options_reach_each_peer() -> None:
    options = f',"PSK":"{PSK.text}","PersistentKeepaliveInterval":25,"ListenPort":4001'
    found = entry(backend(options), lease(FOUR, v4=data()), sight())
    assert (found.psk, found.keepalive, found.endpoint) == (PSK, 25, Endpoint(HOST, 4001))


def test_ourselves_are_device_address_identity_and_a_route_for_the_network() -> None:
    assert backend().self_items(sight()) == (
        Link("flannel-wg", WireguardSpec(), 1420),
        Address("flannel-wg", ip_interface("10.2.71.0/32")),
        WireguardDevice("flannel-wg", OWN.private, 51820),
        Route(ip_network("10.2.0.0/16"), "flannel-wg"),
    )


def test_separate_families_have_a_device_each() -> None:
    built, seen = backend(ipv6=True), sight(ipv6=True)
    items = built.self_items(seen)
    assert built.devices == ("flannel-wg", "flannel-wg-v6")
    assert [item.listen_port for item in items if isinstance(item, WireguardDevice)] == [51820, 51821]
    assert [str(item.dst) for item in items if isinstance(item, Route)] == ["10.2.0.0/16", NETWORK6]
    four, six = built.peer_items(seen, lease(*BOTH, v4=data(7, 1), v6=data(8, 2)))
    assert (four, six) == (
        WireguardPeer("flannel-wg", key(7), Endpoint(HOST, 1), frozenset((ip_network(FOUR),))),
        WireguardPeer("flannel-wg-v6", key(8), Endpoint(HOST6, 2), frozenset((ip_network(SIX),))),
    )


@pytest.mark.parametrize("mode", ["auto", "ipv4", "ipv6"])
def test_in_the_other_modes_one_device_carries_both(mode: str) -> None:
    built, seen = backend(f',"Mode":"{mode}"', ipv6=True), sight(ipv6=True)
    items = built.self_items(seen)
    assert {item.name for item in items if isinstance(item, Link)} == {"flannel-wg"}
    assert len([item for item in items if isinstance(item, Address)]) == 2
    assert [str(item.dst) for item in items if isinstance(item, Route)] == ["10.2.0.0/16", NETWORK6]
    found = entry(built, lease(*BOTH, v4=data(), v6=data()), seen)
    assert found.allowed == {ip_network(FOUR), ip_network(SIX)}


@pytest.mark.parametrize("mode", ["auto", "ipv4"])
def test_one_device_in_a_network_without_ipv6_has_no_route_for_it(mode: str) -> None:
    routes = [item for item in backend(f',"Mode":"{mode}"').self_items(sight()) if isinstance(item, Route)]
    assert [str(route.dst) for route in routes] == ["10.2.0.0/16"]
    assert entry(backend(f',"Mode":"{mode}"'), lease(FOUR, v4=data()), sight()).allowed == {ip_network(FOUR)}


@pytest.mark.parametrize(
    ("host", "host6", "ours", "way"),
    [
        ("203.0.113.9", "2001:db8::132", "2001:db8::131", 4),
        ("172.16.41.132", "2001:db8::132", "2001:db8::131", 6),
        ("172.32.41.132", "2001:db8::132", "2001:db8::131", 4),
        ("10.0.0.132", "fd00:41::132", "2001:db8::131", 4),
        ("192.168.0.132", "2001:db8::132", "fd00:41::131", 4),
        ("100.64.0.1", "2001:db8::132", "2001:db8::131", 4),
    ],
    ids=["public IPv4", "private, and IPv6 between us", "not RFC 1918", "both private", "ours private", "shared range"],
)
def test_auto_takes_the_family_that_most_probably_leads_there(host: str, host6: str, ours: str, way: int) -> None:
    found = entry(
        backend(',"Mode":"auto"', ipv6=True),
        lease(*BOTH, v4=data(), v6=data(), host=host, host6=host6),
        sight(ipv6=True, ours=ours),
    )
    assert found.endpoint == Endpoint(ip_address(host if way == 4 else host6), 51820)


def test_auto_takes_what_is_published() -> None:
    peer = replace(lease(FOUR, v4=data()), attrs=Attrs(HOST, None, "wireguard", data()))
    assert entry(backend(',"Mode":"auto"', ipv6=True), peer, sight(ipv6=True)).endpoint == Endpoint(HOST, 51820)


@pytest.mark.parametrize(("mode", "host"), [("ipv4", HOST), ("ipv6", HOST6)])
def test_a_mode_that_names_a_family_takes_that(mode: str, host: IPv4Address | IPv6Address) -> None:
    found = entry(backend(f',"Mode":"{mode}"', ipv6=True), lease(*BOTH, v4=data(7, 9), v6=data(7, 9)), sight(ipv6=True))
    assert found.endpoint == Endpoint(host, 9)


@pytest.mark.parametrize(
    ("published", "published6", "dialled"),
    [(4000, 51821, 4000), (None, None, 51820), (0, 0, 51820), (51820, 51821, 51820)],
    ids=["of IPv4", "before v0.26.6", "zero", "as Go flanneld publishes it"],
)
def test_one_device_is_dialled_where_it_listens(published: int | None, published6: int | None, dialled: int) -> None:
    peer = lease(*BOTH, v4=data(7, published), v6=data(7, published6))
    for mode in ("auto", "ipv4", "ipv6"):
        found = entry(backend(f',"Mode":"{mode}"', ipv6=True), peer, sight(ipv6=True))
        assert found.endpoint is not None
        assert found.endpoint.port == dialled


def test_one_device_of_a_go_flanneld_with_ipv6_alone_does_not_listen_where_it_says() -> None:
    built, seen = backend(',"Mode":"ipv6"', ipv6=True), sight(ipv6=True)
    assert entry(built, lease(SIX, v6=data(7, 51821)), seen).endpoint == Endpoint(HOST6, 51820)
    assert entry(built, lease(SIX, v6=data(7, 4000)), seen).endpoint == Endpoint(HOST6, 4000)


def test_a_separate_device_is_dialled_at_our_own_port_where_a_peer_says_none() -> None:
    built = backend(',"ListenPort":5,"ListenPortV6":6', ipv6=True)
    four, six = built.peer_items(sight(ipv6=True), lease(*BOTH, v4=data(), v6=data(8)))
    assert isinstance(four, WireguardPeer)
    assert isinstance(six, WireguardPeer)
    assert (four.endpoint, six.endpoint) == (Endpoint(HOST, 5), Endpoint(HOST6, 6))


@pytest.mark.parametrize(
    ("options", "ipv6", "ports"),
    [
        ("", False, (51820, None)),
        ("", True, (51820, 51821)),
        (',"Mode":"auto"', True, (51820, 51820)),
        (',"Mode":"auto","ListenPort":7', False, (7, None)),
    ],
)
def test_we_publish_our_key_and_the_ports_we_listen_on(options: str, ipv6: bool, ports: tuple[int, int | None]) -> None:
    under = underlay(ipv6=str(HOST6))
    attrs = backend(options, ipv6=ipv6).attrs(under, {})
    told = [f'{{"PublicKey":"{OWN.public}","Port":{port}}}' if port else None for port in ports]
    assert [attrs.backend_data, attrs.backend_v6_data] == told
    assert (attrs.public_ip, attrs.public_ipv6) == (under.ipv4, under.ipv6 if ipv6 else None)


def test_a_network_with_ipv6_alone_has_the_one_device() -> None:
    built = backend(ipv4=False, ipv6=True)
    assert built.devices == ("flannel-wg-v6",)
    attrs = built.attrs(underlay(ipv6=str(HOST6)), {})
    assert (attrs.public_ip, attrs.backend_data) == (None, None)
    assert attrs.backend_v6_data == f'{{"PublicKey":"{OWN.public}","Port":51821}}'


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (lambda: lease(FOUR), "has no BackendData: expected one with a PublicKey"),
        (lambda: lease(FOUR, v4="[]"), "BackendData has no usable PublicKey and Port: a list instead of an object"),
        (lambda: lease(FOUR, v4="{}"), "a key has 44 characters of base64, not 0"),
        (lambda: lease(FOUR, v4='{"PublicKey":5}'), "BackendData.PublicKey holds an integer: expected a text"),
        (lambda: lease(FOUR, v4=json.dumps({"PublicKey": "x" * 44})), "a key has 32 bytes, not 33"),
        (lambda: lease(FOUR, v4=data(7, 70000)), "BackendData.Port 70000 is out of range"),
        (lambda: lease(FOUR, v4=data(0)), "all zeros, which is nobody's"),
        (lambda: lease(FOUR, v4=json.dumps({"PublicKey": str(OWN.public)})), "which is ours"),
        (lambda: lease(SIX, v6=data()), "no address family in common"),
        (lambda: replace(lease(FOUR, v4=data()), attrs=Attrs(HOST, None, "vxlan", data())), "backend type 'vxlan'"),
        (lambda: lease(FOUR, v4=data(), host="172.16.41.131"), "which is our own"),
    ],
)
def test_a_record_of_no_use_is_refused_with_the_reason(found: Callable[[], Lease], said: str) -> None:
    with pytest.raises(Refused, match=said):
        backend().peer_items(sight(), found())


@pytest.mark.parametrize(("mode", "lacking"), [("ipv6", "PublicIPv6"), ("ipv4", "PublicIP")])
def test_a_peer_without_the_address_a_mode_needs_is_refused(mode: str, lacking: str) -> None:
    attrs = Attrs(None if mode == "ipv4" else HOST, None if mode == "ipv6" else HOST6, "wireguard", data(), data())
    with pytest.raises(Refused, match=f"publishes no {lacking}, and Backend.Mode {mode} needs one"):
        backend(f',"Mode":"{mode}"', ipv6=True).peer_items(sight(ipv6=True), Lease(subnet(*BOTH), attrs))


def test_a_key_is_claimed_for_one_host() -> None:
    built = backend(ipv6=True)
    assert built.claims(lease(*BOTH, v4=data(7), v6=data(8))) == {("public key", key(7)), ("public key", key(8))}
    assert built.claims(lease(FOUR, v4="{}")) == frozenset()
    assert built.claims(replace(lease(FOUR), attrs=Attrs(HOST))) == frozenset()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (',"Mode":"IPv4"', "Backend.Mode IPv4 is not one we know: expected separate, auto, ipv4 or ipv6"),
        (',"Mode":""', "Backend.Mode  is not one we know"),
        (
            ',"Mode":"ipv6"',
            "Backend.Mode ipv6 reaches hosts by addresses which they publish only if EnableIPv6 is true",
        ),
        (',"ListenPort":0', "Backend.ListenPort 0 is out of range: expected an integer from 1 to 65535"),
        (',"ListenPortV6":65536', "Backend.ListenPortV6 65536 is out of range"),
        (',"PersistentKeepaliveInterval":-1', "Backend.PersistentKeepaliveInterval -1 is out of range"),
        (',"PersistentKeepaliveInterval":"25s"', "Backend.PersistentKeepaliveInterval holds a text"),
        (',"MTU":-1', "Backend.MTU -1 is out of range"),
        (',"PSK":5', "Backend.PSK holds an integer: expected a text"),
    ],
)
def test_an_option_that_is_wrong_is_named(options: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        backend(options)


def test_a_shared_key_that_is_none_is_not_repeated() -> None:
    with pytest.raises(ConfigError, match=r"Backend\.PSK is no key: .*: expected what wg genpsk prints") as caught:
        backend(',"PSK":"my secret"')
    assert "my secret" not in str(caught.value)


def test_two_devices_cannot_have_one_port() -> None:
    with pytest.raises(ConfigError, match=r"Backend\.ListenPort and Backend\.ListenPortV6 are both 51821"):
        backend(',"ListenPort":51821', ipv6=True)
    assert backend(',"ListenPort":51821,"Mode":"auto"', ipv6=True).devices == ("flannel-wg",)


def test_a_shared_key_of_zeros_is_none() -> None:
    assert backend(f',"PSK":"{key(0)}"').psk is None


@pytest.mark.parametrize(
    ("options", "ipv6", "base", "mtu"),
    [
        ("", False, 1500, 1420),
        (',"MTU":1400', False, 1500, 1320),
        ("", True, 1500, 1420),
        (',"MTU":0', True, 9000, 8920),
    ],
)
def test_the_mtu_leaves_room_for_what_goes_around(options: str, ipv6: bool, base: int, mtu: int) -> None:
    assert backend(options, ipv6=ipv6).mtu(underlay(base)) == mtu


@pytest.mark.parametrize(
    ("options", "ipv6", "base", "said"),
    [
        ("", True, 1300, "MTU 1300 of ens33 leaves 1220 bytes for flannel-wg: it must be at least 1360"),
        (',"MTU":100', False, 1500, "Backend.MTU 100 leaves 20 bytes for flannel-wg: it must be at least 148"),
    ],
)
def test_an_mtu_that_is_too_small_is_refused(options: str, ipv6: bool, base: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        backend(options, ipv6=ipv6).mtu(underlay(base))


def test_a_key_no_one_reads_is_a_warning() -> None:
    assert "did you mean Backend.ListenPort?" in backend(',"ListenPor":1').warnings[0]


def test_no_secret_shows_in_the_backend_or_its_items() -> None:
    built = backend(f',"PSK":"{PSK.text}"')
    shown = f"{built} {built.self_items(sight())} {built.peer_items(sight(), lease(FOUR, v4=data()))}"
    assert PSK.text not in shown
    assert OWN.private.text not in shown


def test_what_is_ours_are_the_devices_and_the_routes_another_backend_left() -> None:
    scope = backend(ipv6=True).scope(sight(ipv6=True))
    assert scope.devices == {"flannel-wg", "flannel-wg-v6"}
    assert scope.borrowed == {"ens33"}
    assert [(mark.dev, str(mark.address)) for mark in scope.identities] == [
        ("flannel-wg", "10.2.71.0/32"),
        ("flannel-wg-v6", "fd00:2:0:71::/128"),
    ]
    assert backend().published(lease(FOUR, v4=data())) == {}
