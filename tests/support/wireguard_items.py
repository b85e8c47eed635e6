"""The items of a small wireguard network, and keys to tell apart: their public halves belong to no private ones."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

from pyflannel.state import Address, Identity, Item, Link, Route, Scope, State, Wireguard
from pyflannel.wireguard import Endpoint, KeyPair, PublicKey, SecretKey, WireguardDevice, WireguardPeer

WG = "flannel-wg"
LINK = Link(WG, Wireguard(), 1420)
OWN = KeyPair(SecretKey(bytes(range(32))).clamped(), PublicKey(bytes(range(100, 132))))
PSK = SecretKey(bytes(range(200, 232)))
DEVICE = WireguardDevice(WG, OWN.private, 51820)
ADDRESS = Address(WG, ip_interface("10.2.1.0/32"))
SCOPE = Scope(
    devices=frozenset((WG,)),
    networks=(ip_network("10.2.0.0/16"),),
    identities=(Identity(WG, Wireguard(), address=ADDRESS.address),),
)


def key(number: int) -> PublicKey:
    """The public key of one host of many."""
    return PublicKey(number.to_bytes(32, "big"))


def peer(number: int, *networks: str, host: str = "", psk: SecretKey | None = None, dev: str = WG) -> WireguardPeer:
    """A host, by default with 10.2.<number>.0/24, at 192.0.2.<number>."""
    allowed = frozenset(map(ip_network, networks or (f"10.2.{number}.0/24",)))
    endpoint = Endpoint(ip_address(host or f"192.0.2.{number}"), 51820)
    return WireguardPeer(dev, key(number), endpoint, allowed, 25, psk)


def moved(item: Item, dev: str) -> Item:
    """The same on another device."""
    match item:
        case Link():
            return replace(item, name=dev)
        case Address() | WireguardDevice() | WireguardPeer() | Route():
            return replace(item, dev=dev)
        case _:
            raise TypeError(f"{item} is none of these")


OURS: tuple[Item, ...] = (
    LINK,
    ADDRESS,
    DEVICE,
    peer(2),
    peer(3, "10.2.3.0/24", "fd00:2:3::/64", host="2001:db8::3", psk=PSK),
    Route(ip_network("10.2.0.0/16"), WG),
)
WANT = State(OURS)
