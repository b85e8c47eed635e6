from __future__ import annotations

import base64
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from pyflannel.diff import Cut, Put, diff, satisfies
from pyflannel.state import ORDER, Link, Route, State, Tun
from pyflannel.wireguard import Endpoint, KeyPair, PublicKey, SecretKey, WireguardDevice, WireguardPeer
from tests.support.wireguard_items import DEVICE, LINK, OURS, OWN, PSK, WANT, WG, key, peer

TEXT = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
ELSEWHERE = Endpoint(ip_address("203.0.113.9"), 1024)


def test_a_key_reads_what_it_writes() -> None:
    public = PublicKey.parse(TEXT)
    assert (str(public), public.text, PublicKey(bytes(public))) == (TEXT, TEXT, public)
    assert repr(public) == f"PublicKey({TEXT})"


@pytest.mark.parametrize(
    "text", ["", "secret", TEXT[:-1], TEXT + "=", TEXT.replace("x", "!"), TEXT.replace("x", "é"), "=" * 44, TEXT + "\n"]
)
def test_what_is_no_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="a key has") as caught:
        SecretKey.parse(text)
    assert not text or text not in str(caught.value)


def test_a_key_has_32_bytes() -> None:
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        PublicKey(bytes(31))


def test_a_secret_shows_nowhere_unless_asked_for() -> None:
    holders = (PSK, DEVICE, peer(2, psk=PSK), OWN, State([DEVICE, peer(2, psk=PSK)]))
    secrets = {encoded for each in (PSK, OWN.private) for encoded in (each.text, each.hex(), bytes(each).__repr__())}
    for holder in holders:
        shown = f"{holder} {holder!r} {holder!s:>10} %s" % (holder,)
        assert not [secret for secret in secrets if secret in shown]
    assert base64.b64decode(PSK.text) == PSK


def test_a_private_key_is_clamped_as_rfc_7748_says() -> None:
    low, high = SecretKey(bytes(32)).clamped(), SecretKey(b"\xff" * 32).clamped()
    assert (low[0], low[31]) == (0, 64)
    assert (high[0], high[31]) == (248, 127)
    assert low[1:31] == bytes(30)
    assert high.clamped() == high


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [(ELSEWHERE, "203.0.113.9:1024"), (Endpoint(ip_address("2001:db8::1"), 51820), "[2001:db8::1]:51820")],
)
def test_an_endpoint_is_spelled_as_wg_does(endpoint: Endpoint, text: str) -> None:
    assert str(endpoint) == text


def test_a_device_is_told_who_it_is_before_its_peers_and_they_come_before_routes() -> None:
    assert [op.item for op in diff(WANT, State())] == [*OURS]
    places = [ORDER.index(kind) for kind in (Link, WireguardDevice, WireguardPeer, Route)]
    assert places == sorted(places)


def test_a_device_that_is_made_anew_gets_all_that_was_on_it_again() -> None:
    have = State([replace(LINK, spec=Tun()) if item is LINK else item for item in OURS])
    assert [op.item for op in diff(WANT, have)] == [*OURS]


def test_a_device_that_is_changed_keeps_all_that_is_on_it() -> None:
    have = State([replace(LINK, mtu=1280) if item is LINK else item for item in OURS if item is not DEVICE])
    assert diff(WANT, have) == (Put(LINK, have[LINK.key]), Put(DEVICE))


def test_while_a_peer_is_live_the_endpoint_it_is_heard_from_is_right() -> None:
    have = replace(peer(2), endpoint=ELSEWHERE)
    assert not satisfies(have, peer(2))
    assert satisfies(replace(have, live=True), peer(2))
    assert satisfies(have, replace(peer(2), endpoint=None))


def test_a_live_peer_with_other_settings_keeps_the_endpoint_it_is_heard_from() -> None:
    have = replace(peer(2, "10.2.9.0/24"), endpoint=ELSEWHERE, live=True)
    assert not satisfies(have, peer(2))
    assert not peer(2).names_endpoint(have)


def test_the_lease_says_where_a_peer_is_that_nothing_is_known_of() -> None:
    assert peer(2).names_endpoint(None)
    assert peer(2).names_endpoint(replace(peer(2), endpoint=None))
    assert not peer(2).names_endpoint(peer(2))


@pytest.mark.parametrize(
    "other",
    [
        replace(peer(2), keepalive=0),
        replace(peer(2), psk=PSK),
        replace(peer(2), allowed=frozenset()),
        replace(peer(2), allowed=peer(2).allowed | {ip_network("10.2.9.0/24")}),
    ],
    ids=["keepalive", "shared key", "fewer networks", "more networks"],
)
def test_any_other_setting_counts(other: WireguardPeer) -> None:
    assert diff(State([peer(2)]), State([other])) == (Put(peer(2), other),)


def test_a_peer_with_a_new_key_takes_the_place_of_the_old_one() -> None:
    new = replace(peer(2), public_key=key(7))
    assert diff(State([new]), State([peer(2)])) == (Put(new, peer(2)),)
    assert new.names_endpoint(replace(peer(2), live=True))


def test_a_peer_takes_no_place_of_one_that_stays_or_had_other_networks() -> None:
    new = peer(7)
    assert diff(State([new, peer(3)]), State([peer(2), peer(3)])) == (Put(new), Cut(peer(2)))
    elsewhere = replace(peer(2), dev="flannel-wg-v6", public_key=key(7))
    assert diff(State([elsewhere]), State([peer(2)])) == (Put(elsewhere), Cut(peer(2)))


def test_a_pair_of_keys_is_a_value() -> None:
    assert KeyPair(OWN.private, OWN.public) == OWN
    assert DEVICE.key == (WireguardDevice, WG)
