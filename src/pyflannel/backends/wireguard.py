"""wireguard: packets encrypted for the host they go to, by the kernel (wireguard.com, compat §5.5).

A peer is one entry of the device: by its public key, which packets are for it and taken from it (its subnet), and where
its host is.  What the device has no peer for it drops, so a single route for the whole network leads to it.

``Mode`` says how the two address families travel:

    separate         a device for each, flannel-wg over IPv4 and flannel-wg-v6 over IPv6
    auto ipv4 ipv6   one device, flannel-wg, for both; the peer is reached over the family that serves best, or this one

Where we differ from Go flanneld, and still understand each other
  * It deletes the device when it stops; ours stays, and traffic goes on.
  * With one device it publishes ``ListenPortV6`` for IPv6, where it does not listen: we publish ``ListenPort``, and
    take its word for that.
  * A peer that comes with a new key leaves no entry of the old one behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from typing import Final

from pyflannel.backends.api import Refused, View, refuse_strangers
from pyflannel.backends.options import Options
from pyflannel.host import Underlay
from pyflannel.lease.contest import Claim
from pyflannel.lease.fields import Fields, read_object
from pyflannel.lease.model import Attrs, Lease, Subnet
from pyflannel.lease.network import ConfigError, NetworkConfig
from pyflannel.state import Address, Identity, IPAddress, IPInterface, IPNetwork, Item, Link, Mac, Route, Scope
from pyflannel.state import Wireguard as WireguardSpec
from pyflannel.wireguard import (
    Endpoint,
    KeyPair,
    PublicKey,
    SecretKey,
    WireguardDevice,
    WireguardPeer,
)

TYPE: Final = "wireguard"
DEV, DEV_V6 = "flannel-wg", "flannel-wg-v6"
DEFAULT_PORT, DEFAULT_PORT_V6 = 51820, 51821
OVERHEAD: Final = 80
"""Outer IPv6 40, UDP 8, type, index and nonce 16, tag 16: Go flanneld takes the same off for IPv4, and so do we."""
MIN_MTU_V4: Final = 68
"""RFC 791: what every IPv4 link must carry."""
MIN_MTU_V6: Final = 1280
"""RFC 8200 §5: what every IPv6 link must carry."""
SEPARATE, AUTO, IPV4, IPV6 = "separate", "auto", "ipv4", "ipv6"
MODES: Final = (SEPARATE, AUTO, IPV4, IPV6)
_PRIVATE: Final = (IPv4Network("10.0.0.0/8"), IPv4Network("172.16.0.0/12"), IPv4Network("192.168.0.0/16"))
"""RFC 1918."""
_UNIQUE_LOCAL: Final = IPv6Network("fc00::/7")
"""RFC 4193."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """One device, and the address families that travel through it."""

    dev: str
    port: int
    families: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Wireguard:
    """The wireguard backend of one network."""

    mode: str
    port: int
    port_v6: int
    tunnels: tuple[Tunnel, ...]
    psk: SecretKey | None = None
    """What all hosts of the network share beside their keys."""
    keepalive: int = 0
    """Seconds; 0: none."""
    base_mtu: int | None = None
    """The option ``MTU``: taken for the underlay's MTU when given."""
    warnings: tuple[str, ...] = ()
    keys: KeyPair | None = None
    """Who we are: to be there, by ``keyed``, before anything else but ``mtu`` is asked."""

    @property
    def type(self) -> str:
        """As leases have it."""
        return TYPE

    @property
    def devices(self) -> tuple[str, ...]:
        """One or two, as ``Mode`` has it."""
        return tuple(tunnel.dev for tunnel in self.tunnels)

    def keyed(self, keys: KeyPair) -> Wireguard:
        """The same for a host with these keys."""
        return replace(self, keys=keys)

    def mtu(self, underlay: Underlay) -> int:
        """That of the underlay less what goes around a packet, whichever family carries it."""
        base = underlay.mtu if self.base_mtu is None else self.base_mtu
        ipv6 = any(6 in tunnel.families for tunnel in self.tunnels)
        mtu, least = base - OVERHEAD, MIN_MTU_V6 if ipv6 else MIN_MTU_V4
        if mtu < least:
            whose = f"Backend.MTU {base}" if self.base_mtu is not None else f"MTU {base} of {underlay.name}"
            raise ConfigError(f"{whose} leaves {mtu} bytes for {DEV}: it must be at least {least + OVERHEAD}")
        return mtu

    def attrs(self, underlay: Underlay, macs: Mapping[str, Mac]) -> Attrs:
        """PublicIP and, for each family, the public key and the port that is listened on (compat §3.2)."""
        ports = {family: tunnel.port for tunnel in self.tunnels for family in tunnel.families}
        return Attrs(
            public_ip=underlay.public_ip if 4 in ports else None,
            public_ipv6=underlay.public_ipv6 if 6 in ports else None,
            backend_type=TYPE,
            backend_data=self._data(ports.get(4)),
            backend_v6_data=self._data(ports.get(6)),
        )

    def published(self, lease: Lease) -> Mapping[str, Mac]:
        """Nothing: such devices have no MAC."""
        return {}

    def scope(self, view: View) -> Scope:
        """Our devices, and on them the addresses of our network; and routes that another backend left."""
        ranges = (view.config.ipv4, view.config.ipv6)
        return Scope(
            devices=frozenset(self.devices),
            networks=tuple(item.network for item in ranges if item is not None),
            identities=tuple(
                Identity(tunnel.dev, WireguardSpec(), address=address)
                for tunnel in self.tunnels
                for address in _addresses(tunnel, view.own)
            ),
            borrowed=frozenset((view.underlay.name,)),
        )

    def self_items(self, view: View) -> tuple[Item, ...]:
        """Each device with our addresses, our key, and the route for the network."""
        keys, mtu = self._keys(), self.mtu(view.underlay)
        items: list[Item] = []
        for tunnel in self.tunnels:
            items.append(Link(tunnel.dev, WireguardSpec(), mtu))
            items += (Address(tunnel.dev, address) for address in _addresses(tunnel, view.own))
            items.append(WireguardDevice(tunnel.dev, keys.private, tunnel.port))
            items += (Route(network, tunnel.dev) for network in _networks(tunnel, view.config))
        return tuple(items)

    def peer_items(self, view: View, lease: Lease) -> tuple[Item, ...]:
        """The peer, on each device through which we have a family in common."""
        refuse_strangers(lease, TYPE, view.underlay)
        own = self._keys().public
        items: list[Item] = []
        for tunnel in self.tunnels:
            subnets = [net for net in (lease.subnet.ipv4, lease.subnet.ipv6) if net and net.version in tunnel.families]
            if not subnets:
                continue
            key = self._key(lease, tunnel)
            if key == own:
                raise Refused(f"publishes the public key {key}, which is ours")
            endpoint = self._endpoint(view.underlay, lease, tunnel)
            items.append(WireguardPeer(tunnel.dev, key, endpoint, frozenset(subnets), self.keepalive, self.psk))
        if not items:
            raise Refused("has no address family in common with us")
        return tuple(items)

    def claims(self, lease: Lease) -> frozenset[Claim]:
        """A public key belongs to one host: a second would take over its peer."""
        if lease.attrs.backend_type != TYPE:
            return frozenset()
        try:
            return frozenset(("public key", self._key(lease, tunnel)) for tunnel in self.tunnels if _has(lease, tunnel))
        except Refused:
            return frozenset()

    def _keys(self) -> KeyPair:
        assert self.keys is not None, "the backend was not told our keys"
        return self.keys

    def _data(self, port: int | None) -> str | None:
        return None if port is None else f'{{"PublicKey":"{self._keys().public}","Port":{port}}}'

    def _key(self, lease: Lease, tunnel: Tunnel) -> PublicKey:
        """The public key of a peer on this device: where both families share one, that of IPv4."""
        return self._published(lease, _family(lease, tunnel))[0]

    def _published(self, lease: Lease, family: int) -> tuple[PublicKey, int]:
        """What a peer says for a family: its key, and its port or 0."""
        name, data = _data_of(lease, family)
        if data is None:
            raise Refused(f"has no {name}: expected one with a PublicKey")
        try:
            fields = Fields(read_object(data), f"{name}.")
            key, port = PublicKey.parse(fields.text("PublicKey", "")), fields.integer("Port", 0, 0, 65535)
        except ValueError as exc:
            raise Refused(f"{name} has no usable PublicKey and Port: {exc}") from None
        if not any(key):
            raise Refused(f"{name}.PublicKey is all zeros, which is nobody's")
        return key, port

    def _endpoint(self, under: Underlay, lease: Lease, tunnel: Tunnel) -> Endpoint:
        """Where to send what is for a peer."""
        family = tunnel.families[0] if self.mode == SEPARATE else self._way(under, lease)
        host = lease.attrs.public_ip if family == 4 else lease.attrs.public_ipv6
        if host is None:
            name = "PublicIP" if family == 4 else "PublicIPv6"
            raise Refused(f"publishes no {name}, and Backend.Mode {self.mode} needs one")
        return Endpoint(host, self._port(lease, family, tunnel))

    def _port(self, lease: Lease, family: int, tunnel: Tunnel) -> int:
        """The port a peer listens on: before v0.26.6 none is published, which means the same as ours."""
        if self.mode == SEPARATE:
            return self._published(lease, family)[1] or tunnel.port
        said = self._published(lease, _family(lease, tunnel))[1]
        # Of a host with IPv6 alone, Go flanneld publishes a port that its one device does not listen on.
        return tunnel.port if said in (0, self.port_v6) and _family(lease, tunnel) == 6 else said or tunnel.port

    def _way(self, under: Underlay, lease: Lease) -> int:
        """The family over which one device reaches a peer (compat §5.5)."""
        if self.mode != AUTO:
            return 4 if self.mode == IPV4 else 6
        ipv4, ipv6 = lease.attrs.public_ip, lease.attrs.public_ipv6
        if ipv4 is None or ipv6 is None:
            return 4 if ipv6 is None else 6
        if under.public_ip is not None and not any(ipv4 in net for net in _PRIVATE):
            return 4
        return 6 if _is_global(ipv6) and _is_global(under.public_ipv6) else 4


