"""Our wireguard messages, against pyroute2's reading of them; what a kernel makes of them is in tests/contract."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_network
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.generic.wireguard import wgmsg

from pyflannel.diff import Cut, Op, Put
from pyflannel.linux import genetlink
from pyflannel.linux.netlink import HEADER, Request, attribute
from pyflannel.linux.wireguard import (
    NESTED,
    ROOM,
    Memory,
    changes_key,
    cut_device,
    cut_peer,
    greeting,
    put_device,
    put_peer,
    query,
    read,
    set_peers,
)
from pyflannel.state import Item, Key, State
from pyflannel.wireguard import SESSION_S, PublicKey, WireguardDevice, WireguardPeer
from tests.support.wireguard_items import DEVICE, OWN, PSK, WG, key, peer

FAMILY, INDEX, NOW = 33, 7, 1_800_000_000.0
PLAIN, RICH = peer(2), peer(3, "10.2.3.0/24", "fd00:2:3::/64", host="2001:db8::3", psk=PSK)


def understood(request: Request) -> dict[str, Any]:
    """What pyroute2 reads in a request, by name; an array as a list."""
    message = wgmsg(HEADER.pack(HEADER.size + len(request.body), request.type, request.flags, 1, 0) + request.body)
    message.decode()
    assert message["header"]["type"] == FAMILY
    assert message["version"] == 1
    return {"cmd": message["cmd"], **_attributes(message.getvalue())}


def _attributes(said: dict[str, Any]) -> dict[str, Any]:
    return {name.partition("_A_")[2]: _value(value) for name, value in said["attrs"]}


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return [_value(each) for each in value]
    if not isinstance(value, dict):
        return value.decode() if isinstance(value, bytes) else value
    if "attrs" in value:
        return _attributes(value) | ({"addr": value["addr"]} if "addr" in value else {})
    return _value(value["value"]) if "value" in value else (value["addr"], value["port"])


def listing(*peers: WireguardPeer, handshake: int = 0, split: Sequence[int] = ()) -> list[bytes]:
    """A kernel's answer about a device with these peers, over messages that end behind the numbered ones."""
    entries = []
    for each in peers:
        entry = put_peer(each, None)[4:] + attribute(6, struct.pack("=qq", handshake, 5))
        entries.append(attribute(NESTED, entry + attribute(7, bytes(8)) + attribute(8, bytes(8))))
    own = attribute(3, DEVICE.private_key) + attribute(4, OWN.public) + attribute(6, struct.pack("=H", 51820))
    places = [0, *split, len(entries)]
    parts = [b"".join(entries[one:other]) for one, other in pairwise(places)]
    header = genetlink.HEADER.pack(0, 1, 0)
    return [header + (own if place == 0 else b"") + attribute(8 | NESTED, part) for place, part in enumerate(parts)]


def decoded(
    bodies: Sequence[bytes],
    dev: str = WG,
    now: float = NOW,
    known: Mapping[Key, Item] = MappingProxyType({}),
    memory: Memory | None = None,
) -> Iterator[Item]:
    return read(bodies, dev, now, known, memory or Memory())


def test_a_device_is_asked_for_by_index() -> None:
    assert understood(query(FAMILY, INDEX)) == {"cmd": 0, "IFINDEX": INDEX}


def test_a_device_gets_its_key_and_port() -> None:
    assert understood(put_device(DEVICE, FAMILY, INDEX)) == {
        "cmd": 1,
        "IFINDEX": INDEX,
        "PRIVATE_KEY": OWN.private.text,
        "LISTEN_PORT": 51820,
    }


def test_a_device_loses_its_key_and_port() -> None:
    said = understood(cut_device(FAMILY, INDEX))
    assert (said["PRIVATE_KEY"], said["LISTEN_PORT"]) == (key(0).text, 0)


def test_a_new_peer_is_told_whole() -> None:
    (said,) = understood(set_peers([put_peer(RICH, None)], FAMILY, INDEX))["PEERS"]
    assert said == {
        "PUBLIC_KEY": RICH.public_key.text,
        "PRESHARED_KEY": PSK.text,
        "PERSISTENT_KEEPALIVE_INTERVAL": 25,
        "FLAGS": 2,
        "ENDPOINT": ("2001:db8::3", 51820),
        "ALLOWEDIPS": [
            {"FAMILY": 2, "IPADDR": "0a:02:03:00", "CIDR_MASK": 24, "addr": "10.2.3.0/24"},
            {
                "FAMILY": 10,
                "IPADDR": "fd:00:00:02:00:03:00:00:00:00:00:00:00:00:00:00",
                "CIDR_MASK": 64,
                "addr": "fd00:2:3::/64",
            },
        ],
    }


def test_a_peer_that_was_elsewhere_already_is_left_there() -> None:
    (said,) = understood(set_peers([put_peer(PLAIN, replace(PLAIN, keepalive=0))], FAMILY, INDEX))["PEERS"]
    assert "ENDPOINT" not in said
    live = replace(PLAIN, endpoint=RICH.endpoint, live=True)
    assert "ENDPOINT" not in understood(set_peers([put_peer(PLAIN, live)], FAMILY, INDEX))["PEERS"][0]
    moved = replace(live, live=False)
    assert understood(set_peers([put_peer(PLAIN, moved)], FAMILY, INDEX))["PEERS"][0]["ENDPOINT"] == (
        "192.0.2.2",
        51820,
    )


def test_networks_are_taken_away_only_where_there_are_too_many() -> None:
    more = replace(PLAIN, allowed=PLAIN.allowed | {ip_network("10.2.77.0/24")})
    for old, new, flags in ((PLAIN, more, None), (more, PLAIN, 2), (PLAIN, PLAIN, None)):
        (said,) = understood(set_peers([put_peer(new, old)], FAMILY, INDEX))["PEERS"]
        assert said.get("FLAGS") == flags


