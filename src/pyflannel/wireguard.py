"""What WireGuard knows, as values: keys, a device's identity, and the peers it speaks with (wireguard.com, wg(8)).

Rules of this file
  1. A key that is nobody else's business shows nowhere: neither ``str`` nor ``repr`` of it, nor of what holds it.
  2. Items obey the rules of ``pyflannel.state``, which takes them among its own.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, Self

KEY_LENGTH: Final = 32
"""Bytes of any key here, public, private or shared (RFC 7748 §5)."""
KEY_TEXT_LENGTH: Final = 44
"""Characters of one in base64."""
SESSION_S: Final = 180
"""Seconds after a handshake in which what it agreed on may be used: REJECT-AFTER-TIME of the protocol."""


class _Key(bytes):
    """32 bytes."""

    __slots__ = ()

    def __new__(cls, raw: bytes) -> Self:
        """The bytes as they are; ``ValueError``, which does not repeat them, for any other number of them."""
        if len(raw) != KEY_LENGTH:
            raise ValueError(f"a key has {KEY_LENGTH} bytes, not {len(raw)}")
        return super().__new__(cls, raw)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read base64, as wg(8) writes it; ``ValueError``, which does not repeat the text, for anything else."""
        if len(text) != KEY_TEXT_LENGTH:
            raise ValueError(f"a key has {KEY_TEXT_LENGTH} characters of base64, not {len(text)}")
        try:
            return cls(base64.b64decode(text.encode("ascii"), validate=True))
        except (UnicodeEncodeError, binascii.Error):
            raise ValueError(f"a key has {KEY_TEXT_LENGTH} characters of base64, and there are others in it") from None

    @property
    def text(self) -> str:
        """The key in base64: what files, and the other ends of tunnels, are given."""
        return base64.b64encode(self).decode()


class PublicKey(_Key):
    """By which a host is known to the others."""

    __slots__ = ()

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"PublicKey({self})"


class SecretKey(_Key):
    """A private key, or one that both ends of a tunnel share.  To show it takes ``text``, and intent."""

    __slots__ = ()

    def __str__(self) -> str:
        return "(hidden)"

    def __repr__(self) -> str:
        return "SecretKey(hidden)"

    def clamped(self) -> SecretKey:
        """The private key that X25519 makes of these bytes (RFC 7748 §5), which is how the kernel gives it back."""
        return SecretKey(bytes([self[0] & 248, *self[1:31], (self[31] & 127) | 64]))


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A private key, clamped, and the public key that belongs to it."""

    private: SecretKey
    public: PublicKey


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where datagrams for a peer go."""

    host: IPv4Address | IPv6Address
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.host.version == 4 else f"[{self.host}]:{self.port}"


@dataclass(frozen=True, slots=True)
class WireguardDevice:
    """Who a wireguard device is: its private key, and the UDP port it listens on."""

    dev: str
    private_key: SecretKey
    listen_port: int

    @property
    def key(self) -> tuple[object, ...]:
        """One identity per device."""
        return (WireguardDevice, self.dev)


@dataclass(frozen=True, slots=True)
class WireguardPeer:
    """A host to speak with over a wireguard device."""

    dev: str
    public_key: PublicKey
    endpoint: Endpoint | None
    """None: it has to speak first."""
    allowed: frozenset[IPv4Network | IPv6Network]
    """What is sent to it, and taken from it.  The kernel has one peer for each network: a put takes it from others."""
    keepalive: int = 0
    """Seconds between packets that keep a way through NAT open; 0: none are sent."""
    psk: SecretKey | None = None
    """Mixed into the handshake by both ends; None is the same as 32 zeros."""
    live: bool = field(default=False, compare=False)
    """Only ever observed: it proved who it is a moment ago, so that its endpoint is where it was heard last."""

    @property
    def key(self) -> tuple[object, ...]:
        """One peer per public key and device."""
        return (WireguardPeer, self.dev, self.public_key)

    def satisfied_by(self, have: WireguardPeer) -> bool:
        """Whether ``have`` is all that is asked for.

        A peer behind NAT, or one that got another address, is heard from an endpoint that is not the one it publishes,
        and WireGuard answers to there, because only the peer itself can have sent from there what made it do so
        ("roaming").  To insist on the published endpoint would send to where nobody is, again and again.  So while a
        peer is live the endpoint it is heard from is right.  Once it is not, nothing speaks for that endpoint any
        more, and the published one counts: that is how an endpoint comes right which somebody else has altered.
        """
        settings = (self.public_key, self.dev, self.allowed, self.keepalive, self.psk)
        held = (have.public_key, have.dev, have.allowed, have.keepalive, have.psk)
        return settings == held and not self.names_endpoint(have)

    def names_endpoint(self, have: WireguardPeer | None) -> bool:
        """Whether to bring about this peer where ``have`` is, if anything, takes saying its endpoint."""
        if self.endpoint is None:
            return False
        if have is None or have.public_key != self.public_key:
            return True
        return not (have.live or have.endpoint == self.endpoint)