def from_config(config: NetworkConfig) -> Wireguard:
    """Read the backend's options (compat §5.5); ``ConfigError`` names the option that is wrong."""
    options = Options(config.backend_options)
    port = options.integer("ListenPort", DEFAULT_PORT, 1, 65535)
    port_v6 = options.integer("ListenPortV6", DEFAULT_PORT_V6, 1, 65535)
    keepalive = options.integer("PersistentKeepaliveInterval", 0, 0, 65535)
    base_mtu = options.integer("MTU", 0, 0, 65535)
    psk = _psk(options.text("PSK", ""))
    mode = _mode(options.text("Mode", SEPARATE), config)
    families = tuple(family for family, net in ((4, config.ipv4), (6, config.ipv6)) if net is not None)
    ways = [Tunnel(DEV, port, (4,)) if family == 4 else Tunnel(DEV_V6, port_v6, (6,)) for family in families]
    tunnels = tuple(ways) if mode == SEPARATE else (Tunnel(DEV, port, families),)
    if len({tunnel.port for tunnel in tunnels}) < len(tunnels):
        raise ConfigError(
            f"Backend.ListenPort and Backend.ListenPortV6 are both {port}, and Backend.Mode {SEPARATE} has a device "
            "for each: expected two different ports, or one of the other modes"
        )
    return Wireguard(mode, port, port_v6, tunnels, psk, keepalive, base_mtu or None, tuple(options.complaints()))