def test_a_peer_with_a_new_key_is_put_then_greeted_then_the_old_one_removed() -> None:
    successor = replace(PLAIN, public_key=key(7), keepalive=0)
    said = understood(set_peers([put_peer(successor, None), greeting(successor), cut_peer(PLAIN)], FAMILY, INDEX))
    new, *greetings, old = said["PEERS"]
    assert (new["PUBLIC_KEY"], new["FLAGS"]) == (key(7).text, 2)
    assert [(each["PUBLIC_KEY"], each["FLAGS"]) for each in greetings] == [(key(7).text, 4)] * 3
    assert [each["PERSISTENT_KEEPALIVE_INTERVAL"] for each in greetings] == [0, 1, 0]
    assert old == {"PUBLIC_KEY": PLAIN.public_key.text, "FLAGS": 1}


def test_a_key_is_changed_where_there_was_another() -> None:
    other = replace(DEVICE, private_key=PSK)
    assert changes_key(Put(DEVICE, other))
    assert not changes_key(Put(DEVICE, replace(DEVICE, listen_port=5)))
    assert not changes_key(Put(DEVICE))
    assert not changes_key(Cut(DEVICE))
    assert not changes_key(Put(PLAIN, RICH))


def test_a_peer_is_removed_by_its_key() -> None:
    (said,) = understood(set_peers([cut_peer(RICH)], FAMILY, INDEX))["PEERS"]
    assert said == {"PUBLIC_KEY": RICH.public_key.text, "FLAGS": 1}


def test_what_is_listed_is_read() -> None:
    assert list(decoded(listing(PLAIN, RICH), WG, NOW)) == [DEVICE, PLAIN, RICH]


def test_a_device_without_a_key_has_no_identity() -> None:
    (body,) = listing(PLAIN)
    assert list(decoded([body.replace(DEVICE.private_key, bytes(32))], WG, NOW)) == [PLAIN]


@given(st.lists(st.integers(1, 40), unique=True), st.data())
def test_peers_are_listed_over_any_number_of_messages(numbers: list[int], data: st.DataObject) -> None:
    peers = [peer(number) for number in numbers]
    split = sorted(data.draw(st.lists(st.integers(0, len(peers)), max_size=4)))
    assert list(decoded(listing(*peers, split=split), WG, NOW)) == [DEVICE, *peers]


@given(st.integers(1, 5), st.integers(1, 30))
def test_a_peer_with_many_networks_goes_on_in_the_next_entry(pieces: int, each: int) -> None:
    names = [[f"10.{piece}.{number}.0/24" for number in range(each)] for piece in range(pieces)]
    parts = [peer(3, *some) for some in names]
    whole = replace(parts[0], allowed=frozenset().union(*(part.allowed for part in parts)))
    told = listing(PLAIN, *parts, RICH.__class__(WG, key(9), None, frozenset()), split=range(1, pieces))
    assert list(decoded(told, WG, NOW)) == [DEVICE, PLAIN, whole, WireguardPeer(WG, key(9), None, frozenset())]


@pytest.mark.parametrize(
    ("ago", "live"), [(None, False), (0, True), (SESSION_S - 1, True), (SESSION_S, False), (-5, True), (10**6, False)]
)
def test_a_peer_is_live_while_its_last_handshake_is_good(ago: int | None, live: bool) -> None:
    told = listing(PLAIN, handshake=0 if ago is None else int(NOW) - ago)
    found = [item.live for item in decoded(told, WG, NOW) if isinstance(item, WireguardPeer)]
    assert found == [live]


def test_what_is_known_comes_as_it_is_known_the_first_time_and_every_other() -> None:
    known, memory = State((DEVICE, PLAIN, RICH)), Memory()
    for _ in range(3):
        for want, found in zip(known.values(), decoded(listing(PLAIN, RICH), known=known, memory=memory), strict=True):
            assert found is want or found == want == DEVICE


def test_what_has_changed_is_noticed_whatever_is_remembered() -> None:
    known, memory = State((PLAIN, RICH)), Memory()
    for _ in range(2):
        list(decoded(listing(PLAIN, RICH), known=known, memory=memory))
    altered = replace(RICH, allowed=frozenset())
    assert list(decoded(listing(PLAIN, altered), known=known, memory=memory)) == [DEVICE, PLAIN, altered]
    assert list(decoded(listing(PLAIN), known=known, memory=memory)) == [DEVICE, PLAIN]
    other = State((replace(PLAIN, keepalive=1), RICH))
    assert list(decoded(listing(PLAIN, RICH), known=other, memory=memory)) == [DEVICE, PLAIN, RICH]


@given(st.binary(max_size=200))
def test_a_mangled_listing_is_read_as_far_as_it_goes_or_not_at_all(body: bytes) -> None:
    # The kernel never sends one; should it ever, that is an error and no endless loop.
    try:
        found = list(decoded([genetlink.HEADER.pack(0, 1, 0) + body], WG, NOW))
    except (KeyError, ValueError, struct.error, IndexError):
        return
    assert all(isinstance(item, WireguardDevice | WireguardPeer) for item in found)


def test_a_message_has_room_for_many_peers_and_stays_within_what_an_attribute_can_hold() -> None:
    assert 10 * len(put_peer(RICH, None)) < ROOM < 2**16 - 2**12


def test_no_operation_shows_a_secret() -> None:
    ops: list[Op] = [Put(DEVICE), Put(RICH), Cut(DEVICE), Put(replace(RICH, psk=None), RICH)]
    assert PSK.text not in f"{ops}"
    assert PublicKey(PSK).text not in f"{ops}"