def _psk(text: str) -> SecretKey | None:
    """``ConfigError``, which does not repeat it, unless it is a key; all zeros are the same as none."""
    if not text:
        return None
    try:
        psk = SecretKey.parse(text)
    except ValueError as exc:
        raise ConfigError(f"Backend.PSK is no key: {exc}: expected what wg genpsk prints") from None
    return psk if any(psk) else None


def _mode(text: str, config: NetworkConfig) -> str:
    if text not in MODES:
        raise ConfigError(
            f"Backend.Mode {text:.20} is not one we know: expected {', '.join(MODES[:-1])} or {MODES[-1]}"
        )
    for mode, net, switch in ((IPV4, config.ipv4, "EnableIPv4"), (IPV6, config.ipv6, "EnableIPv6")):
        if text == mode and net is None:
            raise ConfigError(
                f"Backend.Mode {mode} reaches hosts by addresses which they publish only if {switch} is true"
            )
    return text


def _has(lease: Lease, tunnel: Tunnel) -> bool:
    return any(net is not None and net.version in tunnel.families for net in (lease.subnet.ipv4, lease.subnet.ipv6))


def _family(lease: Lease, tunnel: Tunnel) -> int:
    """Of the families of a device, the first that a peer has a subnet in: it speaks for the peer there."""
    return 4 if 4 in tunnel.families and lease.subnet.ipv4 is not None else 6


def _data_of(lease: Lease, family: int) -> tuple[str, str | None]:
    if family == 4:
        return "BackendData", lease.attrs.backend_data
    return "BackendV6Data", lease.attrs.backend_v6_data


def _addresses(tunnel: Tunnel, own: Subnet) -> Iterator[IPInterface]:
    """Ours: the first of each subnet, as host addresses."""
    if 4 in tunnel.families and own.ipv4 is not None:
        yield IPv4Interface(own.ipv4.network_address)
    if 6 in tunnel.families and own.ipv6 is not None:
        yield IPv6Interface(own.ipv6.network_address)


def _networks(tunnel: Tunnel, config: NetworkConfig) -> Iterator[IPNetwork]:
    """What leads to the device."""
    if 4 in tunnel.families and config.ipv4 is not None:
        yield config.ipv4.network
    if 6 in tunnel.families and config.ipv6 is not None:
        yield config.ipv6.network


def _is_global(address: IPAddress | None) -> bool:
    """Whether an IPv6 address leads beyond the site it belongs to."""
    return address is not None and address not in _UNIQUE_LOCAL
